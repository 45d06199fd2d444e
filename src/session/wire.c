#include "session/wire.h"

#include "base/check.h"
#include "net/listener.h"
#include "proto/tls_context.h"
#include "session/session.h"

#include <errno.h>
#include <stdlib.h>

/* Handshakes under way at once: each holds some 50 KB until it is done (150 KB, if its hello claims
 * to be as long as OpenSSL reads). More wait, and those that have taken a second give their place
 * to who waits: so nobody can keep all places by being slow. */
#define WIRE_SHAKING_MAX 1024
#define WIRE_PATIENCE_MS 1000
/* Begun in one turn: each takes the worker some 100 us, which all others wait for. */
#define WIRE_BEGUN_MAX 16
/* As long as an idle connection has for a request that is on its way. */
#define WIRE_DRAIN_MS 1000
/* What an alert gets to be sent. */
#define WIRE_ALERT_MS 1000

/* Until so much is made, records are added to a send: three full ones, which lie in no more buffers
 * than it takes slices and are still in the processor's cache when the kernel copies them. */
#define WIRE_SEND_SIZE (3 * TLS_RECORD_MAX - TLS_RECORD_MAX / 2)
/* A piece shorter than this shares its record with what follows: a copy costs less than a record.
 */
#define WIRE_GATHER_BELOW 4096
/* Answers to KeyUpdate and the like that may wait for the other side to read. */
#define WIRE_ANSWERS_MAX (256 * 1024)

struct wire {
    struct conn_filter filter;
    struct tls tls; /* ssl NULL until SHAKING */
    struct wire_room *room;
    struct conn *conn;
    const struct session_options *options;
    const struct wire_gate *gate;   /* NULL: dialled */
    struct wire_sessions *sessions; /* dialled; NULL: none are kept */
    const char *name;               /* dialled: of the server */
    struct list link;               /* accepted, until OPEN */
    struct lease *pending_first;    /* came while WAITING */
    struct lease *pending_last;
    uint64_t began_ms; /* of SHAKING */
    enum wire_state state;
    bool ended; /* close_notify has come */
};

static struct wire *wire_of_filter(struct conn_filter *filter) {
    return LIST_OWNER(filter, struct wire, filter);
}
static struct wire *wire_of_conn(const struct conn *conn) { return wire_of_filter(conn->filter); }
static struct wire *wire_of_tls(struct tls *tls) { return LIST_OWNER(tls, struct wire, tls); }

static void wire_set_state(struct wire *wire, enum wire_state state) {
    struct wire_room *room = wire->room;
    if (wire->gate) {
        list_remove(&wire->link);
        room->shaking += (state == WIRE_SHAKING) - (uint32_t)(wire->state == WIRE_SHAKING);
        if (state < WIRE_OPEN) list_push_back(&room->accepted[state], &wire->link);
        bool place_free = wire->state == WIRE_SHAKING && !list_empty(&room->accepted[WIRE_WAITING]);
        if (place_free) net_defer(room->net, &room->task);
    }
    wire->state = state;
}

/* An accepted connection that never came to be a session. */
static void wire_count_failure(const struct wire *wire, enum reason reason) {
    stat_bump(&wire->room->net->stats->tls_failures[reason], 1);
}

/* The connection goes on without the wire, which is gone then. */
static struct conn *wire_leave(struct wire *wire) {
    struct conn *conn = wire->conn;
    conn_attach(conn, NULL, NULL);
    conn_deadline(conn, 0);
    conn_drop_filter(conn);
    return conn;
}

/* Ends an accepted connection before it is OPEN. Once TLS has failed an alert may wait to be sent;
 * else it is a handshake that nobody waits for any more. */
static void wire_reject(struct wire *wire, enum reason reason) {
    bool has_failed = wire->tls.failure != REASON_NONE;
    wire_count_failure(wire, reason);
    struct conn *conn = wire_leave(wire);
    if (has_failed && conn_queued(conn) != 0) {
        conn_finish(conn, WIRE_ALERT_MS, true);
    } else {
        conn_reset(conn);
    }
}

