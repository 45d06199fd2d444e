/* conn_watch.h: the other side's reset, or its FIN, where nothing else would show it.
 *
 * A reset ends the receive, or the send, that is in flight. A connection that has neither, for its
 * user has paused it, or the other side has sent FIN, or a pump has no room for its bytes, learns
 * of a reset with the next byte it is given; that may be never. Who has been blind for a while is
 * watched, from then on until its end: by a poll that tells of errors only. Not at once: most
 * connections are half-closed or paused for a moment, and the poll and its cancel are two
 * operations.
 */
#ifndef WEIR_NET_CONN_WATCH_H
#define WEIR_NET_CONN_WATCH_H

#include "net/conn.h"

/* After how long of it a blind connection should be watched. */
#define CONN_BLIND_MS 1000

/* Whether it would not see a reset now. */
static inline bool conn_is_blind(const struct conn *conn) {
    return !conn->watch_armed && (conn->eof || conn->paused || conn_is_held(conn));
}
/* How many bytes are left to be read before the other side's FIN, where that has come: who does not
 * read sees it by no event. UINT64_MAX: it has not come, or stands behind more than the kernel's
 * buffer holds, or the socket is none of TCP. */
uint64_t conn_left_unread(const struct conn *conn);
/* A reset of the connection, which is open, comes as on_lost from now on, whatever it does. */
void conn_watch(struct conn *conn);

/* For conn.c. */
void conn_on_watch(struct conn *conn, const struct ring_completion *completion);

#endif
