/* h2_server.c: a server of a run that speaks HTTP/2: many requests at once on a connection, each
 * done with what its plan says, and connections that end while some are under way. */
#include "base/check.h"
#include "proto/h2.h"
#include "sim/actors.h"
#include "sim/h2_call.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One of so many streams is slow, and one answer that ends its connection in HTTP/1 does here. */
#define SLOW_ONE_IN 4
#define ENDS_ONE_IN 4
/* Round trips after which what weir has to say of its window has come. One of them may have begun
 * before the last call. */
#define PINGS 3

static struct h2_conn *conns;

static void conn_step(void *owner);

static void on_conn_timer(void *owner, uint64_t argument) {
    (void)argument;
    conn_step(owner);
}

void h2_server_wake(struct h2_conn *conn, uint64_t at_ns) {
    if (conn->done) return;
    sim_cancel(&conn->timer);
    sim_event(at_ns, on_conn_timer, conn, &conn->timer);
}

static void conn_end(struct h2_conn *conn) {
    if (conn->done) return;
    conn->done = true;
    sim_note("h2 server ends", sock_number(conn->link.sock), conn->aborts, 0);
    while (conn->calls)
        h2_call_free(conn->calls);
    sim_cancel(&conn->timer);
    sim_cancel(&conn->idle);
    if (conn->aborts) {
        sock_abort(conn->link.sock);
    } else {
        sock_close(conn->link.sock);
    }
    h2_link_fini(&conn->link);
}

static void submit_goaway(struct h2_conn *conn, int32_t last) {
    conn->goaway = true;
    conn->last = last;
    CHECK(nghttp2_submit_goaway(conn->link.ng, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL,
                                0) == 0);
    world.refusals++; /* of what is on its way */
}

static void on_goaway_due(void *owner, uint64_t argument) {
    (void)argument;
    struct h2_conn *conn = owner;
    submit_goaway(conn, nghttp2_session_get_last_proc_stream_id(conn->link.ng));
    h2_server_wake(conn, sim.now_ns);
}

static void conn_linger(struct h2_conn *conn) {
    static char bytes[4096];
    if (!conn->lingers) sock_shutdown(conn->link.sock);
    conn->lingers = true;
    ssize_t got;
    while ((got = sock_read(conn->link.sock, bytes, sizeof bytes)) > 0)
        continue;
    if (got == 0 || got == -ECONNRESET) conn_end(conn);
}

/* An idle connection ends without a word. */
static void on_idle_end(void *owner, uint64_t argument) {
    (void)argument;
    struct h2_conn *conn = owner;
    const struct h2_link *link = &conn->link;
    bool writes = link->out_at < link->out.len || nghttp2_session_want_write(link->ng) != 0;
    if (conn->calls || writes) return;
    conn_linger(conn);
}

/* The last stream of which something was done: those behind it were never looked at. */
static int32_t goaway_last(struct h2_conn *conn) {
    int32_t last = 0;
    for (struct h2_call *call = conn->calls; call; call = call->next) {
        if (call->answering && call->id > last) last = call->id;
    }
    for (struct h2_call *call = conn->calls; call; call = call->next) {
        if (call->id <= last || call->dropped || call->plan.id == 0) continue;
        call->dropped = true;
        requests[call->plan.id].executions--;
        requests[call->plan.id].refusals++;
    }
    return last;
}

static void conn_goaway(struct h2_conn *conn) {
    if (conn->goaway) return;
    conn->goaway = true;
    sim_cancel(&conn->idle);
    nghttp2_session *ng = conn->link.ng;
    uint64_t how = sim_below(3);
    sim_note("h2 server goaway", sock_number(conn->link.sock), (int64_t)how, 0);
    if (how == 0) {
        CHECK(nghttp2_submit_shutdown_notice(ng) == 0);
        world.refusals++; /* of what weir was about to send */
        sim_event(sim.now_ns + sim_skewed(500 * SIM_MS), on_goaway_due, conn, &conn->idle);
        return;
    }
    /* Streams end of which nghttp2 still has more to say: those that have ended already. */
    submit_goaway(conn, how == 1 ? nghttp2_session_get_last_proc_stream_id(ng) : goaway_last(conn));
}

/* With whatever is under way. */
static void conn_cut(struct h2_conn *conn) {
    world.refusals++;
    sim_note("h2 server cuts", sock_number(conn->link.sock), 0, 0);
    conn->goaway = true;
    if (sim_one_in(3)) {
        nghttp2_session *ng = conn->link.ng;
        int32_t last = nghttp2_session_get_last_proc_stream_id(ng);
        /* RFC 9113 section 6.8: a later GOAWAY never names a later stream. */
        if (conn->last < last) last = conn->last;
        CHECK(nghttp2_session_terminate_session2(ng, last, NGHTTP2_INTERNAL_ERROR) == 0);
    } else {
        conn->aborts = sim_one_in(2);
        conn->link.fin = true; /* ended by the step */
    }
}