static void wire_fail(struct wire *wire, enum reason reason) {
    if (wire->gate && wire->state != WIRE_OPEN) {
        wire_reject(wire, reason);
    } else {
        wire->tls.failure = reason;
        conn_fail(wire->conn, reason == REASON_NO_MEMORY ? ENOMEM : EPROTO);
    }
}

/* Receiving. */

/* A record that began in an earlier buffer: its plaintext may not fit what it has left of this one.
 * False: the connection is lost or closed. */
static enum tls_result wire_read_split(struct wire *wire, struct bytes *plain) {
    struct net *net = wire->room->net;
    size_t size;
    enum tls_result result = tls_next(&wire->tls, &size);
    if (result != TLS_DONE) return result;
    size_t room = (size_t)(wire->tls.input.ptr - plain->ptr) - plain->len;
    while (size != 0) {
        size_t len = 0;
        if (size <= room) {
            char *to = (char *)(uintptr_t)plain->ptr + plain->len;
            result = tls_read(&wire->tls, to, size, &len);
            plain->len += len;
            return result;
        }
        struct lease *lease = buf_take(&net->small);
        if (!lease) {
            wire->tls.failure = REASON_NO_MEMORY;
            return TLS_BAD;
        }
        result = tls_read(&wire->tls, lease->memory, lease->size, &len);
        if (result != TLS_DONE) {
            lease_unref(lease);
            return result;
        }
        size -= len;
        wire->conn->events->on_bytes(wire->conn, bytes_make(lease->memory, len), lease);
        if (wire->conn->state != CONN_OPEN) return TLS_END;
    }
    return TLS_DONE;
}

/* Plaintext takes the place of the records it was made of, so that it arrives as one piece. */
static enum tls_result wire_decrypt(struct wire *wire, struct bytes *plain) {
    struct bytes all = wire->tls.input;
    *plain = bytes_make(all.ptr, 0);
    for (;;) {
        enum tls_result result;
        if (tls_fits(&wire->tls)) {
            char *to = (char *)(uintptr_t)all.ptr + plain->len;
            size_t len = 0;
            if (wire->tls.input.len == 0) return TLS_MORE;
            result = tls_read(&wire->tls, to, all.len - plain->len, &len);
            plain->len += len;
        } else {
            result = wire_read_split(wire, plain);
        }
        if (result != TLS_DONE) return result;
    }
}

/* Takes the caller's reference of `lease`, in which tls.input lies. */
static void wire_read(struct wire *wire, struct lease *lease) {
    struct conn *conn = wire->conn;
    struct bytes plain = BYTES_NONE;
    enum tls_result result = wire->ended ? TLS_MORE : wire_decrypt(wire, &plain);
    tls_give(&wire->tls, BYTES_NONE);
    if (conn->state == CONN_OPEN && plain.len != 0) {
        conn->events->on_bytes(conn, plain, lease);
    } else {
        lease_unref(lease);
    }
    if (conn->state != CONN_OPEN) return;
    if (result == TLS_BAD) {
        wire_fail(wire, wire->tls.failure);
    } else if (result == TLS_END) {
        wire->ended = true;
        conn->events->on_eof(conn);
    }
}

static void wire_count_handshake(struct wire *wire) {
    struct tls_facts facts;
    tls_facts(&wire->tls, &facts);
    bool is_13 = strcmp(facts.version, "TLSv1.3") == 0;
    static const enum stat_id ids[2][2][2] = {
        {{STAT_UPSTREAM_TLS_12, STAT_UPSTREAM_TLS_12_RESUMED},
         {STAT_UPSTREAM_TLS_13, STAT_UPSTREAM_TLS_13_RESUMED}},
        {{STAT_TLS_12, STAT_TLS_12_RESUMED}, {STAT_TLS_13, STAT_TLS_13_RESUMED}}};
    stat_add(wire->room->net->stats, ids[wire->gate != NULL][is_13][facts.is_resumed], 1);
}

static void wire_open(struct wire *wire) {
    struct conn *conn = wire->conn;
    const struct wire_gate *gate = wire->gate;
    wire_count_handshake(wire);
    wire_set_state(wire, WIRE_OPEN);
    if (gate) {
        conn_attach(conn, NULL, NULL);
        conn_deadline(conn, 0);
        gate->on_conn(gate->user, conn);
    } else {
        conn->events->on_open(conn);
    }
}

