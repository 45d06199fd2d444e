/* exchange_serve.c: the upstream's side of an exchange: choosing a server, giving it the request,
 * its answer. */
#include "base/check.h"
#include "base/log.h"
#include "proto/grpc.h"
#include "proxy/exchange_internal.h"

static const struct stream_events exchange_upstream_events;

void exchange_leave_server(struct exchange *x, enum reason reason) {
    pool_cancel(&x->wait);
    if (x->upstream) {
        struct stream *upstream = x->upstream;
        x->upstream = NULL;
        upstream->ops->close(upstream, reason);
    }
    if (x->server) server_leave(x->server);
    x->server = NULL;
}

static bool exchange_checks_frames(const struct exchange *x) {
    struct config_websocket websocket = route_websocket(x->front->config, x->route);
    return exchange_is_websocket(x) && websocket.mode == CONFIG_WEBSOCKET_CHECKED;
}

/* The request as this server gets it: the received one stays as it is, for another attempt and for
 * variables. */
static bool exchange_rewrite(struct exchange *x, struct http_message *copy) {
    struct arena *arena = x->client->arena;
    struct rewrite_facts facts = exchange_facts(x);
    uint32_t count = x->request->fields.count;
    *copy = *x->request;
    /* Room for what a proxy adds: Via and three X-Forwarded fields. */
    if (!http_fields_init(&copy->fields, arena, count + 4)) return false;
    if (count != 0)
        memcpy(copy->fields.items, x->request->fields.items, count * sizeof *copy->fields.items);
    copy->fields.count = count;
    /* HTTP/1.0 needs no Host; an HTTP/1.1 request does (RFC 9112 section 3.2). */
    if (copy->authority.len == 0 && x->server) copy->authority = bytes_of(x->server->config->name);
    /* What an extension changes in frames could not be checked. */
    if (exchange_checks_frames(x))
        (void)http_fields_remove(&copy->fields, BYTES("Sec-WebSocket-Extensions")); /* if any */
    return rewrite_request(copy, x->front->config, x->route, &facts, arena) &&
           (!x->deadline || exchange_tell_time_left(x, copy));
}

void exchange_send(struct exchange *x, struct stream *stream) {
    struct http_message request;
    struct arena mark = *x->client->arena;
    x->upstream = stream;
    stream->events = &exchange_upstream_events;
    stream->user = x;
    stream->is_call = x->is_call;
    stream->silence_ms = x->front->options.timeout_client_ms;
    x->attempt_ns = exchange_net(x)->now_ns;
    exchange_set_state(x, EXCHANGE_SEND);
    if (!exchange_rewrite(x, &request)) {
        exchange_fail(x, REASON_NO_MEMORY);
        return;
    }
    bool no_body = x->request_ended && !x->kept_first && !x->request_trailers;
    stream->ops->head(stream, &request, no_body);
    /* Written: the answer is built in the same, still hot, memory. A service keeps its answer
     * there. */
    if (x->server) arena_rewind(x->client->arena, &mark);
    enum stream_room room = STREAM_ROOM;
    for (struct exchange_piece *piece = x->kept_first; piece; piece = piece->next) {
        room = stream->ops->data(stream, piece->data, piece->lease, false);
    }
    if (x->kept_bytes > EXCHANGE_KEPT_MAX) exchange_drop_kept(x);
    if (x->request_ended && !no_body) stream->ops->end(stream, x->request_trailers);
    /* Also when the request is whole: a tunnel may follow it. */
    if (room == STREAM_ROOM) x->client->ops->resume(x->client);
    /* Also when what has come of it so far came in small pieces. */
    if (!x->request_ended) (void)x->client->ops->pass(x->client, stream); /* or copied */
}

static void exchange_on_stream(struct pool_wait *wait, struct stream *stream) {
    exchange_send(LIST_OWNER(wait, struct exchange, wait), stream);
}

/* The server could not be reached: the next one. */
static void exchange_on_connect_failed(struct pool_wait *wait, enum reason reason) {
    struct exchange *x = LIST_OWNER(wait, struct exchange, wait);
    x->last_failure = x->retry_of = reason;
    exchange_leave_server(x, reason);
    exchange_try(x);
}

