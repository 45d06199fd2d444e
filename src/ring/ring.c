#include "ring/ring.h"

#include "base/clock.h"
#include "ring/buf.h"
#include "ring/ring_internal.h"

#include <errno.h>
#include <linux/time_types.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

/* SUBMIT_ALL: one bad entry does not hold back the others. DEFER_TASKRUN: completion work runs in
 * our enter and nowhere else, so it never interrupts a handler; it needs SINGLE_ISSUER. CLAMP: too
 * large a wish is cut, not refused. */
#define RING_SETUP_FLAGS                                                                           \
    (IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |                          \
     IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)

int ring_init(struct ring *ring, const struct ring_options *options, struct stat_block *stats) {
    struct io_uring *uring = calloc(1, sizeof *uring);
    struct ring_raw *batch = calloc(RING_BATCH_MAX, sizeof *batch);
    struct io_uring_params params = {.flags = RING_SETUP_FLAGS | IORING_SETUP_R_DISABLED,
                                     .cq_entries = options->cq_entries};
    int error =
        uring && batch ? io_uring_queue_init_params(options->sq_entries, uring, &params) : -ENOMEM;
    if (error < 0) {
        free(uring);
        free(batch);
        return error;
    }
    *ring = (struct ring){.uring = uring, .stats = stats, .batch = batch, .gather_count = 1};
    ring->can_gather = params.features & IORING_FEAT_MIN_TIMEOUT;
    ring->mapped_size = uring->sq.ring_sz + params.sq_entries * sizeof(struct io_uring_sqe);
    /* Without NO_IOWAIT an idle worker is shown as waiting for a disk. */
    if (params.features & IORING_FEAT_NO_IOWAIT) ring->enter_flags |= IORING_ENTER_NO_IOWAIT;
    return 0;
}

int ring_enable(struct ring *ring) {
    /* io_uring_enable_rings(3) is missing from the shared library of liburing 2.3. */
    if (syscall(__NR_io_uring_register, ring->uring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL,
                0) < 0)
        return -errno;
    /* Saves the descriptor's look-up in each enter; worth nothing but time, so a refusal is no
     * error. */
    ring->fd_registered = io_uring_register_ring_fd(ring->uring) == 1;
    return 0;
}

void ring_fini(struct ring *ring) {
    io_uring_queue_exit(ring->uring);
    free(ring->uring);
    free(ring->batch);
    *ring = (struct ring){0};
}

void ring_handle(struct ring *ring, enum ring_kind kind, ring_handler *run, void *owner) {
    CHECK(kind > RING_NOTHING && kind < RING_KIND_COUNT && !ring->handlers[kind].run);
    ring->handlers[kind].run = run;
    ring->handlers[kind].owner = owner;
}

/* Publishes queued entries to the kernel; returns how many it has not taken yet. */
static uint32_t ring_publish(struct ring *ring) {
    struct io_uring_sq *sq = &ring->uring->sq;
    uint32_t mask = *sq->kring_mask;
    uint32_t tail = *sq->ktail;
    for (; sq->sqe_head != sq->sqe_tail; sq->sqe_head++)
        sq->array[tail++ & mask] = sq->sqe_head & mask;
    __atomic_store_n(sq->ktail, tail, __ATOMIC_RELEASE);
    return tail - __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
}

static int ring_enter(struct ring *ring, uint32_t submit, uint32_t wait_count, uint32_t flags,
                      int64_t wait_ns) {
    struct __kernel_timespec timeout = {.tv_sec = wait_ns / 1000000000,
                                        .tv_nsec = wait_ns % 1000000000};
    struct compat_getevents_arg arg = {.timeout = wait_ns > 0 ? (uint64_t)(uintptr_t)&timeout : 0,
                                       .min_wait_us = wait_count > 1 ? RING_GATHER_US : 0};
    flags |= IORING_ENTER_EXT_ARG;
    unsigned fd = (unsigned)ring->uring->ring_fd;
    if (ring->fd_registered) {
        fd = (unsigned)ring->uring->enter_ring_fd;
        flags |= IORING_ENTER_REGISTERED_RING;
    }
    stat_add(ring->stats, STAT_URING_ENTER, 1);
    return io_uring_enter2(fd, submit, wait_count, flags, (void *)&arg, sizeof arg);
}

struct io_uring_sqe *ring_sqe(struct ring *ring, struct ring_token token) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring->uring);
    while (!sqe) {
        int result = ring_enter(ring, ring_publish(ring), 0, 0, 0);
        CHECK(result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY);
        sqe = io_uring_get_sqe(ring->uring);
    }
    sqe->user_data = ring_pack(token);
    ring->ops_in_flight++;
    stat_add(ring->stats, STAT_URING_SQE, 1);
    return sqe;
}

void ring_gather(struct ring *ring, uint32_t count) {
    if (ring->can_gather) ring->gather_count = count > 1 ? count : 1;
}

static void ring_copy_completions(struct ring *ring) {
    struct io_uring_cq *cq = &ring->uring->cq;
    uint32_t head = *cq->khead;
    uint32_t ready = __atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE) - head;
    uint32_t mask = *cq->kring_mask;
    if (ready > RING_BATCH_MAX) ready = RING_BATCH_MAX;
    for (uint32_t i = 0; i < ready; i++) {
        const struct io_uring_cqe *cqe = &cq->cqes[(head + i) & mask];
        ring->batch[i] = (struct ring_raw){cqe->user_data, cqe->res, cqe->flags};
    }
    __atomic_store_n(cq->khead, head + ready, __ATOMIC_RELEASE);
    ring->batch_count = ready;
}

