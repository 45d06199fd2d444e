/* h2.c: the life of an HTTP/2 session: it begins, its streams end, it ends. */
#include "session/h2.h"

#include "base/check.h"
#include "net/conn_watch.h"
#include "proto/h1_parse.h"
#include "session/h2_guard.h"
#include "session/h2_time.h"
#include "session/session_life.h"

#include <errno.h>
#include <stdlib.h>

/* What nghttp2 takes before it gives up, where the options set no limit of their own. */
#define H2_CONTINUATIONS_MAX 64
/* Fields of one head that routes may add to those of a client. */
#define H2_LIST_SPARE 64

#define H2_UPGRADE_ANSWER                                                                          \
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"

bool h2_is_deaf(const struct h2 *h2) { return !h2->session.conn || h2->failure != REASON_NONE; }

void h2_mark(struct h2 *h2) { net_defer(h2_net(h2), &h2->task); }

void h2_fail(struct h2 *h2, enum reason reason, uint32_t code) {
    if (h2_is_deaf(h2)) return;
    h2->failure = reason;
    h2->failure_code = code;
    h2_mark(h2);
}

/* on_closed follows, when no stream is left. */
static void h2_check_end(struct h2 *h2) {
    if (h2->session.conn || !list_empty(&h2->streams) || h2->session.closing) return;
    h2->session.closing = true;
    h2_mark(h2);
}

struct h2_stream *h2_stream_new(struct h2 *h2, struct arena *arena) {
    struct session_room *room = h2->session.room;
    bool more = h2->session.is_client && !list_empty(&h2->streams);
    if (more && room->h2->more == room->h2->more_max) return NULL;
    struct h2_stream *s = slab_acquire(&room->h2->streams);
    if (!s) return NULL;
    room->h2->more += more;
    *s = (struct h2_stream){.in_length = HTTP_LENGTH_UNKNOWN};
    arena_init(&s->arena, &room->arenas);
    s->stream = (struct stream){.ops = &h2_stream_ops,
                                .session = &h2->session,
                                .arena = arena ? arena : &s->arena,
                                .began_ns = room->net->now_ns};
    list_init(&s->drained_link);
    list_push_back(&h2->streams, &s->link);
    stat_add(room->net->stats, STAT_H2_STREAMS_ACTIVE, 1);
    return s;
}

static void h2_stream_free(struct h2 *h2, struct h2_stream *s) {
    struct h2_room *room = h2_room(h2);
    h2_queue_clear(room, &s->out);
    h2_queue_clear(room, &s->ahead);
    arena_reset(&s->arena);
    slab_release(&room->streams, s);
    stat_sub(h2_net(h2)->stats, STAT_H2_STREAMS_ACTIVE, 1);
}

struct h2_stream *h2_find(struct h2 *h2, int32_t id) {
    if (!h2->found || h2->found->id != id)
        h2->found = nghttp2_session_get_stream_user_data(h2->ng, id);
    return h2->found;
}

void h2_unqueue(struct h2_stream *s) {
    if (!s->queued) return;
    s->queued = false;
    h2_of(s)->queued--;
}

void h2_stream_release(struct h2_stream *s) {
    struct h2 *h2 = h2_of(s);
    CHECK(!s->user_open && !s->queued);
    /* The rest of the block may still come: nobody waits for it, nor is it late. */
    if (h2->head_stream == s) {
        if (h2->head) slab_release(&h2_room(h2)->heads, h2->head);
        h2->head_stream = NULL;
    }
    h2_consume(s);
    if (h2->found == s) h2->found = NULL;
    for (struct h2_walk *walk = h2->walk; walk; walk = walk->outer)
        if (walk->next == &s->link) walk->next = s->link.next;
    list_remove(&s->drained_link);
    list_remove(&s->link);
    h2_room(h2)->more -= h2->session.is_client && !list_empty(&h2->streams);
    if (h2->busy != 0) {
        list_push_back(&h2->dead, &s->link);
    } else {
        h2_stream_free(h2, s);
    }
    if (list_empty(&h2->streams)) {
        h2->since_ms = h2_net(h2)->now_ms;
        if (h2->eof && h2->session.conn) h2_mark(h2);
    }
    h2_check_end(h2);
}

