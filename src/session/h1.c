/* h1.c: life and time of an HTTP/1.x session. */
#include "base/check.h"
#include "net/conn_watch.h"
#include "session/h1_internal.h"
#include "session/session_life.h"

/* A connection idle for so long has no request on its way: it may close without a client noticing.
 */
#define H1_DRAIN_IDLE_MS 1000

static uint64_t h1_idle_deadline(const struct h1 *h1) {
    const struct session_options *options = h1->session.options;
    uint64_t now_ms = h1_net(h1)->now_ms;
    if (!h1->session.is_client) return now_ms + options->timeout_keepalive_ms;
    /* A request is here already: it waits for the client to read the answers before it. */
    if (h1->pending_first) return now_ms + options->timeout_client_ms;
    uint64_t idle_ms =
        h1->session.streams == 0 ? options->timeout_request_ms : options->timeout_keepalive_ms;
    if (h1->session.room->draining) idle_ms = H1_DRAIN_IDLE_MS;
    /* Who is still reading the answer before is not idle. */
    bool reading = h1->since_ms + idle_ms <= now_ms && conn_is_sending(h1->session.conn);
    return reading ? now_ms + options->timeout_client_ms : h1->since_ms + idle_ms;
}

static bool h1_is_raw(const struct h1 *h1) { return h1->in == H1_IN_RAW || h1->out == H1_OUT_RAW; }

/* Nothing is read because whoever it is for has no room. */
static bool h1_is_held(const struct h1 *h1) { return h1->paused || conn_is_held(h1->session.conn); }

/* In a tunnel, for how long there is nothing to look at if no byte moves any more. */
static uint64_t h1_rest_ms(const struct h1 *h1) {
    bool is_blind = h1->tunnel_ms > CONN_BLIND_MS && conn_is_blind(h1->session.conn);
    return is_blind ? CONN_BLIND_MS : h1->tunnel_ms;
}

/* While request and answer are both under way a client may just listen: silence is its server's. */
static bool h1_is_read(const struct h1 *h1) {
    bool is_due = h1->in == H1_IN_BODY || h1->in == H1_IN_TRAILERS;
    return is_due && h1->out != H1_OUT_BODY && !h1_is_held(h1);
}

/* A request body that waits for whoever takes it: no receive shows that the client has gone. */
static bool h1_is_unread(const struct h1 *h1) {
    bool is_due = h1->in == H1_IN_BODY || h1->in == H1_IN_TRAILERS;
    return h1->session.is_client && is_due && h1->paused;
}

/* Of a client that just waits for its answer, or for more of it, nothing is due: but if it is not
 * read, as no other request may come, a reset has to be looked for. */
static uint64_t h1_wait_deadline(const struct h1 *h1) {
    bool is_unseen = conn_is_blind(h1->session.conn) || h1_is_unread(h1);
    return is_unseen ? h1_net(h1)->now_ms + CONN_BLIND_MS : 0;
}

/* The server is not late while nothing but the rest of the request could bring its answer. */
static bool h1_waits_for_client(const struct h1 *h1) {
    if (h1->out == H1_OUT_DONE || conn_is_sending(h1->session.conn)) return false;
    bool two_way = h1->in == H1_IN_BODY || h1->in == H1_IN_TRAILERS || h1->stream.is_call;
    return !two_way || h1->in == H1_IN_DONE;
}

static uint64_t h1_server_ms(const struct h1 *h1) {
    uint64_t step_ms = h1->session.options->timeout_server_ms;
    bool both = h1->out != H1_OUT_DONE && !conn_is_sending(h1->session.conn);
    return both && h1->stream.silence_ms > step_ms ? h1->stream.silence_ms : step_ms;
}

/* Outside of a tunnel. 0: nothing is waited for that this side could be late with. */
static uint64_t h1_deadline(const struct h1 *h1) {
    const struct session_options *options = h1->session.options;
    uint64_t now_ms = h1_net(h1)->now_ms;
    if (h1->head && h1->in == H1_IN_HEAD && h1->session.is_client)
        return h1->since_ms + options->timeout_request_ms;
    if (!h1->stream_open) return h1_idle_deadline(h1);
    if (h1->session.is_client) {
        bool waits = conn_is_sending(h1->session.conn) || h1_is_read(h1);
        return waits ? now_ms + options->timeout_client_ms : h1_wait_deadline(h1);
    }
    if (h1_waits_for_client(h1) || h1_is_held(h1)) return 0;
    return now_ms + h1_server_ms(h1);
}

