/* exchange_tunnel.c: what is left of an exchange once both sides carry bytes. A tunnel may stand
 * for hours without a byte, so it keeps neither the exchange nor the memory of its heads. */
#include "proxy/exchange_internal.h"

/* In a slab of its own. `client` and `upstream` are open until exchange_tunnel_end. */
struct exchange_tunnel {
    struct tunnel tunnel;
    struct exchange_record record;
};

size_t exchange_tunnel_size(void) { return sizeof(struct exchange_tunnel); }

static void exchange_tunnel_publish(struct proxy *proxy) {
    stat_set(proxy->net->stats, STAT_TUNNEL_SLOTS_USED, proxy->tunnels.used);
}

static void exchange_tunnel_end(struct tunnel *tunnel, enum reason reason) {
    struct exchange_tunnel *x = LIST_OWNER(tunnel, struct exchange_tunnel, tunnel);
    struct exchange_record *record = &x->record;
    struct proxy *proxy = record->front->proxy;
    exchange_count(record, tunnel->client, reason);
    proxy_log_client(tunnel->client->session, "the tunnel has ended", reason);
    if (record->is_websocket) stat_sub(proxy->net->stats, STAT_WEBSOCKET_CONNECTIONS, 1);
    tunnel->upstream->ops->close(tunnel->upstream, tunnel->upstream_told ? REASON_NONE : reason);
    if (record->server) server_leave(record->server);
    tunnel->client->ops->close(tunnel->client, reason);
    slab_release(&proxy->tunnels, x);
    exchange_tunnel_publish(proxy);
}

/* A WebSocket's frames are checked where that was asked for. */
static bool exchange_tunnel_check(struct exchange_tunnel *x, uint64_t idle_ms) {
    struct config_websocket websocket = route_websocket(x->record.front->config, x->record.route);
    if (!x->record.is_websocket || websocket.mode != CONFIG_WEBSOCKET_CHECKED) return false;
    struct tunnel_ws_options options = {
        .message_max = websocket.message_max, .ping_ms = websocket.ping_ms, .idle_ms = idle_ms};
    tunnel_ws_start(&x->tunnel, &x->record.front->proxy->checked, &options);
    return true;
}

void exchange_begin_tunnel(struct exchange *x, const struct http_message *message) {
    struct proxy *proxy = x->proxy;
    struct exchange_tunnel *to = slab_acquire(&proxy->tunnels);
    if (!to) {
        exchange_fail(x, REASON_NO_MEMORY);
        return;
    }
    uint64_t idle_ms = x->target ? x->target->config->limits.timeout_tunnel_ms
                                 : proxy->config->defaults.timeout_tunnel_ms;
    exchange_set_answered(x);
    x->client->ops->head(x->client, message, false);
    *to = (struct exchange_tunnel){.tunnel = {.client = x->client,
                                              .upstream = x->upstream,
                                              .stats = proxy->net->stats,
                                              .on_end = exchange_tunnel_end},
                                   .record = exchange_record_of(x)};
    to->record.is_websocket = exchange_is_websocket(x);
    if (to->record.is_websocket) stat_add(proxy->net->stats, STAT_WEBSOCKET_CONNECTIONS, 1);
    exchange_hand_over(x);
    exchange_tunnel_publish(proxy);
    if (!exchange_tunnel_check(to, idle_ms)) tunnel_start(&to->tunnel, idle_ms);
}
