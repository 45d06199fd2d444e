#include "sim/h2_ask.h"

#include "base/check.h"
#include "sim/judge.h"
#include "sim/tls_end.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whether a request may stay without the rest of its answer. */
static bool may_be_cut(const struct h2_ask *ask, uint32_t code) {
    const struct h2_client *client = ask->client;
    if (ask->misbehaved || client->misbehaved || client->refused || world.draining) return true;
    if (sock_is_broken(client->link.sock) || sim_has(FAULT_FEW_SLOTS)) return true;
    if (frames_are_cut(&ask->frames)) return true;
    if (ask->plan.call && client->fin_sent)
        return true; /* who makes calls closes nothing by halves */
    /* RST of a server that closes with some of the request unread takes its answer back. */
    const struct plan *plan = &ask->plan;
    if (plan->manner == MANNER_EARLY && plan->server_ends && !world.h2_servers) return true;
    /* There are as many requests as clients. */
    bool shed = world.clients_limited && code == NGHTTP2_REFUSED_STREAM;
    if (world.tls_clients && world.handshakes_limited && !client->heard) return true;
    return shed || judge_may_be_cut(plan);
}

/* The stream has ended: without its whole answer it needs an excuse. */
void h2_ask_close(struct h2_ask *ask, uint32_t code) {
    struct h2_client *client = ask->client;
    if (ask->closed) return;
    ask->closed = true;
    client->closed++;
    client->progress_ns = sim.now_ns;
    sim_cancel(&ask->timer);
    if (ask->misbehaved) requests[ask->plan.id].left = true;
    sim_note("h2 client closes", client->number, ask->plan.id, code);
    if (ask->whole) return;
    if (!may_be_cut(ask, code)) {
        sim_fail(INVARIANT_ANSWERS,
                 "client %u: request %u (%s): stream %d ends with code %u and without %s answer",
                 client->number, ask->plan.id, ask->plan.method, ask->id, code,
                 ask->answered ? "the rest of its" : "an");
    }
    world.unanswered++;
}

static void judge_weirs_answer(const struct h2_ask *ask) {
    const struct plan *plan = &ask->plan;
    uint32_t number = ask->client->number;
    if (plan->local && ask->reason[0] == '\0') {
        if (ask->status != 200) {
            sim_fail(INVARIANT_ANSWERS, "client %u: %d instead of the answer of weir's route",
                     number, ask->status);
        }
        world.answers++;
        return;
    }
    bool excused = ask->misbehaved || ask->client->misbehaved;
    bool fits = !plan->call || judge_may_end_call(plan, ask->reason, ask->outcome);
    if (!excused && (!fits || !judge_may_fail(plan, ask->reason))) {
        sim_fail(INVARIANT_ANSWERS,
                 "client %u: request %u (%s): %d %s, for which there is no reason", number,
                 plan->id, plan->method, ask->status, ask->reason);
    }
    world.errors++;
}

/* A head is whole. */
static void on_head(struct h2_ask *ask) {
    const struct plan *plan = &ask->plan;
    uint32_t number = ask->client->number;
    sim_note("h2 client gets head", number, plan->id, ask->status);
    if (ask->told_id != 0 && (ask->told_id != plan->id || plan->local)) {
        sim_fail(INVARIANT_OWNER, "client %u: the answer to %u for request %u", number,
                 ask->told_id, plan->id);
    }
    if (ask->status < 200) {
        ask->got_continue |= ask->status == 100;
        ask->told_id = 0;
        if (++ask->interims > plan->interims + plan->expects) {
            sim_fail(INVARIANT_ANSWERS, "client %u: too many interim answers to %u", number,
                     plan->id);
        }
        return;
    }
    if (ask->answered) {
        sim_fail(INVARIANT_ANSWERS, "client %u: request %u has two answers", number, plan->id);
    }
    ask->answered = true;
    if (ask->told_id == 0) {
        judge_weirs_answer(ask);
        return;
    }
    int wanted = plan->upgrade ? 200 : plan->status;
    if (ask->status != wanted) {
        sim_fail(INVARIANT_BYTES, "client %u: request %u: %d instead of %d", number, plan->id,
                 ask->status, wanted);
    }
}

/* weir may end a call that it cannot go on with in an outcome of its own. */
static bool call_is_cut(const struct h2_ask *ask) {
    const struct plan *plan = &ask->plan;
    if (!plan->call || ask->outcome == plan->outcome) return false;
    bool excused = ask->misbehaved || ask->client->misbehaved || sim_has(FAULT_FEW_SLOTS);
    if (excused || judge_may_end_call(plan, "", ask->outcome)) return true;
    sim_fail(INVARIANT_ANSWERS, "client %u: call %u ends in %d instead of %d", ask->client->number,
             plan->id, ask->outcome, plan->outcome);
}