void h1_touch(struct h1 *h1) {
    struct conn *conn = h1->session.conn;
    uint64_t now_ms = h1_net(h1)->now_ms;
    bool is_raw = h1_is_raw(h1);
    if (is_raw) h1->since_ms = now_ms;
    if (!conn || h1->connecting) return;
    conn_deadline(conn, is_raw ? now_ms + h1_rest_ms(h1) : h1_deadline(h1));
    bool waits = h1->session.is_client && h1->stream_open && !is_raw;
    /* Of what a pump holds for it there is no word. */
    if (waits && conn_is_blind(conn) && conn_queued(conn) != 0) conn_notify_sent(conn);
}

/* A send in flight may have written a part, and counts only when it is done. */
static void h1_note_sent(struct h1 *h1, const struct conn *conn) {
    if (h1->session.is_client) return;
    h1->stream.sent = conn->send_armed || conn->sent_total != h1->sent_before;
}

void h1_reset_stream(struct h1 *h1, enum reason reason) {
    h1->in = H1_IN_BROKEN;
    h1->keep_alive = false;
    h1_drop_pending(h1);
    if (!h1->stream_open || h1->stream_reset) return;
    h1->stream_reset = true;
    if (h1->session.conn) h1_note_sent(h1, h1->session.conn);
    h1->stream.events->on_reset(&h1->stream, reason);
}

void h1_fail_later(struct h1 *h1, enum reason reason) {
    h1->failure = reason;
    net_defer(h1_net(h1), &h1->task);
}

void h1_end(struct h1 *h1, enum reason reason) {
    CHECK(!h1->session.conn && !h1->stream_open);
    if (h1->session.closing) return;
    h1->session.closing = true;
    h1->in = H1_IN_BROKEN;
    h1->end_reason = reason;
    h1_drop_pending(h1);
    net_defer(h1_net(h1), &h1->task);
}

void h1_hand_over(struct h1 *h1) {
    h1->handed_over = true;
    h1_end(h1, REASON_NONE);
}

void h1_finish(struct h1 *h1, enum reason reason) {
    session_finish(&h1->session, h1->in != H1_IN_DONE);
    h1_end(h1, reason);
}

void h1_drop(struct h1 *h1, enum reason reason) {
    session_drop(&h1->session);
    h1_end(h1, reason);
}

static void h1_release(struct h1 *h1) {
    if (!h1->handed_over) h1->session.host->on_closed(&h1->session, h1->end_reason);
    h1_drop_head(h1);
    h1_drop_pending(h1);
    if (h1->session.is_client) arena_reset(&h1->arena);
    session_release(&h1->session, &h1->session.room->sessions, &h1->task);
}

/* What could not be done within a call. */
static void h1_on_task(struct net_task *task) {
    struct h1 *h1 = LIST_OWNER(task, struct h1, task);
    if (h1->session.closing) {
        h1_release(h1);
        return;
    }
    if (h1->failure != REASON_NONE) {
        enum reason failure = h1->failure;
        h1->failure = REASON_NONE;
        h1_reset_stream(h1, failure);
        return;
    }
    if (h1->pending_first) h1_feed_pending(h1);
    if (h1->session.conn && h1->eof && !h1->pending_first) h1_on_eof(h1);
}

static void h1_on_bytes(struct conn *conn, struct bytes bytes, struct lease *lease) {
    h1_feed(h1_of_conn(conn), bytes, lease);
    lease_unref(lease);
}

static void h1_on_conn_eof(struct conn *conn) {
    struct h1 *h1 = h1_of_conn(conn);
    if (h1->pending_first) {
        h1->eof = true; /* its turn comes after what came before it */
    } else {
        h1_on_eof(h1);
    }
}

static void h1_on_drained(struct conn *conn) {
    struct h1 *h1 = h1_of_conn(conn);
    h1_touch(h1);
    if (h1->stream_open && !h1->stream_reset) h1->stream.events->on_drained(&h1->stream);
    /* A pipelined request may have waited for the client to read. */
    if (h1->pending_first && h1->in == H1_IN_HEAD) net_defer(h1_net(h1), &h1->task);
}

/* A client that has read an answer slowly is idle from the end of it on; in the middle of one it
 * waits. */
static void h1_on_sent(struct conn *conn) {
    struct h1 *h1 = h1_of_conn(conn);
    if (h1->stream_open) h1_touch(h1);
    if (h1->stream_open || h1->head || h1->in != H1_IN_HEAD) return;
    h1->since_ms = h1_net(h1)->now_ms;
    h1_touch(h1);
}

