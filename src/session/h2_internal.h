/* h2_internal.h: one HTTP/2 session (RFC 9113), shared by h2.c (life), h2_time.c (deadlines),
 * h2_in.c (what is received) and h2_out.c (what is sent, the stream's downward calls). What of
 * h2_time.c and h2_guard.c the others call has headers of its own.
 *
 * nghttp2 frames, compresses and counts windows; it is fed with what the connection receives
 * (h2_read) and asked for what is to be sent once a turn, from `task` (h2_flush). Each stream is
 * two small machines, one a direction:
 *
 *   in   HEAD --request or final head--> BODY --END_STREAM--> DONE
 *          \--CONNECT or upgrade--> HELD --tunnel--> BODY         any --fault--> BROKEN
 *   out  HEAD --final head--> BODY --end--> DONE
 * HELD  data that comes ahead of the tunnel waits in `ahead`
 *
 * 1. A stream's slot is given back when its user has closed it and nghttp2 has closed it (`gone`),
 * or the connection is lost. What the user left complete in `out` is sent first; an abort drops it.
 * 2. nghttp2 calls back only from h2_read and h2_flush (`busy`). Meanwhile nothing it holds goes
 * away: streams that end are put on `dead`, the session itself ends from its task.
 * 3. `conn` is NULL once the connection is lost or given up; the session goes when its last stream
 * is closed as well.
 * 4. What ends the connection for a fault of the other side is noted (h2_fail), done by the task.
 * 5. A stream's window opens as its user takes what has come: not while it has paused. The
 * connection's opens at once, but in client role no more than H2_HELD_MAX are held for all streams.
 * 6. What is `ahead` to the end is given to the user before it is told that the stream is over.
 */
#ifndef WEIR_SESSION_H2_INTERNAL_H
#define WEIR_SESSION_H2_INTERNAL_H

#include "proto/h2_flood.h"
#include "proto/h2_head.h"
#include "proto/h2_stray.h"
#include "proto/h2_write.h"
#include "session/h2_queue.h"
#include "session/session.h"

/* After a drain was announced requests are taken for so long. */
#define H2_DRAIN_MS 1000

/* Above this no stream is opened any more: those that have no id yet find one. */
#define H2_ID_MAX ((uint32_t)INT32_MAX - 65536)

enum h2_in { H2_IN_HEAD, H2_IN_BODY, H2_IN_HELD, H2_IN_DONE, H2_IN_BROKEN };
enum h2_out { H2_OUT_HEAD, H2_OUT_BODY, H2_OUT_DONE };

struct h2_stream {
    struct stream stream;
    struct list link;         /* in h2.streams */
    struct list drained_link; /* in h2.drained */
    struct arena arena;       /* client role: of the message received; both: of trailers to send */
    struct h2_queue out;
    struct h2_queue ahead;              /* HELD: for the tunnel */
    const struct http_fields *trailers; /* to send behind `out`, in `arena` */
    uint64_t in_length;                 /* of content-length, HTTP_LENGTH_UNKNOWN: none */
    uint64_t in_read;
    uint64_t since_ms;  /* BODY: start of it by h2_fair_ms, moved on by pauses */
    uint64_t paused_ms; /* when the stream's user paused it, likewise */
    uint64_t in_ms;     /* when something last came for it, or was last wanted */
    uint64_t out_ms;    /* when some of `out` was last sent, or taken by the other side */
    uint64_t sent_at;   /* where in the connection's bytes that stands; 0: it has been taken */
    uint64_t other_ms;  /* in a tunnel: when something was last known to move at its other end */
    uint64_t tunnel_ms;
    uint32_t unconsumed; /* bytes received for which no window was given back */
    int32_t id;          /* 0: none yet */
    enum h2_in in;
    enum h2_out out_state;
    enum http_method method; /* of the request */
    enum reason failure;     /* to be told the user by the task; NONE: nothing */
    bool user_open;
    bool told_reset;
    bool gone;   /* nghttp2 has closed it, or never had it */
    bool queued; /* upstream role: nghttp2 has its head, and may not have sent it */
    bool deaf;   /* it was reset: the user's calls do nothing */
    bool paused;
    bool told_full;
    bool deferred; /* nghttp2 waits to be told that there is data */
    bool end_sent;
    bool end_received; /* with the bytes that came last */
    bool no_body;      /* what the user gives as body is not sent: the answer to HEAD, say */
    bool ahead_end;    /* HELD: END_STREAM has come */
    bool tunnelled;
    bool upgraded;       /* an extended CONNECT */
    nghttp2_nv *waiting; /* its head, until SETTINGS say if it is taken; NULL: it does not wait */
    size_t waiting_count;
    bool aborted; /* by us: RST_STREAM was given to nghttp2 */
    bool rst_received;
};

/* A walk over a session's streams: who is told something may end any of them, also the next. */
struct h2_walk {
    struct list *next;
    struct h2_walk *outer;
};