static void on_end(struct h2_ask *ask) {
    const struct plan *plan = &ask->plan;
    ask->whole = true;
    if (ask->told_id == 0) return;
    if (frames_are_cut(&ask->frames) || call_is_cut(ask)) {
        world.unanswered++;
        return;
    }
    uint64_t wanted = plan->is_head ? 0 : plan->answer_size;
    if (ask->body != wanted) {
        sim_fail(INVARIANT_BYTES, "client %u: request %u: %llu bytes of body instead of %llu",
                 ask->client->number, plan->id, (unsigned long long)ask->body,
                 (unsigned long long)wanted);
    }
    uint32_t sum = plan->answer_trailers && !plan->is_head ? plan->id : 0;
    if (ask->sum != sum) {
        sim_fail(INVARIANT_BYTES, "client %u: request %u: trailer %u instead of %u",
                 ask->client->number, plan->id, ask->sum, sum);
    }
    world.answers++;
    sim_note("h2 client has answer", ask->client->number, plan->id, (int64_t)ask->body);
}

bool h2_ask_is_over(struct h2_ask *ask) {
    if (ask->mood < MOOD_STOPS || ask->sent + ask->body < ask->leave_at || ask->closed)
        return false;
    ask->misbehaved = true;
    if (ask->mood == MOOD_STOPS) {
        ask->stopped = true;
        return true;
    }
    if (ask->id == 0) return true;
    nghttp2_session *ng = ask->client->link.ng;
    uint32_t code = sim_one_in(2) ? NGHTTP2_CANCEL : NGHTTP2_NO_ERROR;
    if (!ask->stopped) sim_note("h2 client resets", ask->client->number, ask->plan.id, code);
    if (!ask->stopped) CHECK(nghttp2_submit_rst_stream(ng, 0, ask->id, code) == 0);
    ask->stopped = true;
    return true;
}

static void on_ask_timer(void *owner, uint64_t argument) {
    (void)argument;
    struct h2_ask *ask = owner;
    nghttp2_session *ng = ask->client->link.ng;
    if (ask->unread != 0 && !ask->stopped)
        (void)nghttp2_session_consume_stream(ng, ask->id, ask->unread); /* or it has ended */
    ask->unread = 0;
    if (ask->deferred) (void)nghttp2_session_resume_data(ng, ask->id); /* likewise */
    ask->deferred = false;
    h2_client_wake(ask->client, sim.now_ns);
}

static void ask_rest(struct h2_ask *ask, uint64_t at_ns) {
    if (!ask->timer) sim_event(at_ns, on_ask_timer, ask, &ask->timer);
}

/* Whether the body must not begin yet: for a 100, or until it is a tunnel. */
static bool ask_waits(struct h2_ask *ask) {
    if (ask->plan.tunnel != TUNNEL_NONE && !ask->plan.eager && !ask->answered) return true;
    if (!ask->plan.expects || ask->got_continue || ask->answered) return false;
    if (sim.now_ns >= ask->progress_ns + EXPECT_NS) return false;
    ask_rest(ask, ask->progress_ns + EXPECT_NS);
    return true;
}

static ssize_t on_source(nghttp2_session *ng, int32_t id, uint8_t *buffer, size_t length,
                         uint32_t *flags, nghttp2_data_source *source, void *user) {
    struct h2_ask *ask = source->ptr;
    (void)user;
    bool over = h2_ask_is_over(ask);
    bool late = ask->mood == MOOD_SLOW && sim_one_in(2);
    bool waits = !over && ask_waits(ask);
    if (!over && !waits && frames_answer(&ask->frames_out, &ask->frames))
        return (ssize_t)frames_put_pong(&ask->frames_out, (char *)buffer, length);
    uint64_t may = frames_may_send(&ask->frames_out, &ask->plan, SIDE_REQUEST, ask->sent);
    if (over || late || waits || may == 0) {
        ask->deferred = true;
        if (late) ask_rest(ask, sim.now_ns + sim_skewed(300 * SIM_MS));
        return NGHTTP2_ERR_DEFERRED;
    }
    /* A tunnel that was refused has no bytes. */
    bool refused = ask->plan.upgrade && ask->answered && ask->told_id == 0;
    uint32_t left = refused ? 0 : ask->plan.request_size - ask->sent;
    uint32_t most = left < length ? left : (uint32_t)length;
    if (may < most) most = (uint32_t)may;
    uint32_t size = sim_one_in(2) ? most : (uint32_t)sim_below(most + 1ull);
    if (size == 0) size = most;
    for (uint32_t i = 0; i < size; i++)
        buffer[i] = (uint8_t)plan_byte(ask->plan.id, SIDE_REQUEST, ask->sent + i);
    ask->sent += size;
    ask->progress_ns = sim.now_ns;
    if (size < left) return (ssize_t)size;
    *flags = NGHTTP2_DATA_FLAG_EOF;
    if (!ask->plan.request_trailers) return (ssize_t)size;
    *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    struct h2_fields fields = {.count = 0};
    h2_fields_add(&fields, "x-sum", "%u", ask->plan.id);
    CHECK(nghttp2_submit_trailer(ng, id, fields.items, fields.count) == 0);
    return (ssize_t)size;
}

