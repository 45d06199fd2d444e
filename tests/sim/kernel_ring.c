/* kernel_ring.c: what liburing does for src/ring/, in memory: queues, provided buffers, and the one
 * call in which time passes. */
#include "base/check.h"
#include "ring/compat.h"
#include "ring/ring.h"
#include "sim/kernel_internal.h"

#include <errno.h>
#include <linux/time_types.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

/* A worker that turns so often in one run is busy with nothing. */
#define TURNS_MAX 3000000

struct posting {
    struct fake_ring *ring;
    struct op *op; /* NULL: mail */
    uint64_t user_data;
    int32_t result;
    uint32_t flags;
    char *to; /* NULL: it brings no bytes */
    char *bytes;
    struct list link;
};

static uint32_t group_of(uint32_t flags) { return flags >> IORING_CQE_BUFFER_SHIFT < 4096 ? 0 : 1; }

struct fake_ring *ring_of_fd(int fd) {
    struct fd_entry *entry = fd_is_ours(fd) ? fd_entry(fd) : NULL;
    return entry && entry->kind == FD_RING ? entry->ring : NULL;
}

static void on_post(void *owner, uint64_t argument) {
    (void)argument;
    struct posting *posting = owner;
    struct fake_ring *ring = posting->ring;
    if (ring->cq_tail - ring->cq_head == ring->cq_entries) {
        sim_fail(INVARIANT_OPERATIONS, "the completion queue of %u overflows", ring->cq_entries);
    }
    struct io_uring_cqe *cqe = &ring->uring->cq.cqes[ring->cq_tail++ & ring->cq_mask];
    cqe->user_data = posting->user_data;
    cqe->res = posting->result;
    cqe->flags = posting->flags;
    sim_note("completes", (int64_t)(cqe->user_data >> 56), (int64_t)(cqe->user_data & 0xffffffff),
             cqe->res);
    if (cqe->flags & IORING_CQE_F_BUFFER) ring->groups[group_of(cqe->flags)].flying--;
    /* It is filled and told of within one call (DEFER_TASKRUN), not before. */
    if (posting->to) memcpy(posting->to, posting->bytes, (size_t)posting->result);
    free(posting->bytes);
    if (posting->op && !(cqe->flags & IORING_CQE_F_MORE)) op_free(posting->op);
    list_remove(&posting->link);
    free(posting);
}

static void posting_free(struct posting *posting) {
    free(posting->bytes);
    free(posting);
}

void ring_drop_postings(void) {
    for (struct list *node; (node = list_pop_front(&kernel.postings));)
        posting_free(LIST_OWNER(node, struct posting, link));
}

static void post(uint64_t at_ns, const struct posting *what) {
    struct posting *posting = malloc(sizeof *posting);
    CHECK(posting);
    *posting = *what;
    list_push_back(&kernel.postings, &posting->link);
    if (kernel.at_once) {
        on_post(posting, 0);
    } else {
        sim_at(at_ns, on_post, posting, 0);
    }
}

uint64_t ring_post(struct op *op, int32_t result, uint32_t flags) {
    return ring_post_bytes(op, result, flags, NULL, NULL);
}

uint64_t ring_post_bytes(struct op *op, int32_t result, uint32_t flags, char *to, char *bytes) {
    if (op->ended && op->sqe.opcode == IORING_OP_SEND && sim_defect(DEFECT_LOSE_COMPLETION)) {
        op_free(op);
        return sim.now_ns;
    }
    bool late = !kernel.at_once && sim_fault(FAULT_LATE);
    uint64_t wait_ns = late ? sim_skewed(5 * SIM_MS) : sim_below(1000);
    uint64_t at_ns = kernel.at_once ? sim.now_ns : sim.now_ns + wait_ns;
    /* Those of one operation stay in their order. */
    if (at_ns <= op->last_ns) at_ns = op->last_ns + 1;
    op->last_ns = at_ns;
    post(at_ns, &(struct posting){op->ring, op, op->sqe.user_data, result, flags, to, bytes, {0}});
    return at_ns;
}

