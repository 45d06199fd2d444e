/* tcp.c: a connection that carries nothing but bytes: the session of listeners with mode = tcp, and
 * of the servers behind them. */
#include "base/check.h"
#include "net/conn_watch.h"
#include "session/session_life.h"
#include "session/tcp_internal.h"

/* Reads in a row that fill their buffer before a direction counts as a stream, and that a small
 * buffer would have held before it does no longer. */
#define TCP_FULL_READS 3
#define TCP_SHORT_READS 3

static struct tcp *tcp_of_stream(struct stream *stream) {
    return LIST_OWNER(stream, struct tcp, stream);
}
static struct tcp *tcp_of_session(struct session *session) {
    return LIST_OWNER(session, struct tcp, session);
}
static struct tcp *tcp_of_conn(struct conn *conn) { return conn->user; }
static struct net *tcp_net(const struct tcp *tcp) { return tcp->session.room->net; }

/* Rows: from; bits: to. */
static const uint8_t tcp_transitions[] = {
    [TCP_DIALLING] = 1 << TCP_HELD | 1 << TCP_ENDED,
    [TCP_HELD] = 1 << TCP_RAW | 1 << TCP_ENDED,
    [TCP_RAW] = 1 << TCP_FLUSHING | 1 << TCP_ENDED,
    [TCP_FLUSHING] = 1 << TCP_ENDED,
    [TCP_ENDED] = 0,
};

static void tcp_set_state(struct tcp *tcp, enum tcp_state state) {
    CHECK(tcp_transitions[tcp->state] & 1 << state);
    tcp->state = (uint8_t)state;
}

/* For how long there is nothing to look at, if no byte moves any more. */
static uint64_t tcp_rest_ms(const struct tcp *tcp) {
    bool is_blind = tcp->tunnel_ms > CONN_BLIND_MS && conn_is_blind(tcp->session.conn);
    return is_blind ? CONN_BLIND_MS : tcp->tunnel_ms;
}

/* A byte has moved. */
static void tcp_touch(struct tcp *tcp) {
    if (tcp->state != TCP_RAW && tcp->state != TCP_FLUSHING) return;
    tcp->moved_ms = (uint32_t)tcp_net(tcp)->now_ms;
    conn_deadline(tcp->session.conn, tcp_net(tcp)->now_ms + tcp_rest_ms(tcp));
}

/* Nothing is read any more, though no byte has moved. */
static void tcp_note_blind(struct tcp *tcp) {
    struct conn *conn = tcp->session.conn;
    if (!conn || !conn_is_blind(conn)) return;
    bool rests = tcp->state == TCP_RAW && tcp->tunnel_ms > CONN_BLIND_MS;
    if (rests || tcp->state == TCP_HELD) conn_deadline(conn, tcp_net(tcp)->now_ms + CONN_BLIND_MS);
}

/* Also by what the other side has taken since, which some sockets tell once. */
static uint64_t tcp_idle_ms(struct tcp *tcp) {
    struct conn *conn = tcp->session.conn;
    uint32_t now_ms = (uint32_t)tcp_net(tcp)->now_ms;
    uint64_t ago_ms = conn ? conn_taken(conn).ago_ms : UINT64_MAX;
    if (ago_ms < now_ms - tcp->moved_ms) tcp->moved_ms = now_ms - (uint32_t)ago_ms;
    return now_ms - tcp->moved_ms;
}

static struct bytes tcp_held(const struct tcp *tcp) {
    const struct lease *lease = tcp->pending_first;
    return lease ? bytes_make(lease->memory + lease->at, lease->len) : BYTES_NONE;
}

static size_t tcp_held_room(const struct tcp *tcp) {
    const struct lease *lease = tcp->pending_first;
    return lease ? lease->size - lease->at - lease->len : SIZE_MAX;
}

/* Nothing of the session may be touched afterwards: its stream may be closed. */
static void tcp_show(struct tcp *tcp) {
    bool last = tcp->eof || tcp_held_room(tcp) == 0;
    tcp->stream.events->on_held(&tcp->stream, tcp_held(tcp), last);
}

