#include "proxy/upstream.h"

#include "base/check.h"
#include "base/log.h"
#include "proxy/pool.h"

#include <errno.h>
#include <stdlib.h>

/* At most one line in this time about one server: every request makes a failure. */
#define SERVER_LOG_MS 10000

const struct balance_ops *upstream_policy(enum config_balance balance) {
    switch (balance) {
    case CONFIG_BALANCE_ROUND_ROBIN:
        return &balance_round_robin;
    case CONFIG_BALANCE_LEAST_CONN:
        return &balance_least_conn;
    case CONFIG_BALANCE_P2C:
        return &balance_p2c;
    case CONFIG_BALANCE_RANDOM:
        return &balance_random;
    case CONFIG_BALANCE_SOURCE_IP:
        return &balance_source_ip;
    case CONFIG_BALANCE_MAGLEV:
        return &balance_maglev;
    case CONFIG_BALANCE_FIRST:
        return &balance_first;
    }
    return NULL;
}

/* This worker's part of a number that is meant for all of them; 0 only if the whole is. What cannot
 * be divided goes to the first workers, counted from another one for each server. */
static uint32_t upstream_part(struct upstream_share share, uint32_t whole, uint32_t server) {
    uint32_t place = (share.worker + server) % share.workers;
    uint32_t part = whole / share.workers + (place < whole % share.workers);
    return part == 0 && whole != 0 ? 1 : part;
}

void upstream_init_floods(struct h2_flood_limits *floods, const struct config_limits *limits) {
    floods->max[H2_FLOOD_CONTINUATION] = (uint32_t)limits->h2_max_continuations;
    floods->max[H2_FLOOD_SETTINGS] = (uint32_t)limits->h2_max_settings;
    floods->max[H2_FLOOD_PING] = (uint32_t)limits->h2_max_pings;
    floods->max[H2_FLOOD_EMPTY_DATA] = (uint32_t)limits->h2_max_empty_data;
    floods->max[H2_FLOOD_PRIORITY] = (uint32_t)limits->h2_max_priority;
    floods->max[H2_FLOOD_WINDOW_UPDATE] = (uint32_t)limits->h2_max_window_updates;
    floods->max[H2_FLOOD_CLOSED] = (uint32_t)limits->h2_max_closed;
}

int upstream_init(struct upstream *upstream, const struct config_upstream *config,
                  const struct session_ops *ops, struct session_room *room,
                  struct upstream_share share) {
    uint32_t count = config->server_count;
    *upstream = (struct upstream){
        .config = config, .session_ops = ops, .room = room, .idle_max = UINT32_MAX};
    upstream->limits_requests = ops && ops->multiplexed;
    queue_init(&upstream->queue, room ? room->net : NULL, upstream_part(share, config->queue, 0),
               config->limits.timeout_queue_ms);
    upstream->options = (struct session_options){
        .timeout_connect_ms = config->limits.timeout_connect_ms,
        .timeout_handshake_ms = config->limits.timeout_handshake_ms,
        .timeout_server_ms = config->limits.timeout_server_ms,
        .timeout_keepalive_ms = config->keepalive_timeout_ms,
        .max_header_size = (uint32_t)config->limits.max_header_size,
        .max_headers = (uint32_t)config->limits.max_headers,
        .max_target = (uint32_t)config->limits.max_target,
        .send_proxy = config->send_proxy,
    };
    upstream_init_floods(&upstream->options.h2_flood, &config->limits);
    upstream->servers = calloc(count, sizeof *upstream->servers);
    upstream->balance_servers = calloc(count, sizeof *upstream->balance_servers);
    upstream->names = calloc(count, sizeof *upstream->names);
    if (!upstream->servers || !upstream->balance_servers || !upstream->names) return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        struct server *server = &upstream->servers[i];
        const struct config_server *from = &config->servers[i];
        *server = (struct server){
            .config = from, .upstream = upstream, .balance = &upstream->balance_servers[i]};
        server->connections_max =
            from->max_connections ? upstream_part(share, from->max_connections, i) : UINT32_MAX;
        server->idle_max = upstream_part(share, config->keepalive, i);
        server->streams_max = UINT32_MAX;
        list_init(&server->idle);
        list_init(&server->shared);
        list_init(&server->loaded);
        list_init(&server->dialling);
        upstream->names[i] = from->name;
        *server->balance = (struct balance_server){.weight = from->weight, .backup = from->backup};
        server_update(server);
    }
    return balance_init(&upstream->balance, upstream_policy(config->balance),
                        upstream->balance_servers, upstream->names, count);
}

