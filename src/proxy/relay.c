#include "proxy/relay.h"

#include "base/check.h"
#include "base/log.h"
#include "proto/sni.h"
#include "proxy/hash_key.h"
#include "proxy/pool.h"
#include "proxy/tunnel.h"

enum relay_state {
    RELAY_HELLO,
    RELAY_CHOOSE,
    RELAY_QUEUE,
    RELAY_CONNECT,
    RELAY_TUNNEL,
    RELAY_DONE
};

struct relay {
    struct front *front;
    struct stream *client;
    struct stream *upstream; /* NULL: none open */
    struct upstream *target; /* NULL: a service */
    struct server *server;   /* of the attempt under way; NULL when there is none */
    struct balance_pick pick;
    struct pool_wait wait;
    struct queue_entry turn; /* in the target's queue while in QUEUE */
    struct tunnel tunnel;
    struct wheel_timer hello; /* armed in HELLO */
    enum relay_state state;
    enum reason last_failure; /* of the attempts so far */
    enum reason retry_of;     /* how the attempt ended that the next one follows; NONE: none */
};

size_t relay_size(void) { return sizeof(struct relay); }

/* Rows: from; bits: to. */
static const uint8_t relay_transitions[] = {
    [RELAY_HELLO] = 1 << RELAY_CHOOSE | 1 << RELAY_DONE,
    [RELAY_CHOOSE] = 1 << RELAY_HELLO | 1 << RELAY_QUEUE | 1 << RELAY_CONNECT | 1 << RELAY_TUNNEL |
                     1 << RELAY_DONE,
    [RELAY_QUEUE] = 1 << RELAY_CONNECT | 1 << RELAY_DONE,
    [RELAY_CONNECT] = 1 << RELAY_QUEUE | 1 << RELAY_CONNECT | 1 << RELAY_TUNNEL | 1 << RELAY_DONE,
    [RELAY_TUNNEL] = 1 << RELAY_DONE,
    [RELAY_DONE] = 0,
};

static void relay_set_state(struct relay *relay, enum relay_state state) {
    CHECK(relay_transitions[relay->state] & 1 << state);
    relay->state = state;
}

static struct proxy *relay_proxy(const struct relay *relay) { return relay->front->proxy; }

static struct stat_block *relay_stats(const struct relay *relay) {
    return relay_proxy(relay)->net->stats;
}

static void relay_leave_server(struct relay *relay, enum reason reason) {
    pool_cancel(&relay->wait);
    if (relay->upstream) {
        struct stream *upstream = relay->upstream;
        relay->upstream = NULL;
        upstream->ops->close(upstream, reason);
    }
    if (relay->server) server_leave(relay->server);
    relay->server = NULL;
}

/* Closes both streams, counts, and gives the slot back: `relay` must not be touched afterwards. */
static void relay_end(struct relay *relay, enum reason reason) {
    struct proxy *proxy = relay_proxy(relay);
    relay_set_state(relay, RELAY_DONE);
    wheel_disarm(&proxy->net->wheel, &relay->hello);
    stat_bump(&relay_stats(relay)->relays[reason], 1);
    proxy_log_client(relay->client->session, "ended", reason);
    relay_leave_server(relay, reason);
    if (relay->target) queue_leave(&relay->target->queue, &relay->turn);
    relay->client->ops->close(relay->client, reason);
    slab_release(&proxy->relays, relay);
    stat_set(proxy->net->stats, STAT_RELAY_SLOTS_USED, proxy->relays.used);
}

static void relay_on_tunnel_end(struct tunnel *tunnel, enum reason reason) {
    relay_end(LIST_OWNER(tunnel, struct relay, tunnel), reason);
}

static void relay_serve(struct relay *relay, struct stream *stream) {
    struct proxy *proxy = relay_proxy(relay);
    relay->upstream = stream;
    relay_set_state(relay, RELAY_TUNNEL);
    relay->tunnel = (struct tunnel){.client = relay->client,
                                    .upstream = stream,
                                    .stats = relay_stats(relay),
                                    .on_end = relay_on_tunnel_end};
    tunnel_start(&relay->tunnel, relay->target ? relay->target->config->limits.timeout_tunnel_ms
                                               : proxy->config->defaults.timeout_tunnel_ms);
}

static void relay_try(struct relay *relay);

static void relay_on_stream(struct pool_wait *wait, struct stream *stream) {
    relay_serve(LIST_OWNER(wait, struct relay, wait), stream);
}