static void h1_on_lost(struct conn *conn, int error) {
    struct h1 *h1 = h1_of_conn(conn);
    enum reason reason = h1->connecting ? session_undialled_reason(&h1->session, error)
                                        : session_lost_reason(&h1->session, error);
    h1_note_sent(h1, conn);
    h1->session.conn = NULL;
    if (h1->stream_open) {
        h1_reset_stream(h1, reason);
        if (h1->stream_open) return; /* ends with the stream's close */
    }
    if (!h1->session.closing) h1_end(h1, reason);
}

/* Of a request that waits for a place, or whose server takes no more of it: its client may have
 * gone meanwhile, and it will never be whole. What is not known to be too little may be all of it.
 */
static void h1_look_for_end(struct h1 *h1) {
    struct conn *conn = h1->session.conn;
    bool is_known = h1->in == H1_IN_BODY && h1->body.kind == H1_BODY_LENGTH;
    uint64_t due = is_known ? h1_body_left(&h1->body) : 1;
    /* A part of a record has been read before the rest of it. */
    if (wire_tls(conn)) due = due > TLS_RECORD_MAX ? due - TLS_RECORD_MAX : 1;
    if (conn_is_blind(conn)) conn_watch(conn);
    if (conn_left_unread(conn) < due) {
        h1_reset_stream(h1, REASON_CLIENT_CLOSED);
    } else {
        h1_touch(h1);
    }
}

static void h1_on_client_deadline(struct h1 *h1) {
    if (!h1->stream_open) {
        if (h1->head) {
            h1->method = h1->head->parser.method;
            h1_refuse(h1, REASON_REQUEST_TIMEOUT);
        } else {
            h1_finish(h1, h1->session.room->draining ? REASON_DRAINED : REASON_CLIENT_IDLE);
        }
        return;
    }
    if (h1_is_read(h1) || conn_is_sending(h1->session.conn)) {
        h1_reset_stream(h1, REASON_CLIENT_TIMEOUT);
    } else if (h1_is_unread(h1)) {
        h1_look_for_end(h1);
    } else if (conn_is_blind(h1->session.conn)) {
        conn_watch(h1->session.conn); /* nothing is owed by the client */
    }
}

static void h1_on_upstream_deadline(struct h1 *h1) {
    if (h1->connecting) {
        h1_drop(h1, wire_late_reason(h1->session.conn));
    } else if (!h1->stream_open) {
        h1_drop(h1, REASON_SERVER_IDLE);
    } else if (!h1_is_held(h1) && !h1_waits_for_client(h1)) {
        h1_reset_stream(h1, REASON_SERVER_TIMEOUT);
    }
}

uint64_t h1_idle_ms(struct h1 *h1) {
    struct conn *conn = h1->session.conn;
    uint64_t now_ms = h1_net(h1)->now_ms;
    uint64_t ago_ms = conn ? conn_taken(conn).ago_ms : UINT64_MAX;
    /* Some sockets tell it once. */
    if (ago_ms < now_ms - h1->since_ms) h1->since_ms = now_ms - ago_ms;
    return now_ms - h1->since_ms;
}

/* Bytes that move on either side keep both. */
static void h1_on_tunnel_deadline(struct h1 *h1) {
    if (conn_is_blind(h1->session.conn)) conn_watch(h1->session.conn);
    uint64_t idle_ms = h1_idle_ms(h1);
    if (h1->stream_open && !h1->stream_reset && h1->stream.events->on_idle) {
        uint64_t other_ms = h1->stream.events->on_idle(&h1->stream);
        if (other_ms < idle_ms) idle_ms = other_ms;
    }
    if (idle_ms < h1->tunnel_ms) {
        conn_deadline(h1->session.conn, h1_net(h1)->now_ms + h1->tunnel_ms - idle_ms);
    } else {
        h1_reset_stream(h1, REASON_TUNNEL_TIMEOUT);
    }
}

/* Who takes what it is sent is not late. A client is none anyway when all of its answer is the
 * kernel's; but of a request that may hold MBs, which a server has to read before it answers. */
static bool h1_takes(struct h1 *h1) {
    struct conn *conn = h1->session.conn;
    bool is_client = h1->session.is_client;
    if (h1->connecting || !(conn_is_sending(conn) || (!is_client && h1->stream_open))) return false;
    uint64_t step_ms = is_client ? h1->session.options->timeout_client_ms : h1_server_ms(h1);
    uint64_t ago_ms = conn_taken(conn).ago_ms;
    if (ago_ms >= step_ms) return false;
    if (!h1->stream_open) conn_notify_sent(conn);
    conn_deadline(conn, h1_net(h1)->now_ms + step_ms - ago_ms);
    return true;
}

