#include "proxy/pool.h"

#include "base/check.h"

/* session.host_state: which gauge a connection is counted in. */
enum pool_state { POOL_DIALLING, POOL_ACTIVE, POOL_IDLE, POOL_ENDING };

static struct net *pool_net(const struct server *server) { return server->upstream->room->net; }

static void pool_count(struct server *server, enum pool_state state, int by) {
    uint64_t change = (uint64_t)(int64_t)by;
    switch (state) {
    case POOL_DIALLING:
        stat_add(pool_net(server)->stats, STAT_UPSTREAM_CONNECTIONS_CONNECTING, change);
        return;
    case POOL_ACTIVE:
        stat_add(pool_net(server)->stats, STAT_UPSTREAM_CONNECTIONS_ACTIVE, change);
        return;
    case POOL_IDLE:
        stat_add(pool_net(server)->stats, STAT_UPSTREAM_CONNECTIONS_IDLE, change);
        server->idle_count += (uint32_t)by;
        return;
    case POOL_ENDING:
        return;
    }
}

static void pool_set_state(struct session *session, enum pool_state state) {
    struct server *server = session->user;
    enum pool_state before = (enum pool_state)session->host_state;
    if (before == POOL_IDLE) list_remove(&session->link);
    pool_count(server, before, -1);
    session->host_state = (uint8_t)state;
    pool_count(server, state, 1);
    if (state == POOL_IDLE) list_push_front(&server->idle, &session->link);
    server_update(server);
}

/* on_closed follows. */
static void pool_end(struct session *session, enum reason reason) {
    pool_set_state(session, POOL_ENDING);
    session->ops->close(session, reason);
}

static void pool_on_idle(struct session *session) {
    struct server *server = session->user;
    if (server->idle_max == 0 || server->upstream->room->draining) {
        pool_end(session, REASON_SERVER_IDLE);
        return;
    }
    uint64_t idle = stat_get(pool_net(server)->stats, STAT_UPSTREAM_CONNECTIONS_IDLE);
    bool all_kept = idle >= server->upstream->idle_max;
    if (all_kept && server->idle_count == 0) {
        pool_end(session, REASON_SERVER_IDLE);
        return;
    }
    if (all_kept || server->idle_count >= server->idle_max) {
        pool_end(LIST_OWNER(server->idle.prev, struct session, link), REASON_SERVER_IDLE);
    }
    pool_set_state(session, POOL_IDLE);
}

static void pool_on_ready(struct session *session) {
    struct server *server = session->user;
    struct pool_wait *wait = session->waiter;
    struct net *net = pool_net(server);
    stat_add(net->stats, STAT_UPSTREAM_CONNECTS, 1);
    stat_observe_ns(net->stats, STAT_HIST_UPSTREAM_CONNECT, net->now_ns - session->opened_ns);
    session->waiter = NULL;
    if (!wait) {
        pool_on_idle(session);
        return;
    }
    wait->session = NULL;
    struct stream *stream = session->ops->open(session, wait->arena);
    CHECK(stream); /* a session that is ready and new takes one */
    pool_set_state(session, POOL_ACTIVE);
    wait->on_stream(wait, stream);
}

static void pool_on_closed(struct session *session, enum reason reason) {
    struct server *server = session->user;
    struct pool_wait *wait = session->waiter;
    pool_set_state(session, POOL_ENDING);
    CHECK(server->connections > 0);
    server->connections--;
    server_update(server);
    if (reason == REASON_CONNECT_FAILED || reason == REASON_CONNECT_TIMEOUT) {
        stat_bump(&pool_net(server)->stats->connect_failures[reason], 1);
    }
    if (!wait) return;
    session->waiter = NULL;
    wait->session = NULL;
    wait->on_failed(wait, reason);
}

static const struct session_host pool_host = {
    .on_ready = pool_on_ready,
    .on_idle = pool_on_idle,
    .on_closed = pool_on_closed,
};

static struct stream *pool_take_idle(struct server *server, struct arena *arena) {
    while (server->idle_count != 0) {
        struct session *session = LIST_OWNER(server->idle.next, struct session, link);
        struct stream *stream = session->ops->open(session, arena);
        pool_set_state(session, stream ? POOL_ACTIVE : POOL_ENDING);
        if (stream) return stream;
    }
    return NULL;
}

static void pool_dial(struct server *server, struct arena *arena, struct pool_wait *wait,
                      enum reason *failure) {
    struct upstream *upstream = server->upstream;
    const struct config_address *address = &server->config->address;
    struct session_address to = {.address = (const struct sockaddr *)&address->storage,
                                 .size = address->size};
    struct addr_pair ends;
    if (upstream->options.send_proxy != 0) {
        CHECK(wait->client);
        /* Who resets just now must not look like a client of the proxy itself. */
        if (!session_client_ends(wait->client, &ends)) {
            *failure = REASON_CLIENT_RESET;
            return;
        }
        to.client = &ends;
    }
    struct session *session =
        wait->ops->connect(upstream->room, &to, &upstream->options, &pool_host, failure);
    if (!session) {
        stat_bump(&pool_net(server)->stats->connect_failures[*failure], 1);
        return;
    }
    *failure = REASON_NONE;
    session->user = server;
    session->waiter = wait;
    wait->session = session;
    wait->arena = arena;
    server->connections++;
    session->host_state = POOL_ENDING;
    pool_set_state(session, POOL_DIALLING);
}

struct stream *pool_take(struct server *server, struct arena *arena, bool fresh,
                         struct pool_wait *wait, enum reason *failure) {
    *failure = REASON_NONE;
    struct stream *stream = fresh ? NULL : pool_take_idle(server, arena);
    if (stream) {
        stat_add(pool_net(server)->stats, STAT_UPSTREAM_REUSES, 1);
        return stream;
    }
    if (server->connections >= server->connections_max) {
        if (server->idle_count == 0) {
            *failure = REASON_SERVER_BUSY;
            return NULL;
        }
        /* Its FIN goes out before the new SYN. */
        pool_end(LIST_OWNER(server->idle.prev, struct session, link), REASON_SERVER_IDLE);
    }
    pool_dial(server, arena, wait, failure);
    return NULL;
}

void pool_cancel(struct pool_wait *wait) {
    struct session *session = wait->session;
    if (!session) return;
    session->waiter = NULL;
    wait->session = NULL;
    if (session->ops->one_stream) pool_end(session, REASON_SERVER_IDLE);
}

void pool_drain(struct server *server) {
    while (server->idle_count != 0) {
        pool_end(LIST_OWNER(server->idle.next, struct session, link), REASON_DRAINED);
    }
}