void ring_post_mail(struct fake_ring *to, uint64_t user_data, int32_t value) {
    bool late = sim_has(FAULT_MAIL_LATE);
    uint64_t wait_ns = late ? sim_skewed(SIM_SECOND / 2) : sim_below(1000);
    post(sim.now_ns + wait_ns, &(struct posting){to, NULL, user_data, value, 0, NULL, NULL, {0}});
}

bool ring_take_buffer(struct fake_ring *ring, uint32_t number, struct io_uring_buf *buffer) {
    struct fake_group *group = &ring->groups[number];
    if (!group->ring || group->ring->tail == group->head) return false;
    const struct io_uring_buf *next = &group->ring->bufs[group->head & (group->entries - 1)];
    buffer->addr = next->addr;
    buffer->len = next->len;
    buffer->bid = next->bid;
    group->head++;
    group->flying++;
    return true;
}

static uint32_t kind_of(uint64_t user_data) { return (uint32_t)(user_data >> 56); }

static bool is_accepted(const struct posting *posting) {
    return kind_of(posting->user_data) == RING_ACCEPT && fd_is_ours(posting->result);
}

struct kernel_owed kernel_owed(const struct ring *ring) {
    const struct fake_ring *fake = ring_of_fd(ring->uring->ring_fd);
    struct kernel_owed owed = {0};
    LIST_FOR_EACH(node, &fake->ops) {
        const struct op *op = LIST_OWNER(node, struct op, ring_link);
        owed.by_kind[kind_of(op->sqe.user_data)]++;
    }
    const struct io_uring_sq *sq = &ring->uring->sq;
    for (unsigned at = sq->sqe_head; at != sq->sqe_tail; at++)
        owed.by_kind[kind_of(sq->sqes[at & sq->ring_mask].user_data)]++;
    for (unsigned at = fake->sq_head; at != fake->sq_tail; at++) {
        const struct io_uring_sqe *sqe = &sq->sqes[sq->array[at & fake->sq_mask]];
        owed.by_kind[kind_of(sqe->user_data)]++;
    }
    for (unsigned at = fake->cq_head; at != fake->cq_tail; at++) {
        const struct io_uring_cqe *cqe = &ring->uring->cq.cqes[at & fake->cq_mask];
        if (cqe->flags & IORING_CQE_F_BUFFER) owed.buffers[group_of(cqe->flags)]++;
        bool counts = !(cqe->flags & IORING_CQE_F_MORE) && kind_of(cqe->user_data) != RING_MAIL;
        if (counts) owed.by_kind[kind_of(cqe->user_data)]++;
        owed.accepted += kind_of(cqe->user_data) == RING_ACCEPT && fd_is_ours(cqe->res);
    }
    LIST_FOR_EACH(node, &kernel.postings) {
        const struct posting *posting = LIST_OWNER(node, struct posting, link);
        owed.accepted += is_accepted(posting);
    }
    for (int kind = 0; kind < 256; kind++)
        owed.all += owed.by_kind[kind];
    for (int i = 0; i < GROUPS_MAX; i++) {
        const struct fake_group *group = &fake->groups[i];
        if (!group->ring) continue;
        owed.buffers[i] += (uint16_t)(group->ring->tail - group->head) + group->flying;
    }
    return owed;
}

void kernel_on_turn(const struct ring *ring, void (*on_turn)(void *owner), void *owner) {
    struct fake_ring *fake = ring_of_fd(ring->uring->ring_fd);
    fake->on_turn = on_turn;
    fake->owner = owner;
}

/* From here on: liburing's functions. */

static unsigned power_of_two(unsigned least) {
    unsigned size = 1;
    while (size < least)
        size *= 2;
    return size;
}

