#include "sim/h2_call.h"

#include "base/check.h"

#include <stdlib.h>

void h2_call_free(struct h2_call *call) {
    struct h2_call **at = &call->conn->calls;
    while (*at != call)
        at = &(*at)->next;
    *at = call->next;
    sim_cancel(&call->timer);
    sim_cancel(&call->rest);
    free(call);
}

/* Window for what was read, and more of the answer. */
static void on_call_timer(void *owner, uint64_t argument) {
    (void)argument;
    struct h2_call *call = owner;
    nghttp2_session *ng = call->conn->link.ng;
    if (call->unread != 0) CHECK(nghttp2_session_consume_stream(ng, call->id, call->unread) == 0);
    call->unread = 0;
    if (call->deferred) (void)nghttp2_session_resume_data(ng, call->id); /* or it has ended */
    call->deferred = false;
    h2_server_wake(call->conn, sim.now_ns);
}

void h2_call_rest(struct h2_call *call) {
    if (call->timer) return;
    sim_event(sim.now_ns + sim_skewed(300 * SIM_MS), on_call_timer, call, &call->timer);
}

void h2_call_go_on(struct h2_call *call) {
    if (!frames_may_go_on(&call->frames_out, &call->frames) || !call->deferred || call->timer)
        return;
    call->deferred = false;
    (void)nghttp2_session_resume_data(call->conn->link.ng, call->id); /* or it has ended */
    h2_server_wake(call->conn, sim.now_ns);
}

static void on_rested(void *owner, uint64_t argument) {
    (void)argument;
    h2_call_go_on(owner);
}

/* RST_STREAM, for whatever reason a server has. */
static void call_reset(struct h2_call *call) {
    static const uint32_t codes[] = {NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR, NGHTTP2_PROTOCOL_ERROR,
                                     NGHTTP2_NO_ERROR};
    uint32_t code = codes[call->plan.cut_at / 8 % 4];
    sim_note("h2 server resets", call->plan.id, call->id, code);
    CHECK(nghttp2_submit_rst_stream(call->conn->link.ng, NGHTTP2_FLAG_NONE, call->id, code) == 0);
    call->dropped = true;
}

static void submit_trailer(struct h2_call *call) {
    struct h2_fields fields = {.count = 0};
    h2_fields_add(&fields, "x-sum", "%u", call->plan.id);
    if (call->plan.call) h2_fields_add(&fields, "grpc-status", "%d", call->plan.outcome);
    CHECK(nghttp2_submit_trailer(call->conn->link.ng, call->id, fields.items, fields.count) == 0);
}

static ssize_t on_source(nghttp2_session *ng, int32_t id, uint8_t *buffer, size_t length,
                         uint32_t *flags, nghttp2_data_source *source, void *user) {
    struct h2_call *call = source->ptr;
    (void)ng;
    (void)id;
    (void)user;
    uint32_t left = call->given_max - call->given;
    bool late = call->slow && sim_one_in(2);
    if (frames_answer(&call->frames_out, &call->frames))
        return (ssize_t)frames_put_pong(&call->frames_out, (char *)buffer, length);
    uint64_t may = frames_may_send(&call->frames_out, &call->plan, SIDE_ANSWER, call->given);
    if (may == 0 && !call->rest) sim_event(call->frames_out.until_ns, on_rested, call, &call->rest);
    if (late || may == 0 || (left == 0 && call->cuts)) {
        call->deferred = true;
        if (may == 0) return NGHTTP2_ERR_DEFERRED;
        if (late) {
            h2_call_rest(call);
        } else {
            call_reset(call);
        }
        return NGHTTP2_ERR_DEFERRED;
    }
    uint32_t most = left < length ? left : (uint32_t)length;
    if (may < most) most = (uint32_t)may;
    uint32_t size = sim_one_in(2) ? most : (uint32_t)sim_below(most + 1ull);
    if (size == 0) size = most;
    for (uint32_t i = 0; i < size; i++)
        buffer[i] = (uint8_t)plan_byte(call->plan.id, SIDE_ANSWER, call->given + i);
    call->given += size;
    if (call->given < call->given_max || call->cuts) return (ssize_t)size;
    *flags = NGHTTP2_DATA_FLAG_EOF;
    if (call->plan.answer_trailers) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        submit_trailer(call);
    }
    return (ssize_t)size;
}