/* A server was taken: its stream, or NULL while it is being dialled. */
static void exchange_serve(struct exchange *x, struct stream *stream) {
    bool is_again = x->retry_of != REASON_NONE;
    exchange_debug(x, "upstream %s: server %s, %s%s%s", x->target->config->name,
                   x->server->config->name, stream ? "a connection that is there" : "a new one",
                   is_again ? ", after " : "", is_again ? reason_entry(x->retry_of)->name : "");
    if (x->retry_of != REASON_NONE) stat_bump(&exchange_net(x)->stats->retries[x->retry_of], 1);
    x->retry_of = REASON_NONE;
    if (stream) {
        exchange_send(x, stream);
        return;
    }
    exchange_set_state(x, EXCHANGE_CONNECT);
    if (!x->request_ended) x->client->ops->pause(x->client);
}

static void exchange_enter_server(struct exchange *x, uint32_t index) {
    x->server = &x->target->servers[index];
    server_enter(x->server);
    x->wait = (struct pool_wait){.ops = x->target->session_ops,
                                 .on_stream = exchange_on_stream,
                                 .on_failed = exchange_on_connect_failed,
                                 .client = x->client->session};
}

/* Picks servers until one gives a stream, or a dial, or none is left. True: so it is, and the
 * exchange goes on or has ended. False: nothing has changed, as every server that is left is at its
 * limit. */
static bool exchange_pick(struct exchange *x) {
    struct upstream *target = x->target;
    for (;;) {
        uint32_t index = balance_pick(&target->balance, &x->pick);
        if (index == BALANCE_NONE && upstream_is_busy(target, &x->pick)) return false;
        if (index == BALANCE_NONE || !balance_mark_tried(&x->pick, index)) {
            exchange_fail(x, x->last_failure != REASON_NONE ? x->last_failure : REASON_SERVER_BUSY);
            return true;
        }
        enum reason failure;
        exchange_enter_server(x, index);
        struct stream *stream =
            pool_take(x->server, x->client->arena, x->fresh, &x->wait, &failure);
        if (stream || failure == REASON_NONE) {
            queue_leave(&target->queue, &x->turn);
            exchange_serve(x, stream);
            return true;
        }
        pool_cancel(&x->wait);
        server_take_back(x->server);
        x->server = NULL;
        if (failure != REASON_SERVER_BUSY) x->last_failure = failure;
        if (server_will_have_room(&target->servers[index], failure)) {
            x->pick.tried_count--;
            return false;
        }
        if (failure != REASON_SERVER_BUSY) {
            x->retry_of = failure;
            continue;
        }
        /* Its idle connections had died. Not a failure: it may be waited for. */
        CHECK(!target->balance_servers[index].available);
        x->pick.tried_count--;
    }
}

/* In the queue a body is read as long as it is small: who reads sees at once that a client has
 * gone, and to resume does the same for a request that is whole. */
static void exchange_pause_queued(struct exchange *x) {
    const struct stream_ops *ops = x->client->ops;
    uint64_t length = x->request->body_length;
    bool large = length != HTTP_LENGTH_UNKNOWN && length > EXCHANGE_KEPT_MAX;
    bool enough = !x->request_ended && (large || x->kept_bytes >= EXCHANGE_KEPT_MAX);
    ops->pause(x->client);
    if (!enough) ops->resume(x->client);
}

static void exchange_join_queue(struct exchange *x) {
    struct queue *queue = &x->target->queue;
    if (queue->max == 0) {
        exchange_fail(x, x->last_failure != REASON_NONE ? x->last_failure : REASON_SERVER_BUSY);
    } else if (!queue_join(queue, &x->turn)) {
        exchange_fail(x, REASON_QUEUE_FULL);
    } else {
        exchange_debug(x, "upstream %s: waits for a server", x->target->config->name);
        exchange_set_state(x, EXCHANGE_QUEUE);
        exchange_pause_queued(x);
    }
}

void exchange_try(struct exchange *x) {
    if (!exchange_pick(x)) exchange_join_queue(x);
}

