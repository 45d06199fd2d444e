/* h1_in.c: what an HTTP/1.x session receives (RFC 9112): heads, bodies, trailers, and tunnelled
 * bytes. */
#include "base/check.h"
#include "session/h1_internal.h"
#include "session/h2.h"

/* Reads in a row that fill their buffer before a body of unknown length counts as a stream. */
#define H1_FULL_READS 3
/* How long a body may be slow before min_read_rate is asked for. */
#define H1_RATE_GRACE_MS 5000

static struct h1_limits h1_limits_of(const struct h1 *h1) {
    const struct session_options *options = h1->session.options;
    return (struct h1_limits){options->max_header_size, options->max_headers, options->max_target};
}

void h1_drop_head(struct h1 *h1) {
    if (h1->head) slab_release(&h1->session.room->heads, h1->head);
}

static void h1_stash(struct h1 *h1, struct bytes bytes, struct lease *lease) {
    lease_ref(lease);
    lease->at = (uint32_t)(bytes.ptr - lease->memory);
    lease->len = (uint32_t)bytes.len;
    lease->next = NULL;
    if (h1->pending_last) {
        h1->pending_last->next = lease;
    } else {
        h1->pending_first = lease;
    }
    h1->pending_last = lease;
    if (!h1->session.conn) return;
    conn_pause(h1->session.conn);
    /* Between two requests it was idle until now. */
    if (!h1->stream_open) h1_touch(h1);
}

void h1_drop_pending(struct h1 *h1) {
    while (h1->pending_first) {
        struct lease *lease = h1->pending_first;
        h1->pending_first = lease->next;
        lease_unref(lease);
    }
    h1->pending_last = NULL;
}

void h1_feed_pending(struct h1 *h1) {
    struct lease *lease = h1->pending_first;
    h1->pending_first = h1->pending_last = NULL;
    while (lease) {
        struct lease *next = lease->next;
        h1_feed(h1, bytes_make(lease->memory + lease->at, lease->len), lease);
        lease_unref(lease);
        lease = next;
    }
    if (!h1->pending_first && h1->session.conn && !h1->paused) conn_resume(h1->session.conn);
}

/* The kept start of a head that has not arrived whole. */
static bool h1_keep_head(struct h1 *h1, const struct h1_parser *parser, struct bytes text) {
    struct session_room *room = h1->session.room;
    struct h1_head *head = slab_acquire(&room->heads);
    if (!head) return false;
    head->parser = *parser;
    head->parser.spans = head->spans;
    head->text = (char *)(head->spans + room->max_headers);
    memcpy(head->spans, parser->spans, parser->span_count * sizeof *head->spans);
    memcpy(head->text, text.ptr, text.len);
    head->len = (uint32_t)text.len;
    h1->head = head;
    return true;
}

/* Parses as much of a head as there is. On DONE and BAD *parser has the result and *text the whole
 * head; *input is what follows it. */
static enum h1_result h1_read_head(struct h1 *h1, enum h1_kind kind, struct bytes *input,
                                   const struct h1_parser **parser, struct bytes *text) {
    struct session_room *room = h1->session.room;
    struct h1_limits limits = h1_limits_of(h1);
    struct h1_head *head = h1->head;
    enum h1_result result;
    if (!head) {
        h1_parser_init(room->parser, kind, h1->method, &limits, room->spans);
        *parser = room->parser;
        *text = *input;
        result = h1_parse(room->parser, *input);
        if (result == H1_DONE) {
            *input = bytes_slice(*input, room->parser->head_size, SIZE_MAX);
        } else if (result == H1_MORE) {
            if (!h1_keep_head(h1, room->parser, *input)) {
                room->parser->reason = REASON_NO_MEMORY;
                return H1_BAD;
            }
            *input = BYTES_NONE;
        }
        return result;
    }
    /* One byte over the limit is enough for the parser to see that the head is too large. */
    size_t before = head->len;
    size_t room_left = (size_t)limits.head_size_max + 1 - before;
    size_t part = input->len < room_left ? input->len : room_left;
    memcpy(head->text + before, input->ptr, part);
    head->len += (uint32_t)part;
    *parser = &head->parser;
    *text = bytes_make(head->text, head->len);
    result = h1_parse(&head->parser, *text);
    if (result == H1_DONE) part = head->parser.head_size - before;
    *input = bytes_slice(*input, part, SIZE_MAX);
    return result;
}

