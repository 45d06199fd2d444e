/* h2_time.c: the deadlines of an HTTP/2 session. The connection has one; when it passes, every
 * stream is looked at, and the next is set to the earliest of what is still waited for. */
#include "session/h2_time.h"
#include "base/check.h"
#include "session/h2_guard.h"
#include "session/session_life.h"

/* Who is left less window than a frame of data fills may wait for more. */
#define H2_WINDOW_LEAST 16384

void h2_need(struct h2 *h2, uint64_t at_ms) {
    struct conn *conn = h2->session.conn;
    if (conn && !h2->connecting && (conn->deadline_ms == 0 || at_ms < conn->deadline_ms))
        conn_deadline(conn, at_ms);
}

/* What the other side may take for its next step inside a request. */
static uint64_t h2_step_ms(const struct h2 *h2) {
    const struct session_options *options = h2->session.options;
    return h2->session.is_client ? options->timeout_client_ms : options->timeout_server_ms;
}

void h2_need_step(struct h2 *h2) { h2_need(h2, h2_net(h2)->now_ms + h2_step_ms(h2)); }

void h2_note_shut(struct h2 *h2) {
    bool shut = nghttp2_session_get_local_window_size(h2->ng) < H2_WINDOW_LEAST;
    if (shut && h2->shut_ms == 0) h2->shut_ms = h2_net(h2)->now_ms;
}

void h2_note_open(struct h2 *h2) {
    uint64_t now_ms = h2_net(h2)->now_ms;
    if (h2->shut_ms == 0) return;
    h2->was_shut_ms += now_ms - h2->shut_ms;
    h2->shut_ms = 0;
    h2->opened_ms = now_ms;
    h2_need_step(h2);
}

uint64_t h2_fair_ms(const struct h2 *h2) {
    return (h2->shut_ms != 0 ? h2->shut_ms : h2_net(h2)->now_ms) - h2->was_shut_ms;
}

/* Request and answer are both under way: a client may just listen, so that silence is its server's.
 */
static bool h2_is_two_way(const struct h2_stream *s) {
    if (h2_of(s)->session.is_client)
        return s->in == H2_IN_BODY &&
               (s->out_state == H2_OUT_BODY || (s->out_state == H2_OUT_HEAD && s->stream.is_call));
    return !s->end_sent && (s->in == H2_IN_BODY || (s->in == H2_IN_HEAD && s->stream.is_call));
}

static bool h2_reads(const struct h2_stream *s) {
    bool is_client = h2_of(s)->session.is_client;
    if (s->paused || s->tunnelled || s->told_reset || !s->user_open) return false;
    if (h2_is_two_way(s)) return !is_client;
    if (s->in == H2_IN_BODY) return h2_of(s)->shut_ms == 0;
    /* While the request still comes from the client, the server is not late. Of a tunnel nothing
     * comes before its answer. */
    bool whole = s->end_sent || s->upgraded || s->method == HTTP_CONNECT;
    return s->in == H2_IN_HEAD && !is_client && whole;
}

/* How long that may take. */
static uint64_t h2_silence_ms(const struct h2 *h2, const struct h2_stream *s) {
    uint64_t step_ms = h2_step_ms(h2);
    return h2_is_two_way(s) && s->stream.silence_ms > step_ms ? s->stream.silence_ms : step_ms;
}

/* Something is there to be sent, if only the end, and a window is shut. */
static bool h2_sends(const struct h2_stream *s) {
    bool waits = s->out.bytes != 0 || (s->out_state == H2_OUT_DONE && !s->end_sent);
    return waits && !s->deaf && !s->gone;
}

/* When a window has been shut for too long. While the connection has no room none is to blame: it
 * is late itself if it gets none. */
static uint64_t h2_shut_deadline(const struct h2 *h2, const struct h2_stream *s) {
    if (!h2_sends(s) || h2->full) return UINT64_MAX;
    return (s->out_ms > h2->room_ms ? s->out_ms : h2->room_ms) + h2_step_ms(h2);
}

/* What a tunnel leaves to be sent when its user has gone is like the rest of any answer. */
static bool h2_is_tunnel(const struct h2_stream *s) { return s->tunnelled && s->user_open; }

