/* worker.h: one thread's world: its ring, connections, sessions, proxy and listeners, and the loop
 * that turns them.
 *
 * A worker is prepared by the main thread (worker_init), then runs on a thread of its own
 * (worker_run) until told to end. The main thread speaks to it by mail only; other threads read its
 * counters with relaxed loads.
 *
 *   STARTING --ready--> RUNNING --MAIL_DRAIN--> DRAINING --no client left, or cut--> DRAINED
 * --MAIL_END--> ENDED
 *
 * The admin's listener keeps working until MAIL_END, so that probes can watch the drain.
 */
#ifndef WEIR_CONTROL_WORKER_H
#define WEIR_CONTROL_WORKER_H

#include "control/descriptors.h"
#include "control/tls_store.h"
#include "net/listener.h"
#include "net/pp_gate.h"
#include "proxy/proxy.h"

#include <pthread.h>

enum worker_state {
    WORKER_STARTING,
    WORKER_RUNNING,
    WORKER_DRAINING,
    WORKER_DRAINED,
    WORKER_ENDED,
    WORKER_FAILED
};

/* A listening socket of this worker. */
struct worker_listener {
    struct listener listener;
    struct worker *worker;
    struct front *front;
    struct pp_gate_options gate; /* where the listener has proxy_protocol */
    struct wire_gate wire;       /* and where it has tls */
    int fd;                      /* until it is started */
    uint64_t accepted;           /* connections so far: read by other threads */
};

struct worker {
    struct stat_block stats; /* first: aligned to cache lines */
    /* Fixed after init. */
    uint32_t index;
    int cpu; /* -1: not pinned */
    const struct config *config;
    uint32_t clients_max;
    struct listener_quota clients; /* of all listeners but the admin's */
    struct listener_quota admins;
    struct listener_quota refusals;
    struct listener_quota *own_quotas; /* by index of the listener: its own max_connections */
    struct limit **limits;             /* of all workers, by index of the listener */
    uint64_t file_max;
    struct net net;
    struct pp_gate_room gates;
    struct session_room room;
    struct proxy proxy;
    struct service **services; /* by index of the configuration */
    struct slab echoes;        /* connections of services with type = echo */
    struct tls_seat *seats;    /* by index of the listener, then of the upstream */
    uint32_t seat_count;
    OSSL_LIB_CTX *library; /* what its contexts are made in (proto/tls_library.h); NULL: no TLS */
    struct worker_listener *listeners;
    uint32_t listener_count;
    uint32_t opened; /* listeners whose socket is open */
    pthread_t thread;
    /* Changes in routine work; `arena`, `state`, `error` and `cut` are read by other threads. */
    uint32_t arena; /* of the worker's thread (control/heap.h), once it runs */
    enum worker_state state;
    int error;    /* of WORKER_FAILED */
    uint64_t cut; /* requests and TCP connections a drain ended early */
    struct wheel_timer drain_timer;
    const uint64_t *heap_allocated; /* jemalloc's count of bytes for this thread; NULL without it */
};

struct worker_options {
    const struct config *config;
    uint32_t index;
    const struct descriptors *files; /* of all workers */
    uint64_t file_max;               /* for messages */
    struct limit **limits;           /* by index of the listener; outlive the worker */
    struct service *admin;           /* worker 0 only */
    bool ktls;                       /* ktls_probe, of net/ktls.h */
};

/* Whether there is TLS on any connection. */
bool worker_has_tls(const struct config *config);
/* 0 or -errno. `worker` is aligned to 64 and zeroed. */
int worker_init(struct worker *worker, const struct worker_options *options);
/* Opens this worker's listening sockets: before privileges are dropped. 0, or -errno with the
 * address in *failed. */
int worker_open_listeners(struct worker *worker, const struct worker *first,
                          const struct config_address **failed);
/* The thread's function; `argument` is the worker. */
void *worker_run(void *argument);
/* After the thread has ended. */
void worker_fini(struct worker *worker);

static inline enum worker_state worker_state(const struct worker *worker) {
    return __atomic_load_n(&worker->state, __ATOMIC_ACQUIRE);
}

#endif
