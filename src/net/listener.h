/* listener.h: one listening socket of one worker, with one operation in flight: a multishot
 * accept; near a limit a poll, upon which as many are accepted as there is room for.
 *
 * Every worker opens its own socket for an address (SO_REUSEPORT), so the kernel spreads
 * connections and no worker shares an accept queue. Unix sockets know no SO_REUSEPORT: the workers
 * share one descriptor for them. A listener pauses itself, so that clients wait in the backlog,
 * when a quota is used up, when connections come faster than its limit, and when descriptors or
 * memory run short (50 ms, doubling to 500 ms); it never ends by itself.
 *
 * What comes though a quota is used up is the overrun: connections that arrive while a multishot
 * accept takes a whole backlog, and those in the backlog when the listener stops. They are refused
 * (listener_refuse): told so, and closed.
 */
#ifndef WEIR_NET_LISTENER_H
#define WEIR_NET_LISTENER_H

#include "net/conn.h"
#include "net/limit.h"

struct listener_options {
    const struct sockaddr *address;
    socklen_t address_size;
    const char *address_text; /* for messages */
    uint32_t backlog;
    bool nodelay;
    uint32_t ttl;         /* 0: the system's */
    uint32_t recv_buffer; /* bytes, 0: autotuning */
    uint32_t send_buffer;
    /* Nobody else may listen there yet, not even with SO_REUSEPORT: the first socket of a process
     * is opened like this, the others join it. */
    bool exclusive;
};

/* How many connections some listeners of a worker may have together. */
struct listener_quota {
    uint32_t max;
    uint32_t used;
    uint32_t backlogs; /* of all who share it: what their accepts under way may bring */
};

#define LISTENER_QUOTAS 2

struct listener {
    /* Fixed after start. */
    struct net *net;
    int fd;
    uint32_t slot; /* names it in completions */
    const char *address_text;
    /* Shared with others, outlive it; NULL: none. The first is that of most listeners. */
    struct listener_quota *quotas[LISTENER_QUOTAS];
    struct listener_quota *refusals; /* how many of the worker may be told so at once */
    struct limit *limit;             /* of all workers together; NULL: none */
    uint32_t backlog;                /* how many one accept may bring */
    uint64_t file_max;               /* fs.file-max at start, for messages */
    /* A connection was accepted; the callee attaches itself (conn_attach) or closes it. */
    void (*on_conn)(void *user, struct conn *conn);
    /* A connection is one too many; the callee answers with conn_finish, or resets. */
    void (*on_refused)(void *user, struct conn *conn, enum reason reason);
    void *user;
    struct list link;
    /* Changes in routine work. */
    bool armed;
    bool armed_all; /* with a multishot accept; else with a poll */
    bool cancelling;
    bool resting;  /* by a shortage or the rate, until the timer */
    bool draining; /* until the timer */
    bool stopped;
    uint8_t errors_in_row;
    uint32_t conns;   /* client connections now */
    uint32_t refused; /* connections on their way out */
    uint32_t backoff_ms;
    struct wheel_timer timer;
};

/* Opens a bound, listening socket: by any thread. The descriptor, or -errno of the call that failed
 * (bind(2), listen(2), ...). */
int listener_open(const struct listener_options *options);

/* Starts accepting on `fd`, which the listener owns from now on. */
void listener_start(struct listener *listener, struct net *net, int fd);
/* Begins no new handshake, accepts those under way, and stops a little later by itself. */
void listener_drain(struct listener *listener);
/* Accepts what waits in the queue, then stops for good; `listener_ended` tells when its memory may
 * go. */
void listener_stop(struct listener *listener);
static inline bool listener_ended(const struct listener *listener) {
    return listener->stopped && !listener->armed && listener->conns == 0 && listener->refused == 0;
}

/* Counts a client's connection by its address (conn_source), once that is known. False: there
 * are too many of that address, and the connection was refused; it must not be touched any more. */
bool listener_admit(struct conn *conn);
/* Counts `reason` as why the connection is refused, gives back its place and its address's, and has
 * it told so (on_refused) or, when too many are being told, resets it. As after conn_close, the
 * caller is detached. */
void listener_refuse(struct conn *conn, enum reason reason);

/* For conn.c: a connection of a listener is gone. */
void listener_on_released(const struct conn *conn);
/* For net.c: the handler of accept completions. */
void listener_on_accept(void *net, const struct ring_completion *completion);

#endif