void h2_ask_go_on(struct h2_ask *ask) {
    bool may = frames_may_go_on(&ask->frames_out, &ask->frames);
    if (!may || !ask->deferred || ask->stopped || ask->closed || ask->timer) return;
    ask->deferred = false;
    (void)nghttp2_session_resume_data(ask->client->link.ng, ask->id); /* or it has ended */
}

/* More to be written than a 100 or a head would tell. */
static void ask_resume(struct h2_ask *ask) {
    if (!ask->deferred || ask->stopped || ask->timer) return;
    ask->deferred = false;
    (void)nghttp2_session_resume_data(ask->client->link.ng, ask->id); /* or it has ended */
}

static void put_request(const struct plan *plan, struct h2_fields *fields) {
    char target[32];
    plan_target(plan, target, sizeof target);
    bool connects = plan->tunnel == TUNNEL_CONNECT;
    bool is_extended = plan->tunnel != TUNNEL_NONE && !connects;
    h2_fields_add(fields, ":method", "%s", is_extended ? "CONNECT" : plan->method);
    if (is_extended)
        h2_fields_add(fields, ":protocol", plan->tunnel == TUNNEL_WEBSOCKET ? "websocket" : "sim");
    if (!connects) h2_fields_add(fields, ":scheme", world.tls_clients ? "https" : "http");
    h2_fields_add(fields, ":authority", "%s", connects ? target : "sim");
    if (!connects) h2_fields_add(fields, ":path", "%s", target);
    h2_fields_add(fields, "x-id", "%u", plan->id);
    if (plan->request_framing == FRAMING_LENGTH)
        h2_fields_add(fields, "content-length", "%u", plan->request_size);
    if (plan->expects) h2_fields_add(fields, "expect", "100-continue");
    char timeout[16];
    plan_timeout(plan, timeout, sizeof timeout);
    if (plan->call) h2_fields_add(fields, "content-type", "application/grpc+sim");
    if (plan->call) h2_fields_add(fields, "te", "trailers");
    if (plan->timeout_ms != 0) h2_fields_add(fields, "grpc-timeout", "%s", timeout);
    if (plan->expects || plan->cut_at % 3 != 0) return;
    h2_fields_add(fields, "cookie", "%0*d", (int)(plan->cut_at % 400), 1);
}

void h2_ask_next(struct h2_client *client) {
    struct h2_ask *ask = &client->asked[client->begun++];
    const struct plan *plan = &ask->plan;
    nghttp2_session *ng = client->link.ng;
    struct h2_fields fields = {.count = 0};
    put_request(plan, &fields);
    const nghttp2_data_provider provider = {.source.ptr = ask, .read_callback = on_source};
    frames_begin(&ask->frames, plan->id, SIDE_ANSWER);
    bool body = plan->request_size != 0 || plan->tunnel != TUNNEL_NONE || plan->request_trailers;
    ask->id =
        nghttp2_submit_request(ng, NULL, fields.items, fields.count, body ? &provider : NULL, ask);
    ask->outcome = -1;
    requests[plan->id].asked_ns = sim.now_ns;
    requests[plan->id].left |= tls_end_breaches(client->link.sock);
    ask->progress_ns = client->progress_ns = sim.now_ns;
    sim_note("h2 client asks", client->number, plan->id, ask->id);
    if (ask->id < 0) {
        sim_fail(INVARIANT_CRASH, "nghttp2_submit_request: %s", nghttp2_strerror(ask->id));
    }
    if (sim_one_in(10)) CHECK(nghttp2_submit_ping(ng, NGHTTP2_FLAG_NONE, NULL) == 0);
    if (!sim_one_in(20)) return;
    nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)sim_between(2000, 200000)},
        {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, sim_one_in(2) ? 0 : 4096}};
    if (client->leaving != LEAVES_HALF)
        CHECK(nghttp2_submit_settings(ng, NGHTTP2_FLAG_NONE, entries, 2) == 0);
}