/* Small pieces are gathered in the buffer of the first one: nobody else has it. Returns what did
 * not fit. */
static struct bytes tcp_gather(struct tcp *tcp, struct bytes bytes) {
    struct lease *lease = tcp->pending_first;
    size_t part = tcp_held_room(tcp);
    if (!lease) return bytes;
    CHECK(lease->refs == 1);
    if (part > bytes.len) part = bytes.len;
    memcpy(lease->memory + lease->at + lease->len, bytes.ptr, part);
    lease->len += (uint32_t)part;
    return bytes_slice(bytes, part, bytes.len - part);
}

/* Takes the caller's reference of `lease`. */
static void tcp_stash(struct tcp *tcp, struct bytes bytes, struct lease *lease) {
    lease->at = (uint32_t)(bytes.ptr - lease->memory);
    lease->len = (uint32_t)bytes.len;
    lease->next = NULL;
    if (tcp->pending_last) {
        tcp->pending_last->next = lease;
    } else {
        tcp->pending_first = lease;
    }
    tcp->pending_last = lease;
    conn_pause(tcp->session.conn);
    tcp_note_blind(tcp);
}

/* As tcp_stash, where somebody looks at what comes. */
static void tcp_hold(struct tcp *tcp, struct bytes bytes, struct lease *lease) {
    bytes = tcp_gather(tcp, bytes);
    if (bytes.len != 0) {
        tcp_stash(tcp, bytes, lease);
    } else {
        lease_unref(lease);
    }
    if (tcp_held_room(tcp) != 0) conn_resume(tcp->session.conn);
    tcp_show(tcp);
}

static struct lease *tcp_pop_pending(struct tcp *tcp) {
    struct lease *lease = tcp->pending_first;
    if (!lease) return NULL;
    tcp->pending_first = lease->next;
    if (!tcp->pending_first) tcp->pending_last = NULL;
    return lease;
}

static void tcp_drop_pending(struct tcp *tcp) {
    for (struct lease *lease; (lease = tcp_pop_pending(tcp));)
        lease_unref(lease);
}

/* The connection has been given up, in whatever way. */
static void tcp_end(struct tcp *tcp, enum reason reason) {
    CHECK(!tcp->session.conn && !tcp->stream_open);
    tcp_set_state(tcp, TCP_ENDED);
    tcp->session.closing = true;
    tcp->end_reason = (uint8_t)reason;
    tcp_drop_pending(tcp);
    net_defer(tcp_net(tcp), &tcp->task);
}

/* For when nothing is owed any more, or nothing has begun. */
static void tcp_drop(struct tcp *tcp, enum reason reason) {
    session_drop(&tcp->session);
    tcp_end(tcp, reason);
}

static void tcp_abort(struct tcp *tcp, enum reason reason) {
    session_reset(&tcp->session);
    tcp_end(tcp, reason);
}

/* The user closes the stream, now or later. */
static void tcp_reset_stream(struct tcp *tcp, enum reason reason) {
    tcp_drop_pending(tcp);
    if (tcp->stream_reset) return;
    tcp->stream_reset = true;
    tcp->stream.events->on_reset(&tcp->stream, reason);
}

static bool tcp_is_listening(const struct tcp *tcp) {
    return tcp->stream_open && !tcp->stream_reset;
}

/* Streams. */

/* The connection is gone, or the stream is about to be told that it failed: its user does not know
 * yet, and may go on calling. */
static bool tcp_is_deaf(const struct tcp *tcp) {
    return !tcp->session.conn || tcp->failure != REASON_NONE;
}

