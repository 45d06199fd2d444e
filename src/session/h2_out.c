/* h2_out.c: what an HTTP/2 session sends: the streams' downward calls, and nghttp2's frames. */
#include "base/check.h"
#include "proto/grpc.h"
#include "proto/http_error.h"
#include "session/h2_guard.h"
#include "session/h2_time.h"

/* Data comes in no smaller pieces, but for the last, unless the client lets in no more at once. */
#define H2_PIECE_LEAST 256
/* Behind so many frames that wait no interim answer is queued. */
#define H2_INTERIM_QUEUE 1000
/* Where so many frames go to a server at once, more would make none of them cheaper. */
#define H2_GATHER_FRAMES 48

/* The stream was reset, or the connection has gone: its user does not know yet. */
static bool h2_ignores(const struct h2_stream *s) {
    return s->deaf || s->failure != REASON_NONE || h2_is_deaf(h2_of(s));
}

static void h2_fail_later(struct h2_stream *s, enum reason reason) {
    struct h2 *h2 = h2_of(s);
    s->failure = reason;
    h2->streams_due = true;
    h2_mark(h2);
}

static bool h2_put_trailers(struct h2 *h2, const struct h2_stream *s,
                            const struct http_fields *trailers) {
    struct h2_list *list = &h2_room(h2)->list;
    return h2_write_trailers(list, trailers) &&
           nghttp2_submit_trailer(h2->ng, s->id, list->items, list->count) == 0;
}

/* nghttp2 has a frame of the stream's data to fill. */
static ssize_t h2_on_source(nghttp2_session *ng, int32_t id, uint8_t *buffer, size_t length,
                            uint32_t *flags, nghttp2_data_source *source, void *user) {
    struct h2 *h2 = user;
    struct h2_stream *s = source->ptr;
    (void)ng;
    (void)id;
    (void)buffer; /* the bytes go from where they lie: NO_COPY */
    size_t part = s->out.bytes < length ? s->out.bytes : length;
    bool end = s->out_state == H2_OUT_DONE && part == s->out.bytes;
    if ((part == 0 && !end) || s->aborted) {
        s->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags = NGHTTP2_DATA_FLAG_NO_COPY;
    if (!end) return (ssize_t)part;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (!s->trailers) return (ssize_t)part;
    *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    return h2_put_trailers(h2, s, s->trailers) ? (ssize_t)part
                                               : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static bool h2_send_slices(struct h2 *h2, struct h2_stream *s, size_t length) {
    struct conn *conn = h2->session.conn;
    while (length != 0) {
        struct h2_slice slice = h2_queue_front(&s->out, (uint32_t)length);
        if (!conn_send_lease(conn, bytes_make(slice.ptr, slice.len), slice.lease)) return false;
        h2_queue_drop(h2_room(h2), &s->out, slice.len);
        length -= slice.len;
    }
    return true;
}

static int h2_on_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head,
                           size_t length, nghttp2_data_source *source, void *user) {
    struct h2 *h2 = user;
    struct h2_stream *s = source->ptr;
    (void)ng;
    CHECK(frame->data.padlen == 0); /* no callback pads */
    s->out_ms = h2_net(h2)->now_ms;
    if (!conn_send_copy(h2->session.conn, bytes_make((const char *)head, 9)) ||
        !h2_send_slices(h2, s, length)) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    s->sent_at = h2->session.conn->sent_total + conn_queued(h2->session.conn);
    /* A server may have a window as small as it likes. */
    bool is_drop = length < H2_PIECE_LEAST && s->out.bytes != 0 && h2->session.is_client;
    if (!is_drop) h2_guard_sent(h2, length);
    h2_flood_allow(&h2->flood, H2_FLOOD_PING, 1); /* gRPC measures by one how much is on its way */
    if (s->told_full && !list_linked(&s->drained_link) && h2_queue_is_low(h2_room(h2), &s->out))
        list_push_back(&h2->drained, &s->drained_link);
    return 0;
}

/* nghttp2 has found a fault: a client may have us reset its streams as fast as it could itself. */
static void h2_on_rst_sent(struct h2 *h2, int32_t id) {
    const struct h2_stream *s = nghttp2_session_get_stream_user_data(h2->ng, id);
    if (s && !s->aborted && !s->rst_received) h2_flood(h2, H2_FLOOD_MADE_RESET);
}

static int h2_on_frame_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct h2 *h2 = user;
    if (frame->hd.type == NGHTTP2_RST_STREAM) h2_on_rst_sent(h2, frame->hd.stream_id);
    bool is_head = frame->hd.type == NGHTTP2_HEADERS;
    bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (!is_head && !(end && frame->hd.type == NGHTTP2_DATA)) return 0;
    struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    if (!s) return 0;
    s->stream.sent = true;
    if (s->queued) h2_guard_request(h2);
    h2_unqueue(s);
    if (!end) return 0;
    s->end_sent = true;
    h2_flood_allow(&h2->flood, H2_FLOOD_RAPID_RESET, 1);
    s->in_ms = h2_net(h2)->now_ms; /* the answer is waited for from now on */
    /* RFC 9113 section 8.1: with its whole answer a client may leave the rest unsent. */
    bool leaves = h2->session.is_client || s->tunnelled;
    if (leaves && !s->user_open && s->in != H2_IN_DONE) h2_stream_abort(s, NGHTTP2_NO_ERROR);
    return 0;
}