/* Takes the caller's reference of `lease`, which may be NULL with no bytes. */
static void wire_shake(struct wire *wire, struct bytes bytes, struct lease *lease) {
    struct conn *conn = wire->conn;
    tls_give(&wire->tls, bytes);
    enum tls_result result = tls_handshake(&wire->tls);
    if (result == TLS_DONE) {
        wire_open(wire);
        if (lease && conn->state == CONN_OPEN) {
            wire_read(wire, lease);
            return;
        }
        tls_give(&wire->tls, BYTES_NONE);
    }
    if (lease) lease_unref(lease);
    if (result == TLS_BAD) wire_fail(wire, wire->tls.failure);
}

static bool wire_put(struct tls *tls, struct bytes bytes) {
    struct conn *conn = wire_of_tls(tls)->conn;
    if (conn->fin_sent) return true; /* an answer to what comes behind our end: nobody hears it */
    return conn->out.queued < WIRE_ANSWERS_MAX && conn_filter_put(conn, bytes);
}

static void wire_on_session(struct tls *tls, SSL_SESSION *session) {
    struct wire_sessions *sessions = wire_of_tls(tls)->sessions;
    if (!sessions || sessions->context != SSL_get_SSL_CTX(tls->ssl)) return;
    if (SSL_SESSION_up_ref(session) != 1) return;
    if (sessions->count == WIRE_SESSIONS_MAX) {
        SSL_SESSION_free(sessions->items[0]);
        memmove(sessions->items, sessions->items + 1,
                (WIRE_SESSIONS_MAX - 1) * sizeof sessions->items[0]);
        sessions->count--;
    }
    sessions->items[sessions->count++] = session;
}

static const struct tls_events wire_tls_events = {.put = wire_put, .on_session = wire_on_session};

void wire_sessions_fini(struct wire_sessions *sessions) {
    for (uint32_t i = 0; i < sessions->count; i++)
        SSL_SESSION_free(sessions->items[i]);
    SSL_CTX_free(sessions->context);
    *sessions = (struct wire_sessions){0};
}

/* A ticket of TLS 1.3 is used once, so that connections cannot be told to be of one client (RFC
 * 8446 appendix C.4); with 1.2 one serves all. */
static void wire_resume(struct wire *wire, SSL_CTX *context) {
    struct wire_sessions *sessions = wire->sessions;
    if (!sessions) return;
    if (sessions->context != context) {
        wire_sessions_fini(sessions);
        if (SSL_CTX_up_ref(context) == 1) sessions->context = context;
    }
    if (sessions->count == 0) return;
    SSL_SESSION *session = sessions->items[sessions->count - 1];
    tls_resume(&wire->tls, session);
    if (SSL_SESSION_get_protocol_version(session) < TLS1_3_VERSION) return;
    SSL_SESSION_free(session);
    sessions->count--;
}

/* False: no memory. */
static bool wire_begin(struct wire *wire) {
    const struct tls_context *context = wire->options->tls;
    SSL_CTX *ssl_context = tls_context_ssl(context);
    wire_set_state(wire, WIRE_SHAKING);
    wire->began_ms = wire->room->net->now_ms;
    if (!tls_init(&wire->tls, ssl_context, wire->gate != NULL, &wire_tls_events)) return false;
    if (wire->gate) return true;
    tls_keep_sessions(ssl_context);
    wire_resume(wire, ssl_context);
    return tls_context_expect(context, wire->tls.ssl, wire->name);
}

/* Handshakes that have to wait. */

static bool wire_may_begin(struct wire_room *room) {
    struct net *net = room->net;
    if (room->turn_ns != net->now_ns) {
        room->turn_ns = net->now_ns;
        room->begun = 0;
    }
    struct list *oldest = room->accepted[WIRE_SHAKING].next;
    if (room->shaking >= WIRE_SHAKING_MAX) {
        struct wire *wire = LIST_OWNER(oldest, struct wire, link);
        if (wire->began_ms + WIRE_PATIENCE_MS > net->now_ms) return false;
        wire_reject(wire, REASON_HANDSHAKE_TIMEOUT);
    }
    return room->begun < WIRE_BEGUN_MAX;
}

