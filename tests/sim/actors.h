/* actors.h: the clients and the servers of a run, and what they know of it together. */
#ifndef WEIR_TESTS_SIM_ACTORS_H
#define WEIR_TESTS_SIM_ACTORS_H

#include "sim/kernel.h"
#include "sim/plan.h"
#include "sim/reader.h"

#define CLIENTS_MAX 24 /* of a run */

/* Which things have happened that excuse an answer which is not the planned one. */
struct world {
    /* Fixed after init. */
    uint16_t http_port;
    uint16_t tcp_port;
    uint16_t echo_port;
    uint64_t client_limit_ns; /* the sum of all timeouts: no client waits longer for anything */
    bool servers_limited;     /* max_connections of servers is in the configuration */
    bool clients_limited;     /* max_connections is less than there are clients */
    bool sends_proxy;         /* servers get a PROXY header */
    bool takes_proxy;         /* clients begin with one */
    bool h2_clients;          /* most clients speak HTTP/2 */
    bool h2_servers;          /* those of HTTP do */
    bool tls_clients;         /* those of HTTP come by TLS */
    bool tls_raw_clients;     /* those without, too */
    bool tls_servers;         /* those of HTTP speak it */
    bool tls_raw_servers;
    bool tls_passes;         /* without HTTP, from client to server, through weir as it is */
    bool handshakes_limited; /* max_handshakes is less than there are clients */
    bool checks_frames;      /* weir looks at the frames of WebSockets */
    uint64_t ping_ns;        /* and pings those that are idle for so long, 0: none */
    uint64_t timeout_ns;     /* each of weir's timeouts is longer than what good actors take */
    /* Changes in routine work. */
    bool draining;
    uint32_t clients_left;
    uint64_t answers;    /* complete and as planned */
    uint64_t errors;     /* weir's own, excused */
    uint64_t unanswered; /* excused */
    uint64_t refusals;   /* what servers of HTTP/2 refuse, nobody knows which request */
};
extern struct world world;

/* How a client ends, apart from having all its answers. */
enum leaving {
    LEAVES_WELL,
    LEAVES_HALF, /* FIN after its last request, then it reads on */
    LEAVES_CLOSING,
    LEAVES_RESETTING,
    STOPS_WRITING,
    STOPS_READING,
    SENDS_NONSENSE
};

enum leaving client_pick_leaving(void);

/* How many bytes an actor reads or writes at once at most, and how long it rests in between: small
 * steps are quick ones, so that everything is within weir's timeouts whatever its size. */
uint32_t actor_step(void);
uint64_t actor_pace(uint32_t one, uint32_t other);

/* How long a body waits for the 100 that it asked for. */
#define EXPECT_NS (300 * SIM_MS)

/* Starts a client at a time; it ends by itself. */
void client_start(uint32_t number, uint64_t at_ns);
void client_free_all(void);
void h2_client_start(uint32_t number, uint64_t at_ns);
void h2_client_free_all(void);

/* A server of a port, `tcp`: without HTTP. */
void server_start(uint16_t port, bool tcp);
void server_free_all(void);
/* A connection from weir. `slow`: how long a server that takes its time rests at most. */
void h2_server_accept(struct sock *sock);
void h2_server_free_all(void);
/* What every server checks of a request: that it is its client's, by the address it is told... */
void server_check_owner(const struct plan *plan, const char *told);
/* ...that of a call's time it is told what is left... */
void server_check_timeout(const struct plan *plan, const char *told);
/* ...and that it comes no more often than it may. */
void server_count_execution(const struct plan *plan);

#endif
