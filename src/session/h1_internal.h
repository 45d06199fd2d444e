/* h1_internal.h: one HTTP/1.x session, shared by h1.c (life, time), h1_in.c (what is received) and
 * h1_out.c (what is sent).
 *
 * The two directions of the connection are two small machines:
 *
 *   in    HEAD --head complete--> BODY --> TRAILERS --> DONE          out   HEAD --head--> BODY
 * --end--> DONE ^       (no body)  \________________________^ |                   ^   (1xx stay) |
 *          +------------- both DONE, stream closed ------+ +--------------------------+ any
 * --malformed, timed out--> BROKEN (input is dropped)            any --tunnel--> RAW any
 * --tunnel--> RAW
 *
 * 1. At most one stream is open; `stream_open` from the first byte that belongs to it until its
 * close.
 * 2. Input that the current state cannot take (the next pipelined request) waits in `pending`, and
 * the connection is paused meanwhile.
 * 3. `conn` is NULL once the connection is lost or given up; the session goes when its stream is
 * closed as well.
 * 4. Nothing calls upward from within a downward call: what must, is put off to `task`.
 */
#ifndef WEIR_SESSION_H1_INTERNAL_H
#define WEIR_SESSION_H1_INTERNAL_H

#include "net/pump.h"
#include "proto/h1_body.h"
#include "proto/h1_parse.h"
#include "proto/h1_write.h"
#include "proto/ws_handshake.h"
#include "session/session.h"

/* A body with this much to come is a stream: big receive buffers pay. */
#define H1_BULK_MIN 65536

enum h1_in { H1_IN_HEAD, H1_IN_BODY, H1_IN_TRAILERS, H1_IN_DONE, H1_IN_RAW, H1_IN_BROKEN };
enum h1_out { H1_OUT_HEAD, H1_OUT_BODY, H1_OUT_DONE, H1_OUT_RAW };

/* A head that comes in pieces: its parser, its spans and its bytes so far. */
struct h1_head {
    struct h1_parser parser;
    uint32_t len;
    char *text; /* behind the spans, max_header_size + 1 */
    struct h1_span spans[];
};

struct h1 {
    struct session session;
    struct stream stream;
    union {
        struct arena arena;           /* client role: the current exchange's */
        char server_key[WS_KEY_SIZE]; /* upstream role: of a WebSocket's request, when made here */
    };
    struct net_task task;
    struct h1_head *head; /* NULL unless a head or trailer section is incomplete */
    struct lease *pending_first;
    struct lease *pending_last;
    struct h1_body body;    /* of the message being received */
    uint64_t body_received; /* bytes of it on the wire: chunk lines and trailers too */
    uint64_t out_left;      /* bytes of a LENGTH body still to send */
    uint64_t since_ms;      /* HEAD: first byte or idle since; BODY: start, moved on by pauses */
    uint64_t paused_ms;     /* when the stream's user paused it */
    uint64_t held_ms;       /* since when a pump has no room, as far as since_ms; 0: it has */
    union {
        uint64_t sent_before;   /* upstream role: conn->sent_total when the stream began */
        const char *client_key; /* client role: of a WebSocket's request, in the arena; else NULL */
    };
    /* Small: an idle WebSocket has two of these. */
    uint32_t tunnel_ms;
    enum h1_in in : 8;
    enum h1_out out : 8;
    enum h1_body_kind out_kind : 8;
    enum http_method method : 8; /* of the request */
    enum reason end_reason : 8;  /* of on_closed */
    enum reason failure : 8;     /* to be told the stream by `task`; NONE: nothing */
    uint8_t full_reads;          /* reads in a row that filled a buffer */
    bool connecting : 1;
    bool handed_over : 1; /* another session has its connection and its host */
    bool stream_open : 1;
    bool stream_reset : 1; /* on_reset was given */
    bool keep_alive : 1;
    bool http10 : 1; /* the client speaks HTTP/1.0 */
    bool paused : 1; /* by the stream's user */
    bool eof : 1;
    bool expects : 1;  /* Expect: 100-continue was asked and no 100 given */
    bool key_made : 1; /* server_key is one */
    bool torn : 1;     /* a part of what was to be sent is missing: nothing may follow it */
};
_Static_assert(REASON_COUNT <= 256, "a reason is kept in 8 bits");
_Static_assert(offsetof(struct h1, session) == 0, "the user of its conn");

static inline struct h1 *h1_of_stream(struct stream *stream) {
    return LIST_OWNER(stream, struct h1, stream);
}
static inline struct h1 *h1_of_conn(struct conn *conn) { return conn->user; }
static inline struct net *h1_net(const struct h1 *h1) { return h1->session.room->net; }

/* h1.c */
/* Sets the deadline that fits the state: called after whatever changed it. */
void h1_touch(struct h1 *h1);
/* In a tunnel: since when nothing moves. */
uint64_t h1_idle_ms(struct h1 *h1);
/* Tells the stream, if one is open and was not told before, and drops further input. */
void h1_reset_stream(struct h1 *h1, enum reason reason);
/* As h1_reset_stream, from within a downward call: put off. */
void h1_fail_later(struct h1 *h1, enum reason reason);
/* The session ends; what happens to the connection has been done (conn is NULL). */
void h1_end(struct h1 *h1, enum reason reason);
/* Another session has the connection: this one ends without a word. */
void h1_hand_over(struct h1 *h1);
/* Gives the connection up in one of its three ways, then ends. */
void h1_finish(struct h1 *h1, enum reason reason);
void h1_drop(struct h1 *h1, enum reason reason);

/* h1_in.c */
/* Takes received bytes as far as the state allows; the rest waits in `pending`. Borrows the
 * caller's reference of `lease`. */
void h1_feed(struct h1 *h1, struct bytes bytes, struct lease *lease);
void h1_feed_pending(struct h1 *h1);
void h1_drop_pending(struct h1 *h1);
void h1_on_eof(struct h1 *h1);
void h1_drop_head(struct h1 *h1);
bool h1_pass_op(struct stream *stream, struct stream *to);
uint64_t h1_pump_limit(struct conn *conn);
void h1_on_pumped(struct conn *conn, uint64_t bytes);

/* h1_out.c */
extern const struct stream_ops h1_stream_ops;
/* Answers with an error of its own: for requests that never became a stream, as far as known of
 * h1->method. Then finishes. */
void h1_refuse(struct h1 *h1, enum reason reason);
/* As session_ops.refuse: the same answer to a connection that has no session. */
void h1_refuse_conn(struct session_room *room, struct conn *conn, enum reason reason);

#endif
