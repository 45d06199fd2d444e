/* exchange_call.c: what an exchange does for gRPC: deadlines, and failures told as grpc-status. */
#include "base/check.h"
#include "proto/grpc.h"
#include "proxy/exchange_internal.h"

static void exchange_on_deadline(struct wheel_timer *timer, uint64_t now_ms) {
    (void)now_ms; /* not before it was due */
    struct exchange *x = LIST_OWNER(timer, struct exchange_deadline, timer)->x;
    /* The client has the whole answer: what is late is the rest of its request. */
    if (x->response_ended) {
        exchange_end(x, REASON_NONE);
    } else {
        exchange_fail(x, REASON_GRPC_DEADLINE);
    }
}

bool exchange_begin_call(struct exchange *x) {
    x->is_call = grpc_is_request(x->request);
    if (!x->is_call) return true;
    const struct http_field *field =
        http_fields_find_name(&x->request->fields, BYTES("grpc-timeout"));
    uint64_t given_ms;
    /* What is no timeout is for the server to refuse. */
    if (!field || !grpc_timeout_parse(field->value, &given_ms)) return true;
    if (given_ms == 0) {
        exchange_fail(x, REASON_GRPC_DEADLINE);
        return false;
    }
    struct exchange_deadline *deadline = arena_alloc(x->client->arena, sizeof *deadline);
    if (!deadline) {
        exchange_fail(x, REASON_NO_MEMORY);
        return false;
    }
    *deadline = (struct exchange_deadline){.x = x, .given_ms = given_ms};
    wheel_timer_init(&deadline->timer, exchange_on_deadline);
    /* One more: the first one has begun already. */
    wheel_arm(&exchange_net(x)->wheel, &deadline->timer,
              x->client->began_ns / 1000000 + given_ms + 1);
    x->deadline = deadline;
    return true;
}

void exchange_stop_deadline(struct exchange *x) {
    if (!x->deadline) return;
    wheel_disarm(&exchange_net(x)->wheel, &x->deadline->timer);
    x->deadline = NULL;
}

bool exchange_tell_time_left(struct exchange *x, struct http_message *copy) {
    uint64_t now_ms = exchange_net(x)->now_ms;
    uint64_t at_ms = x->deadline->timer.deadline_ms;
    uint64_t left_ms = at_ms > now_ms + 1 ? at_ms - now_ms - 1 : 1;
    struct http_field *field = http_fields_find_name(&copy->fields, BYTES("grpc-timeout"));
    uint64_t given_ms;
    /* The configuration may take the field away, or set another. */
    if (!field || !grpc_timeout_parse(field->value, &given_ms)) return true;
    if (given_ms != x->deadline->given_ms || left_ms >= given_ms) return true;
    struct writer text =
        writer_make(arena_alloc(x->client->arena, GRPC_TIMEOUT_SIZE), GRPC_TIMEOUT_SIZE);
    if (!text.ptr) return false;
    /* Days do not get more exact by it. */
    if (grpc_timeout_write(left_ms, &text)) field->value = writer_bytes(&text);
    return true;
}

/* A server that has reset its stream by itself says more than that it did. */
static bool exchange_answer_status(struct exchange *x, enum reason reason) {
    struct arena *arena = x->client->arena;
    struct http_message answer;
    uint32_t code = x->client->reset_code;
    enum grpc_status status = code != 0 ? grpc_status_of_reset(code) : grpc_status_of(reason);
    if (!grpc_status_answer(status, reason, arena, &answer) ||
        !session_add_date(x->proxy->room, &answer, arena)) {
        return false;
    }
    answer.close_after = !x->request_ended;
    exchange_answer(x, &answer, BYTES_NONE);
    return true;
}

/* A half message may stand before them: who reads the status does not miss the rest. */
static bool exchange_end_in_status(struct exchange *x, enum reason reason) {
    struct arena *arena = x->client->arena;
    struct http_fields trailers;
    if (!http_fields_init(&trailers, arena, 2) ||
        !grpc_put_status(grpc_status_of(reason), reason, arena, &trailers)) {
        return false;
    }
    x->client->ops->end(x->client, &trailers);
    x->response_ended = true;
    return true;
}

void exchange_fail_call(struct exchange *x, enum reason reason) {
    CHECK(x->is_call);
    if (reason_entry(reason)->status == 0 || x->response_ended) return;
    bool told = false;
    if (!x->answered) {
        told = exchange_answer_status(x, reason);
    } else if (x->ends_in_status && x->client->reset_code == 0) { /* else the reset goes on */
        told = exchange_end_in_status(x, reason);
    }
    if (told) stat_bump(&exchange_net(x)->stats->failed_calls[reason], 1);
}
