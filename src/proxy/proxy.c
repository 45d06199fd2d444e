#include "proxy/proxy.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "proxy/exchange.h"
#include "proxy/pool.h"
#include "proxy/relay.h"

#include <errno.h>
#include <stdlib.h>

static void proxy_init_floods(struct h2_flood_limits *floods, const struct config_limits *limits) {
    upstream_init_floods(floods, limits);
    floods->max[H2_FLOOD_RAPID_RESET] = (uint32_t)limits->h2_max_resets;
    floods->max[H2_FLOOD_MADE_RESET] = (uint32_t)limits->h2_max_made_resets;
    floods->max[H2_FLOOD_ZERO_WINDOW] = (uint32_t)limits->h2_max_stalled;
}

static void proxy_init_front(struct front *front, const struct config_listener *config,
                             const struct router *router) {
    const struct config_limits *limits = &config->limits;
    front->config = config;
    front->options = (struct session_options){
        .timeout_request_ms = limits->timeout_request_ms,
        .timeout_client_ms = limits->timeout_client_ms,
        .timeout_handshake_ms = limits->timeout_handshake_ms,
        .timeout_keepalive_ms = limits->timeout_keepalive_ms,
        .min_read_rate = limits->min_read_rate,
        .max_body_size = limits->max_body_size,
        .max_header_size = (uint32_t)limits->max_header_size,
        .max_headers = (uint32_t)limits->max_headers,
        .max_target = (uint32_t)limits->max_target,
        .h2_streams_max = (uint32_t)limits->h2_max_streams,
        .h2_refused = !config->speaks_h2,
        .no_websocket = !router_takes_websocket(router, config),
    };
    proxy_init_floods(&front->options.h2_flood, limits);
}

static int proxy_init_parts(struct proxy *proxy, const struct proxy_options *options) {
    const struct config *config = options->config;
    const struct upstream_share share = {options->worker, config->workers};
    int error = router_init(&proxy->router, config);
    for (uint32_t i = 0; error == 0 && i < config->upstream_count; i++) {
        bool is_h2 = config->upstreams[i].protocol == CONFIG_PROTOCOL_H2;
        error =
            upstream_init(&proxy->upstreams[i], &config->upstreams[i],
                          is_h2 ? options->h2_ops : options->upstream_ops, options->room, share);
        proxy->upstreams[i].idle_max = options->idle_max;
    }
    for (uint32_t i = 0; error == 0 && i < config->listener_count; i++) {
        struct front *front = &proxy->fronts[i];
        proxy_init_front(front, &config->listeners[i], &proxy->router);
        front->proxy = proxy;
        bool is_tcp = config->listeners[i].mode == CONFIG_MODE_TCP;
        front->session_ops = is_tcp ? options->tcp_ops : options->client_ops;
        front->host = is_tcp ? &relay_client_host : &exchange_client_host;
        if (config->listeners[i].is_admin) front->service = options->admin;
    }
    return error;
}

static bool proxy_checks_websockets(const struct config *config) {
    for (uint32_t i = 0; i < config->listener_count; i++)
        if (config->listeners[i].websocket.mode == CONFIG_WEBSOCKET_CHECKED) return true;
    for (uint32_t i = 0; i < config->route_count; i++)
        if (config->routes[i].websocket.mode == CONFIG_WEBSOCKET_CHECKED) return true;
    return false;
}

static int proxy_init_slabs(struct proxy *proxy, const struct proxy_options *options) {
    uint32_t tunnels_max = options->exchanges_max;
    int error = slab_init(&proxy->exchanges, "exchange", exchange_size(), options->exchanges_max);
    if (error == 0)
        error = slab_init(&proxy->tunnels, "tunnel", exchange_tunnel_size(), tunnels_max);
    if (error == 0) error = slab_init(&proxy->relays, "relay", relay_size(), options->relays_max);
    if (error < 0) return error;
    net_add_slab(options->net, &proxy->exchanges);
    net_add_slab(options->net, &proxy->tunnels);
    net_add_slab(options->net, &proxy->relays);
    return tunnel_ws_room_init(&proxy->checked, options->net,
                               proxy_checks_websockets(options->config) ? tunnels_max : 0);
}

/* The end of any connection to a server makes room for one to any other. */
static void proxy_on_dial_room(struct net_task *task) {
    struct proxy *proxy = LIST_OWNER(task, struct proxy, dial_room);
    for (uint32_t i = 0; i < proxy->config->upstream_count; i++)
        queue_poke(&proxy->upstreams[i].queue);
}

int proxy_init(struct proxy *proxy, const struct proxy_options *options) {
    const struct config *config = options->config;
    *proxy = (struct proxy){
        .config = config, .net = options->net, .room = options->room, .tcp_ops = options->tcp_ops};
    net_task_init(&proxy->dial_room, proxy_on_dial_room);
    options->net->dial_room = &proxy->dial_room;
    rand_seed(&proxy->random, clock_now_ns() ^ (uint64_t)(uintptr_t)proxy);
    proxy->instance = rand_next(&proxy->random);
    size_t series = (size_t)config->listener_count * (config->route_count + 1);
    proxy->upstreams = calloc(config->upstream_count + 1, sizeof *proxy->upstreams);
    proxy->services = options->services;
    proxy->fronts = calloc(config->listener_count + 1, sizeof *proxy->fronts);
    proxy->series = calloc(series + 1, sizeof *proxy->series);
    if (!proxy->upstreams || !proxy->fronts || !proxy->series) return -ENOMEM;
    int error = proxy_init_slabs(proxy, options);
    return error < 0 ? error : proxy_init_parts(proxy, options);
}

void proxy_fini(struct proxy *proxy) {
    for (uint32_t i = 0; i < proxy->config->upstream_count; i++)
        upstream_fini(&proxy->upstreams[i]);
    router_fini(&proxy->router);
    tunnel_ws_room_fini(&proxy->checked);
    slab_fini(&proxy->exchanges);
    slab_fini(&proxy->tunnels);
    slab_fini(&proxy->relays);
    free(proxy->upstreams);
    free(proxy->fronts);
    free(proxy->series);
    *proxy = (struct proxy){0};
}

void proxy_drain(struct proxy *proxy) {
    for (uint32_t i = 0; i < proxy->config->upstream_count; i++) {
        struct upstream *upstream = &proxy->upstreams[i];
        for (uint32_t j = 0; j < upstream->config->server_count; j++)
            pool_drain(&upstream->servers[j]);
    }
    tunnel_ws_drain(&proxy->checked);
}

struct request_series *proxy_series(const struct proxy *proxy,
                                    const struct config_listener *listener,
                                    const struct config_route *route) {
    size_t routes = (size_t)proxy->config->route_count + 1;
    return &proxy->series[listener->index * routes + (route ? route->index + 1 : 0)];
}

void proxy_log_client(struct session *session, const char *what, enum reason reason) {
    if (!log_is_on(LOG_DEBUG)) return;
    const struct front *front = session->user;
    struct bytes client = session_client_ip(session);
    log_debug("listener %s: client %.*s port %u: %s: %s: %s", front->config->name,
              BYTES_FMT(client), session->client_port, what, reason_entry(reason)->name,
              reason_entry(reason)->text);
}

void proxy_count_request(const struct session *session, struct request_series *series,
                         enum http_method method, int status) {
    uint32_t class = upstream_code_class(status);
    bool is_h2 = session->ops->multiplexed;
    stat_bump(is_h2 ? &series->h2[method][class] : &series->count[method][class], 1);
}