void h2_unbusy(struct h2 *h2) {
    CHECK(h2->busy != 0);
    if (--h2->busy != 0) return;
    for (struct list *node; (node = list_pop_front(&h2->dead));)
        h2_stream_free(h2, LIST_OWNER(node, struct h2_stream, link));
}

void h2_walk_begin(struct h2 *h2, struct h2_walk *walk) {
    h2->busy++;
    *walk = (struct h2_walk){.next = h2->streams.next, .outer = h2->walk};
    h2->walk = walk;
}

struct h2_stream *h2_walk_next(struct h2 *h2, struct h2_walk *walk) {
    CHECK(h2->walk == walk);
    if (walk->next == &h2->streams) {
        h2->walk = walk->outer;
        h2_unbusy(h2);
        return NULL;
    }
    struct h2_stream *s = LIST_OWNER(walk->next, struct h2_stream, link);
    walk->next = walk->next->next;
    return s;
}

void h2_stream_abort(struct h2_stream *s, uint32_t code) {
    struct h2 *h2 = h2_of(s);
    s->deaf = true;
    s->in = H2_IN_BROKEN;
    if (s->gone || s->aborted || h2_is_deaf(h2)) return;
    s->aborted = true;
    h2_guard_free(h2, s->id);
    h2_unqueue(s);
    /* Nobody will be sent it, and without a buffer RST_STREAM would wait for ever. */
    h2_queue_clear(h2_room(h2), &s->out);
    h2_queue_clear(h2_room(h2), &s->ahead);
    if (nghttp2_submit_rst_stream(h2->ng, NGHTTP2_FLAG_NONE, s->id, code) != 0)
        h2_fail(h2, REASON_NO_MEMORY, NGHTTP2_INTERNAL_ERROR);
    h2_mark(h2);
}

void h2_stream_reset(struct h2_stream *s, enum reason reason) {
    s->in = H2_IN_BROKEN;
    if (!s->user_open || s->told_reset) return;
    s->told_reset = true;
    s->stream.events->on_reset(&s->stream, reason);
}

/* RFC 9113 section 6.8: a server that has said GOAWAY looks at nothing that was not sent before. */
static enum reason h2_lost_reason(const struct h2 *h2, const struct h2_stream *s,
                                  enum reason reason) {
    bool ended = reason == REASON_SERVER_CLOSED || reason == REASON_SERVER_RESET;
    return ended && h2->goaway_received && !s->stream.sent ? REASON_SERVER_REFUSED : reason;
}

void h2_lose_streams(struct h2 *h2, enum reason reason) {
    h2->end_reason = reason;
    struct h2_walk walk;
    h2_walk_begin(h2, &walk);
    for (struct h2_stream *s; (s = h2_walk_next(h2, &walk));) {
        s->gone = true;
        h2_unqueue(s);
        if (!s->user_open) {
            h2_stream_release(s);
            continue;
        }
        if (h2_is_held(s)) h2_feed_ahead(s, true);
        h2_stream_reset(s, h2_lost_reason(h2, s, reason)); /* unless it has just ended */
    }
    h2_check_end(h2);
}

/* Gives the connection up: what is queued is still sent. */
static void h2_finish(struct h2 *h2, enum reason reason) {
    session_finish(&h2->session, h2->session.is_client);
    h2_lose_streams(h2, reason);
}

void h2_drop(struct h2 *h2, enum reason reason) {
    session_drop(&h2->session);
    h2_lose_streams(h2, reason);
}

/* nghttp2 may be past sending: it failed, or was told nothing of why. */
static void h2_put_goaway(struct h2 *h2) {
    char frame[17] = {0, 0, 8, NGHTTP2_GOAWAY, 0};
    uint32_t last = (uint32_t)nghttp2_session_get_last_proc_stream_id(h2->ng);
    for (int i = 0; i < 4; i++) {
        frame[9 + i] = (char)(last >> (24 - 8 * i));
        frame[13 + i] = (char)(h2->failure_code >> (24 - 8 * i));
    }
    /* Without memory for it the connection just ends. */
    (void)conn_send_copy(h2->session.conn, bytes_make(frame, sizeof frame));
}