static enum stream_room tcp_data_op(struct stream *stream, struct bytes data, struct lease *lease,
                                    bool end) {
    struct tcp *tcp = tcp_of_stream(stream);
    struct conn *conn = tcp->session.conn;
    if (tcp_is_deaf(tcp)) return STREAM_ROOM;
    CHECK(tcp->stream_open && tcp->state == TCP_RAW && !conn->fin_wanted);
    bool queued = lease ? conn_send_lease(conn, data, lease) : conn_send_copy(conn, data);
    if (!queued) {
        tcp->failure = REASON_NO_MEMORY;
        net_defer(tcp_net(tcp), &tcp->task);
        return STREAM_FULL;
    }
    tcp_touch(tcp);
    if (end) conn_send_fin(conn);
    return conn_is_full(conn) ? STREAM_FULL : STREAM_ROOM;
}

static void tcp_end_op(struct stream *stream, const struct http_fields *trailers) {
    (void)trailers; /* bytes have none */
    struct tcp *tcp = tcp_of_stream(stream);
    if (tcp_is_deaf(tcp)) return;
    CHECK(tcp->stream_open && tcp->state == TCP_RAW);
    conn_send_fin(tcp->session.conn);
    tcp_touch(tcp);
}

static void tcp_pause_op(struct stream *stream) {
    struct tcp *tcp = tcp_of_stream(stream);
    tcp->paused = true;
    if (!tcp->session.conn) return;
    conn_pause(tcp->session.conn);
    tcp_note_blind(tcp);
}

static void tcp_resume_op(struct stream *stream) {
    struct tcp *tcp = tcp_of_stream(stream);
    if (!tcp->paused) return;
    tcp->paused = false;
    if (!tcp->session.conn) return;
    if (!tcp->pending_first) conn_resume(tcp->session.conn);
}

static void tcp_tunnel_op(struct stream *stream, uint64_t idle_ms) {
    struct tcp *tcp = tcp_of_stream(stream);
    if (tcp_is_deaf(tcp)) return;
    tcp_set_state(tcp, TCP_RAW);
    CHECK(idle_ms < UINT32_MAX); /* 49 days; a file can say 30 */
    tcp->tunnel_ms = (uint32_t)idle_ms;
    tcp_touch(tcp);
    /* What came ahead, and a FIN behind it. */
    if (tcp->pending_first || tcp->eof) net_defer(tcp_net(tcp), &tcp->task);
}

static void tcp_peek_op(struct stream *stream, bool on) {
    struct tcp *tcp = tcp_of_stream(stream);
    tcp->peeking = on;
    if (tcp_is_deaf(tcp)) return;
    CHECK(tcp->state == TCP_HELD);
    if (!on) {
        if (tcp->pending_first) conn_pause(tcp->session.conn);
        tcp_note_blind(tcp);
        return;
    }
    if (tcp->pending_first && tcp_held_room(tcp) != 0) conn_resume(tcp->session.conn);
    if (tcp->pending_first || tcp->eof) net_defer(tcp_net(tcp), &tcp->task);
}

static bool tcp_pass_op(struct stream *stream, struct stream *to) {
    struct tcp *tcp = tcp_of_stream(stream);
    struct conn *conn = tcp->session.conn;
    if (tcp_is_deaf(tcp) || tcp->state != TCP_RAW || tcp->eof) return false;
    if (tcp->pending_first || conn->pump_out) return false;
    struct conn *target = to->ops->pass_target ? to->ops->pass_target(to) : NULL;
    return target && !target->pump_in && pump_start(conn, target);
}

static struct conn *tcp_pass_target_op(struct stream *stream) {
    struct tcp *tcp = tcp_of_stream(stream);
    bool open = tcp->state == TCP_RAW && !tcp_is_deaf(tcp) && !tcp->session.conn->fin_wanted;
    return open ? tcp->session.conn : NULL;
}

static void tcp_passed_op(struct stream *stream, uint64_t bytes) {
    if (bytes != 0) tcp_touch(tcp_of_stream(stream));
}

static uint64_t tcp_idle_op(struct stream *stream) { return tcp_idle_ms(tcp_of_stream(stream)); }