static void wire_stash(struct wire *wire, struct bytes bytes, struct lease *lease) {
    lease->at = (uint32_t)(bytes.ptr - lease->memory);
    lease->len = (uint32_t)bytes.len;
    lease->next = NULL;
    if (wire->pending_last) {
        wire->pending_last->next = lease;
    } else {
        wire->pending_first = lease;
    }
    wire->pending_last = lease;
    conn_pause(wire->conn);
}

static struct lease *wire_pop_pending(struct wire *wire) {
    struct lease *lease = wire->pending_first;
    if (!lease) return NULL;
    wire->pending_first = lease->next;
    if (!wire->pending_first) wire->pending_last = NULL;
    return lease;
}

static void wire_receive(struct wire *wire, struct bytes bytes, struct lease *lease);

static void wire_begin_pending(struct wire *wire) {
    struct conn *conn = wire->conn;
    wire->room->begun++;
    conn_resume(conn);
    if (!wire_begin(wire)) {
        wire_reject(wire, REASON_NO_MEMORY);
        return;
    }
    for (struct lease *lease; conn->filter && (lease = wire_pop_pending(wire));)
        wire_receive(wire, bytes_make(lease->memory + lease->at, lease->len), lease);
}

static void wire_wake(struct wire_room *room) {
    struct list *waiting = &room->accepted[WIRE_WAITING];
    while (!list_empty(waiting) && wire_may_begin(room))
        wire_begin_pending(LIST_OWNER(waiting->next, struct wire, link));
    if (list_empty(waiting)) return;
    if (room->shaking < WIRE_SHAKING_MAX) {
        net_defer(room->net, &room->task); /* in the next turn */
    } else if (!wheel_timer_armed(&room->timer)) {
        wheel_arm(&room->net->wheel, &room->timer, room->net->now_ms + WIRE_PATIENCE_MS / 10);
    }
}

static void wire_on_task(struct net_task *task) {
    wire_wake(LIST_OWNER(task, struct wire_room, task));
}

static void wire_on_timer(struct wheel_timer *timer, uint64_t now_ms) {
    (void)now_ms;
    wire_wake(LIST_OWNER(timer, struct wire_room, timer));
}

/* The first bytes of a client. Letters begin no record (RFC 8446 section 5.1). */
static void wire_greet(struct wire *wire, struct bytes bytes, struct lease *lease) {
    struct wire_room *room = wire->room;
    if (bytes.ptr[0] >= 'A' && bytes.ptr[0] <= 'Z') {
        wire_count_failure(wire, REASON_TLS_PLAIN_HTTP);
        lease_unref(lease);
        listener_refuse(wire_leave(wire), REASON_TLS_PLAIN_HTTP);
        return;
    }
    wire_set_state(wire, WIRE_WAITING);
    wire_stash(wire, bytes, lease);
    bool is_first = room->accepted[WIRE_WAITING].next == &wire->link;
    if (is_first && wire_may_begin(room)) {
        wire_begin_pending(wire);
    } else {
        net_defer(room->net, &room->task);
    }
}

/* Takes the caller's reference of `lease`. */
static void wire_receive(struct wire *wire, struct bytes bytes, struct lease *lease) {
    if (wire->conn->state != CONN_OPEN) { /* closed by what came before */
        lease_unref(lease);
        return;
    }
    switch (wire->state) {
    case WIRE_IDLE:
        wire_greet(wire, bytes, lease);
        return;
    case WIRE_WAITING:
        wire_stash(wire, bytes, lease);
        return;
    case WIRE_SHAKING:
        wire_shake(wire, bytes, lease);
        return;
    case WIRE_OPEN:
        tls_give(&wire->tls, bytes);
        wire_read(wire, lease);
        return;
    case WIRE_DIALLING:
    case WIRE_STATE_COUNT:
        break;
    }
    CHECK(false); /* nothing is received while connecting */
}

static void wire_on_bytes(struct conn *conn, struct bytes bytes, struct lease *lease) {
    wire_receive(wire_of_conn(conn), bytes, lease);
}