/* Why nghttp2 has nothing more to say: an error it has found, or a GOAWAY after whose streams. */
static enum reason h2_parting_reason(const struct h2 *h2) {
    bool in_order = list_empty(&h2->streams);
    if (in_order && h2->drain_ms != 0) return REASON_DRAINED;
    bool asked = in_order && h2->goaway_received;
    if (h2->session.is_client) return asked ? REASON_NONE : REASON_H2_PROTOCOL;
    return asked ? REASON_SERVER_IDLE : REASON_BAD_RESPONSE;
}

static void h2_end_failed(struct h2 *h2) {
    enum reason reason = h2->failure;
    if (h2->torn) {
        session_reset(&h2->session);
        h2_lose_streams(h2, reason);
        return;
    }
    h2_put_goaway(h2);
    h2_finish(h2, reason);
}

static void h2_forget(struct h2 *h2) {
    nghttp2_session_del(h2->ng);
    session_release(&h2->session, &h2_room(h2)->sessions, &h2->task);
}

static void h2_release(struct h2 *h2) {
    CHECK(h2->busy == 0);
    h2->session.host->on_closed(&h2->session, h2->end_reason);
    if (h2->head) slab_release(&h2_room(h2)->heads, h2->head);
    h2_forget(h2);
}

/* What users were to be told could not be told from within their calls. */
static void h2_tell_streams(struct h2 *h2) {
    h2->streams_due = false;
    struct h2_walk walk;
    h2_walk_begin(h2, &walk);
    for (struct h2_stream *s; (s = h2_walk_next(h2, &walk));) {
        enum reason failure = s->failure;
        s->failure = REASON_NONE;
        if (failure != REASON_NONE) {
            h2_stream_abort(s, NGHTTP2_INTERNAL_ERROR);
            h2_stream_reset(s, failure);
        } else if (s->tunnelled) {
            h2_feed_ahead(s, false);
        }
    }
}

static void h2_on_task(struct net_task *task) {
    struct h2 *h2 = LIST_OWNER(task, struct h2, task);
    if (h2->session.closing) {
        h2_release(h2);
        return;
    }
    if (h2->streams_due) h2_tell_streams(h2);
    if (!h2->session.conn || !h2->ng) return;
    /* Answers to what a drain has cut go out before its GOAWAY. */
    if (h2->failure == REASON_NONE || h2->failure_code == NGHTTP2_NO_ERROR) h2_flush(h2);
    if (!h2->session.conn) return;
    if (h2->failure != REASON_NONE) {
        h2_end_failed(h2);
    } else if (h2->eof && list_empty(&h2->streams)) {
        h2_finish(h2, REASON_NONE);
    } else if (!nghttp2_session_want_read(h2->ng) && !nghttp2_session_want_write(h2->ng)) {
        h2_finish(h2, h2_parting_reason(h2)); /* a GOAWAY has gone out */
    } else {
        h2_touch(h2);
    }
}

static void h2_on_bytes(struct conn *conn, struct bytes bytes, struct lease *lease) {
    h2_read(h2_of_conn(conn), bytes, lease);
    lease_unref(lease);
}

/* What a client has asked for in full is still answered, but for calls: their clients close nothing
 * by halves, and gRPC has a call end at its server when nobody waits for it any more. */
static void h2_on_eof(struct conn *conn) {
    struct h2 *h2 = h2_of_conn(conn);
    bool is_client = h2->session.is_client;
    h2->eof = true;
    if (!is_client) {
        h2_drop(h2, list_empty(&h2->streams) ? REASON_SERVER_IDLE : REASON_SERVER_CLOSED);
        return;
    }
    struct h2_walk walk;
    h2_walk_begin(h2, &walk);
    for (struct h2_stream *s; (s = h2_walk_next(h2, &walk));) {
        bool all = s->in == H2_IN_DONE || (s->in == H2_IN_HELD && s->ahead_end);
        bool whole = all && !s->stream.is_call;
        if (s->in == H2_IN_HEAD) { /* the rest of it will not come */
            h2->session.host->on_refused(&h2->session, REASON_CLIENT_CLOSED);
            h2_stream_abort(s, NGHTTP2_CANCEL);
        }
        if (!whole) h2_stream_reset(s, REASON_CLIENT_CLOSED);
    }
    /* Who has closed, and does not just say that it sends no more, resets what a frame comes to;
     * this one asks for no answer. Without memory the next one does it. */
    if (h2->session.conn && !list_empty(&h2->streams)) {
        (void)nghttp2_submit_window_update(h2->ng, NGHTTP2_FLAG_NONE, 0, 1);
        conn_watch(conn);
    }
    h2_mark(h2);
}