static void map_queues(struct fake_ring *ring, struct io_uring *uring) {
    ring->sq_mask = ring->sq_entries - 1;
    ring->cq_mask = ring->cq_entries - 1;
    *uring = (struct io_uring){
        .sq = {.khead = &ring->sq_head,
               .ktail = &ring->sq_tail,
               .kring_mask = &ring->sq_mask,
               .kring_entries = &ring->sq_entries,
               .kflags = &ring->sq_flags,
               .kdropped = &ring->sq_dropped,
               .array = calloc(ring->sq_entries, sizeof(unsigned)),
               .sqes = calloc(ring->sq_entries, sizeof(struct io_uring_sqe)),
               .ring_mask = ring->sq_mask,
               .ring_entries = ring->sq_entries},
        .cq = {.khead = &ring->cq_head,
               .ktail = &ring->cq_tail,
               .kring_mask = &ring->cq_mask,
               .kring_entries = &ring->cq_entries,
               .kflags = NULL,
               .koverflow = &ring->cq_overflow,
               .cqes = calloc(ring->cq_entries, sizeof(struct io_uring_cqe)),
               .ring_mask = ring->cq_mask,
               .ring_entries = ring->cq_entries},
    };
    CHECK(uring->sq.array && uring->sq.sqes && uring->cq.cqes);
}

int io_uring_queue_init_params(unsigned entries, struct io_uring *uring,
                               struct io_uring_params *params) {
    struct fake_ring *ring = calloc(1, sizeof *ring);
    CHECK(ring);
    ring->uring = uring;
    ring->sq_entries = power_of_two(entries);
    ring->cq_entries = power_of_two(params->cq_entries ? params->cq_entries : entries * 2);
    ring->enabled = !(params->flags & IORING_SETUP_R_DISABLED);
    list_init(&ring->ops);
    map_queues(ring, uring);
    ring->fd = fd_install((struct fd_entry){.kind = FD_RING, .ring = ring});
    uring->ring_fd = uring->enter_ring_fd = ring->fd;
    params->features = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_SUBMIT_STABLE |
                       IORING_FEAT_MIN_TIMEOUT;
    return 0;
}

void io_uring_queue_exit(struct io_uring *uring) {
    struct fake_ring *ring = ring_of_fd(uring->ring_fd);
    if (!list_empty(&ring->ops)) sim_fail(INVARIANT_REST, "a ring ends with operations");
    *fd_entry(ring->fd) = (struct fd_entry){0};
    free(uring->sq.array);
    free(uring->sq.sqes);
    free(uring->cq.cqes);
    free(ring);
}

/* Refused: the descriptor itself does as well. */
int io_uring_register_ring_fd(struct io_uring *uring) {
    (void)uring;
    return -EINVAL;
}

int io_uring_register_buf_ring(struct io_uring *uring, struct io_uring_buf_reg *registration,
                               unsigned flags) {
    struct fake_ring *ring = ring_of_fd(uring->ring_fd);
    CHECK(flags == 0 && registration->bgid < GROUPS_MAX && ring->enabled);
    struct fake_group *group = &ring->groups[registration->bgid];
    CHECK(!group->ring);
    *group = (struct fake_group){.ring = (void *)(uintptr_t)registration->ring_addr,
                                 .entries = registration->ring_entries};
    return 0;
}

int io_uring_unregister_buf_ring(struct io_uring *uring, int number) {
    ring_of_fd(uring->ring_fd)->groups[number] = (struct fake_group){0};
    return 0;
}

/* Takes what was submitted; returns how much. */
static unsigned take_submitted(struct fake_ring *ring) {
    unsigned count = 0;
    for (; ring->sq_head != ring->sq_tail; ring->sq_head++, count++) {
        const struct io_uring_sq *sq = &ring->uring->sq;
        op_submit(ring, &sq->sqes[sq->array[ring->sq_head & ring->sq_mask]]);
    }
    return count;
}