static void tcp_close_op(struct stream *stream, enum reason reason) {
    struct tcp *tcp = tcp_of_stream(stream);
    struct conn *conn = tcp->session.conn;
    CHECK(tcp->stream_open);
    tcp->stream_open = false;
    if (!tcp->session.is_client) tcp->session.streams_open = 0;
    tcp->stream.events = NULL;
    if (tcp->failure != REASON_NONE) reason = (enum reason)tcp->failure;
    tcp->failure = REASON_NONE;
    if (!conn) {
        tcp_end(tcp, reason);
    } else if (reason != REASON_NONE || !tcp->eof || !conn->fin_wanted) {
        tcp_abort(tcp, reason);
    } else if (conn_queued(conn) == 0) {
        tcp_drop(tcp, reason);
    } else {
        tcp_set_state(tcp, TCP_FLUSHING);
        tcp_touch(tcp);
        conn_notify_sent(conn);
        /* The client that left this to be sent may be gone: a drain waits for it all the same. */
        if (!tcp->session.is_client)
            list_push_back(&tcp->session.room->clients, &tcp->session.link);
    }
}

/* `head` is never called: there are no messages. */
static const struct stream_ops tcp_stream_ops = {
    .data = tcp_data_op,
    .end = tcp_end_op,
    .pause = tcp_pause_op,
    .resume = tcp_resume_op,
    .peek = tcp_peek_op,
    .tunnel = tcp_tunnel_op,
    .pass = tcp_pass_op,
    .pass_target = tcp_pass_target_op,
    .passed = tcp_passed_op,
    .idle_ms = tcp_idle_op,
    .close = tcp_close_op,
};

static void tcp_open_stream(struct tcp *tcp) {
    tcp->stream = (struct stream){
        .ops = &tcp_stream_ops, .session = &tcp->session, .began_ns = tcp->session.opened_ns};
    tcp->session.streams++;
    if (!tcp->session.is_client) tcp->session.streams_open = 1;
    tcp->stream_open = true;
}

/* Not from within tcp_accept: whoever calls that has yet to say who it is. */
static void tcp_begin(struct tcp *tcp) {
    struct session *session = &tcp->session;
    tcp_open_stream(tcp);
    if (session->host->on_stream(session, &tcp->stream)) return;
    tcp->stream_open = false;
    session->host->on_refused(session, REASON_NO_MEMORY);
    tcp_abort(tcp, REASON_NO_MEMORY);
}

/* What a server says is only whole if it says so. */
static void tcp_tell_eof(struct tcp *tcp) {
    if (tcp->session.conn->cut && !tcp->session.is_client) {
        tcp_reset_stream(tcp, REASON_SERVER_RESET);
    } else {
        tcp->stream.events->on_end(&tcp->stream, NULL);
    }
}

static void tcp_feed_pending(struct tcp *tcp) {
    for (struct lease *lease; (lease = tcp_pop_pending(tcp));) {
        struct bytes bytes = bytes_make(lease->memory + lease->at, lease->len);
        tcp->stream.events->on_data(&tcp->stream, bytes, lease);
        lease_unref(lease);
        if (!tcp_is_listening(tcp)) return;
    }
    if (!tcp->paused) conn_resume(tcp->session.conn);
    if (tcp->eof) tcp_tell_eof(tcp);
}

static void tcp_release(struct tcp *tcp) {
    tcp->session.host->on_closed(&tcp->session, (enum reason)tcp->end_reason);
    session_release(&tcp->session, &tcp->session.room->tcp, &tcp->task);
}

static void tcp_on_task(struct net_task *task) {
    struct tcp *tcp = LIST_OWNER(task, struct tcp, task);
    if (tcp->state == TCP_ENDED) {
        tcp_release(tcp);
    } else if (tcp->session.streams == 0) {
        tcp_begin(tcp);
    } else if (tcp->failure != REASON_NONE) {
        enum reason failure = (enum reason)tcp->failure;
        tcp->failure = REASON_NONE;
        tcp_reset_stream(tcp, failure);
    } else if (tcp->state == TCP_RAW && tcp_is_listening(tcp)) {
        tcp_feed_pending(tcp);
    } else if (tcp->peeking && tcp_is_listening(tcp)) {
        tcp_show(tcp);
    }
}

/* Connections. */

