/* h2_in.c: what an HTTP/2 session receives: nghttp2's callbacks, from within h2_read. */
#include "base/check.h"
#include "proto/grpc.h"
#include "session/h2_guard.h"
#include "session/h2_time.h"

/* What the streams of a client's connection may hold that nobody has taken yet. */
#define H2_HELD_MAX (1024 * 1024)
/* How long a body may be slow before min_read_rate is asked for. */
#define H2_RATE_GRACE_MS 5000

/* The client broke a rule that is a stream's own: nothing of it goes on. */
static void h2_stream_bad(struct h2_stream *s, enum reason reason) {
    struct h2 *h2 = h2_of(s);
    h2_stream_abort(s, NGHTTP2_PROTOCOL_ERROR);
    h2_flood(h2, H2_FLOOD_MADE_RESET);
    h2_stream_reset(s, h2->session.is_client ? reason : REASON_BAD_RESPONSE);
}

void h2_consume(struct h2_stream *s) {
    struct h2 *h2 = h2_of(s);
    uint32_t bytes = s->unconsumed;
    if (bytes == 0) return;
    s->unconsumed = 0;
    h2->held -= bytes;
    if (h2_is_deaf(h2)) return;
    if (!s->gone && !s->end_received)
        (void)nghttp2_session_consume_stream(h2->ng, s->id, bytes); /* its end is seen */
    if (h2->owed != 0 && h2->held < H2_HELD_MAX) {
        (void)nghttp2_session_consume_connection(h2->ng, h2->owed); /* likewise */
        h2->owed = 0;
        h2_note_open(h2);
    }
    h2_mark(h2);
}

/* Bytes have come: the connection's window is given back at once, so that no stream waits for
 * another, as long as what is held stays bounded. */
static void h2_receive(struct h2 *h2, struct h2_stream *s, uint32_t bytes) {
    if (s) {
        s->unconsumed += bytes;
        h2->held += bytes;
    }
    if (h2->session.is_client && h2->held >= H2_HELD_MAX) {
        h2->owed += bytes;
        h2_note_shut(h2);
    } else {
        (void)nghttp2_session_consume_connection(h2->ng, bytes); /* a failure shows in the next call
                                                                  */
    }
}

/* Whether a request body that has come so far is too slow or too long. */
static enum reason h2_body_refused(const struct h2 *h2, const struct h2_stream *s) {
    const struct session_options *options = h2->session.options;
    bool is_body = s->in != H2_IN_HELD && !s->tunnelled;
    if (!h2->session.is_client || !is_body) return REASON_NONE;
    if (options->max_body_size != 0 && s->in_read > options->max_body_size)
        return REASON_BODY_TOO_LARGE;
    uint64_t grace_ms = options->timeout_client_ms < H2_RATE_GRACE_MS ? options->timeout_client_ms
                                                                      : H2_RATE_GRACE_MS;
    uint64_t took_ms = (s->paused ? s->paused_ms : h2_fair_ms(h2)) - s->since_ms;
    if (options->min_read_rate == 0 || took_ms <= grace_ms || s->stream.is_call) return REASON_NONE;
    bool slow = s->in_read * 1000 < options->min_read_rate * (took_ms - grace_ms);
    return slow ? REASON_CLIENT_TOO_SLOW : REASON_NONE;
}

/* What comes before the tunnel is there waits for it; the window bounds it. */
static void h2_hold(struct h2_stream *s, struct bytes bytes, struct lease *lease) {
    if (!h2_queue_add(h2_room(h2_of(s)), &s->ahead, bytes, lease)) {
        h2_stream_abort(s, NGHTTP2_INTERNAL_ERROR);
        h2_stream_reset(s, REASON_NO_MEMORY);
    }
}

static int h2_on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *start,
                      size_t len, void *user) {
    struct h2 *h2 = user;
    (void)ng;
    if (h2_is_deaf(h2)) return 0;
    struct h2_stream *s = h2_find(h2, id);
    bool wanted =
        s && s->user_open && !s->told_reset && (s->in == H2_IN_BODY || s->in == H2_IN_HELD);
    h2_receive(h2, wanted ? s : NULL, (uint32_t)len);
    if (s && s->in == H2_IN_HEAD) h2_stream_bad(s, REASON_BAD_RESPONSE);
    if (!wanted) return 0;
    struct bytes bytes = bytes_make((const char *)start, len);
    s->end_received = (flags & NGHTTP2_FLAG_END_STREAM) != 0;
    s->in_read += len;
    s->in_ms = h2_net(h2)->now_ms;
    if (s->in_length != HTTP_LENGTH_UNKNOWN && s->in_read > s->in_length) {
        h2_stream_bad(s, REASON_BAD_BODY_LENGTH);
        return 0;
    }
    enum reason refused = h2_body_refused(h2, s);
    if (refused != REASON_NONE) {
        h2_stream_reset(s, refused);
    } else if (s->in == H2_IN_HELD) {
        h2_hold(s, bytes, h2->lease);
    } else {
        s->stream.events->on_data(&s->stream, bytes, h2->lease);
        if (!s->paused) h2_consume(s);
    }
    return 0;
}

