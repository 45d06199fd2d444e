/* kernel_op.c: the operations of the simulated io_uring: each tries when it is submitted, and again
 * whenever its socket has changed. */
#include "base/check.h"
#include "base/hash.h"
#include "ring/compat.h"
#include "ring/ring.h"
#include "sim/kernel_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* Receives of one multishot in a row (the kernel's MULTISHOT_MAX_RETRY). */
#define SHOTS_MAX 32
/* How long an operation goes on that a cancel did not find. */
#define CANCEL_LATE_NS (20 * SIM_MS)

static void op_end_bytes(struct op *op, int32_t result, uint32_t flags, char *to, char *bytes) {
    CHECK(!op->ended);
    op->ended = true;
    sim_cancel(&op->attempt);
    sim_cancel(&op->late_cancel);
    sim_cancel(&op->fate);
    list_remove(&op->sock_link);
    /* The first that fails takes the error, and another then finds just an end: not before it. */
    struct sock *sock = op->sock;
    if (sock && sock->reset && op->last_ns < sock->reset_told_ns) op->last_ns = sock->reset_told_ns;
    bool told = result == -ECONNRESET;
    uint64_t at_ns = ring_post_bytes(op, result, flags, to, bytes);
    if (sock && told) sock->reset_told_ns = at_ns;
}

static void op_end(struct op *op, int32_t result, uint32_t flags) {
    op_end_bytes(op, result, flags, NULL, NULL);
}

void op_free(struct op *op) {
    list_remove(&op->ring_link);
    free(op);
}

/* What an operation has been given must be the same at its end as at its start. */
static uint64_t op_sum(const struct op *op) {
    uint64_t sum = op->slice_count;
    for (uint32_t i = 0; i < op->slice_count; i++) {
        struct bytes part = {op->slices[i].iov_base, op->slices[i].iov_len};
        sum = hash_bytes(part, hash_u64(sum));
    }
    return sum;
}

static void op_end_send(struct op *op, int32_t result) {
    if (op->sock && op->slice_count != 0 && sim_defect(DEFECT_SCRIBBLE)) {
        ((char *)op->slices[0].iov_base)[0] ^= 1;
    }
    if (op_sum(op) != op->sum) {
        sim_fail(INVARIANT_FROZEN, "a send of %zu bytes on socket %u has changed under the kernel",
                 op->size, op->sock ? op->sock->number : 0);
    }
    op_end(op, result, 0);
}

static int op_random_error(const int *errors, size_t count) { return -errors[sim_below(count)]; }