static void change_limits(struct h2_conn *conn) {
    const nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, (uint32_t)sim_between(1, 20)},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)sim_between(2000, 200000)},
        {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, sim_one_in(2) ? 0 : 4096},
    };
    CHECK(nghttp2_submit_settings(conn->link.ng, NGHTTP2_FLAG_NONE, entries,
                                  sizeof entries / sizeof *entries) == 0);
}

static void check_call(const struct h2_call *call) {
    const struct plan *plan = &call->plan;
    static const char *const protocols[] = {"", "sim", "websocket", ""};
    char target[64];
    plan_target(plan, target, sizeof target);
    const char *method = plan->tunnel != TUNNEL_NONE ? "CONNECT" : plan->method;
    bool connects = plan->tunnel == TUNNEL_CONNECT;
    bool sound = strcmp(call->path, connects ? "" : target) == 0 &&
                 strcmp(call->authority, connects ? target : "sim") == 0 &&
                 strcmp(call->protocol, protocols[plan->tunnel]) == 0;
    if (sound && strcmp(call->method, method) == 0) return;
    sim_fail(INVARIANT_BYTES, "request %u arrives as %s %s %s", plan->id, call->method, call->path,
             call->protocol);
}

/* A head is whole. */
static void on_head(struct h2_call *call) {
    struct h2_conn *conn = call->conn;
    uint32_t id = call->told_id;
    if (id == 0 || id >= REQUESTS_MAX || requests[id].client == 0) {
        sim_fail(INVARIANT_BYTES, "a request that no client has sent: %s %s", call->method,
                 call->path);
    }
    if (!conn->goaway) sim_cancel(&conn->idle);
    call->plan = plan_of(id);
    frames_begin(&call->frames, id, SIDE_REQUEST);
    check_call(call);
    server_check_owner(&call->plan, call->told);
    server_check_timeout(&call->plan, call->timeout);
    sim_note("h2 server gets head", id, call->plan.manner, call->id);
    if (call->id > conn->last) { /* its GOAWAY is on its way */
        call->dropped = true;
        requests[id].refusals++;
        return;
    }
    if (sim_fault(FAULT_SERVER_REFUSES)) {
        call->dropped = true;
        requests[id].refusals++;
        CHECK(nghttp2_submit_rst_stream(conn->link.ng, NGHTTP2_FLAG_NONE, call->id,
                                        NGHTTP2_REFUSED_STREAM) == 0);
        return;
    }
    server_count_execution(&call->plan);
    if (call->plan.server_ends && sim_one_in(ENDS_ONE_IN)) conn_goaway(conn);
    if (sim_fault(FAULT_SERVER_GOAWAY)) conn_goaway(conn);
    if (sim_fault(FAULT_SERVER_CUTS)) conn_cut(conn);
    if (sim_fault(FAULT_SERVER_LIMITS)) change_limits(conn);
    if (call->dropped || call->plan.manner == MANNER_SILENT) return;
    call->slow = sim_has(FAULT_STREAM_SLOW) && sim_one_in(SLOW_ONE_IN);
    h2_call_put_interims(call);
    bool at_once = call->plan.manner == MANNER_EARLY || call->plan.tunnel != TUNNEL_NONE;
    if (!at_once) return;
    h2_call_answer(call);
}

static void on_end(struct h2_call *call) {
    const struct plan *plan = &call->plan;
    call->ended = true;
    if (call->dropped) return;
    bool excused = requests[plan->id].left || frames_are_cut(&call->frames);
    if (call->body != plan->request_size && !excused) {
        sim_fail(INVARIANT_BYTES, "request %u: %llu bytes of body instead of %u", plan->id,
                 (unsigned long long)call->body, plan->request_size);
    }
    if (call->sum != (plan->request_trailers ? plan->id : 0)) {
        sim_fail(INVARIANT_BYTES, "request %u: trailer %u", plan->id, call->sum);
    }
    sim_note("h2 server has request", plan->id, (int64_t)call->body, 0);
    if (!call->answering && plan->manner != MANNER_SILENT) h2_call_answer(call);
}

