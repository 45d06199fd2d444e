#include "net/pp_gate.h"

#include "base/check.h"
#include "net/conn_ends.h"
#include "net/conn_internal.h"
#include "net/pp.h"

#include <errno.h>

/* As long as an idle connection has for a request that is on its way. */
#define PP_GATE_DRAIN_MS 1000

struct pp_gate {
    struct list link;
    struct pp_gate_room *room;
    struct conn *conn;
    const struct pp_gate_options *options;
    struct pp_reader reader;
};

int pp_gate_room_init(struct pp_gate_room *room, struct net *net, uint32_t gates_max) {
    *room = (struct pp_gate_room){.net = net};
    list_init(&room->waiting);
    int error = slab_init(&room->gates, "pp_gate", sizeof(struct pp_gate), gates_max);
    if (error == 0) net_add_slab(net, &room->gates);
    return error;
}

void pp_gate_room_fini(struct pp_gate_room *room) {
    slab_fini(&room->gates); /* CHECKs that none is used */
}

static void pp_gate_count(const struct pp_gate_room *room, enum reason reason) {
    stat_bump(&room->net->stats->rejected[reason], 1);
}

static void pp_gate_release(struct pp_gate *gate) {
    struct pp_gate_room *room = gate->room;
    list_remove(&gate->link);
    slab_release(&room->gates, gate);
}

/* By RST: the sender notices that nobody has read what it sends. */
static void pp_gate_reject(struct pp_gate *gate, enum reason reason) {
    pp_gate_count(gate->room, reason);
    conn_log_refused(gate->conn, reason);
    conn_reset(gate->conn);
    pp_gate_release(gate);
}

/* The header is whole: `rest` is what came behind it, in `lease`, whose reference goes along. */
static void pp_gate_pass(struct pp_gate *gate, struct bytes rest, struct lease *lease) {
    const struct pp_gate_options *options = gate->options;
    struct conn *conn = gate->conn;
    pp_gate_release(gate);
    conn_attach(conn, NULL, NULL);
    conn_deadline(conn, 0);
    options->on_conn(options->user, conn);
    if (rest.len != 0 && conn->state == CONN_OPEN) {
        conn_receive(conn, rest, lease);
    } else {
        lease_unref(lease);
    }
}

static void pp_gate_on_bytes(struct conn *conn, struct bytes bytes, struct lease *lease) {
    struct pp_gate *gate = conn->user;
    struct pp_header header;
    switch (pp_read(&gate->reader, gate->options->versions, &bytes, &header)) {
    case PP_DONE:
        if (!header.has_ends || conn_set_ends(conn, &header.ends)) {
            pp_gate_pass(gate, bytes, lease);
            return;
        }
        pp_gate_reject(gate, REASON_NO_MEMORY);
        break;
    case PP_BAD:
        pp_gate_reject(gate, header.reason);
        break;
    case PP_MORE:
        break;
    }
    lease_unref(lease);
}

/* A connection without a byte is a probe of the port: nothing was refused. */
static void pp_gate_on_eof(struct conn *conn) {
    struct pp_gate *gate = conn->user;
    if (gate->reader.len != 0) pp_gate_count(gate->room, REASON_CLIENT_CLOSED);
    conn_close(conn);
    pp_gate_release(gate);
}

static void pp_gate_on_deadline(struct conn *conn) {
    struct pp_gate *gate = conn->user;
    bool is_idle = gate->room->draining && gate->reader.len == 0;
    if (is_idle) {
        conn_close(conn);
        pp_gate_release(gate);
    } else {
        pp_gate_reject(gate, REASON_PROXY_HEADER_TIMEOUT);
    }
}

static void pp_gate_on_lost(struct conn *conn, int error) {
    struct pp_gate *gate = conn->user;
    bool is_cut = error == ECANCELED; /* conn_close_all */
    if (gate->reader.len != 0 && !is_cut) pp_gate_count(gate->room, REASON_CLIENT_RESET);
    pp_gate_release(gate);
}

static const struct conn_events pp_gate_events = {
    .on_bytes = pp_gate_on_bytes,
    .on_eof = pp_gate_on_eof,
    .on_deadline = pp_gate_on_deadline,
    .on_lost = pp_gate_on_lost,
};

void pp_gate_enter(struct pp_gate_room *room, struct conn *conn,
                   const struct pp_gate_options *options) {
    union addr from;
    if (!conn_source(conn, &from)) {
        conn_reset(conn); /* it has gone again already: a probe, as in pp_gate_on_eof */
        return;
    }
    bool is_trusted = cidr_list_has(&options->trusted, &from.any);
    struct pp_gate *gate = is_trusted ? slab_acquire(&room->gates) : NULL;
    if (!gate) {
        enum reason reason = is_trusted ? REASON_NO_MEMORY : REASON_PROXY_UNTRUSTED;
        pp_gate_count(room, reason);
        conn_log_refused(conn, reason);
        conn_reset(conn);
        return;
    }
    gate->room = room;
    gate->conn = conn;
    gate->options = options;
    gate->reader.len = 0; /* its text is untouched memory, until it is needed */
    list_init(&gate->link);
    list_push_back(&room->waiting, &gate->link);
    conn_attach(conn, &pp_gate_events, gate);
    uint64_t timeout_ms = options->timeout_ms;
    if (room->draining && timeout_ms > PP_GATE_DRAIN_MS) timeout_ms = PP_GATE_DRAIN_MS;
    conn_deadline(conn, room->net->now_ms + timeout_ms);
}

void pp_gate_drain(struct pp_gate_room *room) {
    room->draining = true;
    uint64_t end_ms = room->net->now_ms + PP_GATE_DRAIN_MS;
    LIST_FOR_EACH(node, &room->waiting) {
        struct conn *conn = LIST_OWNER(node, struct pp_gate, link)->conn;
        if (conn->deadline_ms > end_ms) conn_deadline(conn, end_ms);
    }
}

void pp_gate_cut(struct pp_gate_room *room) {
    LIST_FOR_EACH(node, &room->waiting) {
        pp_gate_reject(LIST_OWNER(node, struct pp_gate, link), REASON_DRAIN_CUT);
    }
}