/* A message head was read: the body that follows. */
static bool h1_begin_body(struct h1 *h1, const struct h1_parser *parser) {
    h1_body_init(&h1->body, parser->body_kind, parser->body_length);
    bool end = parser->body_kind == H1_BODY_NONE ||
               (parser->body_kind == H1_BODY_LENGTH && parser->body_length == 0);
    h1->in = end ? H1_IN_DONE : H1_IN_BODY;
    h1->full_reads = 0;
    h1->body_received = 0;
    h1->since_ms = h1_net(h1)->now_ms;
    h1->held_ms = 0;
    /* Who sent a long body is expected to send long ones: this decides for the next message as
     * well, whose first bytes would otherwise come in many small buffers. */
    bool bulk = parser->body_kind == H1_BODY_LENGTH && parser->body_length >= H1_BULK_MIN;
    conn_expect_bulk(h1->session.conn, bulk);
    h1->stream.bulk = bulk;
    return end;
}

static struct http_message *h1_build(struct h1 *h1, const struct h1_parser *parser,
                                     struct bytes text) {
    struct arena *arena = h1->stream.arena;
    struct http_message *message = arena_alloc(arena, sizeof *message);
    struct bytes scheme = wire_tls(h1->session.conn) ? BYTES("https") : BYTES("http");
    if (!message || !h1_message(parser, text, scheme, arena, message)) return NULL;
    return message;
}

/* Of a handshake the key is kept for an answer that comes without HTTP/1.1's proof. A handshake
 * that no server may accept (RFC 6455 section 4.2.1) is no upgrade: it may be ignored (RFC 9110
 * section 7.8), and the server says what is wrong with it. */
static void h1_take_handshake(struct h1 *h1, struct http_message *message) {
    h1->client_key = NULL;
    if (!http_is_websocket(message)) return;
    const struct http_field *key =
        http_fields_find_name(&message->fields, BYTES("Sec-WebSocket-Key"));
    if (message->method == HTTP_GET && key && ws_key_valid(key->value)) {
        h1->client_key = key->value.ptr;
    } else {
        message->upgrade = BYTES_NONE;
    }
}

/* What this session has asked for by a key of its own is proven by the answer. */
static bool h1_handshake_fits(const struct h1 *h1, const struct http_message *message) {
    if (message->status != 101 || !h1->key_made) return true;
    char accept[WS_ACCEPT_SIZE];
    const struct http_field *field =
        http_fields_find_name(&message->fields, BYTES("Sec-WebSocket-Accept"));
    ws_accept_of(h1->server_key, accept);
    return http_is_websocket(message) && field &&
           bytes_equal(field->value, bytes_make(accept, sizeof accept));
}

static void h1_on_request(struct h1 *h1, const struct h1_parser *parser, struct bytes text) {
    const struct session_options *options = h1->session.options;
    struct net *net = h1_net(h1);
    h1->method = parser->method;
    h1->keep_alive = parser->keep_alive;
    h1->http10 = parser->version_minor == 0;
    h1->expects = parser->expect_continue;
    if (options->max_body_size != 0 && parser->body_kind == H1_BODY_LENGTH &&
        parser->body_length > options->max_body_size) {
        h1_refuse(h1, REASON_BODY_TOO_LARGE);
        return;
    }
    h1->stream =
        (struct stream){.ops = &h1_stream_ops, .session = &h1->session, .arena = &h1->arena};
    /* A head that came whole began now; one in pieces when its first byte came. */
    h1->stream.began_ns = h1->head ? h1->since_ms * 1000000 : net->now_ns;
    struct http_message *message = h1_build(h1, parser, text);
    if (!message || !h1->session.host->on_stream(&h1->session, &h1->stream)) {
        h1_refuse(h1, REASON_NO_MEMORY);
        return;
    }
    h1_take_handshake(h1, message);
    h1->stream.reused = h1->session.streams++ != 0;
    h1->stream_open = true;
    h1->stream_reset = false;
    h1->out = H1_OUT_HEAD;
    bool end = h1_begin_body(h1, parser);
    h1_drop_head(h1); /* and the parser with it */
    /* After its last request nothing more is read from a client: it saves a receive that would only
     * see the FIN. */
    if (end && !h1->keep_alive && message->upgrade.len == 0) conn_pause(h1->session.conn);
    h1_touch(h1);
    h1->stream.events->on_head(&h1->stream, message, end);
}

