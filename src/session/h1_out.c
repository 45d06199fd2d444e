/* h1_out.c: what an HTTP/1.x session sends (RFC 9112): the stream's downward calls. */
#include "base/check.h"
#include "proto/http_error.h"
#include "session/h1_internal.h"
#include "session/session_life.h"

/* What the answer to a connection that is one too many gets to be sent: it is short. */
#define H1_REFUSE_MS 1000

/* Runs a writer over room for a head of at most `size` bytes: in place, or through scratch memory
 * when no small buffer holds it. */
static bool h1_put_head(struct h1 *h1, const struct http_message *message,
                        const struct h1_framing *framing) {
    struct session_room *room = h1->session.room;
    struct conn *conn = h1->session.conn;
    size_t size = h1_head_size_max(message);
    bool in_place = size <= room->net->options.small_size;
    char *to = in_place ? conn_reserve(conn, size) : room->text;
    if (!to || (!in_place && size > room->text_size)) return false;
    struct writer writer = writer_make(to, size);
    if (h1->session.is_client) {
        h1_write_response(&writer, message, framing);
    } else {
        h1_write_request(&writer, message, framing);
    }
    CHECK(!writer.full);
    if (!in_place) return conn_send_copy(conn, writer_bytes(&writer));
    conn_commit(conn, writer.len);
    return true;
}

/* A WebSocket that the other side asks for, or opens, over HTTP/2 lacks what proves it in HTTP/1.1
 * (RFC 8441 section 5): then *message becomes a copy that has it, made in *copy and the arena. */
static bool h1_prove(struct h1 *h1, const struct http_message **message,
                     struct http_message *copy) {
    struct arena *arena = h1->stream.arena;
    const struct http_fields *fields = &(*message)->fields;
    bool is_client = h1->session.is_client;
    bool wanted = is_client ? (*message)->status == 101 && h1->client_key : true;
    if (!wanted || !(*message)->is_h2 || !http_is_websocket(*message)) return true;
    *copy = **message;
    *message = copy;
    if (!http_fields_init(&copy->fields, arena, fields->count + 2)) return false;
    if (fields->count != 0)
        memcpy(copy->fields.items, fields->items, fields->count * sizeof *fields->items);
    copy->fields.count = fields->count;
    struct bytes key_name = BYTES("Sec-WebSocket-Key"), accept_name = BYTES("Sec-WebSocket-Accept");
    (void)http_fields_remove(&copy->fields, key_name); /* if any: they mean nothing there */
    (void)http_fields_remove(&copy->fields, accept_name);
    if (is_client) {
        char *accept = arena_alloc(arena, WS_ACCEPT_SIZE);
        if (accept) ws_accept_of(h1->client_key, accept);
        return accept && http_fields_add(&copy->fields, arena, accept_name,
                                         bytes_make(accept, WS_ACCEPT_SIZE));
    }
    h1->key_made = ws_key_make(h1->server_key);
    struct bytes key = bytes_make(h1->server_key, sizeof h1->server_key);
    struct bytes version_name = BYTES("Sec-WebSocket-Version");
    bool versioned = http_fields_find_name(&copy->fields, version_name) != NULL;
    return h1->key_made && http_fields_add(&copy->fields, arena, key_name, key) &&
           (versioned || http_fields_add(&copy->fields, arena, version_name, BYTES("13")));
}

/* How the body of a message is framed on this connection (RFC 9112 section 6). */
static struct h1_framing h1_frame(const struct h1 *h1, const struct http_message *message,
                                  bool end) {
    struct h1_framing framing = {.body_kind = H1_BODY_NONE,
                                 .body_length = message->body_length,
                                 .keep_alive = true,
                                 .upgrade = message->upgrade.len != 0};
    if (h1->session.is_client) {
        framing.keep_alive = h1->keep_alive;
        framing.say_keep_alive = h1->http10 && h1->keep_alive;
        framing.length_is_known = h1->method == HTTP_HEAD || message->status == 304;
        if (http_response_has_no_body(h1->method, message->status)) return framing;
    }
    if (end) {
        framing.body_length = 0;
        return framing;
    }
    if (message->body_length != HTTP_LENGTH_UNKNOWN) {
        framing.body_kind = message->body_length == 0 ? H1_BODY_NONE : H1_BODY_LENGTH;
        return framing;
    }
    bool chunked = !h1->session.is_client || !h1->http10;
    framing.body_kind = chunked ? H1_BODY_CHUNKED : H1_BODY_UNTIL_CLOSE;
    return framing;
}

static void h1_out_done(struct h1 *h1) {
    h1->out = H1_OUT_DONE;
    h1_touch(h1);
}

