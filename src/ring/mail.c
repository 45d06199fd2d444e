#include "ring/mail.h"

#include "ring/ring_internal.h"

void mail_send(struct ring *from, const struct ring *to, enum mail_subject subject,
               uint32_t value) {
    struct io_uring_sqe *sqe = ring_sqe(from, (struct ring_token){.kind = RING_MAIL_SENT});
    uint64_t arrives_as = ring_pack((struct ring_token){.kind = RING_MAIL, .slot = subject});
    io_uring_prep_msg_ring(sqe, to->uring->ring_fd, value, arrives_as, 0);
}