/* The user acts on a head at once or copies what it keeps: so its memory is used again for what
 * comes next. */
static void h1_on_response(struct h1 *h1, const struct h1_parser *parser, struct bytes text) {
    struct arena *arena = h1->stream.arena;
    struct arena mark = *arena;
    struct http_message *message = h1_build(h1, parser, text);
    bool end = false;
    if (parser->status >= 200) {
        h1->keep_alive = parser->keep_alive;
        end = h1_begin_body(h1, parser);
    }
    h1_drop_head(h1);
    if (!message) {
        h1_reset_stream(h1, REASON_NO_MEMORY);
        return;
    }
    if (!h1_handshake_fits(h1, message)) {
        h1_reset_stream(h1, REASON_BAD_RESPONSE);
        return;
    }
    h1_touch(h1);
    h1->stream.events->on_head(&h1->stream, message, end);
    if (h1->stream_open && h1->stream.arena) arena_rewind(arena, &mark);
}

/* A parser reason as the side it concerns words it. */
static enum reason h1_side_reason(const struct h1 *h1, enum reason reason) {
    return h1->session.is_client || reason == REASON_NO_MEMORY ? reason : REASON_BAD_RESPONSE;
}

/* Over TLS a client asks by ALPN (RFC 9113 section 3.2), where the listener may have said no. */
static bool h1_may_be_h2(const struct h1 *h1) {
    return !wire_tls(h1->session.conn) && !h1->session.options->h2_refused;
}

/* RFC 9113 section 3.3: a client that knows begins with what HTTP/1 refuses. */
static bool h1_is_h2(const struct h1 *h1, struct bytes text) {
    return h1->session.is_client && h1->session.streams == 0 && h1_may_be_h2(h1) &&
           bytes_starts_with(text, BYTES(H2_PREFACE_LINE));
}

static void h1_to_h2(struct h1 *h1, struct bytes rest, struct lease *lease) {
    if (h2_take_over(&h1->session, rest, lease)) {
        h1_hand_over(h1);
    } else {
        h1_refuse(h1, REASON_NO_MEMORY);
    }
}

/* RFC 7540 section 3.2: a client may ask to go on in HTTP/2. A request with a body is not worth it,
 * and over TLS there is ALPN. One that had to wait for the answer before it stays as it is: what
 * has come behind it, and the connection is paused, is known here alone. */
static struct session *h1_try_h2c(struct h1 *h1, const struct h1_parser *parser,
                                  struct bytes text) {
    struct bytes settings = BYTES_NONE;
    struct bytes wanted = bytes_slice(text, parser->upgrade_at, parser->upgrade_len);
    if (!parser->upgrade_named || parser->body_kind != H1_BODY_NONE) return NULL;
    if (!h1_may_be_h2(h1) || h1->session.conn->paused) return NULL;
    if (!bytes_equal_nocase(wanted, BYTES("h2c"))) return NULL;
    for (uint32_t i = 0; i < parser->span_count; i++) {
        const struct h1_span *span = &parser->spans[i];
        struct bytes name = bytes_slice(text, span->name_at, span->name_len);
        if (!bytes_equal_nocase(name, BYTES("http2-settings"))) continue;
        /* Connection must name it, and there is one. */
        if (!span->drop || settings.ptr) return NULL;
        settings = bytes_slice(text, span->value_at, span->value_len);
    }
    return settings.ptr ? h2_take_upgrade(&h1->session, parser, text, settings) : NULL;
}