static void h2_on_drained(struct conn *conn) { h2_mark(h2_of_conn(conn)); }

static void h2_on_lost(struct conn *conn, int error) {
    struct h2 *h2 = h2_of_conn(conn);
    enum reason reason = h2->connecting ? session_undialled_reason(&h2->session, error)
                                        : session_lost_reason(&h2->session, error);
    h2->session.conn = NULL;
    h2_lose_streams(h2, reason);
}

/* SETTINGS go out with the first request. */
static void h2_on_open(struct conn *conn) {
    struct h2 *h2 = h2_of_conn(conn);
    h2->connecting = false;
    h2->since_ms = h2->moved_ms = h2_net(h2)->now_ms;
    h2_mark(h2);
    h2_need(h2, h2->since_ms);
    h2->session.host->on_ready(&h2->session);
}

static const struct conn_events h2_conn_events = {
    .on_open = h2_on_open,
    .on_bytes = h2_on_bytes,
    .on_eof = h2_on_eof,
    .on_drained = h2_on_drained,
    .on_deadline = h2_on_deadline,
    .on_lost = h2_on_lost,
};

static struct h2 *h2_acquire(struct session_room *room, const struct session_options *options,
                             const struct session_host *host, bool is_client) {
    struct h2 *h2 = slab_acquire(&room->h2->sessions);
    if (!h2) return NULL;
    *h2 = (struct h2){.session = {.ops = &session_h2,
                                  .options = options,
                                  .host = host,
                                  .room = room,
                                  .is_client = is_client},
                      .stray = {.skip = is_client ? NGHTTP2_CLIENT_MAGIC_LEN : 0}};
    list_init(&h2->streams);
    list_init(&h2->drained);
    list_init(&h2->dead);
    net_task_init(&h2->task, h2_on_task);
    h2->since_ms = h2->moved_ms = h2->taken_ms = room->net->now_ms;
    struct h2_settings settings = {.head_size_max = options->max_header_size,
                                   .no_websocket = options->no_websocket};
    h2->ng = is_client ? h2_server_new(&room->h2->codec, &settings, h2)
                       : h2_client_new(&room->h2->codec, &settings, h2);
    if (!h2->ng) {
        slab_release(&room->h2->sessions, h2);
        return NULL;
    }
    h2->frame = room->h2->codec.frame_last;
    session_begin(&h2->session);
    return h2;
}

static void h2_drain(struct session *session);

static void h2_attach(struct h2 *h2, struct conn *conn) {
    session_attach(&h2->session, conn, &h2_conn_events);
    h2_need(h2, h2_net(h2)->now_ms + h2->session.options->timeout_request_ms);
    h2_mark(h2);
    /* It was on its way when that began. */
    if (h2->session.room->draining) h2_drain(&h2->session);
}

static struct session *h2_accept(struct session_room *room, struct conn *conn,
                                 const struct session_options *options,
                                 const struct session_host *host) {
    struct h2 *h2 = h2_acquire(room, options, host, true);
    if (!h2) return NULL;
    h2_attach(h2, conn);
    return &h2->session;
}

bool h2_take_over(struct session *from, struct bytes rest, struct lease *lease) {
    struct session *session = h2_accept(from->room, from->conn, from->options, from->host);
    if (!session) return false;
    struct h2 *h2 = h2_of_session(session);
    session->user = from->user;
    session->opened_ns = from->opened_ns;
    from->conn = NULL;
    h2_read(h2, BYTES(H2_PREFACE_LINE), lease);
    if (rest.len != 0 && session->conn) h2_read(h2, rest, lease);
    return true;
}