/* The connection is gone, or the stream is about to be told that it failed: its user does not know
 * yet, and may go on calling. */
static bool h1_is_deaf(const struct h1 *h1) {
    return !h1->session.conn || h1->failure != REASON_NONE || h1->torn;
}

/* Some of an answer may be queued, a chunk's head without the chunk, say, or nothing of it: its
 * user, who is told of the failure later, may not go on as if it had been given. */
static void h1_tear(struct h1 *h1) {
    h1->torn = true;
    h1_fail_later(h1, REASON_NO_MEMORY);
}

/* What a client sends behind a CONNECT before it is answered is somebody else's, meant for the
 * tunnel: without one it must not be read as requests (RFC 9931). Who only has to say who he is
 * says it here. */
static bool h1_is_declined(const struct h1 *h1, const struct http_message *answer) {
    bool may_ask_again = answer->status == 407 && !h1->pending_first;
    return h1->method == HTTP_CONNECT && answer->status >= 300 && !may_ask_again;
}

static void h1_head_op(struct stream *stream, const struct http_message *message, bool end) {
    struct h1 *h1 = h1_of_stream(stream);
    if (h1_is_deaf(h1)) return;
    CHECK(h1->stream_open && h1->out == H1_OUT_HEAD);
    bool is_client = h1->session.is_client;
    bool interim = is_client && message->status < 200;
    /* RFC 9110 section 15.2: HTTP/1.0 has no 1xx. Nobody is paused for these, and who reads so
     * little does not need them. */
    if (interim && (h1->http10 || conn_is_full(h1->session.conn))) return;
    if (is_client && !interim) {
        /* After a final answer instead of 100 the client may or may not send its body: only a close
         * is unambiguous. */
        bool body_untouched = h1->expects && h1->in == H1_IN_BODY && h1->body.read == 0;
        bool cut_short = message->close_after || h1->in == H1_IN_BROKEN;
        /* Requests that have arrived behind this one are answered as well. */
        bool is_last = h1->session.room->draining && !h1->pending_first;
        if (body_untouched || cut_short || is_last || h1_is_declined(h1, message))
            h1->keep_alive = false;
        if (!end && message->body_length == HTTP_LENGTH_UNKNOWN && h1->http10 &&
            !http_response_has_no_body(h1->method, message->status)) {
            h1->keep_alive = false;
        }
        stream->last = !h1->keep_alive;
    }
    if (interim && message->status == 100) h1->expects = false;
    if (!is_client) {
        h1->method = message->method;
        h1->in = H1_IN_HEAD;
    }
    struct h1_framing framing = h1_frame(h1, message, end);
    struct http_message copy;
    if (!h1_prove(h1, &message, &copy) || !h1_put_head(h1, message, &framing)) {
        if (interim) h1_fail_later(h1, REASON_NO_MEMORY); /* an error answer may still follow */
        if (!interim) h1_tear(h1);
        return;
    }
    if (interim) {
        h1_touch(h1);
        return;
    }
    h1->out_kind = framing.body_kind;
    h1->out_left = framing.body_kind == H1_BODY_LENGTH ? framing.body_length : 0;
    h1->out = end ? H1_OUT_DONE : H1_OUT_BODY;
    h1_touch(h1);
}

/* Small chunks go out as one piece; large ones as head, slice and tail. */
static bool h1_put_chunk(struct h1 *h1, struct bytes data, struct lease *lease) {
    struct conn *conn = h1->session.conn;
    char head[H1_CHUNK_HEAD_MAX];
    struct writer writer = writer_make(head, sizeof head);
    h1_write_chunk_head(&writer, data.len);
    return conn_send_copy(conn, writer_bytes(&writer)) &&
           (lease ? conn_send_lease(conn, data, lease) : conn_send_copy(conn, data)) &&
           conn_send_copy(conn, BYTES("\r\n"));
}

static bool h1_put_data(struct h1 *h1, struct bytes data, struct lease *lease) {
    switch (h1->out_kind) {
    case H1_BODY_NONE: /* the answer to HEAD, say: the head stands for the body */
        return true;
    case H1_BODY_CHUNKED:
        if (h1->out != H1_OUT_RAW) return h1_put_chunk(h1, data, lease);
        break;
    case H1_BODY_LENGTH:
        CHECK(h1->out == H1_OUT_RAW || data.len <= h1->out_left);
        h1->out_left -= data.len;
        break;
    case H1_BODY_UNTIL_CLOSE:
        break;
    }
    struct conn *conn = h1->session.conn;
    return lease ? conn_send_lease(conn, data, lease) : conn_send_copy(conn, data);
}