void h2_set_send_callbacks(nghttp2_session_callbacks *callbacks) {
    nghttp2_session_callbacks_set_send_data_callback(callbacks, h2_on_send_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, h2_on_frame_sent);
}

static void h2_tell_drained(struct h2 *h2) {
    for (struct list *node; (node = list_pop_front(&h2->drained));) {
        struct h2_stream *s = LIST_OWNER(node, struct h2_stream, drained_link);
        s->told_full = false;
        if (s->user_open && !s->told_reset) s->stream.events->on_drained(&s->stream);
    }
}

/* Of all that nghttp2 was given it keeps only heads that the server's limit on streams holds back,
 * as when the server has lowered it just now: what is not sent may go elsewhere. What its user
 * could not give again waits. */
static void h2_turn_away(struct h2 *h2) {
    struct h2_walk walk;
    h2_walk_begin(h2, &walk);
    for (struct h2_stream *s; (s = h2_walk_next(h2, &walk));) {
        if (!s->queued) continue;
        h2_unqueue(s);
        if (s->stream.given) continue;
        h2_stream_abort(s, NGHTTP2_CANCEL);
        h2_stream_reset(s, REASON_SERVER_REFUSED);
    }
}

static bool h2_send_frame(struct h2 *h2, struct conn *conn, struct bytes frame) {
    char settings[H2_SETTINGS_FRAME_MAX];
    if (h2->session.is_client && !h2->settings_sent)
        frame = h2_settings_limit(frame, h2->session.options->h2_streams_max, settings);
    h2->settings_sent = true;
    return conn_send_copy(conn, frame);
}

void h2_flush(struct h2 *h2) {
    struct conn *conn = h2->session.conn;
    bool sent = true;
    uint32_t frames_sent = 0;
    ssize_t size = 1;
    struct slab *frames = &h2_room(h2)->codec.frames;
    if (!h2_is_sending(h2)) h2->moved_ms = h2_net(h2)->now_ms;
    h2->busy++;
    if (h2->frame != SLAB_NONE) slab_touch(frames, h2->frame);
    while (sent && size > 0 && conn_has_room(conn)) {
        const uint8_t *frame;
        size = nghttp2_session_mem_send(h2->ng, &frame);
        frames_sent += size > 0;
        if (size > 0) sent = h2_send_frame(h2, conn, bytes_make((const char *)frame, (size_t)size));
        if (h2->session.conn != conn) break;
    }
    bool was_full = h2->full;
    /* What waits for windows alone does not wait for room, and its stream is late. */
    h2->full = sent && size > 0 && h2->session.conn && nghttp2_session_want_write(h2->ng);
    if (was_full && !h2->full) h2->room_ms = h2_net(h2)->now_ms;
    h2->starved = h2->full && conn_queued(conn) == 0;
    h2->torn = !sent || size < 0;
    if (h2->torn) h2_fail(h2, REASON_NO_MEMORY, NGHTTP2_INTERNAL_ERROR);
    /* No frame is left half given out: what is in the buffer does not matter. */
    if (size == 0 && h2->frame != SLAB_NONE) slab_rest(frames, h2->frame);
    if (size == 0 && h2->queued != 0) h2_turn_away(h2);
    /* Requests that go out together are answered together: fewer turns for as many of them. */
    if (!h2->session.is_client && frames_sent != 0 && frames_sent < H2_GATHER_FRAMES)
        net_gather(h2_net(h2));
    h2_tell_drained(h2);
    h2_unbusy(h2);
}