static struct h2_call *call_of(nghttp2_session *ng, int32_t id) {
    return nghttp2_session_get_stream_user_data(ng, id);
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct h2_conn *conn = user;
    struct h2_call *call = calloc(1, sizeof *call);
    CHECK(call);
    call->conn = conn;
    call->id = frame->hd.stream_id;
    call->next = conn->calls;
    conn->calls = call;
    conn->pings = 0; /* an answer to one that is on its way says nothing of this call */
    CHECK(nghttp2_session_set_stream_user_data(ng, call->id, call) == 0);
    return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user) {
    struct h2_call *call = call_of(ng, frame->hd.stream_id);
    nghttp2_nv field = {(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, name_len,
                        value_len, flags};
    char number[16];
    (void)user;
    if (!call) return 0;
    if (h2_field_is(&field, "x-id", number, sizeof number)) {
        call->told_id = (uint32_t)strtoul(number, NULL, 10);
    } else if (h2_field_is(&field, "x-sum", number, sizeof number)) {
        call->sum = (uint32_t)strtoul(number, NULL, 10);
    } else {
        (void)(h2_field_is(&field, "grpc-timeout", call->timeout, sizeof call->timeout) ||
               h2_field_is(&field, ":method", call->method, sizeof call->method) ||
               h2_field_is(&field, ":path", call->path, sizeof call->path) ||
               h2_field_is(&field, ":authority", call->authority, sizeof call->authority) ||
               h2_field_is(&field, ":protocol", call->protocol, sizeof call->protocol) ||
               h2_field_is(&field, "x-forwarded-for", call->told, sizeof call->told));
    }
    return 0;
}

/* All streams have ended, and what weir had to say since has come: it owes no window. */
static void check_window(struct h2_conn *conn) {
    int32_t window = nghttp2_session_get_remote_window_size(conn->link.ng);
    if (window >= H2_CONNECTION_WINDOW / 2) return;
    sim_fail(INVARIANT_WINDOWS, "a server's connection without streams has a window of %d", window);
}

static void conn_ping(struct h2_conn *conn) {
    CHECK(nghttp2_submit_ping(conn->link.ng, NGHTTP2_FLAG_NONE, NULL) == 0);
}

static void on_pong(struct h2_conn *conn) {
    if (conn->pings == 0 || conn->calls) {
        conn->pings = 0;
    } else if (--conn->pings != 0) {
        conn_ping(conn);
    } else {
        check_window(conn);
    }
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct h2_conn *conn = user;
    struct h2_call *call = call_of(ng, frame->hd.stream_id);
    bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    bool ack = (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0;
    if (frame->hd.type == NGHTTP2_PING && ack) on_pong(conn);
    bool ends = frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR;
    if (ends && !sim_has(FAULT_FEW_SLOTS)) {
        sim_fail(INVARIANT_BYTES, "weir ends a server's connection with code %u",
                 frame->goaway.error_code);
    }
    if (!call || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)) return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        on_head(call);
    if (end) on_end(call);
    return 0;
}

static int on_bytes(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *bytes,
                    size_t size, void *user) {
    struct h2_call *call = call_of(ng, id);
    (void)flags;
    (void)user;
    CHECK(nghttp2_session_consume_connection(ng, size) == 0);
    if (!call) return 0;
    const char *planned = (const char *)bytes;
    size_t count = h2_link_planned(&call->frames, call->plan.frames, &planned, size);
    for (size_t i = 0; i < count; i++) {
        if (planned[i] == plan_byte(call->told_id, SIDE_REQUEST, call->body + i)) continue;
        sim_fail(INVARIANT_BYTES, "request %u: byte %llu is another one", call->told_id,
                 (unsigned long long)(call->body + i));
    }
    call->body += count;
    h2_call_go_on(call);
    call->unread += (uint32_t)size;
    if (call->slow) {
        h2_call_rest(call);
    } else {
        CHECK(nghttp2_session_consume_stream(ng, id, call->unread) == 0);
        call->unread = 0;
    }
    return 0;
}

/* The last stream has ended: what an idle connection does. */
static void conn_rest(struct h2_conn *conn) {
    if (conn->goaway || conn->idle || conn->done) return;
    if (sim_has(FAULT_SERVER_IDLE_ENDS) && sim_one_in(2)) {
        sim_action *end = sim_one_in(2) ? on_goaway_due : on_idle_end;
        sim_event(sim.now_ns + sim_skewed(SIM_SECOND), end, conn, &conn->idle);
    } else if (conn->pings == 0 && sim_one_in(2)) {
        conn->pings = PINGS;
        conn_ping(conn);
    }
}

static int on_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user) {
    struct h2_conn *conn = user;
    struct h2_call *call = call_of(ng, id);
    if (!call) return 0;
    sim_note("h2 server call ends", call->plan.id, id, code);
    h2_call_free(call);
    if (!conn->calls) conn_rest(conn);
    return 0;
}

