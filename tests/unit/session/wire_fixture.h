/* wire_fixture.h: a room of wires on real sockets, and OpenSSL by itself on the other side, whose
 * bytes the test carries. */
#ifndef WEIR_TESTS_UNIT_SESSION_WIRE_FIXTURE_H
#define WEIR_TESTS_UNIT_SESSION_WIRE_FIXTURE_H

#include "net/listener.h"
#include "proto/tls_context.h"
#include "proto/tls_tickets.h"
#include "session/wire_internal.h"

#include "unit/net/conn_user.h"

struct wire_user {
    struct conn_user user;
    enum reason lost_reason; /* what wire_lost_reason said in on_lost */
    struct wire_user *before;
};

struct wire_world {
    struct net_world *net;
    struct wire_room room;
    struct tls_tickets tickets;
    struct session_options accepting; /* of one certificate, "weir.example", with tickets */
    struct session_options dialling;  /* believes the CA of that certificate */
    struct wire_gate gate;
    struct listener listener; /* by hand: what refuses needs one */
    struct listener_quota refusals;
    struct wire_user *user; /* of the last connection */
    uint32_t opened;        /* on_conn */
    uint32_t refused;       /* by the listener */
    bool refuse;            /* on_conn resets */
    SSL_CTX *far_client;    /* believes everybody */
    SSL_CTX *far_server;    /* shows the same certificate */
};

/* `wires_max` of the room; handshakes have a minute. */
struct wire_world *wire_world_new(uint32_t wires_max);
/* Ends what is left, and fails the test if a wire is not given back. */
void wire_world_free(struct wire_world *world);

/* The other side of a connection. */
struct far_end {
    int fd; /* -1: the test has closed it */
    SSL *ssl;
    bool is_done;   /* the handshake */
    bool has_ended; /* FIN or RST has come */
};

/* A client's connection enters. `version`: the only one it speaks, as TLS1_3_VERSION; 0: any. */
struct far_end far_enter(struct wire_world *world, int version);
/* A connection is dialled to a server, which accepts it. */
struct far_end far_dial(struct wire_world *world, const struct session_address *to);
void far_free(struct far_end *far);

/* One step of its handshake, if that is not done: what it has to say waits in SSL_get_wbio. */
void far_step(struct far_end *far);
/* Sends what waits, at most `most` bytes; returns how many. */
size_t far_send(struct far_end *far, size_t most);
/* Sends all that waits, and takes what has come. */
void far_carry(struct far_end *far);
/* Turns until its handshake is done, or the connection has ended: true if it is done. */
bool far_shake(struct wire_world *world, struct far_end *far);
/* Gives OpenSSL plaintext; far_send or far_carry sends the records. */
void far_write(struct far_end *far, struct bytes plain);
/* Turns until exactly this plaintext has come. */
void far_expect(struct wire_world *world, struct far_end *far, struct bytes plain);
/* Turns until close_notify has come. */
void far_expect_end(struct wire_world *world, struct far_end *far);

/* Handshakes with clients that failed for `reason`, and for any. */
uint64_t wire_failures(const struct wire_world *world, enum reason reason);
uint64_t wire_failures_in_all(const struct wire_world *world);

#endif
