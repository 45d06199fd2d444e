/* op.h: the operations weir submits, one function each. They queue; ring_wait submits.
 *
 * What an operation is given (sockets, buffers, addresses, message headers) must stay valid and
 * unchanged until its final completion. The caller keeps count of its operations in flight.
 */
#ifndef WEIR_RING_OP_H
#define WEIR_RING_OP_H

#include "base/bytes.h"
#include "ring/buf.h"
#include "ring/ring.h"

#include <sys/socket.h>

/* Sockets come non-blocking and close-on-exec. Multishot (io_uring_prep_multishot_accept(3)) goes
 * on until an error or a cancel, and brings all that wait in the backlog at once. */
void op_accept(struct ring *ring, struct ring_token token, int fd, bool multishot);
struct op_recv_options {
    enum buf_group group;
    bool multishot;  /* goes on until an error, the end of the stream or a lack of buffers */
    bool poll_first; /* does not try before the socket says it is readable */
    /* A multishot ends with the receive that brings it to so many bytes (since Linux 6.17; before
     * that such an operation fails with -EINVAL). 0: it has no limit. */
    uint32_t limit;
};
/* Into buffers lent to the kernel (io_uring_prep_recv(3), io_uring_provided_buffers(7)). */
void op_recv(struct ring *ring, struct ring_token token, int fd,
             const struct op_recv_options *options);
/* OP_SEND_ALL (MSG_WAITALL): completes when all went out, or with an error, or short after an error
 * midway. OP_SEND_SOME: completes with what goes out once there is room for some; for sockets that
 * refuse MSG_WAITALL. OP_SEND_NOW (MSG_DONTWAIT): with what goes out at once, -EAGAIN for nothing.
 */
enum op_send_mode { OP_SEND_ALL, OP_SEND_SOME, OP_SEND_NOW };
void op_send(struct ring *ring, struct ring_token token, int fd, struct bytes bytes,
             enum op_send_mode mode);
void op_sendmsg(struct ring *ring, struct ring_token token, int fd, const struct msghdr *message,
                enum op_send_mode mode);
/* Once: completes with what happened of `events` (poll(2); errors and hang-ups always count), at
 * once if it is so already. */
void op_poll(struct ring *ring, struct ring_token token, int fd, uint32_t events);
/* Over and over, until it is cancelled: completes when the socket fails, is hung up, or the other
 * side has sent FIN (io_uring_prep_poll_multishot(3)). */
void op_watch(struct ring *ring, struct ring_token token, int fd);
void op_connect(struct ring *ring, struct ring_token token, int fd, const struct sockaddr *address,
                socklen_t address_size);
/* Cancels by token. Its own completion is counted and dropped; the target's completion is what ends
 * the target. */
void op_cancel(struct ring *ring, struct ring_token target);

#endif