/* The server could not be reached: the next one. */
static void relay_on_connect_failed(struct pool_wait *wait, enum reason reason) {
    struct relay *relay = LIST_OWNER(wait, struct relay, wait);
    relay->last_failure = relay->retry_of = reason;
    relay_leave_server(relay, reason);
    relay_try(relay);
}

static void relay_enter_server(struct relay *relay, uint32_t index) {
    relay->server = &relay->target->servers[index];
    server_enter(relay->server);
    relay->wait = (struct pool_wait){.ops = relay_proxy(relay)->tcp_ops,
                                     .on_stream = relay_on_stream,
                                     .on_failed = relay_on_connect_failed,
                                     .client = relay->client->session};
}

/* An attempt begins, and follows another one. */
static void relay_count_retry(struct relay *relay) {
    if (relay->retry_of != REASON_NONE) stat_bump(&relay_stats(relay)->retries[relay->retry_of], 1);
    relay->retry_of = REASON_NONE;
}

/* For log_level = debug. */
static void relay_log_server(const struct relay *relay) {
    if (!log_is_on(LOG_DEBUG)) return;
    struct session *session = relay->client->session;
    bool is_again = relay->retry_of != REASON_NONE;
    struct bytes client = session_client_ip(session);
    log_debug("listener %s: client %.*s port %u: upstream %s: server %s%s%s",
              relay->front->config->name, BYTES_FMT(client), session->client_port,
              relay->target->config->name, relay->server->config->name, is_again ? ", after " : "",
              is_again ? reason_entry(relay->retry_of)->name : "");
}

/* Picks servers until one is being dialled, or none is left. True: so it is, and the relay goes on
 * or has ended. False: nothing has changed, as every server that is left is at its limit. */
static bool relay_pick(struct relay *relay) {
    struct upstream *target = relay->target;
    for (;;) {
        uint32_t index = balance_pick(&target->balance, &relay->pick);
        if (index == BALANCE_NONE && upstream_is_busy(target, &relay->pick)) return false;
        if (index == BALANCE_NONE || !balance_mark_tried(&relay->pick, index)) {
            bool failed = relay->last_failure != REASON_NONE;
            relay_end(relay, failed ? relay->last_failure : REASON_SERVER_BUSY);
            return true;
        }
        enum reason failure;
        relay_enter_server(relay, index);
        struct stream *stream = pool_take(relay->server, NULL, true, &relay->wait, &failure);
        CHECK(!stream); /* a fresh one takes at least a turn */
        if (failure == REASON_NONE) {
            queue_leave(&target->queue, &relay->turn);
            relay_log_server(relay);
            relay_count_retry(relay);
            relay_set_state(relay, RELAY_CONNECT);
            return true;
        }
        CHECK(failure != REASON_SERVER_BUSY); /* it would not have been available */
        relay->last_failure = failure;
        pool_cancel(&relay->wait);
        server_take_back(relay->server);
        relay->server = NULL;
        if (server_will_have_room(&target->servers[index], failure)) {
            relay->pick.tried_count--;
            return false;
        }
        relay->retry_of = failure;
    }
}

static void relay_join_queue(struct relay *relay) {
    struct queue *queue = &relay->target->queue;
    if (queue->max == 0) {
        bool failed = relay->last_failure != REASON_NONE;
        relay_end(relay, failed ? relay->last_failure : REASON_SERVER_BUSY);
    } else if (!queue_join(queue, &relay->turn)) {
        relay_end(relay, REASON_QUEUE_FULL);
    } else {
        relay_set_state(relay, RELAY_QUEUE);
    }
}

static void relay_try(struct relay *relay) {
    if (!relay_pick(relay)) relay_join_queue(relay);
}

static enum queue_turn relay_on_turn(struct queue_entry *entry) {
    struct relay *relay = LIST_OWNER(entry, struct relay, turn);
    CHECK(relay->state == RELAY_QUEUE);
    if (relay_pick(relay)) return QUEUE_TAKEN;
    /* Who has tried some servers waits for the others, and these may have room. */
    return relay->pick.tried_count != 0 ? QUEUE_PASSED : QUEUE_NOTHING;
}

static void relay_on_queue_timeout(struct queue_entry *entry) {
    relay_end(LIST_OWNER(entry, struct relay, turn), REASON_QUEUE_TIMEOUT);
}

static void relay_to_service(struct relay *relay, struct service *service) {
    struct stream *stream = service->ops->open(service, relay_proxy(relay)->net, NULL);
    if (stream) {
        relay_serve(relay, stream);
    } else {
        relay_end(relay, REASON_NO_MEMORY);
    }
}

