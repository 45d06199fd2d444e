/* exchange.c: the client's side of an exchange: from its first event to its end. */
#include "proxy/exchange.h"

#include "base/check.h"
#include "base/log.h"
#include "proto/http_error.h"
#include "proxy/exchange_internal.h"
#include "proxy/hash_key.h"

size_t exchange_size(void) { return sizeof(struct exchange); }

/* Rows: from; bits: to. */
static const uint8_t exchange_transitions[] = {
    [EXCHANGE_ROUTE] = 1 << EXCHANGE_QUEUE | 1 << EXCHANGE_CONNECT | 1 << EXCHANGE_SEND |
                       1 << EXCHANGE_RESPOND | 1 << EXCHANGE_DONE,
    [EXCHANGE_QUEUE] =
        1 << EXCHANGE_CONNECT | 1 << EXCHANGE_SEND | 1 << EXCHANGE_RESPOND | 1 << EXCHANGE_DONE,
    [EXCHANGE_CONNECT] = 1 << EXCHANGE_QUEUE | 1 << EXCHANGE_CONNECT | 1 << EXCHANGE_SEND |
                         1 << EXCHANGE_RESPOND | 1 << EXCHANGE_DONE,
    [EXCHANGE_SEND] =
        1 << EXCHANGE_CONNECT | 1 << EXCHANGE_SEND | 1 << EXCHANGE_RESPOND | 1 << EXCHANGE_DONE,
    [EXCHANGE_RESPOND] = 1 << EXCHANGE_DONE,
    [EXCHANGE_DONE] = 0,
};

void exchange_set_state(struct exchange *x, enum exchange_state state) {
    CHECK(exchange_transitions[x->state] & 1 << state);
    x->state = state;
}

struct net *exchange_net(const struct exchange *x) {
    return x->proxy->net;
}

struct rewrite_facts exchange_facts(struct exchange *x) {
    const struct conn *conn = x->client->session->conn;
    return (struct rewrite_facts){
        .request = x->request,
        .client_ip = session_client_ip(x->client->session),
        .client_port = x->client->session->client_port,
        .original_path = x->request->path,
        .listener = x->front->config->name,
        .route = x->route ? x->route->name : "",
        .upstream = x->target ? x->target->config->name : "",
        .server = x->server ? x->server->config->name : "",
        .tls = conn ? wire_tls(conn) : NULL,
        .status = x->status,
        .request_id = x->request_id,
    };
}

bool exchange_keep(struct exchange *x, struct bytes data, struct lease *lease) {
    struct exchange_piece *piece = arena_alloc(x->client->arena, sizeof *piece);
    if (!piece) return false;
    *piece = (struct exchange_piece){.data = data, .lease = lease};
    lease_ref(lease);
    if (x->kept_last) {
        x->kept_last->next = piece;
    } else {
        x->kept_first = piece;
    }
    x->kept_last = piece;
    x->kept_bytes += lease->size;
    return true;
}

void exchange_drop_kept(struct exchange *x) {
    for (struct exchange_piece *piece = x->kept_first; piece; piece = piece->next)
        lease_unref(piece->lease);
    if (x->kept_first) x->kept_lost = true;
    if (x->upstream) x->upstream->given = true;
    x->kept_first = x->kept_last = NULL;
    x->kept_bytes = 0;
}

bool exchange_is_websocket(const struct exchange *x) { return http_is_websocket(x->request); }

struct exchange_record exchange_record_of(const struct exchange *x) {
    return (struct exchange_record){.front = x->front,
                                    .route = x->route,
                                    .server = x->server,
                                    .method = x->request->method,
                                    .status = x->status};
}

void exchange_count(const struct exchange_record *record, const struct stream *client,
                    enum reason reason) {
    struct proxy *proxy = record->front->proxy;
    struct stat_block *stats = proxy->net->stats;
    struct request_series *series = proxy_series(proxy, record->front->config, record->route);
    if (record->is_websocket) {
        stat_bump(&series->ws[record->method][upstream_code_class(record->status)], 1);
    } else {
        proxy_count_request(client->session, series, record->method, record->status);
    }
    stat_bump(&stats->reasons[reason], 1);
    stat_sub(stats, STAT_HTTP_REQUESTS_IN_FLIGHT, 1);
    stat_observe_ns(stats, STAT_HIST_HTTP_REQUEST_DURATION, proxy->net->now_ns - client->began_ns);
    if (reason == REASON_CLIENT_CLOSED || reason == REASON_CLIENT_RESET)
        stat_add(stats, STAT_HTTP_ABORTS_CLIENT, 1);
    if (reason == REASON_SERVER_CLOSED || reason == REASON_SERVER_RESET) {
        stat_add(stats, STAT_HTTP_ABORTS_UPSTREAM, 1);
    }
    if (reason == REASON_DRAIN_CUT) proxy->cut++;
}