int ring_wait(struct ring *ring, int64_t wait_ns) {
    CHECK(ring->batch_count == 0);
    uint32_t flags = IORING_ENTER_GETEVENTS | ring->enter_flags;
    /* The queue may still hold what the last turn did not run: then this turn does not wait. */
    uint32_t count = wait_ns == 0 ? 0 : ring->gather_count;
    int result = ring_enter(ring, ring_publish(ring), count, flags, wait_ns);
    /* A signal ends the wait, and may have stopped us (SIGSTOP, a frozen cgroup): what came until
     * we went on is looked at before the clock is, or its sender would be late. With entries taken
     * their count is all that is told of how it ended. */
    bool is_quiet = result > 0 && count != 0 && !ring_has_unread(ring);
    if (result == -EINTR || is_quiet) result = ring_enter(ring, ring_publish(ring), 0, flags, 0);
    if (result < 0 && result != -EINTR && result != -ETIME && result != -EAGAIN && result != -EBUSY)
        return result;
    if (__atomic_load_n(ring->uring->sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_CQ_OVERFLOW) {
        stat_add(ring->stats, STAT_URING_CQ_OVERFLOW, 1);
    }
    ring_copy_completions(ring);
    return 0;
}

static struct lease *ring_lease(struct ring *ring, const struct ring_raw *raw) {
    if (!(raw->flags & IORING_CQE_F_BUFFER)) return NULL;
    /* A completion does not name its group, so the groups' ids are disjoint. */
    uint32_t id = raw->flags >> IORING_CQE_BUFFER_SHIFT;
    enum buf_group group = id < BUF_IDS_PER_GROUP ? BUF_SMALL : BUF_BULK;
    return buf_from_kernel(ring->pools[group], id);
}

uint32_t ring_run(struct ring *ring) {
    uint32_t count = ring->batch_count;
    for (uint32_t i = 0; i < count; i++) {
        const struct ring_raw *raw = &ring->batch[i];
        struct ring_completion completion = {
            .token = ring_unpack(raw->user_data),
            .result = raw->result,
            .more = raw->flags & IORING_CQE_F_MORE,
            .lease = ring_lease(ring, raw),
        };
        enum ring_kind kind = completion.token.kind;
        CHECK(kind < RING_KIND_COUNT);
        /* Mail comes from another ring: no operation of this one. */
        if (!completion.more && kind != RING_MAIL) {
            CHECK(ring->ops_in_flight > 0);
            ring->ops_in_flight--;
        }
        if (kind == RING_NOTHING) continue;
        ring->handlers[kind].run(ring->handlers[kind].owner, &completion);
    }
    ring->batch_count = 0;
    stat_add(ring->stats, STAT_URING_CQE, count);
    return count;
}

bool ring_has_unread(const struct ring *ring) {
    const struct io_uring *uring = ring->uring;
    if (__atomic_load_n(uring->sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_CQ_OVERFLOW) return true;
    return __atomic_load_n(uring->cq.ktail, __ATOMIC_ACQUIRE) != *uring->cq.khead;
}

/* Sandboxes may allow io_uring_setup(2) and forbid the two other calls. */
static int ring_probe_calls(const struct io_uring *uring) {
    if (syscall(__NR_io_uring_register, uring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
        return -errno;
    int result = io_uring_enter((unsigned)uring->ring_fd, 0, 0, IORING_ENTER_GETEVENTS, NULL);
    return result < 0 ? result : 0;
}

int ring_probe(struct ring_features *features) {
    struct utsname name;
    *features = (struct ring_features){0};
    if (uname(&name) == 0) snprintf(features->kernel, sizeof features->kernel, "%s", name.release);
    struct io_uring uring;
    struct io_uring_params params = {.flags = RING_SETUP_FLAGS | IORING_SETUP_R_DISABLED,
                                     .cq_entries = 16};
    int error = io_uring_queue_init_params(8, &uring, &params);
    if (error < 0) return error;
    features->single_issuer = true;
    features->min_wait = params.features & IORING_FEAT_MIN_TIMEOUT;
    features->no_iowait = params.features & IORING_FEAT_NO_IOWAIT;
    error = ring_probe_calls(&uring);
    io_uring_queue_exit(&uring);
    return error;
}

void ring_explain_error(int error, char *text, size_t text_size) {
    const char *cause;
    switch (-error) {
    case ENOSYS:
        cause = "this kernel or sandbox has no io_uring: Linux 6.1 or newer is needed, and in a "
                "container a seccomp "
                "profile that allows io_uring_setup, io_uring_enter and io_uring_register";
        break;
    case EPERM:
    case EACCES:
        cause = "io_uring is forbidden: set sysctl kernel.io_uring_disabled=0, or in a container "
                "use a seccomp profile "
                "that allows io_uring_setup, io_uring_enter and io_uring_register";
        break;
    case EINVAL:
        cause = "this kernel's io_uring is too old: Linux 6.1 or newer is needed";
        break;
    case ENOMEM:
        cause = "no memory for the ring: raise the memory limit of the container or RLIMIT_MEMLOCK "
                "(ulimit -l)";
        break;
    case EMFILE:
    case ENFILE:
        cause = "no file descriptor left: raise RLIMIT_NOFILE (ulimit -n)";
        break;
    default:
        cause = "io_uring_setup failed";
        break;
    }
    snprintf(text, text_size, "%s (%s)", cause, strerror(-error));
}