void upstream_fini(struct upstream *upstream) {
    queue_fini(&upstream->queue);
    for (uint32_t i = 0; upstream->servers && i < upstream->config->server_count; i++)
        wire_sessions_fini(&upstream->servers[i].tls_sessions);
    if (upstream->balance.ops) balance_fini(&upstream->balance);
    free(upstream->servers);
    free(upstream->balance_servers);
    free(upstream->names);
    *upstream = (struct upstream){0};
}

/* Some connection takes one more request, or will. */
static bool server_has_room(const struct server *server) {
    return server->idle_count != 0 || !list_empty(&server->shared) ||
           !list_empty(&server->loaded) || !list_empty(&server->dialling);
}

/* Neither a connection more nor one that takes another request. Where a connection takes many, it
 * is the requests that are bounded, and connections follow: a server sees the same load from
 * HTTP/1 and from HTTP/2 with the same number. */
static bool server_at_limit(const struct server *server) {
    if (server->upstream->limits_requests)
        return server->balance->in_flight >= server->connections_max;
    return server->connections >= server->connections_max && !server_has_room(server);
}

static void server_judge(struct server *server) {
    server->balance->available = !server_at_limit(server);
}

void server_update(struct server *server) {
    server_judge(server);
    if (server->balance->available) queue_poke(&server->upstream->queue);
}

void server_enter(struct server *server) {
    server->balance->in_flight++;
    if (server->upstream->limits_requests) server_judge(server);
}

void server_take_back(struct server *server) {
    CHECK(server->balance->in_flight > 0);
    server->balance->in_flight--;
    if (server->upstream->limits_requests) server_judge(server);
}

void server_leave(struct server *server) {
    CHECK(server->balance->in_flight > 0);
    server->balance->in_flight--;
    if (server->upstream->limits_requests) server_update(server);
}

void server_note_failure(struct server *server, enum reason reason, int error, const char *words) {
    uint64_t now_ms = server->upstream->room->net->now_ms;
    if (error == ECANCELED) return; /* the end of the process */
    uint64_t before = server->failures++;
    if (now_ms < server->log_ms) return;
    server->log_ms = now_ms + SERVER_LOG_MS;
    server->failures = 0;
    bool has_error = reason == REASON_CONNECT_FAILED && error != 0;
    const char *why = has_error ? strerror(error) : reason_entry(reason)->text;
    if (reason == REASON_NO_MEMORY)
        why = "this worker has no slot left for a connection to a server (raise max_connections)";
    char more[64] = "";
    if (before != 0)
        snprintf(more, sizeof more, " (and %llu times since the last such line)",
                 (unsigned long long)before);
    log_warn("upstream %s: server %s: cannot connect: %s%s%s%s", server->upstream->config->name,
             server->config->name, why, words ? ": " : "", words ? words : "", more);
}

bool server_will_have_room(const struct server *server, enum reason failure) {
    if (failure != REASON_NO_MEMORY && failure != REASON_NO_DESCRIPTORS) return false;
    if (server->upstream->room->net->dial_refused) return true; /* proxy_on_dial_room */
    return server->connections != 0 && !server->upstream->limits_requests;
}

bool upstream_is_busy(const struct upstream *upstream, const struct balance_pick *pick) {
    for (uint32_t i = 0; i < upstream->config->server_count; i++) {
        if (server_at_limit(&upstream->servers[i]) && !balance_was_tried(pick, i)) return true;
    }
    return false;
}