static void exchange_release(struct exchange *x) {
    struct proxy *proxy = x->proxy;
    if (x->target) queue_leave(&x->target->queue, &x->turn);
    net_task_cancel(&x->again);
    slab_release(&proxy->exchanges, x);
    stat_set(proxy->net->stats, STAT_EXCHANGE_SLOTS_USED, proxy->exchanges.used);
}

void exchange_hand_over(struct exchange *x) {
    exchange_debug(x, "status %d, a tunnel begins", x->status);
    exchange_set_state(x, EXCHANGE_DONE);
    exchange_drop_kept(x);
    exchange_stop_deadline(x);
    exchange_release(x);
}

void exchange_end(struct exchange *x, enum reason reason) {
    struct exchange_record record = exchange_record_of(x);
    exchange_debug(x, "ended: status %d, %s, after %llu ms", x->status, reason_entry(reason)->name,
                   (unsigned long long)(exchange_net(x)->now_ns - x->client->began_ns) / 1000000);
    exchange_set_state(x, EXCHANGE_DONE);
    exchange_count(&record, x->client, reason);
    exchange_drop_kept(x);
    exchange_stop_deadline(x); /* it lies in the client's arena */
    exchange_leave_server(x, reason);
    /* An error answer to a whole request leaves the connection as good as before. */
    bool whole = x->response_ended && x->request_ended;
    x->client->ops->close(x->client, whole ? REASON_NONE : reason);
    exchange_release(x);
}

void exchange_set_answered(struct exchange *x) {
    struct net *net = exchange_net(x);
    x->answered = true;
    stat_observe_ns(net->stats, STAT_HIST_HTTP_TIME_TO_FIRST_BYTE,
                    net->now_ns - x->client->began_ns);
}

bool exchange_rest_is_small(const struct exchange *x) {
    uint64_t length = x->request->body_length;
    return length == HTTP_LENGTH_UNKNOWN || length - x->body_bytes <= EXCHANGE_REST_MAX;
}

void exchange_check_end(struct exchange *x) {
    if (!x->response_ended) return;
    /* A body that waits for a 100 does not come any more. */
    bool never_comes = x->request->expect_continue && !x->body_begun;
    if (x->request_ended || never_comes) {
        exchange_end(x, REASON_NONE);
        return;
    }
    if (!x->server) return; /* an answer of the proxy's own: the client's connection is kept */
    /* A server that has answered without the rest of the body does not want it: its connection
     * cannot be used again, the client's can, behind that rest. Unless some of the body is in a
     * pipe, and goes with the server's connection: where the rest ends could not be told. The rest
     * of a call may come for hours, and its client is told by RST_STREAM that nobody wants it. */
    bool no_rest = x->client->last || x->is_call || x->body_passed;
    if (no_rest || !exchange_rest_is_small(x)) {
        exchange_end(x, REASON_NONE);
        return;
    }
    exchange_leave_server(x, REASON_NONE);
    x->rest_unwanted = true;
    x->body_bytes = 0;
    x->client->ops->resume(x->client);
}

void exchange_answer(struct exchange *x, struct http_message *answer, struct bytes body) {
    exchange_set_state(x, EXCHANGE_RESPOND);
    x->status = answer->status;
    exchange_set_answered(x);
    answer->body_length = body.len;
    bool no_body = body.len == 0;
    x->client->ops->head(x->client, answer, no_body);
    if (!no_body) x->client->ops->data(x->client, body, NULL, true);
    x->response_ended = true;
}

static void exchange_answer_failure(struct exchange *x, enum reason reason) {
    struct http_message answer;
    struct bytes body;
    if (x->answered || reason_entry(reason)->status == 0) return;
    if (!http_error_answer(reason, x->client->arena, &answer, &body) ||
        !session_add_date(x->proxy->room, &answer, x->client->arena)) {
        return;
    }
    answer.close_after = !x->request_ended;
    exchange_answer(x, &answer, body);
}

void exchange_fail(struct exchange *x, enum reason reason) {
    exchange_leave_server(x, reason);
    if (x->is_call) {
        exchange_fail_call(x, reason);
    } else {
        exchange_answer_failure(x, reason);
    }
    exchange_end(x, reason);
}