static void h1_feed_head(struct h1 *h1, struct bytes *input, struct lease *lease) {
    bool is_client = h1->session.is_client;
    if (!h1->head && is_client) h1->since_ms = h1_net(h1)->now_ms;
    if (!is_client) h1->stream.answered = true;
    const struct h1_parser *parser;
    struct bytes text;
    const struct bytes given = *input;
    size_t before = h1->head ? h1->head->len : 0;
    switch (h1_read_head(h1, is_client ? H1_REQUEST : H1_RESPONSE, input, &parser, &text)) {
    case H1_MORE:
        h1_touch(h1);
        return;
    case H1_BAD:
        if (h1_is_h2(h1, text)) {
            h1_to_h2(h1, bytes_slice(given, sizeof H2_PREFACE_LINE - 1 - before, SIZE_MAX), lease);
        } else if (is_client) {
            h1->method = parser->method;
            h1_refuse(h1, parser->reason);
        } else {
            h1_reset_stream(h1, h1_side_reason(h1, parser->reason));
        }
        return;
    case H1_DONE:
        break;
    }
    struct session *heir = is_client ? h1_try_h2c(h1, parser, text) : NULL;
    if (heir) {
        h1_hand_over(h1);
        if (input->len != 0) h2_feed(heir, *input, lease);
    } else if (is_client) {
        h1_on_request(h1, parser, text);
    } else {
        h1_on_response(h1, parser, text);
    }
}

static void h1_end_message(struct h1 *h1, const struct http_fields *trailers) {
    h1->in = H1_IN_DONE;
    /* The end may have come by a receive that was under way when the pump was started: what follows
     * is not for the other connection. */
    struct conn *conn = h1->session.conn;
    if (conn->pump_out) pump_stop(conn->pump_out);
    h1_touch(h1);
    h1->stream.events->on_end(&h1->stream, trailers);
}

/* Whether a request body that has come so far is too slow or too long. Chunk lines and trailers
 * count as bytes that came, or they could come as slowly as a client likes. */
static enum reason h1_body_refused(const struct h1 *h1) {
    const struct session_options *options = h1->session.options;
    if (!h1->session.is_client) return REASON_NONE;
    if (options->max_body_size != 0 && h1->body.read > options->max_body_size)
        return REASON_BODY_TOO_LARGE;
    uint64_t grace_ms = options->timeout_client_ms < H1_RATE_GRACE_MS ? options->timeout_client_ms
                                                                      : H1_RATE_GRACE_MS;
    uint64_t took_ms = h1_net(h1)->now_ms - h1->since_ms;
    if (options->min_read_rate == 0 || took_ms <= grace_ms) return REASON_NONE;
    bool slow = h1->body_received * 1000 < options->min_read_rate * (took_ms - grace_ms);
    return slow ? REASON_CLIENT_TOO_SLOW : REASON_NONE;
}

/* Counts what is gone from `before` bytes of body as received; true when the body is refused. */
static bool h1_refuse_body(struct h1 *h1, size_t before, const struct bytes *input) {
    h1->body_received += before - input->len;
    enum reason refused = h1_body_refused(h1);
    if (refused != REASON_NONE) h1_reset_stream(h1, refused);
    return refused != REASON_NONE;
}