static bool h1_put_end(struct h1 *h1, const struct http_fields *trailers) {
    CHECK(h1->out_left == 0);
    if (h1->out_kind != H1_BODY_CHUNKED) return true;
    char small[1024];
    struct writer writer = writer_make(small, sizeof small);
    h1_write_last_chunk(&writer, trailers);
    if (writer.full) {
        writer = writer_make(h1->session.room->text, h1->session.room->text_size);
        h1_write_last_chunk(&writer, trailers);
        if (writer.full) return false;
    }
    return conn_send_copy(h1->session.conn, writer_bytes(&writer));
}

static void h1_end_op(struct stream *stream, const struct http_fields *trailers) {
    struct h1 *h1 = h1_of_stream(stream);
    if (h1_is_deaf(h1)) return;
    if (h1->out == H1_OUT_RAW) {
        conn_send_fin(h1->session.conn);
        h1_out_done(h1);
        return;
    }
    CHECK(h1->stream_open && h1->out == H1_OUT_BODY);
    if (!h1_put_end(h1, trailers)) {
        h1_tear(h1);
        return;
    }
    h1_out_done(h1);
}

static enum stream_room h1_data_op(struct stream *stream, struct bytes data, struct lease *lease,
                                   bool end) {
    struct h1 *h1 = h1_of_stream(stream);
    if (h1_is_deaf(h1)) return STREAM_ROOM;
    CHECK(h1->stream_open && (h1->out == H1_OUT_BODY || h1->out == H1_OUT_RAW));
    if (data.len != 0 && !h1_put_data(h1, data, lease)) {
        h1_tear(h1);
        return STREAM_FULL;
    }
    h1_touch(h1);
    if (end) h1_end_op(stream, NULL);
    return conn_is_full(h1->session.conn) ? STREAM_FULL : STREAM_ROOM;
}

static void h1_pause_op(struct stream *stream) {
    struct h1 *h1 = h1_of_stream(stream);
    if (!h1->session.conn || h1->paused) return;
    h1->paused = true;
    h1->paused_ms = h1_net(h1)->now_ms;
    conn_pause(h1->session.conn);
    h1_touch(h1);
}

static void h1_resume_op(struct stream *stream) {
    struct h1 *h1 = h1_of_stream(stream);
    if (!h1->session.conn || !h1->paused) return;
    h1->paused = false;
    /* Time spent paused does not count against the sender. */
    h1->since_ms += h1_net(h1)->now_ms - h1->paused_ms;
    if (h1->held_ms != 0) h1->held_ms = h1_net(h1)->now_ms; /* nor twice */
    if (!h1->pending_first) conn_resume(h1->session.conn);
    h1_touch(h1);
}

static uint64_t h1_idle_op(struct stream *stream) { return h1_idle_ms(h1_of_stream(stream)); }

static struct conn *h1_pass_target_op(struct stream *stream) {
    struct h1 *h1 = h1_of_stream(stream);
    bool raw = h1->out == H1_OUT_RAW ||
               (h1->out == H1_OUT_BODY &&
                (h1->out_kind == H1_BODY_LENGTH || h1->out_kind == H1_BODY_UNTIL_CLOSE));
    return raw && !h1_is_deaf(h1) ? h1->session.conn : NULL;
}

static void h1_passed_op(struct stream *stream, uint64_t bytes) {
    struct h1 *h1 = h1_of_stream(stream);
    if (h1_is_deaf(h1)) return;
    if (h1->out_kind == H1_BODY_LENGTH) {
        CHECK(bytes <= h1->out_left);
        h1->out_left -= bytes;
    }
    h1_touch(h1);
}

static void h1_tunnel_op(struct stream *stream, uint64_t idle_ms) {
    struct h1 *h1 = h1_of_stream(stream);
    /* No message is built here any more, and a tunnel may stand for hours. */
    stream->arena = NULL;
    if (h1->session.is_client) arena_reset(&h1->arena);
    if (h1_is_deaf(h1)) return;
    h1->keep_alive = false;
    h1->out_kind = H1_BODY_UNTIL_CLOSE;
    h1->out_left = 0;
    h1->out = H1_OUT_RAW;
    if (h1->in != H1_IN_BROKEN) h1->in = H1_IN_RAW;
    h1->tunnel_ms = (uint32_t)idle_ms;
    h1->full_reads = 0;
    h1_touch(h1);
    /* What the client sent ahead, and a FIN that came with it. */
    if (h1->pending_first || h1->eof) net_defer(h1_net(h1), &h1->task);
}