static void h2_end_message(struct h2_stream *s, const struct http_fields *trailers) {
    if (s->in == H2_IN_HELD) {
        s->ahead_end = true;
        return;
    }
    if (s->in != H2_IN_BODY) return;
    if (!s->user_open || s->told_reset) { /* nobody has counted it */
        s->in = H2_IN_DONE;
        return;
    }
    if (s->in_length != HTTP_LENGTH_UNKNOWN && s->in_read != s->in_length) {
        h2_stream_bad(s, REASON_BAD_BODY_LENGTH);
        return;
    }
    s->in = H2_IN_DONE;
    s->stream.events->on_end(&s->stream, trailers);
}

bool h2_is_held(const struct h2_stream *s) {
    return s->in == H2_IN_HELD && s->ahead_end && s->tunnelled && s->user_open && !s->told_reset;
}

void h2_feed_ahead(struct h2_stream *s, bool all) {
    struct h2_room *room = h2_room(h2_of(s));
    while (s->ahead.bytes != 0 && s->user_open && !s->told_reset && (all || !s->paused)) {
        struct h2_slice slice = h2_queue_front(&s->ahead, UINT32_MAX);
        lease_ref(slice.lease);
        h2_queue_drop(room, &s->ahead, slice.len);
        s->stream.events->on_data(&s->stream, bytes_make(slice.ptr, slice.len), slice.lease);
        lease_unref(slice.lease);
    }
    if (s->ahead.bytes != 0 || !s->user_open || s->told_reset || (s->paused && !all)) return;
    h2_consume(s);
    if (s->in != H2_IN_HELD) return;
    s->in = H2_IN_BODY;
    if (s->ahead_end) h2_end_message(s, NULL);
}

static struct h2_head_limits h2_limits_of(const struct h2 *h2) {
    const struct session_options *options = h2->session.options;
    return (struct h2_head_limits){options->max_header_size, options->max_headers,
                                   options->max_target};
}

static void h2_drop_head(struct h2 *h2) {
    if (h2->head) slab_release(&h2_room(h2)->heads, h2->head);
    h2->head_stream = NULL;
}

static void h2_begin_head(struct h2 *h2, struct h2_stream *s, enum h2_head_kind kind) {
    struct h2_head_limits limits = h2_limits_of(h2);
    h2_drop_head(h2); /* nghttp2 gave one up */
    h2->head = slab_acquire(&h2_room(h2)->heads);
    if (!h2->head) {
        if (kind == H2_REQUEST) h2->session.host->on_refused(&h2->session, REASON_NO_MEMORY);
        h2_stream_abort(s, NGHTTP2_REFUSED_STREAM);
        h2_stream_reset(s, REASON_NO_MEMORY);
        return;
    }
    h2_head_init(h2->head, kind, &limits);
    h2->head_stream = s;
    h2->head_ms = h2_net(h2)->now_ms;
}

/* RFC 9113 section 5.1.2: a stream that does not begin is that stream's error. */
static void h2_turn_down(struct h2 *h2, int32_t id, enum reason reason) {
    h2->session.host->on_refused(&h2->session, reason);
    h2_guard_free(h2, id);
    if (nghttp2_submit_rst_stream(h2->ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM) != 0)
        h2_fail(h2, REASON_NO_MEMORY, NGHTTP2_INTERNAL_ERROR);
}

static void h2_begin_request(struct h2 *h2, int32_t id) {
    h2_drop_head(h2); /* nghttp2 gave one up */
    if (h2->taken >= h2->session.options->h2_streams_max) {
        h2_turn_down(h2, id, REASON_MAX_STREAMS);
        h2_flood(h2, H2_FLOOD_MADE_RESET);
        return;
    }
    struct h2_stream *s = h2_stream_new(h2, NULL);
    if (!s) {
        h2_turn_down(h2, id, REASON_NO_MEMORY);
        return;
    }
    h2->taken++;
    h2_guard_request(h2);
    s->id = id;
    (void)nghttp2_session_set_stream_user_data(h2->ng, id, s); /* it has just begun it */
    h2_begin_head(h2, s, H2_REQUEST);
}

