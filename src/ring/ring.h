/* ring.h: one io_uring of one thread: set-up, and the turn.
 *
 * A ring is created disabled by any thread and enabled by the worker that will own it
 * (io_uring_setup(2), IORING_SETUP_R_DISABLED); from then on only that worker may call anything
 * here. Completions are delivered by kind to handlers registered at start. ring_wait never calls a
 * handler, ring_run calls all of them; operations (ring/op.h) only queue and never call back.
 *
 * user_data is {kind:8, generation:24, slot:32}: a completion names its owner without pointing at
 * it.
 */
#ifndef WEIR_RING_RING_H
#define WEIR_RING_RING_H

#include "base/stat.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ring_kind {
    RING_NOTHING, /* its completion is counted and dropped: cancels */
    RING_ACCEPT,
    RING_CONNECT,
    RING_RECV,
    RING_SEND,
    RING_POLL_IN,   /* readable */
    RING_POLL_OUT,  /* writable */
    RING_WATCH,     /* failed */
    RING_MAIL,      /* mail that arrives */
    RING_MAIL_SENT, /* the sender's completion */
    RING_KIND_COUNT
};

struct ring_token {
    enum ring_kind kind;
    uint32_t generation; /* 24 bits */
    uint32_t slot;
};

struct lease;

/* One completion as a handler sees it. */
struct ring_completion {
    struct ring_token token;
    int32_t result;
    bool more;           /* the operation goes on (IORING_CQE_F_MORE) */
    struct lease *lease; /* the receive buffer it used: the handler owns it now; NULL when none */
};

typedef void ring_handler(void *owner, const struct ring_completion *completion);

#define RING_BATCH_MAX 4096 /* completions one turn runs */
#define RING_GATHER_US 60   /* how long others may be late for what some gain */

/* What the running kernel offers: found by asking, at start. */
struct ring_features {
    char kernel[65]; /* uname -r */
    bool single_issuer;
    bool min_wait;
    bool no_iowait;
};

struct ring_options {
    uint32_t sq_entries;
    uint32_t cq_entries;
};

struct io_uring;
struct buf_pool;

struct ring {
    /* Fixed after init. */
    struct io_uring *uring;
    struct stat_block *stats;
    size_t mapped_size; /* bytes of both queues: pages of the kernel that lie in our memory */
    uint32_t enter_flags;
    bool fd_registered; /* io_uring_register_ring_fd(3) */
    bool can_gather;    /* the kernel has IORING_FEAT_MIN_TIMEOUT */
    struct {
        ring_handler *run;
        void *owner;
    } handlers[RING_KIND_COUNT];
    struct buf_pool *pools[2]; /* by buffer group, see ring/buf.h */
    /* Changes in routine work. */
    uint32_t gather_count;  /* completions to wait for a moment for; 1: none beside the first */
    uint32_t batch_count;   /* completions copied off the ring, not yet run */
    uint32_t ops_in_flight; /* operations that owe a final completion */
    struct ring_raw {
        uint64_t user_data;
        int32_t result;
        uint32_t flags;
    } * batch;
};

/* 0 or -errno of io_uring_setup(2): ENOSYS, EPERM, EINVAL, ENOMEM. `stats` must outlive the ring.
 */
int ring_init(struct ring *ring, const struct ring_options *options, struct stat_block *stats);
/* By the owning thread, once. 0 or -errno. */
int ring_enable(struct ring *ring);
void ring_fini(struct ring *ring);
void ring_handle(struct ring *ring, enum ring_kind kind, ring_handler *run, void *owner);

/* Submits all queued operations and waits until a completion is there or `wait_ns` has passed (0:
 * does not wait; negative: for ever). One io_uring_enter(2), and one that does not wait if a signal
 * may have ended the first. Copies completions; 0 or -errno (EINTR and ETIME count as 0). */
int ring_wait(struct ring *ring, int64_t wait_ns);
/* From now on ring_wait lets `count` completions gather before it returns, for RING_GATHER_US at
 * most; after that, one is enough, as ever. A turn costs, so fewer with more to do in each are
 * cheaper. Without effect where the kernel cannot do it (IORING_FEAT_MIN_TIMEOUT, from 6.12 on). */
void ring_gather(struct ring *ring, uint32_t count);
/* Delivers what ring_wait copied. Returns how many. */
uint32_t ring_run(struct ring *ring);
/* Whether something lies on the ring that ring_wait has not copied: more than one turn runs, or
 * what has ended in the enter of a full submission queue. Buffers with received bytes may be among
 * it, and still count as lent. */
bool ring_has_unread(const struct ring *ring);

/* For `weir doctor` and the start: a throw-away ring. 0 or -errno as ring_init. */
int ring_probe(struct ring_features *features);
/* One sentence with cause and fix for an error of ring_init or ring_probe. */
void ring_explain_error(int error, char *text, size_t text_size);

#endif