/* Stream 1, as if its head had come in HTTP/2. */
static struct http_message *h2_begin_upgraded(struct h2 *h2, const struct h1_parser *parser,
                                              struct bytes head, struct bytes settings) {
    uint8_t payload[H2_UPGRADE_SETTINGS_MAX];
    size_t size = h2_upgrade_settings(settings, payload);
    struct h2_stream *s = size != 0 ? h2_stream_new(h2, NULL) : NULL;
    if (!s) return NULL;
    struct http_message *message = arena_alloc(&s->arena, sizeof *message);
    s->gone = true; /* until nghttp2 has it */
    if (!message || !h1_message(parser, head, BYTES("http"), &s->arena, message) ||
        nghttp2_session_upgrade2(h2->ng, payload, size, message->method == HTTP_HEAD, NULL) != 0 ||
        nghttp2_session_set_stream_user_data(h2->ng, 1, s) != 0) {
        h2_stream_release(s);
        return NULL;
    }
    message->upgrade = BYTES_NONE;
    s->id = 1;
    s->gone = false;
    h2->taken++;
    s->in = H2_IN_DONE;
    return message;
}

struct session *h2_take_upgrade(struct session *from, const struct h1_parser *parser,
                                struct bytes head, struct bytes settings) {
    struct h2 *h2 = h2_acquire(from->room, from->options, from->host, true);
    if (!h2) return NULL;
    struct http_message *message = h2_begin_upgraded(h2, parser, head, settings);
    if (!message) {
        h2_forget(h2); /* its task may be due: a stream has ended in it */
        return NULL;
    }
    struct h2_stream *s = LIST_OWNER(h2->streams.next, struct h2_stream, link);
    h2->session.user = from->user;
    h2->session.opened_ns = from->opened_ns;
    h2_attach(h2, from->conn);
    from->conn = NULL;
    if (!conn_send_copy(h2->session.conn, BYTES(H2_UPGRADE_ANSWER)))
        h2_fail(h2, REASON_NO_MEMORY, NGHTTP2_INTERNAL_ERROR);
    h2_begin_stream(h2, s, message, true);
    return &h2->session;
}

void h2_feed(struct session *session, struct bytes bytes, struct lease *lease) {
    h2_read(h2_of_session(session), bytes, lease);
}

static struct session *h2_connect(struct session_room *room, const struct session_address *to,
                                  const struct session_options *options,
                                  const struct session_host *host, enum reason *reason) {
    struct h2 *h2 = h2_acquire(room, options, host, false);
    *reason = REASON_NO_MEMORY;
    if (!h2) return NULL;
    h2->connecting = true;
    h2->session.streams_max = H2_STREAMS_GUESS;
    *reason = session_dial(&h2->session, to, &h2_conn_events);
    if (*reason == REASON_NONE) return &h2->session;
    h2_forget(h2);
    return NULL;
}

static struct stream *h2_open(struct session *session, struct arena *arena) {
    struct h2 *h2 = h2_of_session(session);
    CHECK(!session->is_client);
    if (session->closing || h2_is_deaf(h2) || h2->connecting) {
        session->streams_max = 0;
        return NULL;
    }
    if (session->streams_open >= session->streams_max) return NULL;
    struct h2_stream *s = h2_stream_new(h2, arena);
    if (!s) return NULL;
    s->stream.reused = session->streams++ != 0;
    s->user_open = true;
    s->gone = true; /* until it has a head */
    session->streams_open++;
    return &s->stream;
}