/* When a stream is late; UINT64_MAX: nothing is waited for. */
static uint64_t h2_stream_deadline(const struct h2 *h2, const struct h2_stream *s) {
    if (h2_is_tunnel(s)) {
        uint64_t own_ms = s->in_ms > s->out_ms ? s->in_ms : s->out_ms;
        return (own_ms > s->other_ms ? own_ms : s->other_ms) + s->tunnel_ms;
    }
    uint64_t at_ms = UINT64_MAX;
    /* What moves the other way in the same stream is progress too: a bidirectional one may be
     * silent on one side for long. */
    uint64_t moved_ms = s->in_ms > s->out_ms ? s->in_ms : s->out_ms;
    if (h2->opened_ms > moved_ms) moved_ms = h2->opened_ms;
    if (h2_reads(s)) at_ms = moved_ms + h2_silence_ms(h2, s);
    uint64_t shut_at_ms = h2_shut_deadline(h2, s);
    return shut_at_ms < at_ms ? shut_at_ms : at_ms;
}

bool h2_is_sending(const struct h2 *h2) { return conn_is_sending(h2->session.conn) || h2->starved; }

/* Of the connection by itself. */
static uint64_t h2_own_deadline(const struct h2 *h2) {
    const struct session_options *options = h2->session.options;
    uint64_t at_ms = UINT64_MAX;
    if (h2->head && h2->session.is_client) return h2->head_ms + options->timeout_request_ms;
    if (h2_is_sending(h2)) at_ms = h2->moved_ms + h2_step_ms(h2);
    if (h2->drain_ms != 0 && !h2->drain_said && h2->drain_ms + H2_DRAIN_MS < at_ms)
        at_ms = h2->drain_ms + H2_DRAIN_MS;
    if (!list_empty(&h2->streams)) return at_ms;
    bool unused = h2->session.is_client && h2->session.streams == 0;
    uint64_t idle_ms = unused ? options->timeout_request_ms : options->timeout_keepalive_ms;
    return h2->since_ms + idle_ms < at_ms ? h2->since_ms + idle_ms : at_ms;
}

void h2_touch(struct h2 *h2) {
    struct conn *conn = h2->session.conn;
    uint64_t now_ms = h2_net(h2)->now_ms;
    if (!conn || h2->connecting) return;
    if (list_empty(&h2->streams)) {
        h2_need(h2, h2_own_deadline(h2));
    } else if (conn->deadline_ms == 0 || conn->deadline_ms > now_ms + h2_step_ms(h2)) {
        conn_deadline(conn, now_ms + h2_step_ms(h2));
    }
}

/* Some sockets tell once that something was taken (conn_taken): all streams are to know. */
static struct conn_taken h2_look(struct h2 *h2) {
    struct conn_taken taken = conn_taken(h2->session.conn);
    uint64_t now_ms = h2_net(h2)->now_ms;
    if (taken.ago_ms < now_ms - h2->taken_ms) h2->taken_ms = now_ms - taken.ago_ms;
    taken.ago_ms = now_ms - h2->taken_ms;
    return taken;
}

/* What was last sent for a stream may be on its way for long, in the kernel for the most part:
 * while the other side takes something of it the stream is not idle. */
static void h2_note_taken(const struct h2 *h2, struct h2_stream *s, struct conn_taken taken) {
    uint64_t now_ms = h2_net(h2)->now_ms;
    if (s->sent_at == 0) return;
    if (taken.ago_ms < now_ms - s->out_ms) s->out_ms = now_ms - taken.ago_ms;
    if (taken.bytes >= s->sent_at) s->sent_at = 0;
}

uint64_t h2_stream_idle_ms(struct h2_stream *s) {
    struct h2 *h2 = h2_of(s);
    if (h2->session.conn) h2_note_taken(h2, s, h2_look(h2));
    uint64_t moved_ms = s->in_ms > s->out_ms ? s->in_ms : s->out_ms;
    return h2_net(h2)->now_ms - moved_ms;
}

/* Bytes that move on either side of a tunnel keep both. */
static void h2_tunnel_late(struct h2 *h2, struct h2_stream *s) {
    uint64_t idle_ms = h2_stream_idle_ms(s);
    if (s->user_open && !s->told_reset && s->stream.events->on_idle) {
        uint64_t other_ms = s->stream.events->on_idle(&s->stream);
        if (other_ms < idle_ms) idle_ms = other_ms;
    }
    if (idle_ms < s->tunnel_ms) {
        s->other_ms = h2_net(h2)->now_ms - idle_ms;
    } else {
        h2_stream_reset(s, REASON_TUNNEL_TIMEOUT);
    }
}

