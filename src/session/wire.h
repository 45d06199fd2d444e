/* wire.h: TLS between a connection and its session: a conn_filter around proto/tls.
 *
 *   wire_enter  --> IDLE --first byte--> [WAITING] --> SHAKING --done--> OPEN   gate->on_conn
 *   wire_dial   --> DIALLING --connected-------------> SHAKING --done--> OPEN   conn's on_open
 *   any of these: failed, late, ended --> the connection ends, with a reason
 *
 *   IDLE      accepted; nothing was received, and nothing of TLS has been made yet
 *   WAITING   has sent something, but too many handshakes are under way, or began in this turn
 *   OPEN      the session is attached and neither sees nor knows TLS
 *
 * Until OPEN an accepted connection belongs to the wire, as to pp_gate (net/pp_gate.h) before; a
 * dialled one to its session from the beginning, which hears on_open after the handshake, or
 * on_deadline or on_lost (wire_late_reason and wire_lost_reason say why).
 *
 * Received records are decrypted in the buffer they came in. Sent ones are made at the flush, as
 * many as one send carries: so a head and its body share a record, and what a slow reader has not
 * taken waits as plaintext. From 64 KB of a connection on they are encrypted where they are sent
 * from (proto/tls_seal.h). For long streams the kernel takes that over (kTLS, net/ktls.h), where it
 * has it: they are spliced then. It stays so, and the other side asking for new keys (KeyUpdate)
 * ends the connection: no kernel of today can change them. The end of a stream is close_notify,
 * then FIN. FIN alone ends a client's stream as well, but with conn->cut set: where the end of what
 * a server sends carries a meaning it is an error (RFC 8446 section 6.1, RFC 9112 section 9.8).
 *
 * One room for each worker.
 */
#ifndef WEIR_SESSION_WIRE_H
#define WEIR_SESSION_WIRE_H

#include "net/conn_filter.h"
#include "proto/tls.h"

struct session_options;
struct session_address;

enum wire_state {
    WIRE_DIALLING,
    WIRE_IDLE,
    WIRE_WAITING,
    WIRE_SHAKING,
    WIRE_OPEN,
    WIRE_STATE_COUNT
};

struct wire_room {
    /* Fixed after init. */
    struct net *net;
    struct slab wires;    /* struct wire */
    uint32_t shaking_max; /* handshakes of clients under way at once, each with some 50 KB until it
                             is done and TLS_SHAKE_MEMORY at most; more wait */
    bool ktls;            /* the kernel can take over what is sent: ktls_probe; false after init */
    char *record;         /* TLS_RECORD_MAX bytes: small pieces that become one record */
    /* Changes in routine work. */
    struct list accepted[WIRE_STATE_COUNT]; /* by state until OPEN; SHAKING: the oldest first */
    uint32_t shaking;                       /* how many are there */
    uint32_t waiting;                       /* and in WAITING */
    uint32_t begun;                         /* handshakes begun in the turn of turn_ns */
    uint64_t turn_ns;
    bool draining;
    struct net_task task; /* lets those waiting go on */
    struct wheel_timer timer;
};

/* Sessions of a server that may be resumed, the newest last. Zeroed is empty. */
#define WIRE_SESSIONS_MAX 4
struct wire_sessions {
    SSL_CTX *context; /* who believed the server: they are good for no other */
    SSL_SESSION *items[WIRE_SESSIONS_MAX];
    uint32_t count;
};

/* Of one listener. Outlives its connections. */
struct wire_gate {
    const struct session_options *options; /* tls and timeout_handshake_ms */
    /* The handshake is done: the callee attaches itself or closes. */
    void (*on_conn)(void *user, struct conn *conn);
    void *user;
};

/* 0 or -ENOMEM. `wires_max`: TLS connections, in both roles; 0: there are none. `shaking_max`:
 * accepted ones whose handshakes are under way at once. */
int wire_room_init(struct wire_room *room, struct net *net, uint32_t wires_max,
                   uint32_t shaking_max);
/* CHECKs that no connection is left. */
void wire_room_fini(struct wire_room *room);
/* From now on a handshake has a second. */
void wire_room_drain(struct wire_room *room);
/* Resets accepted connections that are not OPEN. */
void wire_room_cut(struct wire_room *room);

/* Takes a connection that was just accepted. May call on_conn later, and never from within. */
void wire_enter(struct wire_room *room, struct conn *conn, const struct wire_gate *gate);
/* For a session that has just called conn_dial, with options->tls: on_open comes after the
 * handshake. `to`: tls_name and tls_sessions. False: no memory. */
bool wire_dial(struct wire_room *room, struct conn *conn, const struct session_options *options,
               const struct session_address *to);
/* In on_deadline and on_lost of such a session, before its on_open; also without TLS. */
enum reason wire_late_reason(const struct conn *conn);
enum reason wire_lost_reason(const struct conn *conn, int error);
/* And what OpenSSL says of it, never freed; NULL: nothing. */
const char *wire_lost_words(const struct conn *conn);

/* NULL: the connection is in clear. */
const struct tls *wire_tls(const struct conn *conn);
/* The protocol that was agreed on; empty: none. */
struct bytes wire_alpn(const struct conn *conn);

void wire_sessions_fini(struct wire_sessions *sessions);

#endif