static bool exchange_redirect(struct exchange *x, const struct config_action *action) {
    struct rewrite_facts facts = exchange_facts(x);
    struct arena *arena = x->client->arena;
    struct http_message answer = {.status = action->status, .version_minor = 1};
    struct bytes location;
    if (!rewrite_expand(&action->text, &facts, arena, &location) ||
        !http_fields_init(&answer.fields, arena, 4) ||
        !http_fields_add(&answer.fields, arena, BYTES("Location"), location) ||
        !session_add_date(x->proxy->room, &answer, arena) ||
        !rewrite_response(&answer, x->front->config, x->route, &facts, arena)) {
        return false;
    }
    exchange_answer(x, &answer, BYTES_NONE);
    return true;
}

static bool exchange_respond(struct exchange *x, const struct config_action *action) {
    struct rewrite_facts facts = exchange_facts(x);
    struct arena *arena = x->client->arena;
    struct http_message answer = {.status = action->status, .version_minor = 1};
    struct bytes body;
    if (!rewrite_expand(&action->text, &facts, arena, &body) ||
        !http_fields_init(&answer.fields, arena, 4) ||
        !http_fields_add(&answer.fields, arena, BYTES("Content-Type"), BYTES("text/plain")) ||
        !session_add_date(x->proxy->room, &answer, arena) ||
        !rewrite_response(&answer, x->front->config, x->route, &facts, arena)) {
        return false;
    }
    exchange_answer(x, &answer, body);
    return true;
}

static void exchange_local(struct exchange *x, bool given) {
    if (given) {
        exchange_check_end(x);
    } else {
        exchange_fail(x, REASON_NO_MEMORY);
    }
}

static void exchange_to_service(struct exchange *x, struct service *service) {
    struct stream *stream = service->ops->open(service, exchange_net(x), x->client->arena);
    if (stream) {
        exchange_send(x, stream);
    } else {
        exchange_fail(x, REASON_NO_MEMORY);
    }
}

static void exchange_to_upstream(struct exchange *x, const struct config_action *action) {
    struct proxy *proxy = x->proxy;
    uint32_t draw = action->split_count == 1 ? 0 : rand_below(&proxy->random, action->weight_sum);
    x->target = &proxy->upstreams[route_split(action, draw)->index];
    if (x->target->balance.ops->uses_hash) {
        x->pick.hash =
            hash_key(x->target->config, x->request, session_client_ip(x->client->session));
    }
    exchange_begin(x);
}

/* Without the query, which may be nobody else's business. */
static void exchange_log_request(struct exchange *x) {
    const struct http_message *request = x->request;
    struct bytes client = session_client_ip(x->client->session);
    exchange_debug(x, "client %.*s port %u, listener %s: %.*s %.*s %.*s: route %s",
                   BYTES_FMT(client), x->client->session->client_port, x->front->config->name,
                   BYTES_FMT(request->method_text), BYTES_FMT(request->authority),
                   BYTES_FMT(request->path), x->route ? x->route->name : "none");
}

/* Each action ends in exactly one call that may end the exchange. */
static void exchange_act(struct exchange *x, const struct config_action *action) {
    switch (action->kind) {
    case CONFIG_ACTION_NONE:
        exchange_fail(x, REASON_NO_ROUTE);
        return;
    case CONFIG_ACTION_UPSTREAM:
        exchange_to_upstream(x, action);
        return;
    case CONFIG_ACTION_SERVICE:
        exchange_to_service(x, x->proxy->services[action->service->index]);
        return;
    case CONFIG_ACTION_REDIRECT:
        exchange_local(x, exchange_redirect(x, action));
        return;
    case CONFIG_ACTION_RESPOND:
        exchange_local(x, exchange_respond(x, action));
        return;
    }
}

static void exchange_on_request(struct stream *client, struct http_message *message, bool end) {
    struct exchange *x = client->user;
    x->request = message;
    x->request_ended = end;
    /* h2c would carry requests that no route ever sees (RFC 9113 section 3.1). */
    if (bytes_equal_nocase(message->upgrade, BYTES("h2c"))) message->upgrade = BYTES_NONE;
    if (!x->front->service) x->route = router_match(&x->proxy->router, x->front->config, message);
    if (log_is_on(LOG_DEBUG)) exchange_log_request(x);
    if (!exchange_begin_call(x)) return;
    enum reason refusal = route_refusal(x->front->config, x->route, message);
    if (x->front->service && refusal != REASON_CONNECT_REFUSED) {
        exchange_to_service(x, x->front->service);
    } else if (refusal != REASON_NONE) {
        exchange_fail(x, refusal);
    } else {
        exchange_act(x, x->route ? &x->route->action : &x->front->config->action);
    }
}

