/* pp_gate.h: between the accept and the session, where clients come through a proxy that speaks the
 * PROXY protocol: the gate owns the connection until its header (pp.h) has been read.
 *
 *   pp_gate_enter --trusted--> waiting --header--> on_conn, then the bytes behind the header
 *        |                        |
 *        +--not trusted-----------+--malformed, late, ended, cut--> reset or closed, and counted
 *
 * Then the connection's ends are those that the header told, and whoever on_conn attaches finds it
 * as if just accepted. Nothing of a header is believed before the sender's address is. One room for
 * each worker; a waiting connection holds a slot of it and no buffer.
 */
#ifndef WEIR_NET_PP_GATE_H
#define WEIR_NET_PP_GATE_H

#include "base/cidr.h"
#include "net/conn.h"

struct pp_gate_room {
    struct net *net;
    struct slab gates; /* struct pp_gate */
    struct list waiting;
    bool draining;
};

/* Of one listener. Outlives its connections. */
struct pp_gate_options {
    unsigned versions; /* PP_V1, PP_V2 or both */
    uint64_t timeout_ms;
    struct cidr_list trusted; /* by the address of the socket */
    /* The callee attaches itself (conn_attach) or closes. */
    void (*on_conn)(void *user, struct conn *conn);
    void *user;
};

/* 0 or -ENOMEM. `gates_max`: connections that may wait at once. */
int pp_gate_room_init(struct pp_gate_room *room, struct net *net, uint32_t gates_max);
/* CHECKs that nobody waits. */
void pp_gate_room_fini(struct pp_gate_room *room);

/* Takes a connection that was just accepted. May call on_conn later, and never from within. */
void pp_gate_enter(struct pp_gate_room *room, struct conn *conn,
                   const struct pp_gate_options *options);
/* From now on a header has a second to come: who has connected to send one has sent it. */
void pp_gate_drain(struct pp_gate_room *room);
/* Resets those that wait. */
void pp_gate_cut(struct pp_gate_room *room);

#endif