/* An accepted connection without a byte is a probe of the port: nothing was refused. */
static void wire_on_eof(struct conn *conn) {
    struct wire *wire = wire_of_conn(conn);
    if (wire->state == WIRE_OPEN) {
        if (wire->ended) return; /* told already */
        conn->cut = true;
        conn->events->on_eof(conn);
    } else if (wire->gate) {
        if (wire->state != WIRE_IDLE) wire_count_failure(wire, REASON_CLIENT_CLOSED);
        conn_close(wire_leave(wire));
    } else {
        wire->tls.failure = REASON_SERVER_CLOSED;
        conn_fail(conn, ECONNRESET);
    }
}

/* Sending. */

/* The next record's plaintext, at most `most` bytes. */
static struct bytes wire_next_record(const struct wire *wire, size_t most) {
    const struct conn_out *plain = &wire->filter.plain;
    struct bytes front = conn_out_front(plain);
    if (most > TLS_RECORD_MAX) most = TLS_RECORD_MAX;
    if (front.len >= WIRE_GATHER_BELOW || front.len == plain->queued)
        return bytes_slice(front, 0, most);
    size_t len = conn_out_peek(plain, wire->room->record, most);
    return bytes_make(wire->room->record, len);
}

static bool wire_flush(struct conn *conn, bool end) {
    struct wire *wire = wire_of_conn(conn);
    struct conn_out *plain = &wire->filter.plain;
    if (wire->state != WIRE_OPEN) {
        wire->filter.ended = end;
        return true;
    }
    while (plain->queued != 0 && conn->out.queued < WIRE_SEND_SIZE) {
        size_t room = conn_filter_room(conn);
        if (room <= TLS_RECORD_OVERHEAD) return true;
        struct bytes record = wire_next_record(wire, room - TLS_RECORD_OVERHEAD);
        enum tls_result result = tls_write(&wire->tls, record);
        if (result != TLS_DONE) return result == TLS_MORE;
        conn_out_take(conn->net, plain, record.len);
    }
    if (!end || plain->queued != 0 || wire->filter.ended) return true;
    tls_shutdown(&wire->tls);
    wire->filter.ended = true;
    return true;
}

/* The life of a wire. */

static void wire_on_released(struct conn_filter *filter) {
    struct wire *wire = wire_of_filter(filter);
    struct wire_room *room = wire->room;
    wire_set_state(wire, WIRE_OPEN); /* out of all lists */
    for (struct lease *lease; (lease = wire_pop_pending(wire));)
        lease_unref(lease);
    tls_fini(&wire->tls);
    slab_release(&room->wires, wire);
}

static void wire_on_open(struct conn *conn) {
    struct wire *wire = wire_of_conn(conn);
    conn_deadline(conn, conn->net->now_ms + wire->options->timeout_handshake_ms);
    if (wire_begin(wire)) {
        wire_shake(wire, BYTES_NONE, NULL);
    } else {
        wire_fail(wire, REASON_NO_MEMORY);
    }
}

static const struct conn_filter_ops wire_filter_ops = {
    .on_open = wire_on_open,
    .on_bytes = wire_on_bytes,
    .on_eof = wire_on_eof,
    .flush = wire_flush,
    .on_released = wire_on_released,
};

/* Of accepted connections until OPEN: bytes and FIN come to the filter. */
static void wire_on_deadline(struct conn *conn) {
    struct wire *wire = wire_of_conn(conn);
    if (wire->room->draining && wire->state == WIRE_IDLE) {
        conn_close(wire_leave(wire));
    } else {
        wire_reject(wire, REASON_HANDSHAKE_TIMEOUT);
    }
}

static void wire_on_lost(struct conn *conn, int error) {
    struct wire *wire = wire_of_conn(conn);
    bool is_cut = error == ECANCELED; /* conn_close_all */
    if (wire->state != WIRE_IDLE && !is_cut) wire_count_failure(wire, REASON_CLIENT_RESET);
    /* The connection is closing: who wants a place, and a cut, must not find it. */
    (void)wire_leave(wire);
}

static const struct conn_events wire_conn_events = {
    .on_deadline = wire_on_deadline,
    .on_lost = wire_on_lost,
};

static struct wire *wire_acquire(struct wire_room *room, struct conn *conn,
                                 const struct session_options *options) {
    struct wire *wire = slab_acquire(&room->wires);
    if (!wire) return NULL;
    *wire = (struct wire){
        .filter = {.ops = &wire_filter_ops}, .room = room, .conn = conn, .options = options};
    list_init(&wire->link);
    conn_set_filter(conn, &wire->filter);
    return wire;
}

