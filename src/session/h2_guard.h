/* h2_guard.h: what the other side makes an HTTP/2 session do for nothing, counted by
 * proto/h2_flood.h with the limits of its options. Too much ends the connection with
 * ENHANCE_YOUR_CALM, and is counted by its kind. Called from nghttp2's callbacks and after them. */
#ifndef WEIR_SESSION_H2_GUARD_H
#define WEIR_SESSION_H2_GUARD_H

#include "session/h2_internal.h"

/* Counts one more; too many end the connection. */
void h2_flood(struct h2 *h2, enum h2_flood_kind kind);
/* That was too much, whatever the limits say. */
void h2_guard_end(struct h2 *h2, enum h2_flood_kind kind);
/* A request begins, or DATA was sent: for each of them so much is free. */
void h2_guard_request(struct h2 *h2);
void h2_guard_sent(struct h2 *h2, size_t bytes);
/* We end a stream. What the other side may have sent for it by then, as its window lets it, is no
 * flood. For all such streams together no more than the connection's window can be on its way: what
 * is given back of that after an end is heard of after it. */
void h2_guard_free(struct h2 *h2, int32_t id);
/* nghttp2 has read bytes: counts the DATA in them that came on streams that have ended. */
void h2_guard_strays(struct h2 *h2);
/* nghttp2's callback for every frame, before what is in it. */
int h2_guard_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *user);
/* A header section, after each field once it has a fault: too much is one. */
void h2_guard_head(struct h2 *h2, const struct h2_head *head);
/* What waits to be sent, after bytes were read. */
void h2_guard_queue(struct h2 *h2);

#endif