static void h1_feed_trailers(struct h1 *h1, struct bytes *input) {
    const struct h1_parser *parser;
    struct bytes text;
    size_t before = input->len;
    enum h1_result result = h1_read_head(h1, H1_TRAILERS, input, &parser, &text);
    if (result != H1_BAD && h1_refuse_body(h1, before, input)) return;
    switch (result) {
    case H1_MORE:
        h1_touch(h1);
        return;
    case H1_BAD:
        h1_reset_stream(h1, h1_side_reason(h1, parser->reason));
        return;
    case H1_DONE:
        break;
    }
    struct http_message *message = h1_build(h1, parser, text);
    h1_drop_head(h1);
    if (!message) {
        h1_reset_stream(h1, REASON_NO_MEMORY);
        return;
    }
    h1_end_message(h1, message->fields.count != 0 ? &message->fields : NULL);
}

static void h1_feed_body(struct h1 *h1, struct bytes *input, struct lease *lease) {
    struct bytes data;
    size_t before = input->len;
    enum h1_body_event event = h1_body_read(&h1->body, input, &data);
    if (event != H1_BODY_BAD && h1_refuse_body(h1, before, input)) return;
    switch (event) {
    case H1_BODY_DATA:
        h1_touch(h1);
        /* The last bytes of a LENGTH body and its end arrive as one thing. */
        h1->stream.events->on_data(&h1->stream, data, lease);
        if (h1->in == H1_IN_BODY && h1->body.kind == H1_BODY_LENGTH &&
            h1_body_left(&h1->body) == 0) {
            h1_end_message(h1, NULL);
        }
        return;
    case H1_BODY_MORE:
        h1_touch(h1);
        return;
    case H1_BODY_TRAILERS:
        h1->in = H1_IN_TRAILERS;
        return;
    case H1_BODY_END:
        h1_end_message(h1, NULL);
        return;
    case H1_BODY_BAD:
        h1_reset_stream(h1, h1_side_reason(h1, REASON_BAD_CHUNK));
        return;
    }
}

/* A body of unknown length that keeps filling its buffers is a stream as well. */
static void h1_watch_stream(struct h1 *h1, const struct bytes *bytes, const struct lease *lease) {
    if (h1->in != H1_IN_BODY && h1->in != H1_IN_RAW) return;
    if (bytes->len < lease->size) {
        h1->full_reads = 0;
        h1->stream.bulk = false;
    } else if (++h1->full_reads == H1_FULL_READS) {
        conn_expect_bulk(h1->session.conn, true);
        h1->stream.bulk = true;
    }
}

/* Time in which nothing was read for lack of room does not count against the sender. */
static void h1_note_held(struct h1 *h1) {
    if (h1->in != H1_IN_BODY) return;
    uint64_t now_ms = h1_net(h1)->now_ms;
    if (h1->held_ms != 0) h1->since_ms += now_ms - h1->held_ms;
    h1->held_ms = conn_is_held(h1->session.conn) ? now_ms : 0;
}

bool h1_pass_op(struct stream *stream, struct stream *to) {
    struct h1 *h1 = h1_of_stream(stream);
    struct conn *conn = h1->session.conn;
    bool raw = h1->in == H1_IN_RAW || (h1->in == H1_IN_BODY && h1->body.kind != H1_BODY_CHUNKED &&
                                       h1_body_left(&h1->body) >= H1_BULK_MIN);
    if (!conn || !raw || conn->pump_out || h1->eof) return false;
    struct conn *target = to->ops->pass_target ? to->ops->pass_target(to) : NULL;
    if (!target || target->pump_in || !pump_start(conn, target)) return false;
    h1_note_held(h1);
    return true;
}

uint64_t h1_pump_limit(struct conn *conn) {
    const struct h1 *h1 = h1_of_conn(conn);
    if (h1->in == H1_IN_RAW) return UINT64_MAX;
    return h1->in == H1_IN_BODY ? h1_body_left(&h1->body) : 0;
}

void h1_on_pumped(struct conn *conn, uint64_t bytes) {
    struct h1 *h1 = h1_of_conn(conn);
    if (!h1->stream_open || h1->stream_reset) return;
    enum reason refused = REASON_NONE;
    h1_note_held(h1);
    if (h1->in == H1_IN_BODY) {
        h1_body_skip(&h1->body, bytes);
        h1->body_received += bytes;
        refused = h1_body_refused(h1);
    }
    h1_touch(h1);
    if (bytes != 0 || conn_is_held(conn)) h1->stream.events->on_passed(&h1->stream, bytes);
    if (refused != REASON_NONE) {
        h1_reset_stream(h1, refused);
    } else if (h1->in == H1_IN_BODY && h1_body_left(&h1->body) == 0) {
        h1_end_message(h1, NULL);
    }
}