struct h2 {
    struct session session;
    struct net_task task;
    nghttp2_session *ng;
    struct h2_head *head; /* of the header block under way; NULL: none, or it is not wanted */
    struct h2_stream *head_stream;
    struct lease *lease; /* of the bytes that nghttp2 is being fed */
    struct list streams;
    struct h2_stream *found; /* by h2_find: what comes for a stream comes in runs; or NULL */
    struct list drained;     /* streams whose users are to be told */
    struct list dead;        /* streams to be given back, when not busy */
    struct h2_walk *walk;    /* under way; NULL: none */
    struct h2_flood flood;
    uint64_t since_ms;    /* without a stream since */
    uint64_t head_ms;     /* when the header block under way began */
    uint64_t heard_ms;    /* when something last came */
    uint64_t moved_ms;    /* when the other side was last seen to take what is to be sent */
    uint64_t taken_ms;    /* when it was last seen to take anything that was sent */
    uint64_t room_ms;     /* when `full` last ended */
    uint64_t drain_ms;    /* when a drain was announced; 0: it was not */
    uint32_t held;        /* bytes received that users have not taken */
    uint32_t owed;        /* bytes for which the connection's window was not given back */
    uint64_t shut_ms;     /* since when that has left the client no window; 0: it has some */
    uint64_t was_shut_ms; /* for how long it was so before, in all */
    uint64_t opened_ms;   /* when that last ended */
    enum reason failure;  /* ends the connection, by the task; NONE: nothing does */
    uint32_t failure_code;
    enum reason end_reason; /* of on_closed */
    uint32_t continuations; /* frames of the header block under way */
    struct h2_stray stray;  /* DATA on streams that have ended */
    uint32_t stray_free;    /* bytes of it that may be on their way rightly */
    uint32_t queued;        /* streams that are */
    uint32_t taken;         /* client role: streams that are not `gone` */
    uint32_t frame;         /* nghttp2's buffer, in codec.frames; SLAB_NONE: it is on the heap */
    uint8_t busy;
    bool connecting;
    bool settings_sent; /* client role: the first frame has gone out */
    bool torn;          /* a frame went out in part: nothing may follow */
    bool full;          /* there are frames to send, and no room for them: no stream is late */
    bool starved;       /* and no buffer, while nothing is queued */
    bool eof;
    bool retired;
    bool goaway_received;
    bool settings_received;
    bool streams_due; /* some stream has something to be told by the task */
    bool drain_said;  /* the last stream to be taken was named */
};
_Static_assert(offsetof(struct h2, session) == 0, "the user of its conn");

static inline struct h2 *h2_of_conn(struct conn *conn) { return conn->user; }
static inline struct h2 *h2_of_session(struct session *session) {
    return LIST_OWNER(session, struct h2, session);
}
static inline struct h2_stream *h2_of_stream(struct stream *stream) {
    return LIST_OWNER(stream, struct h2_stream, stream);
}
static inline struct h2 *h2_of(const struct h2_stream *s) {
    return h2_of_session(s->stream.session);
}
static inline struct net *h2_net(const struct h2 *h2) { return h2->session.room->net; }
static inline struct h2_room *h2_room(const struct h2 *h2) { return h2->session.room->h2; }

/* h2.c */
bool h2_is_deaf(const struct h2 *h2); /* nothing that is received or given counts any more */
void h2_mark(struct h2 *h2);          /* something is to be sent, or done by the task */
void h2_fail(struct h2 *h2, enum reason reason, uint32_t code); /* ends it by the task: GOAWAY */
struct h2_stream *h2_stream_new(struct h2 *h2, struct arena *arena);
/* Slot, queues and arena, at once or when not busy; the session ends with its last one if the
 * connection has gone. */
void h2_stream_release(struct h2_stream *s);
struct h2_stream *h2_find(struct h2 *h2, int32_t id); /* NULL: nghttp2 has it not, or no more */
void h2_unqueue(struct h2_stream *s); /* its head was sent, or will not be; harmless elsewhere */
/* Tells the user, if there is one that was not told; nothing more comes. */
void h2_stream_reset(struct h2_stream *s, enum reason reason);
void h2_unbusy(struct h2 *h2);
/* No slot goes until h2_walk_next has said NULL; it must be called until then. */
void h2_walk_begin(struct h2 *h2, struct h2_walk *walk);
struct h2_stream *h2_walk_next(struct h2 *h2, struct h2_walk *walk);
/* The connection has gone, and its streams with it, as soon as their users close them. */
void h2_lose_streams(struct h2 *h2, enum reason reason);
void h2_drop(struct h2 *h2, enum reason reason); /* the connection ends now, without a word */
void h2_stream_abort(struct h2_stream *s, uint32_t code); /* RST_STREAM, if nghttp2 has it */

/* h2_in.c */
void h2_set_callbacks(nghttp2_session_callbacks *callbacks);
/* Gives a request to the host's user. */
void h2_begin_stream(struct h2 *h2, struct h2_stream *s, struct http_message *message, bool end);
void h2_read(struct h2 *h2, struct bytes bytes, struct lease *lease);
void h2_retire(struct h2 *h2); /* upstream role: no stream is opened any more, the open go on */
void h2_consume(struct h2_stream *s); /* gives window back for what the user has taken */
/* What came ahead of the tunnel; with `all` also to a user that has paused. */
void h2_feed_ahead(struct h2_stream *s, bool all);
bool h2_is_held(const struct h2_stream *s); /* a tunnel that is `ahead` to its end */

/* h2_out.c */
extern const struct stream_ops h2_stream_ops;
void h2_set_send_callbacks(nghttp2_session_callbacks *callbacks);
void h2_flush(struct h2 *h2);
/* The server's SETTINGS are there: sends what has waited for them, or fails it. */
void h2_ask_waiting(struct h2 *h2);
/* Answers a request that never became a stream of a user, or resets it. */
void h2_refuse(struct h2_stream *s, enum reason reason);

#endif