/* The exchange is over and the connection may carry another one. */
static void h1_next(struct h1 *h1) {
    struct session *session = &h1->session;
    CHECK(!session->conn->pump_in && !session->conn->pump_out);
    h1->paused = false;
    if (!session->is_client) {
        /* The end may have come while the stream was paused. */
        conn_resume(session->conn);
        h1_touch(h1);
        session->host->on_room(session);
        return;
    }
    arena_reset(&h1->arena);
    h1->in = H1_IN_HEAD;
    h1->out = H1_OUT_HEAD;
    h1->since_ms = h1_net(h1)->now_ms;
    /* The answer waits for an earlier part of it to be read. */
    if (session->conn->send_armed) conn_notify_sent(session->conn);
    h1_touch(h1);
    if (h1->pending_first || h1->eof) {
        net_defer(h1_net(h1), &h1->task);
    } else {
        conn_resume(session->conn);
    }
}

static void h1_close_op(struct stream *stream, enum reason reason) {
    struct h1 *h1 = h1_of_stream(stream);
    CHECK(h1->stream_open);
    h1->stream_open = false;
    if (!h1->session.is_client) h1->session.streams_open = 0;
    h1->stream.events = NULL;
    if (h1->failure != REASON_NONE) {
        reason = h1->failure;
        h1->failure = REASON_NONE;
    }
    bool tunnelled = h1->in == H1_IN_RAW || h1->tunnel_ms != 0;
    bool complete =
        reason == REASON_NONE && h1->in == H1_IN_DONE && h1->out == H1_OUT_DONE && !tunnelled;
    if (!h1->session.conn) {
        h1_end(h1, reason);
    } else if (complete && h1->keep_alive && (h1->session.is_client || !h1->eof)) {
        h1_next(h1);
    } else if (h1->out == H1_OUT_DONE && h1->session.is_client) {
        h1_finish(h1, reason);
    } else if (tunnelled && reason == REASON_NONE) {
        h1_finish(h1, reason);
    } else if (h1->session.is_client && h1->out == H1_OUT_BODY &&
               h1->out_kind != H1_BODY_UNTIL_CLOSE) {
        /* The framing shows that the answer is cut: what was received so far may still arrive. */
        h1_finish(h1, reason);
    } else if (complete) {
        h1_drop(h1, reason);
    } else {
        session_reset(&h1->session);
        h1_end(h1, reason);
    }
}

const struct stream_ops h1_stream_ops = {
    .head = h1_head_op,
    .data = h1_data_op,
    .end = h1_end_op,
    .pause = h1_pause_op,
    .resume = h1_resume_op,
    .tunnel = h1_tunnel_op,
    .idle_ms = h1_idle_op,
    .pass = h1_pass_op,
    .pass_target = h1_pass_target_op,
    .passed = h1_passed_op,
    .close = h1_close_op,
};

void h1_refuse(struct h1 *h1, enum reason reason) {
    CHECK(h1->session.is_client && !h1->stream_open);
    struct http_message answer;
    struct bytes body;
    h1->keep_alive = false;
    h1->in = H1_IN_BROKEN;
    arena_reset(&h1->arena);
    if (reason_entry(reason)->status != 0 &&
        http_error_answer(reason, &h1->arena, &answer, &body) &&
        session_add_date(h1->session.room, &answer, &h1->arena)) {
        struct h1_framing framing = h1_frame(h1, &answer, false);
        bool has_body = framing.body_kind != H1_BODY_NONE; /* not in the answer to HEAD */
        if (h1_put_head(h1, &answer, &framing) && has_body) {
            (void)conn_send_copy(h1->session.conn, body); /* without memory the connection just ends
                                                           */
        }
    }
    h1->session.host->on_refused(&h1->session, reason);
    h1_finish(h1, reason);
}

static bool h1_put_refusal(struct session_room *room, struct conn *conn, struct arena *arena,
                           enum reason reason) {
    struct http_message answer;
    struct bytes body;
    if (!http_error_answer(reason, arena, &answer, &body)) return false;
    if (!session_add_date(room, &answer, arena)) return false;
    struct h1_framing framing = {.body_kind = H1_BODY_LENGTH, .body_length = body.len};
    size_t size = h1_head_size_max(&answer);
    char *to = size <= room->net->options.small_size ? conn_reserve(conn, size) : NULL;
    if (!to) return false;
    struct writer writer = writer_make(to, size);
    h1_write_response(&writer, &answer, &framing);
    CHECK(!writer.full);
    conn_commit(conn, writer.len);
    return conn_send_copy(conn, body);
}

void h1_refuse_conn(struct session_room *room, struct conn *conn, enum reason reason) {
    struct arena arena;
    arena_init(&arena, &room->arenas);
    bool told = h1_put_refusal(room, conn, &arena, reason);
    arena_reset(&arena);
    if (told) {
        /* The request may be on its way: a close now would answer it with RST. */
        conn_finish(conn, H1_REFUSE_MS, true);
    } else {
        conn_reset(conn);
    }
}