static void exchange_on_request_data(struct stream *client, struct bytes data,
                                     struct lease *lease) {
    struct exchange *x = client->user;
    x->body_begun = true;
    x->body_bytes += data.len;
    if (x->state == EXCHANGE_CONNECT || x->state == EXCHANGE_QUEUE) {
        if (!exchange_keep(x, data, lease)) {
            exchange_fail(x, REASON_NO_MEMORY);
        } else if (x->kept_bytes >= EXCHANGE_KEPT_MAX) {
            client->ops->pause(client);
        }
        return;
    }
    if (x->rest_unwanted && x->body_bytes > EXCHANGE_REST_MAX) {
        exchange_end(x, REASON_NONE);
        return;
    }
    if (!x->upstream) return; /* the proxy's own answer does not depend on it */
    if (!x->answered && !x->kept_lost) {
        bool few = x->kept_bytes + lease->size <= EXCHANGE_KEPT_MAX && x->server;
        if (!few || !exchange_keep(x, data, lease)) {
            x->kept_lost = true;
            exchange_drop_kept(x);
        }
    }
    if (x->upstream->ops->data(x->upstream, data, lease, false) == STREAM_FULL)
        client->ops->pause(client);
    if (client->bulk) (void)client->ops->pass(client, x->upstream); /* or copied */
}

static void exchange_on_request_passed(struct stream *client, uint64_t bytes) {
    struct exchange *x = client->user;
    x->body_begun = x->body_passed = true;
    /* Nobody has a copy of what has passed, nor of what is on its way. */
    x->kept_lost = true;
    exchange_drop_kept(x);
    if (x->upstream) x->upstream->ops->passed(x->upstream, bytes);
}

static void exchange_on_request_end(struct stream *client, const struct http_fields *trailers) {
    struct exchange *x = client->user;
    x->request_ended = true;
    x->request_trailers = trailers;
    if (x->state == EXCHANGE_CONNECT || x->state == EXCHANGE_QUEUE) return;
    if (x->upstream) x->upstream->ops->end(x->upstream, trailers);
    exchange_check_end(x);
}

static void exchange_on_client_drained(struct stream *client) {
    struct exchange *x = client->user;
    if (x->upstream) x->upstream->ops->resume(x->upstream);
}

static void exchange_on_client_reset(struct stream *client, enum reason reason) {
    struct exchange *x = client->user;
    /* With its whole answer a client may leave the rest of its request unsent. */
    exchange_fail(x, x->rest_unwanted ? REASON_NONE : reason);
}

static const struct stream_events exchange_client_events = {
    .on_head = exchange_on_request,
    .on_data = exchange_on_request_data,
    .on_end = exchange_on_request_end,
    .on_passed = exchange_on_request_passed,
    .on_drained = exchange_on_client_drained,
    .on_reset = exchange_on_client_reset,
};

static void exchange_run_again(struct net_task *task) {
    exchange_try(LIST_OWNER(task, struct exchange, again));
}

static bool exchange_on_stream_begun(struct session *session, struct stream *stream) {
    struct front *front = session->user;
    struct proxy *proxy = front->proxy;
    struct exchange *x = slab_acquire(&proxy->exchanges);
    if (!x) return false;
    *x = (struct exchange){
        .proxy = proxy, .front = front, .client = stream, .state = EXCHANGE_ROUTE};
    x->request_id = proxy->instance + ++proxy->requests;
    net_task_init(&x->again, exchange_run_again);
    exchange_init_turn(x);
    stream->events = &exchange_client_events;
    stream->user = x;
    stat_add(proxy->net->stats, STAT_HTTP_REQUESTS_IN_FLIGHT, 1);
    stat_set(proxy->net->stats, STAT_EXCHANGE_SLOTS_USED, proxy->exchanges.used);
    return true;
}

static void exchange_on_refused(struct session *session, enum reason reason) {
    struct front *front = session->user;
    struct stat_block *stats = front->proxy->net->stats;
    struct request_series *series = proxy_series(front->proxy, front->config, NULL);
    stat_bump(&stats->parse_errors[reason], 1);
    stat_bump(&stats->reasons[reason], 1);
    proxy_count_request(session, series, HTTP_OTHER, reason_entry(reason)->status);
    proxy_log_client(session, "a request was refused", reason);
}

/* The connection's exchanges have ended before it. */
static void exchange_on_session_closed(struct session *session, enum reason reason) {
    proxy_log_client(session, "closed", reason); /* each exchange has counted its own */
}

const struct session_host exchange_client_host = {
    .on_stream = exchange_on_stream_begun,
    .on_refused = exchange_on_refused,
    .on_closed = exchange_on_session_closed,
};