/* Upstream role: the request's head. */
static bool h2_ask(struct h2_stream *s, const nghttp2_nv *items, size_t count,
                   const nghttp2_data_provider *from) {
    struct h2 *h2 = h2_of(s);
    int32_t id = nghttp2_submit_request(h2->ng, NULL, items, count, from, s);
    if (id < 0) return false;
    s->id = id;
    s->gone = false;
    s->queued = true;
    h2->queued++;
    return true;
}

/* Gives nghttp2 a head, and where its body comes from. */
static bool h2_submit(struct h2 *h2, struct h2_stream *s, bool interim, bool body) {
    struct h2_list *list = &h2_room(h2)->list;
    const nghttp2_data_provider provider = {.source.ptr = s, .read_callback = h2_on_source};
    const nghttp2_data_provider *from = body ? &provider : NULL;
    h2_mark(h2);
    if (interim) {
        /* Nobody is paused for these, and who reads so little does not need them. */
        if (nghttp2_session_get_outbound_queue_size(h2->ng) > H2_INTERIM_QUEUE) return true;
        return nghttp2_submit_headers(h2->ng, NGHTTP2_FLAG_NONE, s->id, NULL, list->items,
                                      list->count, NULL) == 0;
    }
    if (h2->session.is_client)
        return nghttp2_submit_response(h2->ng, s->id, list->items, list->count, from) == 0;
    return h2_ask(s, list->items, list->count, from);
}

static bool h2_put_response(struct h2 *h2, struct h2_stream *s, const struct http_message *message,
                            bool end) {
    bool interim = message->status < 200 && message->status != 101;
    bool tunnels = s->in == H2_IN_HELD && (message->status == 101 || message->status / 100 == 2);
    if (!h2_write_response(&h2_room(h2)->list, message)) return false;
    s->no_body = !tunnels && http_response_has_no_body(s->method, message->status);
    return h2_submit(h2, s, interim, !interim && !end && !s->no_body);
}

/* The head is asked with when the server's SETTINGS have come: until then it is kept. */
static bool h2_wait(struct h2 *h2, struct h2_stream *s) {
    const struct h2_list *list = &h2_room(h2)->list;
    nghttp2_nv *items = arena_alloc(&s->arena, list->count * sizeof *items);
    if (!items) return false;
    for (uint32_t i = 0; i < list->count; i++) {
        const nghttp2_nv *from = &list->items[i];
        struct bytes name, value;
        if (!arena_copy(&s->arena, bytes_make((char *)from->name, from->namelen), &name) ||
            !arena_copy(&s->arena, bytes_make((char *)from->value, from->valuelen), &value)) {
            return false;
        }
        items[i] = *from;
        items[i].flags = NGHTTP2_NV_FLAG_NONE; /* what nghttp2 gets is not in memory that lasts */
        items[i].name = (uint8_t *)(uintptr_t)name.ptr;
        items[i].value = (uint8_t *)(uintptr_t)value.ptr;
    }
    s->waiting = items;
    s->waiting_count = list->count;
    return true;
}

static bool h2_takes_extended(struct h2 *h2) {
    return nghttp2_session_get_remote_settings(h2->ng, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) ==
           1;
}

static void h2_ask_one(struct h2 *h2, struct h2_stream *s) {
    const nghttp2_data_provider provider = {.source.ptr = s, .read_callback = h2_on_source};
    nghttp2_nv *items = s->waiting;
    s->waiting = NULL;
    if (!h2_takes_extended(h2)) {
        h2_fail_later(s, REASON_UPGRADE_UNSUPPORTED);
        return;
    }
    if (!h2_ask(s, items, s->waiting_count, &provider)) h2_fail_later(s, REASON_NO_MEMORY);
    h2_mark(h2);
}