void wire_enter(struct wire_room *room, struct conn *conn, const struct wire_gate *gate) {
    struct wire *wire = wire_acquire(room, conn, gate->options);
    if (!wire) {
        stat_bump(&room->net->stats->tls_failures[REASON_NO_MEMORY], 1);
        conn_reset(conn);
        return;
    }
    wire->gate = gate;
    wire_set_state(wire, WIRE_IDLE);
    conn_attach(conn, &wire_conn_events, NULL);
    uint64_t timeout_ms = gate->options->timeout_handshake_ms;
    if (room->draining && timeout_ms > WIRE_DRAIN_MS) timeout_ms = WIRE_DRAIN_MS;
    conn_deadline(conn, room->net->now_ms + timeout_ms);
}

bool wire_dial(struct wire_room *room, struct conn *conn, const struct session_options *options,
               const struct session_address *to) {
    struct wire *wire = wire_acquire(room, conn, options);
    if (!wire) return false;
    wire->state = WIRE_DIALLING;
    wire->name = to->tls_name;
    wire->sessions = to->tls_sessions;
    return true;
}

enum reason wire_late_reason(const struct conn *conn) {
    bool is_shaking = conn->filter && wire_of_conn(conn)->state == WIRE_SHAKING;
    return is_shaking ? REASON_HANDSHAKE_TIMEOUT : REASON_CONNECT_TIMEOUT;
}

enum reason wire_lost_reason(const struct conn *conn, int error) {
    const struct wire *wire = conn->filter ? wire_of_conn(conn) : NULL;
    if (!wire || wire->state == WIRE_DIALLING)
        return error == ETIMEDOUT ? REASON_CONNECT_TIMEOUT : REASON_CONNECT_FAILED;
    return wire->tls.failure != REASON_NONE ? wire->tls.failure : REASON_SERVER_RESET;
}

const struct tls *wire_tls(const struct conn *conn) {
    return conn->filter ? &wire_of_conn(conn)->tls : NULL;
}

struct bytes wire_alpn(const struct conn *conn) {
    struct tls_facts facts = {.alpn = BYTES_NONE};
    if (conn->filter) tls_facts(&wire_of_conn(conn)->tls, &facts);
    return facts.alpn;
}

int wire_room_init(struct wire_room *room, struct net *net, uint32_t wires_max) {
    *room = (struct wire_room){.net = net};
    for (int i = 0; i < WIRE_STATE_COUNT; i++)
        list_init(&room->accepted[i]);
    net_task_init(&room->task, wire_on_task);
    wheel_timer_init(&room->timer, wire_on_timer);
    int error = slab_init(&room->wires, "wire", sizeof(struct wire), wires_max);
    if (error < 0) return error;
    net_add_slab(net, &room->wires);
    room->record = wires_max != 0 ? malloc(TLS_RECORD_MAX) : NULL;
    return room->record || wires_max == 0 ? 0 : -ENOMEM;
}

void wire_room_fini(struct wire_room *room) {
    if (!room->net) return;
    wheel_disarm(&room->net->wheel, &room->timer);
    net_task_cancel(&room->task);
    slab_fini(&room->wires); /* CHECKs that none is used */
    free(room->record);
    *room = (struct wire_room){0};
}

void wire_room_drain(struct wire_room *room) {
    room->draining = true;
    uint64_t end_ms = room->net->now_ms + WIRE_DRAIN_MS;
    for (int i = 0; i < WIRE_STATE_COUNT; i++) {
        LIST_FOR_EACH(node, &room->accepted[i]) {
            struct conn *conn = LIST_OWNER(node, struct wire, link)->conn;
            if (conn->deadline_ms > end_ms) conn_deadline(conn, end_ms);
        }
    }
}

void wire_room_cut(struct wire_room *room) {
    for (int i = 0; i < WIRE_STATE_COUNT; i++) {
        LIST_FOR_EACH(node, &room->accepted[i]) {
            wire_reject(LIST_OWNER(node, struct wire, link), REASON_DRAIN_CUT);
        }
    }
}