/* A head that is no answer. */
static void put_nonsense(struct h2_call *call, struct h2_fields *fields) {
    switch (call->plan.cut_at % 5) {
    case 0:
        h2_fields_add(fields, "x-id", "%u", call->plan.id);
        break;
    case 1:
        h2_fields_add(fields, ":status", "200");
        h2_fields_add(fields, "x-bad", "a\nb");
        break;
    case 2:
        h2_fields_add(fields, ":status", "200");
        h2_fields_add(fields, "connection", "close");
        break;
    case 3:
        h2_fields_add(fields, "x-id", "%u", call->plan.id);
        h2_fields_add(fields, ":status", "200");
        break;
    default:
        h2_fields_add(fields, ":status", "200");
        h2_fields_add(fields, "content-length", "x");
    }
}

static void put_head(struct h2_call *call, const struct plan *plan, struct h2_fields *fields) {
    h2_fields_add(fields, ":status", "%d", plan->upgrade ? 200 : plan->status);
    h2_fields_add(fields, "x-id", "%u", plan->id);
    uint32_t length = plan->answer_size;
    if (plan->call) h2_fields_add(fields, "content-type", "application/grpc");
    if (plan->call && !plan->answer_trailers)
        h2_fields_add(fields, "grpc-status", "%d", plan->outcome);
    if (plan->answer_framing == FRAMING_LENGTH)
        h2_fields_add(fields, "content-length", "%u", length);
    call->given_max = plan->is_head ? 0 : length;
    bool bad = plan->manner == MANNER_CLOSES || plan->manner == MANNER_RESETS;
    if (!bad) return;
    call->given_max = call->given_max != 0 ? plan->cut_at % call->given_max : 0;
    /* A body that ends before the length it had is as bad. */
    bool shows = plan->answer_framing == FRAMING_LENGTH && !plan->is_head && !plan->upgrade &&
                 call->given_max < length;
    call->cuts = !shows || plan->manner == MANNER_RESETS;
}

void h2_call_put_interims(struct h2_call *call) {
    uint32_t count = call->plan.interims + call->plan.expects;
    for (uint32_t i = 0; i < count; i++) {
        struct h2_fields fields = {.count = 0};
        bool is_continue = call->plan.expects && i == 0;
        h2_fields_add(&fields, ":status", is_continue ? "100" : "103");
        h2_fields_add(&fields, "x-id", "%u", call->plan.id);
        CHECK(nghttp2_submit_headers(call->conn->link.ng, NGHTTP2_FLAG_NONE, call->id, NULL,
                                     fields.items, fields.count, NULL) == 0);
    }
}

/* The mistake: the answer of one stream goes out on another. */
static void mix_streams(struct h2_call *call) {
    for (struct h2_call *other = call->conn->calls; other && call->ended; other = other->next) {
        if (other == call || other->plan.id == 0 || other->plan.upgrade || call->plan.upgrade)
            continue;
        if (sim_defect(DEFECT_MIX_STREAMS)) call->plan = other->plan;
        return;
    }
}

void h2_call_answer(struct h2_call *call) {
    nghttp2_session *ng = call->conn->link.ng;
    struct h2_fields fields = {.count = 0};
    mix_streams(call);
    const struct plan *plan = &call->plan;
    call->answering = true;
    bool bad = plan->manner == MANNER_CLOSES || plan->manner == MANNER_RESETS;
    if (bad && plan->cut_at % 4 == 0) { /* not even a head */
        call_reset(call);
        return;
    }
    if (plan->manner == MANNER_NONSENSE) {
        put_nonsense(call, &fields);
    } else {
        put_head(call, plan, &fields);
    }
    const nghttp2_data_provider provider = {.source.ptr = call, .read_callback = on_source};
    bool body = call->given_max != 0 || call->cuts || plan->answer_trailers || plan->upgrade;
    bool empty = plan->answer_framing == FRAMING_NONE && !plan->upgrade;
    if (plan->is_head || (empty && !call->cuts)) body = call->cuts;
    CHECK(nghttp2_submit_response(ng, call->id, fields.items, fields.count,
                                  body ? &provider : NULL) == 0);
    sim_note("h2 server answers", plan->id, call->id, call->given_max);
}
