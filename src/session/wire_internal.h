/* wire_internal.h: one wire, shared by wire.c (the filter: bytes both ways, its life), wire_shake.c
 * (the handshake, in both roles) and wire_gate.c (accepted connections until they are OPEN).
 *
 * 1. Whoever is given a lease to take has the caller's reference.
 * 2. Before OPEN an accepted wire may end in any call that may fail the handshake: it is gone then
 * (wire_leave), and only its conn may be looked at, which has no filter any more. From OPEN on the
 * wire lasts as long as its conn, whose slot is not given back within a call: a user may close in
 * any event.
 * 3. `link` is in the room's list of the wire's state until OPEN, for accepted connections only;
 * wire_set_state alone moves it.
 */
#ifndef WEIR_SESSION_WIRE_INTERNAL_H
#define WEIR_SESSION_WIRE_INTERNAL_H

#include "session/session.h"
#include "session/wire.h"

/* Those that have taken so long give their place to who waits: so nobody can keep all places by
 * being slow. The more wait the less patience there is: else a few thousand who send one byte and
 * no more would have everybody wait behind them until timeout_handshake. */
#define WIRE_PATIENCE_MS 1000
/* Begun in one turn: each takes the worker some 100 us, which all others wait for. */
#define WIRE_BEGUN_MAX 16

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
    bool ended;       /* close_notify has come */
    bool alert_waits; /* offloaded: this one is to be said */
    char alert[2];
};

static inline struct wire *wire_of_filter(struct conn_filter *filter) {
    return LIST_OWNER(filter, struct wire, filter);
}
static inline struct wire *wire_of_conn(const struct conn *conn) {
    return wire_of_filter(conn->filter);
}
static inline struct wire *wire_of_tls(struct tls *tls) {
    return LIST_OWNER(tls, struct wire, tls);
}

/* wire.c */
/* NULL: all slots are in use. */
struct wire *wire_acquire(struct wire_room *room, struct conn *conn,
                          const struct session_options *options);
/* What has arrived, as the state wants it. */
void wire_receive(struct wire *wire, struct bytes bytes, struct lease *lease);
/* OPEN: decrypts tls.input, which lies in `lease`, and gives it to the user. */
void wire_read(struct wire *wire, struct lease *lease);

/* wire_shake.c */
/* SHAKING from now on. False: no memory. */
bool wire_begin(struct wire *wire);
/* A step of the handshake. `lease` may be NULL with no bytes. */
void wire_shake(struct wire *wire, struct bytes bytes, struct lease *lease);

/* wire_gate.c */
void wire_gate_init(struct wire_room *room);
void wire_gate_fini(struct wire_room *room);
void wire_set_state(struct wire *wire, enum wire_state state);
/* Of an accepted connection that never came to be a session. */
void wire_count_failure(const struct wire *wire, enum reason reason);
/* The connection goes on without the wire, which is gone then. */
struct conn *wire_leave(struct wire *wire);
/* Ends the connection in whatever state: `reason` is counted, or told the user. */
void wire_fail(struct wire *wire, enum reason reason);
/* IDLE: the first bytes of a client. */
void wire_greet(struct wire *wire, struct bytes bytes, struct lease *lease);
/* WAITING: keeps what comes, and pauses the connection. */
void wire_stash(struct wire *wire, struct bytes bytes, struct lease *lease);
/* NULL: nothing is kept. */
struct lease *wire_pop_pending(struct wire *wire);

#endif