/* Accept: all that wait, at once. */
static void try_accept(struct op *op) {
    static const int aborted[] = {ECONNABORTED, EPROTO, EINTR, EPERM};
    static const int shortage[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
    struct sock *listener = op->sock;
    if (listener->shut_read) {
        op_end(op, -EINVAL, 0);
        return;
    }
    while (!list_empty(&listener->queue)) {
        if (sim_fault(FAULT_ACCEPT_SHORT)) {
            op_end(op, op_random_error(shortage, 4), 0);
            return;
        }
        if (sim_fault(FAULT_ACCEPT_ABORTED)) {
            op_end(op, op_random_error(aborted, 4), 0);
            return;
        }
        struct sock *sock = sock_accept(listener);
        int fd = fd_install((struct fd_entry){.kind = FD_SOCK, .sock = sock});
        if (!op->multishot || sim_fault(FAULT_MULTISHOT_ENDS)) {
            op_end(op, fd, 0);
            return;
        }
        ring_post(op, fd, IORING_CQE_F_MORE);
    }
}

static uint32_t op_group(const struct op *op) { return op->sqe.buf_group; }

static uint32_t buffer_flags(const struct io_uring_buf *buffer) {
    return IORING_CQE_F_BUFFER | (uint32_t)buffer->bid << IORING_CQE_BUFFER_SHIFT;
}

/* An end without bytes. */
static void end_recv(struct op *op, int32_t result) {
    struct io_uring_buf buffer;
    bool uses = sim_fault(FAULT_BUFFER_ON_END) && ring_take_buffer(op->ring, op_group(op), &buffer);
    op_end(op, result, uses ? buffer_flags(&buffer) : 0);
}

/* One receive; false when the operation has ended or must wait. */
static bool recv_once(struct op *op) {
    struct sock *sock = op->sock;
    struct io_uring_buf buffer;
    if (sim_fault(FAULT_NO_BUFFERS) || !ring_take_buffer(op->ring, op_group(op), &buffer)) {
        op_end(op, -ENOBUFS, 0);
        return false;
    }
    uint32_t size = buffer.len < sock->in.arrived ? buffer.len : sock->in.arrived;
    if (sim_fault(FAULT_SHORT_RECV)) size = (uint32_t)sim_between(1, size);
    char *to = (char *)(uintptr_t)buffer.addr;
    char *bytes = malloc(size);
    CHECK(bytes);
    size = sock_take(sock, bytes, size);
    bool last = op->limit != 0 && size >= op->limit;
    if (op->limit != 0 && !last) op->limit -= size;
    if (!op->multishot || last || sim_fault(FAULT_MULTISHOT_ENDS)) {
        op_end_bytes(op, (int32_t)size, buffer_flags(&buffer), to, bytes);
        return false;
    }
    ring_post_bytes(op, (int32_t)size, buffer_flags(&buffer) | IORING_CQE_F_MORE, to, bytes);
    return true;
}

static void try_recv(struct op *op) {
    struct sock *sock = op->sock;
    const struct fake_group *group = &op->ring->groups[op_group(op)];
    bool poll_first = op->sqe.ioprio & IORING_RECVSEND_POLL_FIRST;
    /* Without a buffer it fails at once, though no data is there. */
    if (!op->tried && !poll_first && group->ring->tail == group->head) {
        op_end(op, -ENOBUFS, 0);
        return;
    }
    op->tried = true;
    if (sim_fault(FAULT_INTERRUPTED)) {
        end_recv(op, -EINTR);
        return;
    }
    for (int shots = 0; sock->in.arrived != 0; shots++) {
        if (shots == SHOTS_MAX) {
            op_look_again(op);
            return;
        }
        if (!recv_once(op)) return;
    }
    int error = sock_error(sock, false);
    if (error < 0) {
        end_recv(op, error);
    } else if (sock->in.fin_arrived || sock->shut_read || sock->reset) {
        end_recv(op, 0);
    }
}

/* Writes from where the last try ended; returns how much. */
static size_t send_some(struct op *op) {
    size_t before = op->done;
    size_t skip = op->done;
    for (uint32_t i = 0; i < op->slice_count; i++) {
        const struct iovec *slice = &op->slices[i];
        if (skip >= slice->iov_len) {
            skip -= slice->iov_len;
            continue;
        }
        size_t wanted = slice->iov_len - skip;
        uint32_t sent = sock_give(op->sock, (char *)slice->iov_base + skip, (uint32_t)wanted);
        op->done += sent;
        if (sent < wanted) break;
        skip = 0;
    }
    return op->done - before;
}

/* One of weir's own route. */
static bool is_whole_answer(const struct op *op) {
    static const char start[] = "HTTP/1.1 200", end[] = "\r\n\r\nfrom weir";
    const char *text = op->slices[0].iov_base;
    size_t size = op->slices[0].iov_len;
    return op->slice_count == 1 && size > sizeof end && size < 400 &&
           memcmp(text, start, sizeof start - 1) == 0 &&
           memcmp(text + size - (sizeof end - 1), end, sizeof end - 1) == 0;
}

static void try_send(struct op *op) {
    struct sock *sock = op->sock;
    bool now = op->sqe.msg_flags & MSG_DONTWAIT;
    int error = op->done != 0 && sock->reset ? -ECONNRESET : sock_error(sock, true);
    if (error < 0) {
        /* Midway it is short; the next send finds the error. */
        op_end_send(op, op->done != 0 ? (int32_t)op->done : error);
        return;
    }
    if (op->done == 0 && sim_fault(FAULT_INTERRUPTED)) {
        op_end_send(op, -EINTR);
        return;
    }
    if (is_whole_answer(op) && sim_defect(DEFECT_SWALLOW_ANSWER)) {
        op_end_send(op, (int32_t)op->size);
        return;
    }
    if (sock->ktls && op->sqe.msg_flags & MSG_WAITALL) {
        op_end_send(op, -EOPNOTSUPP);
        return;
    }
    send_some(op);
    if (op->done == op->size && is_whole_answer(op) && sim_defect(DEFECT_ANSWER_TWICE)) {
        op->done = 0;
        send_some(op);
        op->done = op->size;
    }
    /* A send without MSG_WAITALL ends with what went out. */
    bool gives_up = now || !(op->sqe.msg_flags & MSG_WAITALL);
    /* The other side's FIN makes the socket look ready for ever: after some tries it gives up. */
    if (sock->in.fin_arrived && (sim_has(FAULT_SEND_AGAIN) || sim_one_in(3))) gives_up = true;
    if (op->done == op->size) {
        op_end_send(op, (int32_t)op->done);
    } else if (gives_up && (now || op->done != 0 || sock->in.fin_arrived)) {
        op_end_send(op, op->done != 0 ? (int32_t)op->done : -EAGAIN);
    }
}

/* The kernel adds to what is asked for what always counts (IO_POLL_UNMASK). */
static void try_poll(struct op *op) {
    struct sock *sock = op->sock;
    uint32_t wanted = op->sqe.poll32_events | POLLERR | POLLHUP | POLLRDHUP;
    uint32_t found = 0;
    if (sock->state == SOCK_LISTENING) {
        if (!list_empty(&sock->queue)) found |= POLLIN;
        if (sock->shut_read) found |= POLLIN | POLLHUP;
    } else if (sock->state == SOCK_OPEN) {
        if (sock->in.arrived != 0) found |= POLLIN;
        if (sock->in.fin_arrived || sock->shut_read) found |= POLLIN | POLLRDHUP;
        if (sock_room(sock) != 0 || sock->shut_write) found |= POLLOUT;
        if (sock->in.fin_arrived && sock->shut_write) found |= POLLHUP;
    }
    if (sock->reset) found |= POLLIN | POLLOUT | POLLRDHUP | POLLERR | POLLHUP;
    if (!(found & wanted)) return;
    if (!op->multishot || sim_fault(FAULT_MULTISHOT_ENDS)) {
        op_end(op, (int32_t)(found & wanted), 0);
    } else {
        ring_post(op, (int32_t)(found & wanted), IORING_CQE_F_MORE);
    }
}

static void on_attempt(void *owner, uint64_t argument) {
    (void)argument;
    struct op *op = owner;
    switch (op->sqe.opcode) {
    case IORING_OP_ACCEPT:
        try_accept(op);
        return;
    case IORING_OP_RECV:
        try_recv(op);
        return;
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
        try_send(op);
        return;
    case IORING_OP_POLL_ADD:
        try_poll(op);
        return;
    default:
        return;
    }
}

void op_look_again(struct op *op) {
    if (op->ended || op->attempt || op->sqe.opcode == IORING_OP_CONNECT) return;
    uint64_t wait_ns = sim_fault(FAULT_LATE) ? sim_skewed(5 * SIM_MS) : sim_below(500);
    sim_event(sim.now_ns + wait_ns, on_attempt, op, &op->attempt);
}

static void connect_ends(struct op *op, const struct kernel_server *server, int error) {
    struct sock *sock = op->sock;
    if (error == 0 && sock->state == SOCK_CONNECTING) {
        struct sock *other = sock_new();
        sock_pair(sock, other);
        sock->breakable = other->breakable = true;
        server->on_accept(server->owner, other);
    }
    op_end(op, error, 0);
}

static void on_connect_good(void *owner, uint64_t argument) {
    connect_ends(owner, (const struct kernel_server *)(uintptr_t)argument, 0);
}

static void on_connect_bad(void *owner, uint64_t error) { connect_ends(owner, NULL, -(int)error); }

static void start_connect(struct op *op) {
    struct sockaddr_in address;
    memcpy(&address, (const void *)(uintptr_t)op->sqe.addr, sizeof address);
    struct kernel_server *server = kernel.servers;
    while (server && server->port != ntohs(address.sin_port))
        server = server->next;
    op->sock->state = SOCK_CONNECTING;
    struct connect_fate fate = {.error = -ECONNREFUSED, .wait_ns = SIM_MS / 10};
    if (server) fate = server->on_connect(server->owner);
    sim_note("connects", op->sock->number, ntohs(address.sin_port), fate.error);
    if (fate.never) return;
    struct sim_event *event =
        sim_event(sim.now_ns + fate.wait_ns, fate.error == 0 ? on_connect_good : on_connect_bad, op,
                  &op->fate);
    sim_event_argument(event, fate.error == 0 ? (uintptr_t)server : (uint64_t)-fate.error);
}

static void start_send(struct op *op) {
    const struct io_uring_sqe *sqe = &op->sqe;
    if (sqe->opcode == IORING_OP_SEND) {
        op->slices[0] = (struct iovec){(void *)(uintptr_t)sqe->addr, sqe->len};
        op->slice_count = 1;
    } else {
        const struct msghdr *message = (const void *)(uintptr_t)sqe->addr;
        CHECK(message->msg_iovlen <= OP_SLICES_MAX);
        op->slice_count = (uint32_t)message->msg_iovlen;
        memcpy(op->slices, message->msg_iov, message->msg_iovlen * sizeof *message->msg_iov);
    }
    for (uint32_t i = 0; i < op->slice_count; i++)
        op->size += op->slices[i].iov_len;
    op->sum = op_sum(op);
}

static void cancel_now(struct op *op) {
    if (op->slice_count != 0) {
        op_end_send(op, op->done != 0 ? (int32_t)op->done : -ECANCELED);
    } else {
        op_end(op, -ECANCELED, 0);
    }
}

static void on_late_cancel(void *owner, uint64_t argument) {
    (void)argument;
    cancel_now(owner);
}

static int32_t cancel(struct fake_ring *ring, uint64_t user_data) {
    LIST_FOR_EACH(node, &ring->ops) {
        struct op *op = LIST_OWNER(node, struct op, ring_link);
        bool found = op->sqe.user_data == user_data && op->sqe.opcode != IORING_OP_ASYNC_CANCEL;
        if (!found || op->ended) continue;
        if (op->late_cancel) return -EALREADY;
        if (sim_fault(FAULT_CANCEL_LOSES)) {
            sim_event(sim.now_ns + sim_below(CANCEL_LATE_NS), on_late_cancel, op, &op->late_cancel);
            return -EALREADY;
        }
        cancel_now(op);
        return 0;
    }
    return -ENOENT;
}

static void on_cancel(void *owner, uint64_t argument) {
    (void)argument;
    struct op *op = owner;
    op_end(op, cancel(op->ring, op->sqe.addr), 0);
}

static void start_cancel(struct op *op) {
    uint64_t wait_ns = sim_fault(FAULT_CANCEL_SLOW) ? sim_skewed(CANCEL_LATE_NS) : 0;
    if (wait_ns == 0) {
        on_cancel(op, 0);
    } else {
        sim_event(sim.now_ns + wait_ns, on_cancel, op, &op->fate);
    }
}

static void start_on_socket(struct op *op) {
    op->sock = fd_sock(op->sqe.fd);
    if (!op->sock) {
        op_end(op, -EBADF, 0);
        return;
    }
    list_push_back(&op->sock->ops, &op->sock_link);
    switch (op->sqe.opcode) {
    case IORING_OP_CONNECT:
        start_connect(op);
        return;
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
        start_send(op);
        break;
    case IORING_OP_RECV:
        op->multishot = op->sqe.ioprio & IORING_RECV_MULTISHOT;
        op->limit = *compat_optlen(&op->sqe);
        CHECK(op->sqe.flags & IOSQE_BUFFER_SELECT && op_group(op) < GROUPS_MAX);
        CHECK(op->multishot || op->limit == 0);
        if (op->limit != 0 && sim_has(FAULT_NO_RECV_LIMIT)) {
            op_end(op, -EINVAL, 0);
            return;
        }
        if (op->multishot && op->limit == 0 && !sim_has(FAULT_NO_RECV_LIMIT))
            sim_fail(INVARIANT_BUFFERS, "a receive may bring as much as a socket has");
        break;
    case IORING_OP_ACCEPT:
        op->multishot = op->sqe.ioprio & IORING_ACCEPT_MULTISHOT;
        break;
    case IORING_OP_POLL_ADD:
        op->multishot = op->sqe.len & IORING_POLL_ADD_MULTI;
        break;
    default:
        break;
    }
    /* An accept, a send or a receive that can be done is done as it is submitted. */
    kernel.at_once = sim_fault(FAULT_AT_ONCE);
    if (kernel.at_once) {
        on_attempt(op, 0);
        kernel.at_once = false;
    } else {
        op_look_again(op);
    }
}

void op_submit(struct fake_ring *ring, const struct io_uring_sqe *sqe) {
    struct op *op = calloc(1, sizeof *op);
    CHECK(op);
    op->ring = ring;
    op->sqe = *sqe;
    list_init(&op->sock_link);
    list_push_back(&ring->ops, &op->ring_link);
    sim_note("submitted", sqe->opcode, (int64_t)(sqe->user_data & 0xffffffff),
             (int64_t)(sqe->user_data >> 56));
    switch (sqe->opcode) {
    case IORING_OP_ASYNC_CANCEL:
        start_cancel(op);
        return;
    case IORING_OP_MSG_RING: {
        struct fake_ring *to = ring_of_fd(sqe->fd);
        if (to && to->enabled) ring_post_mail(to, sqe->off, (int32_t)sqe->len);
        op_end(op, to && to->enabled ? 0 : -EBADFD, 0);
        return;
    }
    case IORING_OP_ACCEPT:
    case IORING_OP_CONNECT:
    case IORING_OP_RECV:
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
    case IORING_OP_POLL_ADD:
        start_on_socket(op);
        return;
    default:
        sim_fail(INVARIANT_CRASH, "the simulated kernel does not know operation %d", sqe->opcode);
    }
}