static bool has_completions(const struct fake_ring *ring) { return ring->cq_head != ring->cq_tail; }

/* Time passes until so many completions are there, or the time for that is over. */
static void gather(const struct fake_ring *ring, unsigned wanted, void *argument) {
    const struct compat_getevents_arg *arg = argument;
    uint64_t until_ns = sim.now_ns + arg->min_wait_us * 1000ULL;
    if (arg->min_wait_us == 0)
        sim_fail(INVARIANT_TIME, "the worker waits for %u completions, however long", wanted);
    while (ring->cq_tail - ring->cq_head < wanted && sim.now_ns < until_ns) {
        uint64_t next_ns = sim_next_ns();
        sim.now_ns = next_ns < until_ns ? next_ns : until_ns;
        sim_run_due();
    }
}

/* Time passes until there is a completion, or the time is over. */
static void wait_until(struct fake_ring *ring, uint64_t until_ns) {
    if (sim_fault(FAULT_SPURIOUS)) {
        uint64_t early_ns = sim.now_ns + sim_skewed(100 * SIM_MS);
        if (early_ns < until_ns) until_ns = early_ns;
    }
    while (!has_completions(ring) && sim.now_ns < until_ns) {
        uint64_t next_ns = sim_next_ns();
        if (next_ns == UINT64_MAX && until_ns == UINT64_MAX) {
            sim_fail(INVARIANT_TIME, "the worker sleeps and nothing will ever wake it");
        }
        sim.now_ns = next_ns < until_ns ? next_ns : until_ns;
        sim_run_due();
    }
}

static uint64_t deadline_of(void *argument) {
    const struct compat_getevents_arg *arg = argument;
    if (arg->timeout == 0) return UINT64_MAX;
    const struct __kernel_timespec *wait = (const void *)(uintptr_t)arg->timeout;
    return sim.now_ns + (uint64_t)wait->tv_sec * SIM_SECOND + (uint64_t)wait->tv_nsec;
}

static void begin_turn(struct fake_ring *ring) {
    if (++kernel.turns > TURNS_MAX) {
        sim_fail(INVARIANT_TIME, "%u turns: the worker is busy with nothing", TURNS_MAX);
    }
    if (ring->on_turn) ring->on_turn(ring->owner);
}

int io_uring_enter2(unsigned fd, unsigned to_submit, unsigned min_complete, unsigned flags,
                    sigset_t *argument, size_t size) {
    (void)size;
    struct fake_ring *ring = ring_of_fd((int)fd);
    CHECK(ring && ring->enabled && to_submit == ring->sq_tail - ring->sq_head);
    bool is_turn = (flags & IORING_ENTER_GETEVENTS) && ring->on_turn;
    if (is_turn) begin_turn(ring);
    unsigned count = take_submitted(ring);
    if (!is_turn) return (int)count;
    if (count == 0 && sim_fault(FAULT_INTERRUPTED)) return -EINTR;
    sim.now_ns += sim_between(1, 20) * 1000; /* what a turn costs */
    sim_run_due();
    sim_note("turn", min_complete, min_complete ? (int64_t)(deadline_of(argument) - sim.now_ns) : 0,
             0);
    if (min_complete == 0) return (int)count;
    uint64_t until_ns = deadline_of(argument);
    if (min_complete > 1) gather(ring, min_complete, argument);
    wait_until(ring, until_ns);
    /* A busy worker finds more than one. */
    if (sim_one_in(4)) {
        sim.now_ns += sim_skewed(SIM_MS);
        sim_run_due();
    }
    return count != 0 || has_completions(ring) ? (int)count : -ETIME;
}

/* For the probe of `weir doctor`, which is not simulated. */
int io_uring_enter(unsigned fd, unsigned to_submit, unsigned min_complete, unsigned flags,
                   sigset_t *argument) {
    return io_uring_enter2(fd, to_submit, min_complete, flags, argument, 0);
}