static int h2_on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct h2 *h2 = user;
    (void)ng;
    if (h2_is_deaf(h2)) return 0;
    struct h2_stream *s = h2_find(h2, frame->hd.stream_id);
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        h2_begin_request(h2, frame->hd.stream_id);
    } else if (s && s->in != H2_IN_BROKEN) {
        h2_begin_head(h2, s, s->in == H2_IN_HEAD ? H2_RESPONSE : H2_TRAILERS);
    }
    return 0;
}

static int h2_on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                        size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                        void *user) {
    struct h2 *h2 = user;
    struct h2_head *head = h2->head;
    (void)ng;
    (void)frame;
    if (!head || h2_is_deaf(h2)) return 0;
    h2_head_add(head, bytes_make((const char *)name, name_len),
                bytes_make((const char *)value, value_len),
                (flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0);
    if (head->reason != REASON_NONE) h2_guard_head(h2, head);
    return 0;
}

static struct bytes h2_scheme(const struct h2 *h2) {
    return wire_tls(h2->session.conn) ? BYTES("https") : BYTES("http");
}

void h2_begin_stream(struct h2 *h2, struct h2_stream *s, struct http_message *message, bool end) {
    if (!h2->session.host->on_stream(&h2->session, &s->stream)) {
        h2_refuse(s, REASON_NO_MEMORY);
        return;
    }
    bool tunnels = message->method == HTTP_CONNECT || message->upgrade.len != 0;
    s->stream.reused = h2->session.streams++ != 0;
    s->user_open = true;
    s->method = message->method;
    s->upgraded = message->upgrade.len != 0;
    if (tunnels) s->in_length = HTTP_LENGTH_UNKNOWN;
    s->since_ms = h2_fair_ms(h2);
    s->in_ms = h2_net(h2)->now_ms;
    message->body_length = end || tunnels ? 0 : s->in_length;
    s->in = tunnels ? H2_IN_HELD : end ? H2_IN_DONE : H2_IN_BODY;
    s->ahead_end = tunnels && end;
    if (!end) h2_need_step(h2);
    s->stream.events->on_head(&s->stream, message, end || tunnels);
}

/* A request whose head is whole and good. */
static void h2_on_request(struct h2 *h2, struct h2_stream *s, bool end) {
    const struct session_options *options = h2->session.options;
    struct h2_head *head = h2->head;
    if (options->max_body_size != 0 && head->length > options->max_body_size) {
        h2_refuse(s, REASON_BODY_TOO_LARGE);
        return;
    }
    struct http_message *message = h2_head_request(head, h2_scheme(h2), &s->arena);
    uint64_t length = head->length_seen ? head->length : HTTP_LENGTH_UNKNOWN;
    h2_drop_head(h2);
    if (!message) {
        h2_refuse(s, REASON_NO_MEMORY);
        return;
    }
    s->in_length = length;
    h2_begin_stream(h2, s, message, end);
}

/* RFC 8441 section 5: a 2xx is what HTTP/1 says with 101. */
static void h2_fill_upgrade(const struct h2_stream *s, struct http_message *message) {
    if (!s->upgraded || message->status < 200 || message->status > 299) return;
    message->status = 101;
    message->body_length = 0;
    message->upgrade = BYTES("websocket"); /* of HTTP/1.1 none else is asked for here */
}

/* The user acts on a head at once or copies what it keeps. */
static void h2_on_response(struct h2 *h2, struct h2_stream *s, bool end) {
    struct http_message message;
    const struct h2_head *head = h2->head;
    h2_head_response(head, s->method, end, &message);
    bool no_body = http_response_has_no_body(s->method, message.status);
    if (end && head->length_seen && head->length != 0 && !no_body) {
        h2_stream_bad(s, REASON_BAD_RESPONSE);
        return;
    }
    h2_fill_upgrade(s, &message);
    bool tunnels = message.status == 101 ||
                   (s->method == HTTP_CONNECT && message.status >= 200 && message.status < 300);
    if (message.status >= 200 || tunnels) {
        s->in_length = head->length_seen && !no_body ? head->length : HTTP_LENGTH_UNKNOWN;
        if (no_body && !tunnels) s->in_length = 0;
        s->in = tunnels ? H2_IN_HELD : end ? H2_IN_DONE : H2_IN_BODY;
        s->ahead_end = tunnels && end;
    }
    s->in_ms = h2_net(h2)->now_ms;
    s->stream.events->on_head(&s->stream, &message, end && !tunnels);
}

static void h2_on_trailers(struct h2 *h2, struct h2_stream *s) {
    if (!s->stream.arena) { /* tunnelled: bytes have none */
        h2_end_message(s, NULL);
        return;
    }
    struct http_fields *fields = arena_alloc(s->stream.arena, sizeof *fields);
    if (s->in != H2_IN_BODY || !s->user_open || s->told_reset) return;
    if (!fields || !h2_head_trailers(h2->head, s->stream.arena, fields)) {
        h2_stream_abort(s, NGHTTP2_INTERNAL_ERROR);
        h2_stream_reset(s, REASON_NO_MEMORY);
        return;
    }
    h2_drop_head(h2);
    h2_end_message(s, fields->count != 0 ? fields : NULL);
}

/* Also of a head that is refused, as far as it was kept. */
static bool h2_head_is_call(const struct h2_head *head) {
    const struct http_message request = {
        .method = http_method_of(head->pseudo[H2_PSEUDO_METHOD]),
        .version_minor = 1,
        .fields = {head->fields, head->field_count, head->field_count}};
    return grpc_is_request(&request);
}

/* A header section is whole. */
static void h2_on_head(struct h2 *h2, bool end) {
    struct h2_stream *s = h2->head_stream;
    if (!h2->head || !s) {
        h2_drop_head(h2);
        return;
    }
    enum h2_head_kind kind = h2->head->kind;
    enum reason reason = h2_head_finish(h2->head, end);
    s->in_ms = h2_net(h2)->now_ms;
    if (kind == H2_REQUEST) s->stream.is_call = h2_head_is_call(h2->head);
    if (kind == H2_REQUEST && reason != REASON_NONE) {
        h2_refuse(s, reason);
    } else if (reason != REASON_NONE) {
        h2_stream_bad(s, reason);
    } else if (kind == H2_REQUEST) {
        h2_on_request(h2, s, end);
    } else if (kind == H2_RESPONSE) {
        s->stream.answered = true;
        h2_on_response(h2, s, end);
    } else {
        h2_on_trailers(h2, s);
    }
    h2_drop_head(h2);
}

static void h2_set_streams_max(struct h2 *h2, uint32_t max) {
    if (h2->session.is_client || h2->session.streams_max == max) return;
    h2->session.streams_max = max;
    if (!h2_is_deaf(h2) && !h2->connecting) h2->session.host->on_room(&h2->session);
}

void h2_retire(struct h2 *h2) {
    h2->retired = true;
    h2_set_streams_max(h2, 0);
}

static void h2_on_settings(struct h2 *h2) {
    if (h2->session.is_client) return;
    h2->settings_received = true;
    h2_ask_waiting(h2);
    if (h2->retired) return;
    uint32_t max =
        nghttp2_session_get_remote_settings(h2->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    /* Without a word there is no limit, but ours. */
    h2_set_streams_max(h2, max < H2_STREAMS_MAX ? max : H2_STREAMS_MAX);
}

static void h2_on_goaway(struct h2 *h2) {
    h2->goaway_received = true;
    h2_retire(h2);
}

/* Requests that are taken back cost us more than the client. */
static void h2_on_rst(struct h2 *h2, struct h2_stream *s) {
    if (!s) return;
    s->rst_received = true;
    bool whole = s->in == H2_IN_DONE && s->end_sent;
    if (!whole && !s->aborted) h2_flood(h2, H2_FLOOD_RAPID_RESET);
}

static int h2_on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct h2 *h2 = user;
    bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    struct h2_stream *s;
    (void)ng;
    if (h2_is_deaf(h2)) return 0;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        h2_on_head(h2, end);
        break;
    case NGHTTP2_DATA:
        /* Padding alone carries no more than nothing at all, which h2_on_begin_frame has counted.
         */
        if (!end && frame->hd.length != 0 && frame->hd.length == frame->data.padlen)
            h2_flood(h2, H2_FLOOD_EMPTY_DATA);
        if (!h2->session.is_client) h2_flood_allow(&h2->flood, H2_FLOOD_PING, 1);
        s = end ? h2_find(h2, frame->hd.stream_id) : NULL;
        if (s && s->in == H2_IN_HEAD) h2_stream_bad(s, REASON_BAD_RESPONSE);
        if (s) h2_end_message(s, NULL);
        break;
    case NGHTTP2_RST_STREAM:
        h2_on_rst(h2, h2_find(h2, frame->hd.stream_id));
        break;
    case NGHTTP2_SETTINGS:
        if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) h2_on_settings(h2);
        break;
    case NGHTTP2_GOAWAY:
        h2_on_goaway(h2);
        break;
    default:
        break;
    }
    return 0;
}

