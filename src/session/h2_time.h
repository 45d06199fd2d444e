/* h2_time.h: the deadlines of an HTTP/2 session, as the others of its files need them. A connection
 * has one deadline: the earliest of all that is waited for on it and its streams, or earlier. When
 * it passes each is looked at. */
#ifndef WEIR_SESSION_H2_TIME_H
#define WEIR_SESSION_H2_TIME_H

#include "session/h2_internal.h"

void h2_need(struct h2 *h2, uint64_t at_ms); /* a deadline is no later than this */
void h2_touch(struct h2 *h2);
bool h2_is_sending(const struct h2 *h2); /* some of what is to be sent has not gone out */
void h2_on_deadline(struct conn *conn);
void h2_need_step(struct h2 *h2);
uint64_t h2_stream_idle_ms(struct h2_stream *s);
/* The connection's window is shut, or opens again, for all streams: fair time stands still then. */
void h2_note_shut(struct h2 *h2);
void h2_note_open(struct h2 *h2);
uint64_t h2_fair_ms(const struct h2 *h2);

#endif