/* RFC 9113 section 6.8: what is on its way in this moment is still taken. */
static void h2_drain(struct session *session) {
    struct h2 *h2 = h2_of_session(session);
    if (h2_is_deaf(h2) || h2->connecting || h2->drain_ms != 0) return;
    if (!session->is_client) {
        if (session->streams_open == 0) h2_drop(h2, REASON_DRAINED);
        return;
    }
    h2->drain_ms = h2_net(h2)->now_ms;
    if (nghttp2_submit_shutdown_notice(h2->ng) != 0) {
        h2_fail(h2, REASON_NO_MEMORY, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    h2_need(h2, h2->drain_ms + H2_DRAIN_MS);
    h2_mark(h2);
}

static void h2_close(struct session *session, enum reason reason) {
    struct h2 *h2 = h2_of_session(session);
    if (h2_is_deaf(h2)) return;
    bool unused = !session->is_client && session->streams_open == 0;
    /* Not while the list of streams is read, which still has those that are on their way out. */
    if (h2->connecting || (unused && h2->busy == 0)) {
        h2_drop(h2, reason);
        return;
    }
    struct h2_walk walk;
    h2_walk_begin(h2, &walk);
    for (struct h2_stream *s; (s = h2_walk_next(h2, &walk));)
        h2_stream_reset(s, reason);
    h2_fail(h2, reason, NGHTTP2_NO_ERROR);
}

static size_t h2_held(const struct session *session) {
    const struct h2 *h2 = LIST_OWNER(session, struct h2, session);
    size_t bytes = 0;
    LIST_FOR_EACH(node, &h2->streams) {
        bytes += LIST_OWNER(node, struct h2_stream, link)->out.bytes;
    }
    return bytes;
}

const struct session_ops session_h2 = {
    .proto = "h2",
    .multiplexed = true,
    .accept = h2_accept,
    .connect = h2_connect,
    .open = h2_open,
    .drain = h2_drain,
    .close = h2_close,
    .held = h2_held,
};

/* Of a stream with a head as long as one may be that routes have added to. */
static uint64_t h2_room_stream_size(const struct session_room *room) {
    return h2_stream_memory(2 * (uint64_t)room->max_header_size, room->h2->list.max);
}

struct h2_room_memory h2_room_memory(const struct session_room *room) {
    const struct h2_room *h2 = room->h2;
    if (!h2) return (struct h2_room_memory){0};
    return (struct h2_room_memory){.used =
                                       __atomic_load_n(&h2->codec.memory_used, __ATOMIC_RELAXED),
                                   .max = h2->codec.memory_max,
                                   .sessions = h2->sessions.capacity,
                                   .streams = h2->streams.capacity,
                                   .stream_size = h2_room_stream_size(room)};
}

int h2_room_init(struct session_room *room, const struct session_room_options *options) {
    struct h2_room *h2 = calloc(1, sizeof *h2);
    room->h2 = h2;
    if (!h2) return -ENOMEM;
    h2->net = room->net;
    h2_queue_init(h2);
    struct h2_head_limits limits = {.head_size_max = room->max_header_size,
                                    .fields_max = room->max_headers};
    uint32_t sessions = options->h2_sessions_max;
    uint32_t streams = sessions != 0 ? 2 * options->exchanges_max : 0;
    h2->more_max = options->streams_more;
    h2->list.max = 2 * room->max_headers + H2_LIST_SPARE;
    uint64_t memory = sessions * H2_SESSION_MEMORY + streams * h2_room_stream_size(room);
    if (memory > options->h2_memory_max) memory = options->h2_memory_max;
    int error = h2_codec_init(&h2->codec, memory, H2_CONTINUATIONS_MAX, sessions);
    if (error == 0) error = slab_init(&h2->sessions, "h2_session", sizeof(struct h2), sessions);
    if (error == 0) error = slab_init(&h2->streams, "h2_stream", sizeof(struct h2_stream), streams);
    if (error == 0) error = slab_init(&h2->heads, "h2_head", h2_head_memory(&limits), sessions);
    /* One for each stream, and as many as it takes to name a part of each buffer. */
    uint32_t blocks = sessions != 0 ? streams + room->net->options.small_count / 2 : 0;
    if (error == 0) error = slab_init(&h2->blocks, "h2_queue", sizeof(struct h2_block), blocks);
    if (error < 0) return error;
    net_add_slab(room->net, &h2->sessions);
    net_add_slab(room->net, &h2->streams);
    net_add_slab(room->net, &h2->heads);
    net_add_slab(room->net, &h2->blocks);
    net_add_slab(room->net, &h2->codec.frames);
    net_add_slab(room->net, &h2->codec.blocks);
    net_add_slab(room->net, &h2->codec.bits);
    h2_set_callbacks(h2->codec.callbacks);
    h2_set_send_callbacks(h2->codec.callbacks);
    h2->list.items = calloc(h2->list.max, sizeof *h2->list.items);
    h2->list.text = writer_make(room->text, room->text_size);
    return h2->list.items ? 0 : -ENOMEM;
}

void h2_room_fini(struct session_room *room) {
    struct h2_room *h2 = room->h2;
    if (!h2) return;
    h2_queue_fini(h2);
    slab_fini(&h2->sessions);
    slab_fini(&h2->streams);
    slab_fini(&h2->heads);
    slab_fini(&h2->blocks);
    h2_codec_fini(&h2->codec);
    free(h2->list.items);
    free(h2);
    room->h2 = NULL;
}