/* A direction that keeps filling small buffers is a stream, until it turns chatty: the tunnel may
 * let it pass by itself then; where it cannot, big buffers help. */
static void tcp_watch(struct tcp *tcp, const struct bytes *bytes, const struct lease *lease) {
    uint32_t small = tcp_net(tcp)->options.small_size;
    bool is_bulk = lease->size > small;
    bool much = is_bulk ? bytes->len > small : bytes->len == lease->size;
    tcp->reads = much == is_bulk ? 0 : (uint8_t)(tcp->reads + 1);
    if (!much) tcp->stream.bulk = false;
    if (tcp->reads < (is_bulk ? TCP_SHORT_READS : TCP_FULL_READS)) return;
    tcp->reads = 0;
    tcp->stream.bulk = much;
    conn_expect_bulk(tcp->session.conn, much);
}

static uint64_t tcp_pump_limit(struct conn *conn) {
    (void)conn;
    return UINT64_MAX;
}

static void tcp_on_pumped(struct conn *conn, uint64_t bytes) {
    struct tcp *tcp = tcp_of_conn(conn);
    if (!tcp_is_listening(tcp)) return;
    if (bytes != 0) {
        tcp_touch(tcp);
    } else {
        tcp_note_blind(tcp);
    }
    tcp->stream.events->on_passed(&tcp->stream, bytes);
}

static void tcp_on_bytes(struct conn *conn, struct bytes bytes, struct lease *lease) {
    struct tcp *tcp = tcp_of_conn(conn);
    if (tcp->stream_reset) {
        lease_unref(lease);
        return;
    }
    if (tcp->peeking && tcp_is_listening(tcp)) {
        tcp_hold(tcp, bytes, lease);
        return;
    }
    if (tcp->state != TCP_RAW || tcp->pending_first) {
        tcp_stash(tcp, bytes, lease);
        return;
    }
    tcp_touch(tcp);
    tcp_watch(tcp, &bytes, lease);
    tcp->stream.events->on_data(&tcp->stream, bytes, lease);
    lease_unref(lease);
}

static void tcp_on_eof(struct conn *conn) {
    struct tcp *tcp = tcp_of_conn(conn);
    tcp->eof = true;
    tcp_note_blind(tcp);
    if (tcp->peeking && tcp_is_listening(tcp)) {
        tcp_show(tcp);
        return;
    }
    /* Its turn comes after what came before it. */
    if (tcp->state != TCP_RAW || tcp->pending_first || !tcp_is_listening(tcp)) return;
    tcp_touch(tcp);
    tcp_tell_eof(tcp);
}

static void tcp_on_drained(struct conn *conn) {
    struct tcp *tcp = tcp_of_conn(conn);
    tcp_touch(tcp);
    if (tcp_is_listening(tcp)) tcp->stream.events->on_drained(&tcp->stream);
}

/* FLUSHING is over. The other side's FIN has come, so that closing is all that is left. */
static void tcp_on_sent(struct conn *conn) { tcp_drop(tcp_of_conn(conn), REASON_NONE); }

static void tcp_on_lost(struct conn *conn, int error) {
    struct tcp *tcp = tcp_of_conn(conn);
    enum reason reason = tcp->session.is_client ? REASON_CLIENT_RESET : REASON_SERVER_RESET;
    if (tcp->state == TCP_DIALLING) reason = session_undialled_reason(&tcp->session, error);
    tcp->session.conn = NULL;
    if (!tcp->stream_open) {
        tcp_end(tcp, reason);
    } else {
        tcp_reset_stream(tcp, reason); /* ends with the stream's close */
    }
}