void exchange_begin(struct exchange *x) {
    struct queue *queue = &x->target->queue;
    if (!queue_must_wait(queue)) {
        exchange_try(x);
        return;
    }
    exchange_join_queue(x);
    /* Those before it may wait for one server, while another one has room. */
    queue_poke(queue);
}

static enum queue_turn exchange_on_turn(struct queue_entry *entry) {
    struct exchange *x = LIST_OWNER(entry, struct exchange, turn);
    CHECK(x->state == EXCHANGE_QUEUE);
    if (exchange_pick(x)) return QUEUE_TAKEN;
    /* Who has tried some servers waits for the others, and these may have room. */
    return x->pick.tried_count != 0 ? QUEUE_PASSED : QUEUE_NOTHING;
}

static void exchange_on_queue_timeout(struct queue_entry *entry) {
    exchange_fail(LIST_OWNER(entry, struct exchange, turn), REASON_QUEUE_TIMEOUT);
}

void exchange_init_turn(struct exchange *x) {
    queue_entry_init(&x->turn, exchange_on_turn, exchange_on_queue_timeout);
}

/* RFC 9110 section 9.2.2, RFC 9112 section 9.6: a server may close an idle connection just when a
 * request is sent on it. */
static bool exchange_outlives(const struct exchange *x, const struct stream *stream) {
    if (x->sent_again || !stream->reused) return false;
    return !stream->sent || http_method_is_idempotent(x->request->method);
}

/* Notes what the attempt that is to follow must know. False: there is none. */
static bool exchange_may_send_again(struct exchange *x, const struct stream *stream,
                                    enum reason reason) {
    if (x->answered || stream->answered || x->kept_lost || !x->server) return false;
    bool other_server = false;
    if (reason == REASON_SERVER_REFUSED) {
        /* RFC 9113 section 8.7: so it may be, whatever its method. */
        if (x->refusals >= EXCHANGE_REFUSALS_MAX) return false;
        x->refusals++;
        x->last_failure = reason;
        /* Not where others are refused as well: unless it was one connection that takes no more. */
        x->fresh = stream->session->streams_max != 0;
        other_server = x->fresh && x->pick.tried_count < x->target->config->server_count;
    } else if (reason == REASON_SERVER_CLOSED || reason == REASON_SERVER_RESET) {
        if (!exchange_outlives(x, stream)) return false;
        /* It must not meet another connection that is old. */
        x->sent_again = x->fresh = true;
    } else {
        return false;
    }
    /* The same server is as good as before. */
    CHECK(x->pick.tried_count > 0);
    if (!other_server) x->pick.tried_count--;
    return true;
}

static void exchange_on_upstream_reset(struct stream *stream, enum reason reason) {
    struct exchange *x = stream->user;
    if (!exchange_may_send_again(x, stream, reason)) {
        if (x->server && !x->answered) stat_bump(&x->server->answers[0], 1);
        x->client->reset_code = stream->reset_code;
        exchange_fail(x, reason);
        return;
    }
    x->retry_of = reason;
    exchange_leave_server(x, reason);
    exchange_set_state(x, EXCHANGE_CONNECT);
    if (!x->request_ended) x->client->ops->pause(x->client);
    /* Put off until the dead connection has been counted out. */
    net_defer(exchange_net(x), &x->again);
}

/* RFC 9110 section 7.8: to what was asked for, as that is what the routes have judged; HTTP/2 has
 * no word for it. No extension was offered where frames are checked, and RFC 6455 section 4.1 has a
 * handshake that names one fail. */
static bool exchange_upgrade_fits(const struct exchange *x, const struct http_message *message) {
    struct bytes asked = x->request->upgrade;
    if (asked.len == 0) return false;
    if (!message->is_h2 && !bytes_equal_nocase(asked, message->upgrade)) return false;
    return !exchange_checks_frames(x) ||
           !http_fields_find_name(&message->fields, BYTES("Sec-WebSocket-Extensions"));
}