void h2_ask_waiting(struct h2 *h2) {
    LIST_FOR_EACH(node, &h2->streams) {
        struct h2_stream *s = LIST_OWNER(node, struct h2_stream, link);
        if (s->waiting && !h2_ignores(s)) h2_ask_one(h2, s);
    }
}

static bool h2_put_request(struct h2 *h2, struct h2_stream *s, const struct http_message *message,
                           bool end) {
    s->method = message->method;
    s->upgraded = h2_is_extended(message);
    bool tunnels = s->upgraded || message->method == HTTP_CONNECT;
    struct bytes scheme = wire_tls(h2->session.conn) ? BYTES("https") : BYTES("http");
    if (!h2_write_request(&h2_room(h2)->list, message, scheme, end)) return false;
    if (s->upgraded && h2->settings_received && !h2_takes_extended(h2)) {
        h2_fail_later(s, REASON_UPGRADE_UNSUPPORTED);
        return true;
    }
    bool asked = s->upgraded && !h2->settings_received ? h2_wait(h2, s)
                                                       : h2_submit(h2, s, false, !end || tunnels);
    if (!asked) return false;
    s->in = H2_IN_HEAD;
    s->out_state = end && !tunnels ? H2_OUT_DONE : H2_OUT_BODY;
    return true;
}

static void h2_head_op(struct stream *stream, const struct http_message *message, bool end) {
    struct h2_stream *s = h2_of_stream(stream);
    struct h2 *h2 = h2_of(s);
    if (h2_ignores(s)) return;
    CHECK(s->user_open && s->out_state == H2_OUT_HEAD);
    uint64_t now_ms = h2_net(h2)->now_ms;
    s->out_ms = s->in_ms = now_ms;
    if (!h2->session.is_client) {
        if (!h2_put_request(h2, s, message, end)) h2_fail_later(s, REASON_NO_MEMORY);
        h2_need_step(h2);
        return;
    }
    if (!h2_put_response(h2, s, message, end)) {
        h2_fail_later(s, REASON_NO_MEMORY);
    } else if (message->status >= 200 || message->status == 101) {
        s->out_state = end ? H2_OUT_DONE : H2_OUT_BODY;
    }
}

/* There is something for nghttp2 to ask for. */
static void h2_wake(struct h2 *h2, struct h2_stream *s) {
    if (s->deferred) {
        s->deferred = false;
        if (nghttp2_session_resume_data(h2->ng, s->id) == NGHTTP2_ERR_NOMEM)
            h2_fail(h2, REASON_NO_MEMORY, NGHTTP2_INTERNAL_ERROR);
    }
    h2_mark(h2);
}

static bool h2_keep_trailers(struct h2_stream *s, const struct http_fields *trailers) {
    struct http_fields *copy = arena_alloc(&s->arena, sizeof *copy);
    if (!copy || !http_fields_init(copy, &s->arena, trailers->count)) return false;
    for (uint32_t i = 0; i < trailers->count; i++) {
        struct http_field field = trailers->items[i];
        if (!arena_copy(&s->arena, field.name, &field.name) ||
            !arena_copy(&s->arena, field.value, &field.value)) {
            return false;
        }
        copy->items[copy->count++] = field;
    }
    s->trailers = copy;
    return true;
}

static void h2_end_op(struct stream *stream, const struct http_fields *trailers) {
    struct h2_stream *s = h2_of_stream(stream);
    struct h2 *h2 = h2_of(s);
    if (h2_ignores(s)) return;
    CHECK(s->user_open && s->out_state == H2_OUT_BODY);
    bool any = trailers && trailers->count != 0 && !s->no_body;
    /* Behind the last byte they go at once: unlike data they wait for no window. nghttp2 sends them
     * behind the head of an answer, but ahead of that of a request. */
    bool ordered = s->stream.sent || h2->session.is_client;
    bool at_once = any && s->out.bytes == 0 && ordered;
    if (any && !(at_once ? h2_put_trailers(h2, s, trailers) : h2_keep_trailers(s, trailers))) {
        h2_fail_later(s, REASON_NO_MEMORY);
        return;
    }
    s->out_state = H2_OUT_DONE;
    if (s->out.bytes == 0) {
        s->out_ms = h2_net(h2)->now_ms;
        h2_need_step(h2);
    }
    if (at_once) {
        h2_mark(h2); /* its source of data is not asked any more */
    } else {
        h2_wake(h2, s);
    }
}