/* nghttp2 refuses by itself what is above the limit. */
static int on_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    (void)ng;
    (void)user;
    bool refuses = frame->hd.type == NGHTTP2_RST_STREAM &&
                   frame->rst_stream.error_code == NGHTTP2_REFUSED_STREAM;
    world.refusals += refuses;
    return 0;
}

static void take_proxy(struct h2_conn *conn, char c) {
    char told[32];
    if (c != '\n' && conn->line_len + 1 < sizeof conn->line) {
        conn->line[conn->line_len++] = c;
        return;
    }
    conn->line[conn->line_len] = '\0';
    conn->wants_proxy = false;
    if (sscanf(conn->line, "PROXY TCP4 %31[0-9.] 127.0.0.1 %*u %*u\r", told) == 1) return;
    if (strcmp(conn->line, "PROXY UNKNOWN\r") == 0) return;
    sim_fail(INVARIANT_BYTES, "a PROXY header is '%.60s'", conn->line);
}

static void conn_step(void *owner) {
    struct h2_conn *conn = owner;
    struct h2_link *link = &conn->link;
    if (conn->done) return;
    if (conn->lingers) {
        conn_linger(conn);
        return;
    }
    char c;
    while (conn->wants_proxy && sock_read(link->sock, &c, 1) == 1)
        take_proxy(conn, c);
    h2_link_read(link);
    h2_link_write(link);
    bool over = link->fin || link->reset || link->broken;
    if (over || h2_link_is_done(link)) {
        if (over) conn_end(conn);
        if (!over) conn_linger(conn);
        return;
    }
    uint64_t next_ns = h2_link_next_ns(link);
    if (next_ns != UINT64_MAX) h2_server_wake(conn, next_ns);
}

static nghttp2_session_callbacks *make_callbacks(void) {
    nghttp2_session_callbacks *callbacks = h2_link_callbacks();
    h2_link_on_frame(callbacks, on_frame);
    h2_link_on_bytes(callbacks, on_bytes);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_sent);
    return callbacks;
}

static void on_window_due(void *owner, uint64_t argument) {
    (void)argument;
    struct h2_conn *conn = owner;
    if (conn->done || conn->lingers) return;
    h2_link_open_window(&conn->link);
    h2_server_wake(conn, sim.now_ns);
}

/* What it says of itself. Few streams at once, where weir may not yet know: some are refused. */
static void put_settings(struct h2_conn *conn) {
    static const uint32_t windows[] = {2000, 20000, 65535, 300000};
    static const uint32_t limits[] = {32, 100, 1000};
    bool few = sim_has(FAULT_SERVER_LIMITS);
    nghttp2_settings_entry entries[3] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, windows[sim_below(4)]},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1},
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
         few ? (uint32_t)sim_between(1, 32) : limits[sim_below(3)]}};
    if (h2_link_begins_shut()) {
        entries[0].value = 0;
        sim_at(sim.now_ns + sim_skewed(SIM_SECOND), on_window_due, conn, 0);
    }
    size_t count = few || sim_one_in(2) ? 3 : 2;
    CHECK(nghttp2_submit_settings(conn->link.ng, NGHTTP2_FLAG_NONE, entries, count) == 0);
    if (sim_fault(FAULT_SETTINGS_LATE) || (sim_has(FAULT_SETTINGS_LATE) && sim_one_in(4)))
        conn->link.next_write_ns = sim.now_ns + sim_skewed(500 * SIM_MS);
}

void h2_server_accept(struct sock *sock) {
    struct h2_conn *conn = calloc(1, sizeof *conn);
    CHECK(conn);
    conn->next = conns;
    conns = conn;
    conn->wants_proxy = world.sends_proxy;
    conn->last = INT32_MAX;
    struct h2_link *link = &conn->link;
    *link = (struct h2_link){.sock = sock, .write_max = actor_step(), .read_max = actor_step()};
    snprintf(link->name, sizeof link->name, "server %u", sock_number(sock));
    if (sim_has(FAULT_SERVER_SLOW)) link->pace_ns = actor_pace(link->write_max, link->read_max) / 8;
    h2_link_init(link, make_callbacks(), true);
    put_settings(conn);
    sock_set_actor(sock, (struct sock_actor){conn_step, conn});
    h2_server_wake(conn, sim.now_ns);
}

void h2_server_free_all(void) {
    for (struct h2_conn *conn = conns; conn; conn = conns) {
        conns = conn->next;
        while (conn->calls)
            h2_call_free(conn->calls);
        if (conn->link.ng) h2_link_fini(&conn->link);
        free(conn);
    }
}
