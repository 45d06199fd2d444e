#include "proxy/pool.h"

#include "base/check.h"
#include "base/log.h"

/* How long no connection is dialled in advance after one of those has failed. */
#define POOL_GROW_PAUSE_MS 1000

/* session.host_state: where a connection stands, and so which gauge it is counted in. */
enum pool_state {
    POOL_DIALLING,
    POOL_CROWDED,
    POOL_IDLE,
    POOL_SHARED,
    POOL_LOADED,
    POOL_FULL,
    POOL_ENDING
};

static struct net *pool_net(const struct server *server) { return server->upstream->room->net; }

static void pool_count(struct server *server, enum pool_state state, int by) {
    uint64_t change = (uint64_t)(int64_t)by;
    switch (state) {
    case POOL_DIALLING:
    case POOL_CROWDED:
        stat_add(pool_net(server)->stats, STAT_UPSTREAM_CONNECTIONS_CONNECTING, change);
        server->dials += (uint32_t)by;
        return;
    case POOL_SHARED:
    case POOL_LOADED:
    case POOL_FULL:
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

/* Where those stand that could take one more. NULL: this one could not. */
static struct list *pool_list(struct server *server, enum pool_state state) {
    switch (state) {
    case POOL_DIALLING:
        return &server->dialling;
    case POOL_IDLE:
        return &server->idle;
    case POOL_SHARED:
        return &server->shared;
    case POOL_LOADED:
        return &server->loaded;
    case POOL_CROWDED:
    case POOL_FULL:
    case POOL_ENDING:
        break;
    }
    return NULL;
}

static void pool_set_state(struct session *session, enum pool_state state) {
    struct server *server = session->user;
    enum pool_state before = (enum pool_state)session->host_state;
    if (before == state) return;
    if (pool_list(server, before)) list_remove(&session->link);
    pool_count(server, before, -1);
    session->host_state = (uint8_t)state;
    pool_count(server, state, 1);
    struct list *list = pool_list(server, state);
    if (list) list_push_front(list, &session->link);
    server_update(server);
}

/* Of a connection that is not ready. */
static enum pool_state pool_dialling_state(const struct session *session) {
    const struct server *server = session->user;
    bool shared = session->ops->multiplexed && server->upstream->options.send_proxy == 0;
    return shared && session->waiting < session->streams_max ? POOL_DIALLING : POOL_CROWDED;
}

/* Of a connection that has streams. */
static enum pool_state pool_active_state(const struct session *session) {
    const struct server *server = session->user;
    uint32_t max = session->streams_max;
    if (server->upstream->options.send_proxy != 0 || session->streams_open >= max) return POOL_FULL;
    uint32_t load = max - max / 4;
    if (load > POOL_LOAD) load = POOL_LOAD;
    return session->streams_open < load ? POOL_SHARED : POOL_LOADED;
}

/* on_closed follows. */
static void pool_end(struct session *session, enum reason reason) {
    pool_set_state(session, POOL_ENDING);
    session->ops->close(session, reason);
}

static void pool_keep(struct session *session) {
    struct server *server = session->user;
    bool wanted = session->streams_max != 0 && server->idle_max != 0;
    if (!wanted || server->upstream->room->draining) {
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

static void pool_on_room(struct session *session) {
    struct server *server = session->user;
    enum pool_state state = (enum pool_state)session->host_state;
    /* Who waits for it is given streams just now. */
    if (state == POOL_ENDING || session->waiting != 0) return;
    if (session->streams_max != 0) server->streams_max = session->streams_max;
    if (session->streams_open != 0) {
        pool_set_state(session, pool_active_state(session));
    } else if (state == POOL_DIALLING || state == POOL_CROWDED) {
        pool_set_state(session, pool_dialling_state(session));
    } else if (state != POOL_IDLE || session->streams_max == 0) {
        pool_keep(session);
    }
}

static struct pool_wait *pool_next_waiter(struct session *session) {
    struct list *node = list_pop_front(&session->waiters);
    if (!node) return NULL;
    struct pool_wait *wait = LIST_OWNER(node, struct pool_wait, link);
    CHECK(session->waiting > 0 && wait->session == session);
    session->waiting--;
    wait->session = NULL;
    return wait;
}

/* One that shares the connection has taken one that was there. */
static void pool_note_reuse(const struct server *server) {
    stat_add(pool_net(server)->stats, STAT_UPSTREAM_REUSES, 1);
}

/* For log_level = debug. */
static void pool_log(const struct session *session, const char *what, const char *how) {
    const struct server *server = session->user;
    char memory[512];
    struct writer secured = writer_make(memory, sizeof memory);
    const struct tls *tls = session->conn ? wire_tls(session->conn) : NULL;
    if (tls) tls_describe(tls, &secured);
    log_debug("upstream %s: server %s: %s%s%.*s", server->upstream->config->name,
              server->config->name, what, how, BYTES_FMT(writer_bytes(&secured)));
}

static void pool_on_ready(struct session *session) {
    struct server *server = session->user;
    struct net *net = pool_net(server);
    if (log_is_on(LOG_DEBUG)) pool_log(session, "connected, ", session->ops->proto);
    stat_add(net->stats, STAT_UPSTREAM_CONNECTS, 1);
    stat_observe_ns(net->stats, STAT_HIST_UPSTREAM_CONNECT, net->now_ns - session->opened_ns);
    if (session->waiting == 0) {
        pool_keep(session);
        return;
    }
    /* For nobody else until all of them have theirs, whatever they do meanwhile. */
    pool_set_state(session, POOL_FULL);
    for (struct pool_wait *wait; (wait = pool_next_waiter(session));) {
        if (session->streams != 0) pool_note_reuse(server);
        struct stream *stream = session->ops->open(session, wait->arena);
        if (stream) {
            wait->on_stream(wait, stream);
        } else {
            wait->on_failed(wait, REASON_NO_MEMORY);
        }
    }
    if (!session->closing) pool_on_room(session);
}

static void pool_on_closed(struct session *session, enum reason reason) {
    struct server *server = session->user;
    bool was_dialling = session->host_state == POOL_DIALLING || session->host_state == POOL_CROWDED;
    const char *what = was_dialling ? "cannot connect: " : "closed: ";
    if (log_is_on(LOG_DEBUG)) pool_log(session, what, reason_entry(reason)->name);
    pool_set_state(session, POOL_ENDING);
    CHECK(server->connections > 0);
    server->connections--;
    server_update(server);
    if (was_dialling) {
        server->grow_ms = pool_net(server)->now_ms + POOL_GROW_PAUSE_MS;
        stat_bump(&pool_net(server)->stats->connect_failures[reason], 1);
        server_note_failure(server, reason, session->connect_error, session->connect_words);
    }
    for (struct pool_wait *wait; (wait = pool_next_waiter(session));)
        wait->on_failed(wait, reason);
}

static const struct session_host pool_host = {
    .on_ready = pool_on_ready,
    .on_room = pool_on_room,
    .on_closed = pool_on_closed,
};

/* The connection that takes the next stream. */
static struct session *pool_choose(struct server *server) {
    struct list *lists[] = {&server->shared, &server->idle, &server->loaded};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        if (!list_empty(lists[i])) return LIST_OWNER(lists[i]->next, struct session, link);
    }
    return NULL;
}

/* NULL and *failure when the dial cannot even begin. */
static struct session *pool_dial(struct server *server, const struct session_ops *ops,
                                 struct session *client, enum reason *failure) {
    struct upstream *upstream = server->upstream;
    const struct config_address *address = &server->config->address;
    struct session_address to = {.address = (const struct sockaddr *)&address->storage,
                                 .size = address->size,
                                 .tls_name = server->config->tls_name,
                                 .tls_sessions = &server->tls_sessions};
    struct addr_pair ends;
    if (upstream->options.send_proxy != 0) {
        CHECK(client);
        /* Who resets just now must not look like a client of the proxy itself. */
        if (!session_client_ends(client, &ends)) {
            *failure = REASON_CLIENT_RESET;
            return NULL;
        }
        to.client = &ends;
    }
    struct session *session =
        ops->connect(upstream->room, &to, &upstream->options, &pool_host, failure);
    if (!session) {
        stat_bump(&pool_net(server)->stats->connect_failures[*failure], 1);
        server_note_failure(server, *failure, 0, NULL);
        return NULL;
    }
    *failure = REASON_NONE;
    session->user = server;
    list_init(&session->waiters);
    /* What is more than it takes would be refused. */
    bool less = ops->multiplexed && server->streams_max < session->streams_max;
    if (less) session->streams_max = server->streams_max;
    server->connections++;
    session->host_state = POOL_ENDING;
    return session;
}

/* The next connection, before those that are there are full: nobody waits for it yet. */
static void pool_grow(struct server *server, const struct session_ops *ops) {
    struct net *net = pool_net(server);
    if (server->dials != 0 || server->upstream->room->draining) return;
    if (server->connections >= server->connections_max || net->now_ms < server->grow_ms) return;
    enum reason failure;
    struct session *session = pool_dial(server, ops, NULL, &failure);
    if (session) {
        pool_set_state(session, pool_dialling_state(session));
    } else {
        server->grow_ms = net->now_ms + POOL_GROW_PAUSE_MS;
    }
}

/* It gives no stream. Else memory is short, and no other connection would give one. */
static bool pool_is_lost(const struct session *session) {
    return !session->ops->multiplexed || !session->conn || session->streams_max == 0;
}

/* NULL: none is open; or *failure says why none gives a stream. */
static struct stream *pool_take_open(struct server *server, struct arena *arena,
                                     enum reason *failure) {
    for (struct session *session; (session = pool_choose(server));) {
        bool loaded = session->host_state == POOL_LOADED;
        struct stream *stream = session->ops->open(session, arena);
        if (stream) {
            pool_set_state(session, pool_active_state(session));
            pool_note_reuse(server);
            if (loaded) pool_grow(server, session->ops);
            return stream;
        }
        if (!pool_is_lost(session)) {
            *failure = REASON_NO_MEMORY;
            return NULL;
        }
        /* It has not said so yet. */
        pool_set_state(session, session->streams_open != 0 ? POOL_FULL : POOL_ENDING);
    }
    return NULL;
}

static void pool_join(struct session *session, struct arena *arena, struct pool_wait *wait) {
    wait->session = session;
    wait->arena = arena;
    list_push_back(&session->waiters, &wait->link);
    session->waiting++;
    pool_set_state(session, pool_dialling_state(session));
}

struct stream *pool_take(struct server *server, struct arena *arena, bool fresh,
                         struct pool_wait *wait, enum reason *failure) {
    *failure = REASON_NONE;
    struct stream *stream = fresh ? NULL : pool_take_open(server, arena, failure);
    if (stream || *failure != REASON_NONE) return stream;
    if (!list_empty(&server->dialling) && !wait->ops->one_stream) {
        pool_join(LIST_OWNER(server->dialling.next, struct session, link), arena, wait);
        return NULL;
    }
    bool bounded = !server->upstream->limits_requests;
    if (bounded && server->connections >= server->connections_max) {
        if (server->idle_count == 0) {
            *failure = REASON_SERVER_BUSY;
            return NULL;
        }
        /* Its FIN goes out before the new SYN. */
        pool_end(LIST_OWNER(server->idle.prev, struct session, link), REASON_SERVER_IDLE);
    }
    struct session *session = pool_dial(server, wait->ops, wait->client, failure);
    if (session) pool_join(session, arena, wait);
    return NULL;
}

void pool_cancel(struct pool_wait *wait) {
    struct session *session = wait->session;
    if (!session) return;
    CHECK(session->waiting > 0);
    list_remove(&wait->link);
    session->waiting--;
    wait->session = NULL;
    if (session->ops->one_stream) {
        pool_end(session, REASON_SERVER_IDLE);
        return;
    }
    enum pool_state state = (enum pool_state)session->host_state;
    bool dials = state == POOL_DIALLING || state == POOL_CROWDED;
    if (dials) pool_set_state(session, pool_dialling_state(session));
}

void pool_drain(struct server *server) {
    while (server->idle_count != 0) {
        pool_end(LIST_OWNER(server->idle.next, struct session, link), REASON_DRAINED);
    }
}