static enum stream_room h2_data_op(struct stream *stream, struct bytes data, struct lease *lease,
                                   bool end) {
    struct h2_stream *s = h2_of_stream(stream);
    struct h2 *h2 = h2_of(s);
    struct h2_room *room = h2_room(h2);
    if (h2_ignores(s)) return STREAM_ROOM;
    CHECK(s->user_open && s->out_state == H2_OUT_BODY);
    if (data.len != 0 && !s->no_body) {
        if (s->out.bytes == 0) {
            s->out_ms = h2_net(h2)->now_ms;
            h2_need_step(h2);
        }
        bool queued =
            lease ? h2_queue_add(room, &s->out, data, lease) : h2_queue_copy(room, &s->out, data);
        if (!queued) {
            h2_fail_later(s, REASON_NO_MEMORY);
            return STREAM_FULL;
        }
        h2_wake(h2, s);
    }
    if (end) h2_end_op(stream, NULL);
    if (!h2_queue_is_full(room, &s->out)) return STREAM_ROOM;
    s->told_full = true;
    return STREAM_FULL;
}

static void h2_pause_op(struct stream *stream) {
    struct h2_stream *s = h2_of_stream(stream);
    if (s->paused) return;
    s->paused = true;
    s->paused_ms = h2_fair_ms(h2_of(s));
}

static void h2_resume_op(struct stream *stream) {
    struct h2_stream *s = h2_of_stream(stream);
    struct h2 *h2 = h2_of(s);
    if (!s->paused) return;
    s->paused = false;
    s->in_ms = h2_net(h2)->now_ms;
    /* Time spent paused does not count against the sender. */
    s->since_ms += h2_fair_ms(h2) - s->paused_ms;
    if (h2_ignores(s)) return;
    h2_need_step(h2);
    if (s->tunnelled && s->in == H2_IN_HELD) {
        h2->streams_due = true; /* by the task */
        h2_mark(h2);
    } else {
        h2_consume(s);
    }
}

/* What came ahead is told by the task. */
static void h2_tunnel_op(struct stream *stream, uint64_t idle_ms) {
    struct h2_stream *s = h2_of_stream(stream);
    struct h2 *h2 = h2_of(s);
    /* No message is built here any more, and a tunnel may stand for hours. */
    stream->arena = NULL;
    arena_reset(&s->arena);
    if (h2_ignores(s)) return;
    s->tunnelled = true;
    s->tunnel_ms = idle_ms;
    s->in_ms = h2_net(h2)->now_ms;
    h2_need(h2, s->in_ms + idle_ms);
    h2->streams_due = true;
    h2_mark(h2);
}

static uint64_t h2_idle_op(struct stream *stream) {
    return h2_stream_idle_ms(h2_of_stream(stream));
}

static bool h2_pass_op(struct stream *stream, struct stream *to) {
    (void)stream; /* frames cannot be spliced */
    (void)to;
    return false;
}

/* RFC 9113 section 7, for a stream that ends before its time. */
static uint32_t h2_code_of(const struct h2_stream *s, enum reason reason) {
    if (!h2_of(s)->session.is_client || reason == REASON_NONE) return NGHTTP2_CANCEL;
    if (s->stream.reset_code != 0) return s->stream.reset_code;
    /* What is a RST of TCP elsewhere: RFC 9113 section 8.5, RFC 8441 section 5. */
    if (s->tunnelled) return s->upgraded ? NGHTTP2_CANCEL : NGHTTP2_CONNECT_ERROR;
    return reason == REASON_NO_MEMORY ? NGHTTP2_REFUSED_STREAM : NGHTTP2_INTERNAL_ERROR;
}

