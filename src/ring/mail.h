/* mail.h: small values from one ring to another (IORING_OP_MSG_RING).
 *
 * The receiver gets a RING_MAIL completion whose slot is the subject and whose result is the value.
 * Only values travel. The sender counts its own completion (RING_MAIL_SENT: result 0 or -errno).
 */
#ifndef WEIR_RING_MAIL_H
#define WEIR_RING_MAIL_H

#include "ring/ring.h"

/* What mail says. */
enum mail_subject {
    MAIL_DRAIN, /* stop listening, finish what runs; value: 0 */
    MAIL_CUT,   /* end what still runs, now */
    MAIL_TLS,   /* new certificates are there; value: 0 */
    MAIL_END    /* after the drain: close the rest and leave the loop */
};

/* Queues; `to` must have been enabled. */
void mail_send(struct ring *from, const struct ring *to, enum mail_subject subject, uint32_t value);

#endif