/* 101: both sides stop speaking HTTP. */
static void exchange_upgrade(struct exchange *x, struct http_message *message) {
    /* The rest of a request's body would go through as bytes of the new protocol. */
    if (!exchange_upgrade_fits(x, message) || !x->request_ended) {
        exchange_fail(x, REASON_BAD_RESPONSE);
        return;
    }
    x->status = message->status;
    if (x->server) stat_bump(&x->server->answers[1], 1);
    exchange_begin_tunnel(x, message);
}

static void exchange_count_answer(struct exchange *x) {
    struct net *net = exchange_net(x);
    if (!x->server) return;
    stat_observe_ns(net->stats, STAT_HIST_UPSTREAM_RESPONSE, net->now_ns - x->attempt_ns);
    stat_bump(&x->server->answers[upstream_code_class(x->status)], 1);
}

static bool exchange_rewrite_answer(struct exchange *x, struct http_message *message) {
    struct arena *arena = x->client->arena;
    const struct config_listener *listener = x->front->config;
    if (!session_add_date(x->proxy->room, message, arena)) return false;
    if (!x->route || x->route->response_edits.count == 0)
        return rewrite_response(message, listener, NULL, NULL, arena); /* which need no facts */
    struct rewrite_facts facts = exchange_facts(x);
    return rewrite_response(message, listener, x->route, &facts, arena);
}

static void exchange_on_answer(struct stream *upstream, struct http_message *message, bool end) {
    struct exchange *x = upstream->user;
    if (message->status == 101) {
        exchange_upgrade(x, message);
        return;
    }
    if (message->status < 200) {
        x->client->ops->head(x->client, message, false);
        return;
    }
    x->status = message->status;
    exchange_count_answer(x);
    exchange_drop_kept(x);
    /* To a client of HTTP/2 a 2xx would say that the upgrade is there (RFC 8441 section 4). */
    if (x->request->upgrade_only && upstream_code_class(x->status) == 2) {
        exchange_fail(x, REASON_UPGRADE_IGNORED);
        return;
    }
    if (!exchange_rewrite_answer(x, message)) {
        exchange_fail(x, REASON_NO_MEMORY);
        return;
    }
    /* RFC 9110 section 9.3.6: a 2xx to CONNECT has no body, what follows belongs to the tunnel. */
    if (x->request->method == HTTP_CONNECT && upstream_code_class(x->status) == 2) {
        exchange_begin_tunnel(x, message);
        return;
    }
    /* Nobody wants the rest, and it is too long to be read for nothing: the client should know that
     * its connection ends, before it asks for something else on it. */
    if (x->status >= 300 && !x->request_ended && !exchange_rest_is_small(x))
        message->close_after = true;
    exchange_set_state(x, EXCHANGE_RESPOND);
    exchange_set_answered(x);
    x->ends_in_status = x->is_call && grpc_is_answer(message);
    x->client->ops->head(x->client, message, end);
    x->response_ended = end;
    if (upstream->bulk && !end) (void)upstream->ops->pass(upstream, x->client); /* or copied */
    exchange_check_end(x);
}

static void exchange_on_answer_passed(struct stream *upstream, uint64_t bytes) {
    struct exchange *x = upstream->user;
    x->client->ops->passed(x->client, bytes);
}

static void exchange_on_answer_data(struct stream *upstream, struct bytes data,
                                    struct lease *lease) {
    struct exchange *x = upstream->user;
    if (x->client->ops->data(x->client, data, lease, false) == STREAM_FULL)
        upstream->ops->pause(upstream);
    if (upstream->bulk) (void)upstream->ops->pass(upstream, x->client); /* or copied */
}

static void exchange_on_answer_end(struct stream *upstream, const struct http_fields *trailers) {
    struct exchange *x = upstream->user;
    x->client->ops->end(x->client, trailers);
    x->response_ended = true;
    exchange_check_end(x);
}

static void exchange_on_upstream_drained(struct stream *upstream) {
    struct exchange *x = upstream->user;
    x->client->ops->resume(x->client);
}

static const struct stream_events exchange_upstream_events = {
    .on_head = exchange_on_answer,
    .on_data = exchange_on_answer_data,
    .on_end = exchange_on_answer_end,
    .on_passed = exchange_on_answer_passed,
    .on_drained = exchange_on_upstream_drained,
    .on_reset = exchange_on_upstream_reset,
};