static struct h2_ask *ask_of(nghttp2_session *ng, int32_t id) {
    return nghttp2_session_get_stream_user_data(ng, id);
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user) {
    struct h2_ask *ask = ask_of(ng, frame->hd.stream_id);
    nghttp2_nv field = {(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, name_len,
                        value_len, flags};
    char text[256];
    (void)user;
    if (!ask) return 0;
    if (h2_field_is(&field, ":status", text, sizeof text)) ask->status = atoi(text);
    if (h2_field_is(&field, "x-id", text, sizeof text))
        ask->told_id = (uint32_t)strtoul(text, NULL, 10);
    if (h2_field_is(&field, "x-sum", text, sizeof text))
        ask->sum = (uint32_t)strtoul(text, NULL, 10);
    if (h2_field_is(&field, "grpc-status", text, sizeof text)) ask->outcome = atoi(text);
    if (h2_field_is(&field, "proxy-status", text, sizeof text)) {
        const char *word = strstr(text, "details=\"");
        if (word) sscanf(word + strlen("details=\""), "%39[a-z_]", ask->reason);
    }
    return 0;
}

static void on_goaway(struct h2_client *client, const nghttp2_frame *frame) {
    client->no_more = true;
    sim_note("h2 client gets goaway", client->number, frame->goaway.last_stream_id,
             frame->goaway.error_code);
    bool may = client->misbehaved || sim_has(FAULT_FEW_SLOTS);
    if (frame->goaway.error_code == NGHTTP2_NO_ERROR || may) return;
    sim_fail(INVARIANT_ANSWERS, "client %u: weir ends the connection with code %u", client->number,
             frame->goaway.error_code);
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct h2_client *client = user;
    struct h2_ask *ask = ask_of(ng, frame->hd.stream_id);
    bool ack = (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0;
    client->heard = true;
    if (!client->misbehaved) client->link.may_break = false;
    if (frame->hd.type == NGHTTP2_PING && ack && client->pings > 1) {
        client->pings--;
        if (client->pings > 1) CHECK(nghttp2_submit_ping(ng, NGHTTP2_FLAG_NONE, NULL) == 0);
    }
    if (frame->hd.type == NGHTTP2_GOAWAY) on_goaway(client, frame);
    if (!ask || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)) return 0;
    ask->progress_ns = sim.now_ns;
    if (frame->hd.type == NGHTTP2_HEADERS && !ask->answered) on_head(ask);
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) on_end(ask);
    if (frame->hd.type == NGHTTP2_HEADERS) ask_resume(ask);
    (void)h2_ask_is_over(ask);
    return 0;
}

static int on_bytes(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *bytes,
                    size_t size, void *user) {
    struct h2_ask *ask = ask_of(ng, id);
    (void)flags;
    (void)user;
    CHECK(nghttp2_session_consume_connection(ng, size) == 0);
    if (!ask) return 0;
    ask->progress_ns = sim.now_ns;
    const char *planned = (const char *)bytes;
    size_t count =
        h2_link_planned(&ask->frames, ask->plan.frames && ask->told_id != 0, &planned, size);
    for (size_t i = 0; i < count && ask->told_id != 0; i++) {
        if (planned[i] == plan_byte(ask->plan.id, SIDE_ANSWER, ask->body + i)) continue;
        sim_fail(INVARIANT_BYTES, "client %u: request %u: byte %llu of the answer is another one",
                 ask->client->number, ask->plan.id, (unsigned long long)(ask->body + i));
    }
    ask->body += count;
    ask->unread += (uint32_t)size;
    if (h2_ask_is_over(ask)) return 0;
    if (ask->mood == MOOD_SLOW) {
        ask_rest(ask, sim.now_ns + sim_skewed(300 * SIM_MS));
    } else {
        CHECK(nghttp2_session_consume_stream(ng, id, ask->unread) == 0);
        ask->unread = 0;
    }
    return 0;
}

static int on_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user) {
    struct h2_ask *ask = ask_of(ng, id);
    (void)user;
    if (ask) h2_ask_close(ask, code);
    return 0;
}

nghttp2_session_callbacks *h2_ask_callbacks(void) {
    nghttp2_session_callbacks *callbacks = h2_link_callbacks();
    h2_link_on_frame(callbacks, on_frame);
    h2_link_on_bytes(callbacks, on_bytes);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    return callbacks;
}