/* What the other side's word for the end of a stream means for its user. */
static void h2_close_early(struct h2 *h2, struct h2_stream *s, uint32_t code) {
    if (h2->session.is_client) {
        h2_stream_reset(s, s->rst_received ? REASON_CLIENT_RESET : REASON_H2_PROTOCOL);
        return;
    }
    s->stream.reset_code = s->rst_received ? code : 0;
    /* Any other code is the server's word on this request: it was seen. */
    if (s->rst_received && code != NGHTTP2_REFUSED_STREAM) s->stream.answered = true;
    if (s->in == H2_IN_DONE && s->rst_received && code == NGHTTP2_NO_ERROR) {
        /* It has said all, and wants no more: RFC 9113 section 8.1. */
        h2_stream_reset(s, REASON_NONE);
        return;
    }
    /* RFC 9113 sections 6.8 and 8.7: it was not looked at. */
    h2_stream_reset(s,
                    code == NGHTTP2_REFUSED_STREAM ? REASON_SERVER_REFUSED : REASON_SERVER_RESET);
}

static int h2_on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user) {
    struct h2 *h2 = user;
    struct h2_stream *s = h2_find(h2, id);
    (void)ng;
    h2->found = NULL; /* it is not nghttp2's after this */
    if (!s || s->gone) return 0;
    if (!s->aborted && !s->rst_received) h2_guard_free(h2, id); /* a fault that nghttp2 has found */
    bool held = h2_is_held(s);
    s->gone = true;
    h2->taken -= h2->session.is_client;
    h2_unqueue(s);
    if (!s->user_open) {
        h2_stream_release(s);
        return 0;
    }
    if (held && s->end_sent) return 0; /* both ways: its user takes the rest in its own time */
    s->deaf = true;
    if (held) h2_feed_ahead(s, true);
    /* A server may leave its client's rest unread: who has its answer is told by its user. In a
     * tunnel there is nobody else. */
    bool owes = !s->end_sent && (h2->session.is_client || s->tunnelled);
    if (s->user_open && (s->in != H2_IN_DONE || owes)) h2_close_early(h2, s, code);
    return 0;
}

