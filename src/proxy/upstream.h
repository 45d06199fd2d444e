/* upstream.h: a worker's view of one upstream: its servers, their idle connections, who takes the
 * next request, and who waits for one that may.
 *
 * Limits of the configuration are for all workers together; nothing is shared between workers, so
 * each has its part. The parts add up to the limit, but each is at least one.
 */
#ifndef WEIR_PROXY_UPSTREAM_H
#define WEIR_PROXY_UPSTREAM_H

#include "config/config.h"
#include "proxy/balance.h"
#include "proxy/queue.h"
#include "session/session.h"

#define UPSTREAM_CODES 6 /* classes of status: [0] none, [1] 1xx ... [5] 5xx */

struct server {
    /* Fixed after init. */
    const struct config_server *config;
    struct upstream *upstream;
    struct balance_server *balance;
    uint32_t connections_max; /* this worker's share, or of requests; UINT32_MAX: no limit */
    uint32_t idle_max;
    /* Changes in routine work. */
    /* Sessions that could take one more, the one used last first. */
    struct list idle;     /* without a stream */
    struct list shared;   /* with streams, below the share of POOL_LOAD */
    struct list loaded;   /* with streams, above it */
    struct list dialling; /* not ready yet */
    uint32_t idle_count;
    uint32_t dials;                   /* not ready yet, all of them */
    uint32_t streams_max;             /* of a connection, as last said; UINT32_MAX: never yet */
    uint64_t grow_ms;                 /* worker's clock: not before is one dialled in advance */
    uint32_t connections;             /* dialling, active and idle */
    uint64_t log_ms;                  /* worker's clock: not before is a failure logged again */
    uint64_t failures;                /* since the last that was */
    uint64_t answers[UPSTREAM_CODES]; /* by class, read by other threads */
    struct wire_sessions tls_sessions;
};

struct upstream {
    const struct config_upstream *config;
    const struct session_ops *session_ops; /* how its servers are asked HTTP requests */
    bool limits_requests; /* connections_max bounds requests: connections are multiplexed */
    struct session_options options;
    struct session_room *room;
    struct server *servers;
    struct balance_server *balance_servers;
    const char **names;
    uint32_t idle_max; /* connections this worker keeps idle, to the servers of all upstreams */
    struct balance balance;
    struct queue queue;
};

/* Which worker of how many an upstream belongs to. */
struct upstream_share {
    uint32_t worker; /* index */
    uint32_t workers;
};

/* The policy of a configured word. Never NULL. */
const struct balance_ops *upstream_policy(enum config_balance balance);
/* What either side of HTTP/2 may do for nothing. Of a server that is all: what requests bring
 * about, as resets, is bounded by their number. */
void upstream_init_floods(struct h2_flood_limits *floods, const struct config_limits *limits);
/* 0 or -ENOMEM. config and room outlive the upstream. */
int upstream_init(struct upstream *upstream, const struct config_upstream *config,
                  const struct session_ops *ops, struct session_room *room,
                  struct upstream_share share);
void upstream_fini(struct upstream *upstream);
/* An attempt to serve a request, or a relay, begins and ends at the server: in_flight. */
void server_enter(struct server *server);
void server_leave(struct server *server);
/* Instead of leave, for an attempt that could not even begin: it has kept nobody out, so nobody is
 * woken. Else who waits for room elsewhere would try again each turn. */
void server_take_back(struct server *server);
/* After connections or the lists of sessions changed: whether the server may take a request. Pokes
 * the queue if so. */
void server_update(struct server *server);
/* It could not be connected, with errno `error` (0: not known) and `words` about it (NULL: none):
 * into the log, now and then. */
void server_note_failure(struct server *server, enum reason reason, int error, const char *words);
/* Where a connection to it could not even begin: whether another one's end makes room for it, so
 * that it is worth waiting for. */
bool server_will_have_room(const struct server *server, enum reason failure);
/* Whether some server that `pick` has not tried is only at its limit: it is worth waiting for. */
bool upstream_is_busy(const struct upstream *upstream, const struct balance_pick *pick);
/* Class of a status as index of answers. */
static inline uint32_t upstream_code_class(int status) {
    return status >= 100 && status <= 599 ? (uint32_t)status / 100 : 0;
}

#endif