/* nghttp2 sends no frame of data while a window is shut, not even the one that only says END. */
static bool h2_end_is_stuck(const struct h2 *h2, const struct h2_stream *s) {
    return !s->end_sent && (nghttp2_session_get_stream_remote_window_size(h2->ng, s->id) <= 0 ||
                            nghttp2_session_get_remote_window_size(h2->ng) <= 0);
}

/* What the user has given in full is still sent to a client; a server's answer to the rest is not
 * wanted, and one that has answered does not wait for the end. */
static void h2_leave(struct h2 *h2, struct h2_stream *s, enum reason reason) {
    bool given = s->out_state == H2_OUT_DONE;
    bool flush = given && (h2->session.is_client || (s->tunnelled && reason == REASON_NONE));
    if (flush && !s->end_sent) return; /* then h2_on_frame_sent */
    if (flush) {
        if (s->in != H2_IN_DONE) h2_stream_abort(s, NGHTTP2_NO_ERROR);
        return;
    }
    if (s->in == H2_IN_DONE && given && s->out.bytes == 0 && !h2_end_is_stuck(h2, s)) return;
    h2_stream_abort(s, h2_code_of(s, reason));
}

static void h2_close_op(struct stream *stream, enum reason reason) {
    struct h2_stream *s = h2_of_stream(stream);
    struct h2 *h2 = h2_of(s);
    CHECK(s->user_open);
    s->user_open = false;
    s->stream.events = NULL;
    if (s->failure != REASON_NONE) {
        reason = s->failure;
        s->failure = REASON_NONE;
    }
    if (!h2->session.is_client) h2->session.streams_open--;
    if (s->gone) {
        h2_stream_release(s);
    } else if (!s->deaf) {
        h2_leave(h2, s, reason);
    }
    bool goes_on = !h2->session.is_client && !h2_is_deaf(h2);
    if (goes_on && nghttp2_session_get_next_stream_id(h2->ng) > H2_ID_MAX) h2->retired = true;
    if (goes_on && h2->retired) h2->session.streams_max = 0;
    if (goes_on) h2->session.host->on_room(&h2->session);
}

const struct stream_ops h2_stream_ops = {
    .head = h2_head_op,
    .data = h2_data_op,
    .end = h2_end_op,
    .pause = h2_pause_op,
    .resume = h2_resume_op,
    .tunnel = h2_tunnel_op,
    .idle_ms = h2_idle_op,
    .pass = h2_pass_op,
    .close = h2_close_op,
};

static bool h2_answer_refused(struct h2 *h2, struct h2_stream *s, enum reason reason) {
    struct http_message answer;
    struct bytes body = BYTES_NONE;
    arena_reset(&s->arena);
    bool made = s->stream.is_call ? grpc_error_answer(reason, &s->arena, &answer)
                                  : http_error_answer(reason, &s->arena, &answer, &body);
    if (!made || !session_add_date(h2->session.room, &answer, &s->arena) ||
        !h2_queue_copy(h2_room(h2), &s->out, body)) {
        return false;
    }
    if (!h2_put_response(h2, s, &answer, body.len == 0)) return false;
    s->out_state = H2_OUT_DONE;
    s->out_ms = h2_net(h2)->now_ms;
    if (s->stream.is_call) stat_bump(&h2_net(h2)->stats->failed_calls[reason], 1);
    return true;
}

void h2_refuse(struct h2_stream *s, enum reason reason) {
    struct h2 *h2 = h2_of(s);
    h2->session.host->on_refused(&h2->session, reason);
    s->in = H2_IN_BROKEN;
    bool answer = h2_reason_is_limit(reason) && reason != REASON_NO_MEMORY;
    if (answer && h2_answer_refused(h2, s, reason)) return;
    bool shed = answer || reason == REASON_NO_MEMORY;
    h2_stream_abort(s, shed ? NGHTTP2_REFUSED_STREAM : NGHTTP2_PROTOCOL_ERROR);
    if (!shed) h2_flood(h2, H2_FLOOD_MADE_RESET); /* else it is no doing of the client's */
}
