/* net.h: the sockets of one worker: its ring, connections, timers, clock and the turn that drives
 * them.
 *
 * One struct net per worker, touched by that worker only (net_init excepted). Everything above
 * hangs on it: conn.h (one socket), listener.h, deferred tasks. A turn: submit and wait, read the
 * clock, run completions, timers and tasks, then flush what they touched.
 */
#ifndef WEIR_NET_NET_H
#define WEIR_NET_NET_H

#include "base/slab.h"
#include "base/wheel.h"
#include "net/pipe.h"
#include "ring/buf.h"
#include "ring/ring.h"

/* All slabs of a worker: of net, and of the rooms above. */
#define NET_SLABS_MAX 32

struct net_options {
    uint32_t conns_max;   /* connections of all kinds */
    uint32_t dialled_max; /* of them, those to servers: the others are for clients; 0: all */
    uint32_t ends_max;    /* of them, those that a PROXY header is about */
    uint32_t sq_entries;
    uint32_t cq_entries;
    uint32_t small_size; /* bytes of a small receive buffer */
    uint32_t small_count;
    uint32_t bulk_size;
    uint32_t bulk_count; /* a power of two */
    uint32_t pipes_max;  /* 0: nothing is spliced */
    uint32_t queue_mark; /* bytes queued to send above which a connection says it is full */
};

/* Work put off until the completions of this turn have run. Embedded; runs once. */
struct net_task {
    struct list link;
    void (*run)(struct net_task *task);
};

struct net {
    /* Fixed after start. */
    struct ring ring;
    struct buf_pool small;
    struct buf_pool bulk;
    struct slab conns;  /* struct conn */
    struct slab queues; /* struct conn_queue */
    struct slab pumps;  /* struct pump */
    struct pipe_pool pipes;
    struct slab ends; /* struct addr_pair */
    struct slab *slabs[NET_SLABS_MAX];
    uint32_t slab_count;
    struct stat_block *stats;
    struct net_options options;
    struct net_task *dial_room; /* run when there may be room after dial_refused; NULL: none */
    /* Changes in routine work. */
    struct wheel wheel;
    uint64_t now_ns; /* read once a turn */
    uint64_t now_ms;
    struct list dirty;                    /* connections to flush */
    struct list starved[BUF_GROUP_COUNT]; /* connections that wait for a receive buffer, by group */
    struct list tasks;
    struct list listeners;
    uint32_t run_count;         /* completions of this turn */
    bool gathers;               /* the next turn is to have more to do (net_gather) */
    uint32_t generation;        /* of the conn acquired last */
    uint32_t dialled_finishing; /* dialled connections with bytes left by a user that is gone */
    uint32_t dialled;           /* connections that were not accepted */
    bool dial_refused;          /* one more had no slot, or no descriptor, while there were some */
    struct wheel_timer dial_timer;
    uint64_t pumped_ms;     /* the last millisecond in which pumps moved much, */
    uint32_t pumped_count;  /* how many did in it so far, */
    uint32_t pumped_before; /* and in the one before it */
    struct wheel_timer trim_timer;
    uint32_t trim_slab;  /* which of the slabs a pass of trimming has come to */
    bool recv_unlimited; /* the kernel knows no limit of a receive (op_recv_options.limit) */
};

/* By any thread. 0 or -errno. `stats` must outlive the net. */
int net_init(struct net *net, const struct net_options *options, struct stat_block *stats);
/* By the worker, once, before the first turn. 0 or -errno. */
int net_start(struct net *net);
/* At the start, for each slab that lives as long as the net: it is trimmed by the turn, and counted
 * in the budget and the metrics. */
void net_add_slab(struct net *net, struct slab *slab);
/* CHECKs that nothing is open any more. */
void net_fini(struct net *net);

/* One turn. 0 or -errno: the ring is broken. */
int net_turn(struct net *net);
/* How many bytes one holder may have in small buffers, of the `most` that it may have when all are
 * spare: less, the more are in use, so that many who are slow leave some for everybody else. By the
 * square of what is free: with all of them slow, about half of the buffers stay free. A buffer's
 * worth is always right. */
uint32_t net_share(const struct net *net, uint32_t most);
/* Fewer than half of the small buffers are spare: they are no longer to be held by a few bytes. */
static inline bool net_is_short(const struct net *net) {
    return net->small.spare_count < net->small.total / 2;
}
/* Hardly any is left, for whatever purpose. */
static inline bool net_is_spent(const struct net *net) {
    return net->small.spare_count + net->small.kernel_count < net->small.total / 16;
}
/* In a turn: by who did once for many, as on a connection that they share, what costs the same for
 * each turn. If much came in this one, the next lets most of as much gather (ring_gather): for a
 * moment, and never when there is little to do. */
static inline void net_gather(struct net *net) { net->gathers = true; }
/* Harmless when the task is already waiting. */
void net_defer(struct net *net, struct net_task *task);
static inline void net_task_init(struct net_task *task, void (*run)(struct net_task *)) {
    list_init(&task->link);
    task->run = run;
}
static inline void net_task_cancel(struct net_task *task) { list_remove(&task->link); }

#endif