/* A pipelined request waits for the answer before it to end, and for the client to read what it was
 * sent. */
static bool h1_must_wait(const struct h1 *h1) {
    if (!h1->session.is_client) return false;
    if (h1->in == H1_IN_DONE) return true;
    return h1->in == H1_IN_HEAD && conn_is_full(h1->session.conn);
}

void h1_feed(struct h1 *h1, struct bytes bytes, struct lease *lease) {
    if (h1->session.conn) h1_watch_stream(h1, &bytes, lease);
    while (bytes.len != 0 && h1->session.conn && h1->in != H1_IN_BROKEN) {
        if (h1->pending_first || h1_must_wait(h1)) {
            h1_stash(h1, bytes, lease);
            return;
        }
        switch (h1->in) {
        case H1_IN_HEAD:
            h1_feed_head(h1, &bytes, lease);
            break;
        case H1_IN_BODY:
            h1_feed_body(h1, &bytes, lease);
            break;
        case H1_IN_TRAILERS:
            h1_feed_trailers(h1, &bytes);
            break;
        case H1_IN_DONE:
            /* A server that talks without being asked has lost its place. */
            h1->keep_alive = false;
            if (!h1->stream_open) h1_drop(h1, REASON_BAD_RESPONSE);
            return;
        case H1_IN_RAW:
            h1_touch(h1);
            h1->stream.events->on_data(&h1->stream, bytes, lease);
            return;
        case H1_IN_BROKEN:
            return;
        }
    }
}

static void h1_on_client_eof(struct h1 *h1) {
    switch (h1->in) {
    case H1_IN_HEAD:
        if (h1->pending_first) return;
        if (h1->head) h1->session.host->on_refused(&h1->session, REASON_CLIENT_CLOSED);
        h1_finish(h1, h1->head ? REASON_CLIENT_CLOSED : REASON_NONE);
        return;
    case H1_IN_BODY:
    case H1_IN_TRAILERS:
        h1_reset_stream(h1, REASON_CLIENT_CLOSED);
        return;
    case H1_IN_RAW:
        h1_touch(h1);
        h1->stream.events->on_end(&h1->stream, NULL);
        return;
    case H1_IN_DONE: /* a half-close: the answers still go out */
        h1_touch(h1);
        return;
    case H1_IN_BROKEN:
        return;
    }
}

static void h1_on_upstream_eof(struct h1 *h1) {
    h1->keep_alive = false;
    if (!h1->stream_open) {
        h1_drop(h1, REASON_SERVER_IDLE);
        return;
    }
    switch (h1->in) {
    case H1_IN_BODY:
        if (h1->body.kind == H1_BODY_UNTIL_CLOSE && !h1->session.conn->cut) {
            h1_end_message(h1, NULL);
            return;
        }
        h1_reset_stream(h1, REASON_SERVER_CLOSED);
        return;
    case H1_IN_HEAD:
    case H1_IN_TRAILERS:
        h1_reset_stream(h1, REASON_SERVER_CLOSED);
        return;
    case H1_IN_RAW:
        if (h1->session.conn->cut) {
            h1_reset_stream(h1, REASON_SERVER_RESET);
        } else {
            h1_touch(h1);
            h1->stream.events->on_end(&h1->stream, NULL);
        }
        return;
    case H1_IN_DONE:
    case H1_IN_BROKEN:
        return;
    }
}

void h1_on_eof(struct h1 *h1) {
    h1->eof = true;
    if (h1->session.is_client) {
        h1_on_client_eof(h1);
    } else {
        h1_on_upstream_eof(h1);
    }
}