static void h1_on_deadline(struct conn *conn) {
    struct h1 *h1 = h1_of_conn(conn);
    if (h1_is_raw(h1)) {
        h1_on_tunnel_deadline(h1);
    } else if (h1_takes(h1)) {
        return;
    } else if (h1->session.is_client) {
        h1_on_client_deadline(h1);
    } else {
        h1_on_upstream_deadline(h1);
    }
}

static void h1_on_open(struct conn *conn) {
    struct h1 *h1 = h1_of_conn(conn);
    h1->connecting = false;
    h1_touch(h1);
    h1->session.host->on_ready(&h1->session);
}

static const struct conn_events h1_conn_events = {
    .on_open = h1_on_open,
    .on_bytes = h1_on_bytes,
    .on_eof = h1_on_conn_eof,
    .on_drained = h1_on_drained,
    .on_sent = h1_on_sent,
    .pump_limit = h1_pump_limit,
    .on_pumped = h1_on_pumped,
    .on_deadline = h1_on_deadline,
    .on_lost = h1_on_lost,
};

static struct h1 *h1_acquire(struct session_room *room, const struct session_options *options,
                             const struct session_host *host) {
    struct h1 *h1 = slab_acquire(&room->sessions);
    if (!h1) return NULL;
    *h1 = (struct h1){
        .session = {.ops = &session_h1, .options = options, .host = host, .room = room}};
    net_task_init(&h1->task, h1_on_task);
    session_begin(&h1->session);
    return h1;
}

static struct session *h1_accept(struct session_room *room, struct conn *conn,
                                 const struct session_options *options,
                                 const struct session_host *host) {
    struct h1 *h1 = h1_acquire(room, options, host);
    if (!h1) return NULL;
    h1->since_ms = room->net->now_ms;
    arena_init(&h1->arena, &room->arenas);
    session_attach(&h1->session, conn, &h1_conn_events);
    h1_touch(h1);
    return &h1->session;
}

static struct session *h1_connect(struct session_room *room, const struct session_address *to,
                                  const struct session_options *options,
                                  const struct session_host *host, enum reason *reason) {
    struct h1 *h1 = h1_acquire(room, options, host);
    *reason = REASON_NO_MEMORY;
    if (!h1) return NULL;
    h1->in = H1_IN_DONE;
    h1->out = H1_OUT_DONE;
    h1->connecting = true;
    h1->session.streams_max = 1;
    *reason = session_dial(&h1->session, to, &h1_conn_events);
    if (*reason == REASON_NONE) return &h1->session;
    session_release(&h1->session, &room->sessions, &h1->task);
    return NULL;
}

static struct stream *h1_open(struct session *session, struct arena *arena) {
    struct h1 *h1 = LIST_OWNER(session, struct h1, session);
    CHECK(!session->is_client);
    if (session->closing || !session->conn || h1->connecting || h1->stream_open || h1->eof)
        return NULL;
    h1->stream = (struct stream){.ops = &h1_stream_ops, .session = session, .arena = arena};
    h1->stream.reused = session->streams++ != 0;
    session->streams_open = 1;
    h1->stream_open = true;
    h1->stream_reset = false;
    h1->paused = false;
    h1->key_made = false;
    h1->sent_before = session->conn->sent_total;
    h1->out = H1_OUT_HEAD;
    return &h1->stream;
}

static void h1_drain(struct session *session) {
    struct h1 *h1 = LIST_OWNER(session, struct h1, session);
    if (!session->conn || h1->stream_open) return;
    if (!session->is_client) {
        h1_drop(h1, REASON_DRAINED);
    } else if (!h1->head && h1->in == H1_IN_HEAD && !h1->pending_first) {
        /* Just idle: the deadline closes it, unless a request comes first. */
        h1_touch(h1);
    }
}

static void h1_close(struct session *session, enum reason reason) {
    struct h1 *h1 = LIST_OWNER(session, struct h1, session);
    if (!session->conn) return;
    h1_reset_stream(h1, reason);
    if (!session->conn || h1->stream_open) return; /* ends with the stream's close */
    h1_drop(h1, reason);
}

const struct session_ops session_h1 = {
    .proto = "h1",
    .accept = h1_accept,
    .refuse = h1_refuse_conn,
    .connect = h1_connect,
    .open = h1_open,
    .drain = h1_drain,
    .close = h1_close,
};