/* A window that stays shut holds what is to be sent, for as long as the client likes. */
static void h2_stream_late(struct h2 *h2, struct h2_stream *s, uint64_t now_ms) {
    bool is_client = h2->session.is_client;
    bool shut = h2_shut_deadline(h2, s) <= now_ms;
    if (h2_is_tunnel(s)) {
        h2_tunnel_late(h2, s);
        return;
    }
    if (shut && is_client) h2_flood(h2, H2_FLOOD_ZERO_WINDOW);
    /* Not one frame while it was waited for: others would wait in vain as well. */
    if (!is_client && h2->heard_ms + h2_step_ms(h2) <= now_ms) h2_retire(h2);
    if (s->user_open) {
        h2_stream_reset(s, is_client ? REASON_CLIENT_TIMEOUT : REASON_SERVER_TIMEOUT);
    } else {
        h2_stream_abort(s, NGHTTP2_CANCEL);
    }
    s->in_ms = s->out_ms = now_ms; /* once is enough */
}

static void h2_check_streams(struct h2 *h2, uint64_t now_ms, struct conn_taken taken) {
    struct h2_walk walk;
    h2_walk_begin(h2, &walk);
    for (struct h2_stream *s; (s = h2_walk_next(h2, &walk));) {
        if (h2_stream_deadline(h2, s) > now_ms) continue;
        h2_note_taken(h2, s, taken);
        if (h2_stream_deadline(h2, s) <= now_ms) h2_stream_late(h2, s, now_ms);
    }
}

/* The other side has taken nothing for so long, or sent nothing, or there is no memory to send it
 * anything: true, the connection ends. */
static bool h2_check_own(struct h2 *h2, uint64_t now_ms) {
    bool is_client = h2->session.is_client;
    if (h2->head && is_client && h2->head_ms + h2->session.options->timeout_request_ms <= now_ms) {
        /* Trailers belong to a request that is counted when it ends. */
        if (h2->head->kind == H2_REQUEST)
            h2->session.host->on_refused(&h2->session, REASON_REQUEST_TIMEOUT);
        h2_fail(h2, REASON_REQUEST_TIMEOUT, NGHTTP2_ENHANCE_YOUR_CALM);
        return true;
    }
    if (h2_is_sending(h2) && h2->moved_ms + h2_step_ms(h2) <= now_ms) {
        enum reason of_side = is_client ? REASON_CLIENT_TIMEOUT : REASON_SERVER_TIMEOUT;
        session_reset(&h2->session);
        h2_lose_streams(h2, h2->starved ? REASON_NO_MEMORY : of_side);
        return true;
    }
    if (!list_empty(&h2->streams) || h2_own_deadline(h2) > now_ms) return false;
    if (is_client) {
        h2_fail(h2, h2->drain_ms != 0 ? REASON_DRAINED : REASON_CLIENT_IDLE, NGHTTP2_NO_ERROR);
    } else {
        h2_drop(h2, REASON_SERVER_IDLE);
    }
    return true;
}

/* From now on no stream is taken that is not known. */
static void h2_say_drain(struct h2 *h2) {
    h2->drain_said = true;
    int32_t last = nghttp2_session_get_last_proc_stream_id(h2->ng);
    if (nghttp2_submit_goaway(h2->ng, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0) != 0)
        h2_fail(h2, REASON_NO_MEMORY, NGHTTP2_INTERNAL_ERROR);
    h2_mark(h2);
}

void h2_on_deadline(struct conn *conn) {
    struct h2 *h2 = h2_of_conn(conn);
    uint64_t now_ms = h2_net(h2)->now_ms;
    if (h2->connecting) {
        h2_drop(h2, wire_late_reason(h2->session.conn));
        return;
    }
    if (h2_is_deaf(h2)) return;
    struct conn_taken taken = h2_look(h2);
    if (!h2_is_sending(h2)) {
        h2->moved_ms = now_ms;
    } else if (taken.ago_ms < now_ms - h2->moved_ms) {
        h2->moved_ms = now_ms - taken.ago_ms;
    }
    if (h2->drain_ms != 0 && !h2->drain_said && h2->drain_ms + H2_DRAIN_MS <= now_ms)
        h2_say_drain(h2);
    h2_check_streams(h2, now_ms, taken);
    if (h2_is_deaf(h2) || h2_check_own(h2, now_ms)) return;
    uint64_t next_ms = h2_own_deadline(h2);
    LIST_FOR_EACH(node, &h2->streams) {
        uint64_t at_ms = h2_stream_deadline(h2, LIST_OWNER(node, struct h2_stream, link));
        if (at_ms < next_ms) next_ms = at_ms;
    }
    /* Whatever begins to be waited for later is late no earlier than this. */
    uint64_t later_ms = now_ms + h2_step_ms(h2);
    conn_deadline(conn, next_ms < later_ms ? next_ms : later_ms);
}