static void tcp_on_deadline(struct conn *conn) {
    struct tcp *tcp = tcp_of_conn(conn);
    if (tcp->state == TCP_DIALLING) {
        tcp_drop(tcp, wire_late_reason(conn));
        return;
    }
    if (conn_is_blind(conn)) conn_watch(conn);
    if (tcp->state == TCP_HELD) return;
    uint64_t idle_ms = tcp_idle_ms(tcp);
    if (tcp_is_listening(tcp) && tcp->stream.events->on_idle) {
        uint64_t other_ms = tcp->stream.events->on_idle(&tcp->stream);
        if (other_ms < idle_ms) idle_ms = other_ms;
    }
    if (idle_ms < tcp->tunnel_ms) {
        conn_deadline(conn, tcp_net(tcp)->now_ms + tcp->tunnel_ms - idle_ms);
    } else if (tcp->state == TCP_FLUSHING) {
        tcp_abort(tcp, REASON_TUNNEL_TIMEOUT);
    } else {
        tcp_reset_stream(tcp, REASON_TUNNEL_TIMEOUT);
    }
}

static void tcp_on_open(struct conn *conn) {
    struct tcp *tcp = tcp_of_conn(conn);
    tcp_set_state(tcp, TCP_HELD);
    conn_deadline(conn, 0);
    tcp->session.host->on_ready(&tcp->session);
}

static const struct conn_events tcp_conn_events = {
    .on_open = tcp_on_open,
    .on_bytes = tcp_on_bytes,
    .on_eof = tcp_on_eof,
    .on_drained = tcp_on_drained,
    .pump_limit = tcp_pump_limit,
    .on_pumped = tcp_on_pumped,
    .on_sent = tcp_on_sent,
    .on_deadline = tcp_on_deadline,
    .on_lost = tcp_on_lost,
};

/* Sessions. */

static struct tcp *tcp_acquire(struct session_room *room, const struct session_options *options,
                               const struct session_host *host) {
    struct tcp *tcp = slab_acquire(&room->tcp);
    if (!tcp) return NULL;
    *tcp = (struct tcp){
        .session = {.ops = &session_tcp, .options = options, .host = host, .room = room}};
    net_task_init(&tcp->task, tcp_on_task);
    session_begin(&tcp->session);
    return tcp;
}

static struct session *tcp_accept(struct session_room *room, struct conn *conn,
                                  const struct session_options *options,
                                  const struct session_host *host) {
    struct tcp *tcp = tcp_acquire(room, options, host);
    if (!tcp) return NULL;
    tcp->state = TCP_HELD;
    session_attach(&tcp->session, conn, &tcp_conn_events);
    net_defer(room->net, &tcp->task);
    return &tcp->session;
}

static struct session *tcp_connect(struct session_room *room, const struct session_address *to,
                                   const struct session_options *options,
                                   const struct session_host *host, enum reason *reason) {
    struct tcp *tcp = tcp_acquire(room, options, host);
    *reason = REASON_NO_MEMORY;
    if (!tcp) return NULL;
    tcp->state = TCP_DIALLING;
    tcp->session.streams_max = 1;
    *reason = session_dial(&tcp->session, to, &tcp_conn_events);
    if (*reason == REASON_NONE) return &tcp->session;
    session_release(&tcp->session, &room->tcp, &tcp->task);
    return NULL;
}

static struct stream *tcp_open(struct session *session, struct arena *arena) {
    (void)arena; /* no message is ever built */
    struct tcp *tcp = tcp_of_session(session);
    CHECK(!session->is_client);
    if (tcp->state != TCP_HELD || session->streams != 0 || !session->conn) return NULL;
    tcp_open_stream(tcp);
    return &tcp->stream;
}

/* A stream at work ends by itself, and there is no idle session. */
static void tcp_drain(struct session *session) { (void)session; }

static void tcp_close(struct session *session, enum reason reason) {
    struct tcp *tcp = tcp_of_session(session);
    if (!session->conn) return;
    if (tcp->stream_open) {
        tcp_reset_stream(tcp, reason);
    } else if (tcp->state == TCP_DIALLING) {
        tcp_drop(tcp, reason);
    } else {
        tcp_abort(tcp, reason);
    }
}

const struct session_ops session_tcp = {
    .proto = "tcp",
    .one_stream = true,
    .accept = tcp_accept,
    .connect = tcp_connect,
    .open = tcp_open,
    .drain = tcp_drain,
    .close = tcp_close,
};