static void relay_to_upstream(struct relay *relay, const struct config_upstream *config) {
    relay->target = &relay_proxy(relay)->upstreams[config->index];
    if (relay->target->balance.ops->uses_hash)
        relay->pick.hash = hash_key(config, NULL, session_client_ip(relay->client->session));
    struct queue *queue = &relay->target->queue;
    if (!queue_must_wait(queue)) {
        relay_try(relay);
        return;
    }
    relay_join_queue(relay);
    /* Those before it may wait for one server, while another one has room. */
    queue_poke(queue);
}

static void relay_on_client_reset(struct stream *client, enum reason reason) {
    relay_end(client->user, reason);
}

/* Ends the relay, or begins what it was made for. */
static void relay_choose(struct relay *relay, const struct config_action *action) {
    struct proxy *proxy = relay_proxy(relay);
    if (action->kind == CONFIG_ACTION_SERVICE) {
        relay_to_service(relay, proxy->services[action->service->index]);
    } else if (action->kind == CONFIG_ACTION_UPSTREAM) {
        uint32_t draw =
            action->split_count == 1 ? 0 : rand_below(&proxy->random, action->weight_sum);
        relay_to_upstream(relay, route_split(action, draw));
    } else {
        CHECK(action->kind == CONFIG_ACTION_NONE); /* config knows no other for tcp */
        relay_end(relay, REASON_NO_ROUTE);
    }
}

/* What is no ClientHello, or one that is longer than a receive buffer, has no name. */
static void relay_on_held(struct stream *client, struct bytes bytes, bool last) {
    struct relay *relay = client->user;
    char memory[SNI_SIZE_MAX];
    struct bytes name = BYTES_NONE;
    enum sni_result result = sni_find(bytes, memory, &name);
    if (relay->state != RELAY_HELLO || (result == SNI_MORE && !last)) return;
    client->ops->peek(client, false);
    struct proxy *proxy = relay_proxy(relay);
    wheel_disarm(&proxy->net->wheel, &relay->hello);
    relay_set_state(relay, RELAY_CHOOSE);
    const struct config_listener *listener = relay->front->config;
    const struct config_route *route = router_match_sni(&proxy->router, listener, name);
    relay_choose(relay, route ? &route->action : &listener->action);
}

static void relay_on_hello_timeout(struct wheel_timer *timer, uint64_t now_ms) {
    (void)now_ms;
    relay_end(LIST_OWNER(timer, struct relay, hello), REASON_HELLO_TIMEOUT);
}

static void relay_await_hello(struct relay *relay) {
    struct net *net = relay_proxy(relay)->net;
    relay_set_state(relay, RELAY_HELLO);
    wheel_arm(&net->wheel, &relay->hello,
              net->now_ms + relay->front->config->limits.timeout_handshake_ms);
    relay->client->ops->peek(relay->client, true);
}

/* Until the tunnel takes over: the client's session holds its bytes and its FIN. */
static const struct stream_events relay_held_events = {.on_held = relay_on_held,
                                                       .on_reset = relay_on_client_reset};

static bool relay_on_stream_begun(struct session *session, struct stream *stream) {
    struct front *front = session->user;
    struct proxy *proxy = front->proxy;
    struct relay *relay = slab_acquire(&proxy->relays);
    if (!relay) return false;
    *relay = (struct relay){.front = front, .client = stream, .state = RELAY_CHOOSE};
    queue_entry_init(&relay->turn, relay_on_turn, relay_on_queue_timeout);
    wheel_timer_init(&relay->hello, relay_on_hello_timeout);
    stream->events = &relay_held_events;
    stream->user = relay;
    stat_set(proxy->net->stats, STAT_RELAY_SLOTS_USED, proxy->relays.used);
    if (router_wants_sni(&proxy->router, front->config)) {
        relay_await_hello(relay);
    } else {
        relay_choose(relay, &front->config->action);
    }
    return true;
}

static void relay_on_refused(struct session *session, enum reason reason) {
    struct front *front = session->user;
    stat_bump(&front->proxy->net->stats->relays[reason], 1);
}

/* Also one whose relay had ended well, and that was still sending. */
static void relay_on_session_closed(struct session *session, enum reason reason) {
    struct front *front = session->user;
    if (reason == REASON_DRAIN_CUT) front->proxy->cut++;
}

const struct session_host relay_client_host = {
    .on_stream = relay_on_stream_begun,
    .on_refused = relay_on_refused,
    .on_closed = relay_on_session_closed,
};
