/* stream.h: THE interface between an HTTP exchange and whatever carries it.
 *
 * A stream is one request and its answer on one session. The client side of an exchange is a stream
 * of a session in client role, the upstream side a stream of a session in upstream role, or of a
 * built-in service. Whoever uses a stream (exchange, tunnel) knows no HTTP version.
 *
 * Downward calls (struct stream_ops) never call back before they return. Upward events (struct
 * stream_events) come from completions or deferred tasks only. In an event, the user may call any
 * operation, also close.
 *
 * Order of events:  on_head (1xx any number, then one final head)  on_data*  on_end   (then nothing
 * more) or at any point on_reset: nothing more comes, the user still calls close. Order of calls:
 * head (1xx any number, then one)  data*  end (or `end` with head or data)   and at last close,
 * exactly once, before or after the end of either direction; the stream must not be touched
 * afterwards.
 */
#ifndef WEIR_SESSION_STREAM_H
#define WEIR_SESSION_STREAM_H

#include "base/reason.h"
#include "proto/http.h"

struct conn;
struct lease;
struct session;
struct stream;

struct stream_events {
    /* `message` lives in stream->arena: a request as long as that, a response for the length of the
     * call. `end`: no body and no trailers follow (no on_end comes). */
    void (*on_head)(struct stream *stream, struct http_message *message, bool end);
    /* `data` lies in `lease`; the user takes references (lease_ref) if it keeps it. */
    void (*on_data)(struct stream *stream, struct bytes data, struct lease *lease);
    /* `trailers` NULL when there are none; they live in stream->arena. */
    void (*on_end)(struct stream *stream, const struct http_fields *trailers);
    /* `bytes` of this stream have reached the one they pass to (stream_ops.pass) by themselves: the
     * user accounts for them there (stream_ops.passed). Others may be on their way, also when it
     * says 0: then they wait for room. */
    void (*on_passed)(struct stream *stream, uint64_t bytes);
    /* Peeked at: all that has come so far, which stays. `last`: it can be no more before `tunnel`,
     * for the end of the stream or for lack of room. */
    void (*on_held)(struct stream *stream, struct bytes bytes, bool last);
    /* What was queued by head and data has fallen to the low mark, after data said STREAM_FULL. */
    void (*on_drained)(struct stream *stream);
    void (*on_reset)(struct stream *stream, enum reason reason);
    /* Tunnelled: no byte has moved here for `idle_ms`. Answers how many ms ago one has moved on the
     * other side: less, and this side waits on; else on_reset follows. NULL: it follows. */
    uint64_t (*on_idle)(struct stream *stream);
};

/* Answer of data: whether more is welcome. */
enum stream_room { STREAM_ROOM, STREAM_FULL };

struct stream_ops {
    /* Sends a head; `message` and what it views are not kept. */
    void (*head)(struct stream *stream, const struct http_message *message, bool end);
    /* Queues body bytes (raw bytes once tunnelled). lease NULL: the bytes are copied, at most
     * STREAM_COPY_MAX of them. FULL is advice: nothing is dropped. */
    enum stream_room (*data)(struct stream *stream, struct bytes data, struct lease *lease,
                             bool end);
    /* Ends this direction; in a tunnel: half-close. trailers may be NULL. */
    void (*end)(struct stream *stream, const struct http_fields *trailers);
    /* Stop and go for on_data of this stream. A pause may be followed by data already under way. */
    void (*pause)(struct stream *stream);
    void (*resume)(struct stream *stream);
    /* Raw bytes before `tunnel`: whether what comes is shown by on_held, until at most one receive
     * buffer is full. NULL: it cannot be. */
    void (*peek)(struct stream *stream, bool on);
    /* After a 101 (or 2xx to CONNECT) head passed: bytes both ways are no longer framed, and what
     * was received in messages is given up with the arena of the client's stream; so that side is
     * told last. `idle_ms` is the timeout without any byte. */
    void (*tunnel)(struct stream *stream, uint64_t idle_ms);
    /* Tunnelled: how many ms ago a byte came, was queued, or reached the other side. NULL: whoever
     * asks has to go by what it has seen itself. */
    uint64_t (*idle_ms)(struct stream *stream);
    /* From now on what arrives goes to `to` without on_data, inside the kernel, where both sides
     * carry the bytes as they are; on_end and on_reset come as ever, and on_data again when it
     * turns out not to pay. May be asked at any time, again and again: false, nothing has changed.
     */
    bool (*pass)(struct stream *stream, struct stream *to);
    /* The other side of pass; NULL for streams that are no sockets. The connection that takes bytes
     * of this stream as they are; NULL when they need framing, or there is none. */
    struct conn *(*pass_target)(struct stream *stream);
    void (*passed)(struct stream *stream, uint64_t bytes);
    /* The user is done. REASON_NONE when both directions ended well (the connection may be used
     * again); anything else resets what is not finished. A client stream that has had no final head
     * must not be closed with REASON_NONE. */
    void (*close)(struct stream *stream, enum reason reason);
};

#define STREAM_COPY_MAX 4096

struct stream {
    const struct stream_ops *ops;
    const struct stream_events *events; /* set by the user */
    void *user;                         /* the user's */
    struct session *session;            /* NULL for services */
    struct arena *arena; /* where received messages are built; must outlive the stream; NULL when it
                          * is tunnelled, or TCP */
    uint64_t began_ns;   /* client role: the worker's clock at the first byte of the request */
    bool last; /* client role, once the final head was given: the connection ends with it */
    /* How far it came, for a user that may try elsewhere; valid in on_reset. */
    bool reused;   /* its connection had carried other streams before */
    bool sent;     /* some of what it was given may have left this process */
    bool answered; /* some byte of an answer has arrived, or that there will be none */
    bool bulk;     /* much is arriving, or announced: passing would pay */
    /* Upstream role, set by the user: it could not give again what it gave. One that has to wait
     * for the server waits then, others are reset, to go elsewhere. */
    bool given;
    /* Likewise: for so long both ends may be silent, or for timeout_server if that is longer, while
     * the request and its answer are both under way: nobody can say whose turn it is. */
    uint64_t silence_ms;
    /* gRPC: they are so from the beginning. Upstream role: set by the user. */
    bool is_call;
    /* In on_reset: the code by which the other side reset it (RFC 9113 section 7), 0: by none. A
     * client stream that is given one before close is reset with it, if it has to be. */
    uint32_t reset_code;
};

#endif
