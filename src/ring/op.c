#include "ring/op.h"

#include "ring/ring_internal.h"

void op_accept(struct ring *ring, struct ring_token token, int fd, bool multishot) {
    struct io_uring_sqe *sqe = ring_sqe(ring, token);
    io_uring_prep_accept(sqe, fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (multishot) sqe->ioprio |= IORING_ACCEPT_MULTISHOT;
}

void op_recv(struct ring *ring, struct ring_token token, int fd,
             const struct op_recv_options *options) {
    struct io_uring_sqe *sqe = ring_sqe(ring, token);
    io_uring_prep_recv(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = (uint16_t)options->group;
    if (options->multishot) {
        sqe->ioprio |= IORING_RECV_MULTISHOT;
        *compat_optlen(sqe) = options->limit;
    }
    if (options->poll_first) sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
}

static int op_send_flags(enum op_send_mode mode) {
    static const int waits[] = {
        [OP_SEND_ALL] = MSG_WAITALL, [OP_SEND_SOME] = 0, [OP_SEND_NOW] = MSG_DONTWAIT};
    return MSG_NOSIGNAL | waits[mode];
}

void op_send(struct ring *ring, struct ring_token token, int fd, struct bytes bytes,
             enum op_send_mode mode) {
    struct io_uring_sqe *sqe = ring_sqe(ring, token);
    io_uring_prep_send(sqe, fd, bytes.ptr, bytes.len, op_send_flags(mode));
}

void op_sendmsg(struct ring *ring, struct ring_token token, int fd, const struct msghdr *message,
                enum op_send_mode mode) {
    struct io_uring_sqe *sqe = ring_sqe(ring, token);
    io_uring_prep_sendmsg(sqe, fd, message, (unsigned)op_send_flags(mode));
}

void op_poll(struct ring *ring, struct ring_token token, int fd, uint32_t events) {
    struct io_uring_sqe *sqe = ring_sqe(ring, token);
    io_uring_prep_poll_add(sqe, fd, events);
}

void op_watch(struct ring *ring, struct ring_token token, int fd) {
    struct io_uring_sqe *sqe = ring_sqe(ring, token);
    io_uring_prep_poll_multishot(sqe, fd, 0); /* what it waits for always counts */
}

void op_connect(struct ring *ring, struct ring_token token, int fd, const struct sockaddr *address,
                socklen_t address_size) {
    struct io_uring_sqe *sqe = ring_sqe(ring, token);
    io_uring_prep_connect(sqe, fd, address, address_size);
}

void op_cancel(struct ring *ring, struct ring_token target) {
    struct io_uring_sqe *sqe = ring_sqe(ring, (struct ring_token){.kind = RING_NOTHING});
    io_uring_prep_cancel64(sqe, ring_pack(target), 0);
}
