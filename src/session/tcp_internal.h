/* tcp_internal.h: one TCP connection without any protocol above it, as one stream of raw bytes.
 *
 *   client    HELD --tunnel--> RAW --close, all ended well--> FLUSHING --all sent--> ENDED
 *   upstream  DIALLING --on_open--> HELD, and on as above
 *             any --lost, timed out, closed before its end--> ENDED
 *
 *   DIALLING  the connect is in flight; no stream yet                          (tcp_connect)
 *   HELD      there is a stream, or there will be one in this turn: what arrives ahead waits in
 *             `pending`, the connection is paused with the first of it; so does the FIN. Peeked at
 *             (tcp_peek_op), it goes on until one buffer is full
 *   RAW       bytes, FIN and RST go through as events                          (tcp_tunnel_op)
 *   FLUSHING  both directions have ended and the stream is closed; what is queued is still being
 *             sent, as long as it moves                                        (tcp_close_op)
 *   ENDED     the connection is given up; on_closed comes from the task        (tcp_end)
 *
 * 1. `conn` is NULL once the connection is lost or given up; the session goes when its stream is
 * closed as well.
 * 2. A FIN is passed on as the end of one direction, everything else that ends the connection as
 * on_reset; a stream that is closed before both directions have ended resets the connection.
 * 3. Nothing calls upward from within a downward call: what must, is put off to `task`.
 * 4. Idle is what has moved no byte in either direction: before it ends, a side asks the other.
 */
#ifndef WEIR_SESSION_TCP_INTERNAL_H
#define WEIR_SESSION_TCP_INTERNAL_H

#include "net/pump.h"
#include "session/session.h"

enum tcp_state { TCP_DIALLING, TCP_HELD, TCP_RAW, TCP_FLUSHING, TCP_ENDED };

/* 320 bytes at most: an idle connection through the proxy has two of them. */
struct tcp {
    struct session session;
    struct stream stream;
    struct net_task task;
    struct lease *pending_first;
    struct lease *pending_last;
    uint32_t tunnel_ms;
    uint32_t moved_ms;  /* low bits of the clock when a byte last came, was queued or arrived */
    uint8_t state;      /* enum tcp_state */
    uint8_t end_reason; /* enum reason: of on_closed */
    uint8_t failure;    /* enum reason: to be told the stream by `task`; NONE: nothing */
    uint8_t reads;      /* in a row that speak for the other size of buffers */
    bool stream_open;
    bool stream_reset; /* on_reset was given */
    bool paused;       /* by the stream's user */
    bool peeking;      /* in HELD: `pending` is shown, and grows until its first buffer is full */
    bool eof;
};
_Static_assert(offsetof(struct tcp, session) == 0, "the user of its conn");
_Static_assert(sizeof(struct tcp) <= 320, "as said above");

#endif
