/* wire_gate.c: accepted connections until they are OPEN: who may begin a handshake, who waits, and
 * who is sent away. */
#include "base/check.h"
#include "net/conn_ends.h"
#include "net/listener.h"
#include "session/wire_internal.h"

#include <errno.h>

/* As long as an idle connection has for a request that is on its way. */
#define WIRE_DRAIN_MS 1000
/* What an alert gets to be sent. */
#define WIRE_ALERT_MS 1000

void wire_set_state(struct wire *wire, enum wire_state state) {
    struct wire_room *room = wire->room;
    if (wire->gate) {
        list_remove(&wire->link);
        room->shaking += (state == WIRE_SHAKING) - (uint32_t)(wire->state == WIRE_SHAKING);
        room->waiting += (state == WIRE_WAITING) - (uint32_t)(wire->state == WIRE_WAITING);
        stat_set(room->net->stats, STAT_TLS_HANDSHAKES_IN_FLIGHT, room->shaking);
        if (state < WIRE_OPEN) list_push_back(&room->accepted[state], &wire->link);
        bool place_free = wire->state == WIRE_SHAKING && !list_empty(&room->accepted[WIRE_WAITING]);
        if (place_free) net_defer(room->net, &room->task);
    }
    wire->state = state;
}

void wire_count_failure(const struct wire *wire, enum reason reason) {
    stat_bump(&wire->room->net->stats->tls_failures[reason], 1);
    conn_log_refused(wire->conn, reason);
}

struct conn *wire_leave(struct wire *wire) {
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

void wire_fail(struct wire *wire, enum reason reason) {
    if (wire->gate && wire->state != WIRE_OPEN) {
        wire_reject(wire, reason);
    } else {
        wire->tls.failure = reason;
        conn_fail(wire->conn, reason == REASON_NO_MEMORY ? ENOMEM : EPROTO);
    }
}

/* Handshakes that have to wait. */

/* When the oldest handshake under way has had its time. Places change hands as fast as
 * WIRE_PATIENCE_MS for all who are there, waiting or not, would have it: so whoever waits, behind
 * however many who are slow, waits for a small multiple of that. */
static uint64_t wire_patience_ends_ms(const struct wire_room *room) {
    const struct list *oldest = room->accepted[WIRE_SHAKING].next;
    uint64_t places = room->shaking_max;
    uint64_t patience_ms = WIRE_PATIENCE_MS * places / (places + room->waiting);
    return LIST_OWNER(oldest, struct wire, link)->began_ms + patience_ms;
}

static bool wire_may_begin(struct wire_room *room) {
    struct net *net = room->net;
    if (room->turn_ns != net->now_ns) {
        room->turn_ns = net->now_ns;
        room->begun = 0;
    }
    if (room->begun >= WIRE_BEGUN_MAX) return false;
    if (room->shaking < room->shaking_max) return true;
    if (wire_patience_ends_ms(room) > net->now_ms) return false;
    wire_reject(LIST_OWNER(room->accepted[WIRE_SHAKING].next, struct wire, link),
                REASON_HANDSHAKE_TIMEOUT);
    return true;
}

void wire_stash(struct wire *wire, struct bytes bytes, struct lease *lease) {
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

struct lease *wire_pop_pending(struct wire *wire) {
    struct lease *lease = wire->pending_first;
    if (!lease) return NULL;
    wire->pending_first = lease->next;
    if (!wire->pending_first) wire->pending_last = NULL;
    return lease;
}

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
    bool is_due =
        room->shaking < room->shaking_max || wire_patience_ends_ms(room) <= room->net->now_ms;
    if (is_due) {
        net_defer(room->net, &room->task); /* in the next turn */
    } else {
        wheel_arm(&room->net->wheel, &room->timer, wire_patience_ends_ms(room));
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
void wire_greet(struct wire *wire, struct bytes bytes, struct lease *lease) {
    struct wire_room *room = wire->room;
    if (bytes.ptr[0] >= 'A' && bytes.ptr[0] <= 'Z') {
        stat_bump(&room->net->stats->tls_failures[REASON_TLS_PLAIN_HTTP], 1);
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

void wire_gate_init(struct wire_room *room) {
    for (int i = 0; i < WIRE_STATE_COUNT; i++)
        list_init(&room->accepted[i]);
    net_task_init(&room->task, wire_on_task);
    wheel_timer_init(&room->timer, wire_on_timer);
}

void wire_gate_fini(struct wire_room *room) {
    wheel_disarm(&room->net->wheel, &room->timer);
    net_task_cancel(&room->task);
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