void h2_set_callbacks(nghttp2_session_callbacks *callbacks) {
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, h2_guard_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, h2_on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, h2_on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, h2_on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, h2_on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, h2_on_stream_close);
}

/* nghttp2 gave up the session: it said no GOAWAY by itself. */
static void h2_broken(struct h2 *h2, ssize_t error) {
    enum reason of_side = h2->session.is_client ? REASON_H2_PROTOCOL : REASON_BAD_RESPONSE;
    switch (error) {
    case NGHTTP2_ERR_NOMEM:
        h2_fail(h2, REASON_NO_MEMORY, NGHTTP2_INTERNAL_ERROR);
        return;
    case NGHTTP2_ERR_TOO_MANY_CONTINUATIONS:
        h2_guard_end(h2, H2_FLOOD_CONTINUATION);
        return;
    case NGHTTP2_ERR_FLOODED: /* acknowledgements that are not read pile up */
        h2_guard_end(h2, H2_FLOOD_SETTINGS);
        return;
    default:
        h2_fail(h2, of_side, NGHTTP2_PROTOCOL_ERROR);
    }
}

void h2_read(struct h2 *h2, struct bytes bytes, struct lease *lease) {
    if (h2_is_deaf(h2)) return;
    h2->heard_ms = h2_net(h2)->now_ms;
    h2->lease = lease;
    h2->busy++;
    h2_stray_feed(&h2->stray, bytes);
    ssize_t used = nghttp2_session_mem_recv(h2->ng, (const uint8_t *)bytes.ptr, bytes.len);
    h2->lease = NULL;
    h2_unbusy(h2);
    if (used < 0) h2_broken(h2, used);
    h2_guard_strays(h2);
    h2_guard_queue(h2);
    h2_mark(h2);
    if (h2->head) h2_need(h2, h2->head_ms + h2->session.options->timeout_request_ms);
}
