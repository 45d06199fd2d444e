/* server.c: a server of a run: it takes connections and does with each request what its plan says.
 */
#include "base/check.h"
#include "sim/actors.h"
#include "sim/tls_end.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_SIZE 65536

struct server_side {
    struct kernel_server listening;
    bool tcp;
    bool dead;
    bool dead_hangs;
    struct server_side *next;
};

/* A connection from weir. */
struct server_conn {
    struct sock *sock;
    struct reader reader;
    struct plan plan; /* of the request under way */
    bool tcp;
    bool tls;
    char line[128]; /* the PROXY header, or the number before raw bytes */
    size_t line_len;
    bool wants_proxy; /* header has not come yet */
    char proxied[32]; /* the address it told */
    bool busy;        /* with it */
    bool request_ended;
    bool raw;
    bool ends;   /* after what is to be written */
    bool resets; /* instead */
    bool cuts;   /* or by a FIN that says nothing, with TLS */
    bool silent;
    bool fin_seen;
    bool rests; /* there is more to do, after a rest */
    bool done;
    struct text out;
    size_t out_at;
    size_t raw_at; /* where the bytes of a tunnel begin */
    struct frames_out frames_out;
    uint32_t write_max, read_max;
    uint64_t pace_ns;
    struct sim_event *timer;
    struct sim_event *idle;
    struct sim_event *rest; /* between two frames */
    struct server_conn *next;
};

static struct server_side *servers;
static struct server_conn *conns;

static void conn_step(void *owner);

static void on_timer(void *owner, uint64_t argument) {
    (void)argument;
    conn_step(owner);
}

static void conn_end(struct server_conn *conn) {
    if (conn->done) return;
    conn->done = true;
    sim_cancel(&conn->timer);
    sim_cancel(&conn->idle);
    sim_cancel(&conn->rest);
    text_free(&conn->out);
    if (conn->resets) {
        sock_abort(conn->sock);
    } else if (conn->cuts) {
        sock_cut(conn->sock);
    } else {
        sock_close(conn->sock);
    }
}

static void on_idle_end(void *owner, uint64_t argument) {
    (void)argument;
    struct server_conn *conn = owner;
    if (!conn->busy && reader_is_idle(&conn->reader)) conn_end(conn);
}

static void answer_done(struct server_conn *conn);

/* The text of the answer, as far as a bad server sends it. */
static void put_answer(struct server_conn *conn) {
    struct plan plan = conn->plan;
    if (conn->plan.manner == MANNER_NONSENSE) {
        static const char *const nonsense[] = {
            "HTTP/1.1 abc\r\n\r\n", "220 mail.example ESMTP\r\n",
            "HTTP/1.1 200 OK\r\nA B: c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"};
        text_print(&conn->out, "%s", nonsense[plan.cut_at % 4]);
        conn->ends = true;
        return;
    }
    if (!plan.tcp && sim_defect(DEFECT_SWAP_ANSWERS))
        plan = plan_of(plan.id > 1 ? plan.id - 1 : plan.id + 1);
    size_t start = conn->out.len;
    plan_answer(&plan, conn->reader.key, &conn->out);
    conn->raw_at = conn->out.len;
    if (plan.upgrade) plan_raw(&plan, SIDE_ANSWER, &conn->out);
    if (plan.upgrade || plan.server_ends) conn->ends = true;
    if (conn->plan.manner != MANNER_CLOSES && conn->plan.manner != MANNER_RESETS) return;
    size_t size = conn->out.len - start;
    /* FIN behind a whole answer that FIN ends would be no cut; so would one in its body. */
    bool fin_ends = plan.answer_framing == FRAMING_CLOSE || plan.upgrade;
    conn->resets = conn->plan.manner == MANNER_RESETS || fin_ends;
    if (conn->plan.manner == MANNER_CLOSES && fin_ends && conn->tls) {
        conn->resets = false;
        conn->cuts = true;
    }
    conn->ends = true;
    conn->out.len = start + (size != 0 ? plan.cut_at % size : 0);
}

/* Whether the request is told to be its client's. */
void server_check_owner(const struct plan *plan, const char *told) {
    const struct request *request = &requests[plan->id];
    char address[32];
    plan_client_address(request->client, address, sizeof address);
    /* A connection that is gone by then has no address any more. */
    bool gone = (sim_has(FAULT_CLIENT_RESET) || sim_has(FAULT_CLIENT_LEAVES)) &&
                strcmp(told, "unknown") == 0;
    if (strcmp(told, address) == 0 || gone) return;
    sim_fail(INVARIANT_OWNER, "request %u of client %s arrives as one of %s", plan->id, address,
             told);
}

void server_check_timeout(const struct plan *plan, const char *told) {
    char given[16];
    unsigned left_ms = 0;
    char unit = '\0';
    plan_timeout(plan, given, sizeof given);
    if (plan->timeout_ms == 0 ? told[0] == '\0' : strcmp(told, given) == 0) return;
    uint64_t took_ms = (sim.now_ns - requests[plan->id].asked_ns) / SIM_MS + 1;
    bool sound = sscanf(told, "%u%c", &left_ms, &unit) == 2 && unit == 'm' && left_ms != 0;
    if (sound && left_ms < plan->timeout_ms && left_ms + took_ms >= plan->timeout_ms) return;
    sim_fail(INVARIANT_TIME, "call %u has '%s' left of %u ms, %llu ms after it was asked", plan->id,
             told, plan->timeout_ms, (unsigned long long)took_ms);
}

static void check_target(const struct server_conn *conn) {
    const struct reader *reader = &conn->reader;
    char target[64];
    plan_target(&conn->plan, target, sizeof target);
    if (strcmp(reader->method, conn->plan.method) == 0 && strcmp(reader->target, target) == 0)
        return;
    sim_fail(INVARIANT_BYTES, "request %u arrives as %s %s", conn->plan.id, reader->method,
             reader->target);
}

void server_count_execution(const struct plan *plan) {
    struct request *request = &requests[plan->id];
    if (request->barred) {
        sim_fail(INVARIANT_ANSWERS, "request %u came behind a PROXY header that is none", plan->id);
    }
    request->executions++;
    if (!plan->idempotent && sim_defect(DEFECT_EXECUTE_TWICE)) request->executions++;
    if (request->executions > (plan->idempotent ? 2 : 1)) {
        sim_fail(INVARIANT_ONCE, "request %u (%s) is executed %u times", plan->id, plan->method,
                 request->executions);
    }
}

static void on_head(struct server_conn *conn) {
    struct reader *reader = &conn->reader;
    if (reader->id == 0 || reader->id >= REQUESTS_MAX || requests[reader->id].client == 0) {
        sim_fail(INVARIANT_BYTES, "a request that no client has sent: %s %s", reader->method,
                 reader->target);
    }
    if (conn->busy) {
        sim_fail(INVARIANT_BYTES, "request %u before the answer to %u", reader->id, conn->plan.id);
    }
    sim_cancel(&conn->idle);
    conn->busy = true;
    conn->request_ended = false;
    conn->raw_at = SIZE_MAX;
    conn->plan = plan_of(reader->id);
    check_target(conn);
    if (conn->plan.tunnel == TUNNEL_WEBSOCKET && reader->key[0] == '\0') {
        sim_fail(INVARIANT_BYTES, "request %u has no Sec-WebSocket-Key", reader->id);
    }
    server_check_owner(&conn->plan, reader->forwarded_for);
    server_check_timeout(&conn->plan, reader->timeout);
    server_count_execution(&conn->plan);
    reader->pattern_id = conn->plan.id;
    reader->side = SIDE_REQUEST;
    sim_note("server gets head", conn->plan.id, conn->plan.manner, sock_number(conn->sock));
    conn->silent = conn->plan.manner == MANNER_SILENT;
    if (conn->silent) return;
    plan_interims(&conn->plan, &conn->out);
    if (conn->plan.manner == MANNER_EARLY) put_answer(conn);
}

static void on_request(struct server_conn *conn) {
    const struct plan *plan = &conn->plan;
    uint64_t wanted = plan->upgrade ? 0 : plan->request_size;
    if (conn->reader.body != wanted) {
        sim_fail(INVARIANT_BYTES, "request %u: %llu bytes of body instead of %llu", plan->id,
                 (unsigned long long)conn->reader.body, (unsigned long long)wanted);
    }
    if (conn->reader.sum != (plan->request_trailers ? plan->id : 0)) {
        sim_fail(INVARIANT_BYTES, "request %u: trailer %u", plan->id, conn->reader.sum);
    }
    sim_note("server has request", plan->id, (int64_t)wanted, 0);
    conn->request_ended = true;
    if (plan->upgrade) {
        conn->raw = true;
        conn->reader.state = READ_RAW;
        conn->reader.body = 0;
        conn->reader.has_frames = plan->frames;
        frames_begin(&conn->reader.frames, plan->id, SIDE_REQUEST);
    }
    if (conn->silent) return;
    if (plan->manner != MANNER_EARLY) {
        put_answer(conn);
    } else if (conn->out_at == conn->out.len) {
        answer_done(conn); /* it was written before */
    }
}

/* A line without HTTP is complete. */
static void on_line(struct server_conn *conn) {
    const char *line = conn->line;
    uint32_t id = 0;
    if (conn->wants_proxy) {
        conn->wants_proxy = false;
        bool known = sscanf(line, "PROXY TCP4 %31[0-9.] 127.0.0.1 %*u %*u\r", conn->proxied) == 1;
        if (known || strcmp(line, "PROXY UNKNOWN\r") == 0) return;
        sim_fail(INVARIANT_BYTES, "a PROXY header is '%.60s'", line);
    }
    bool sound = sscanf(line, "RAW %u", &id) == 1 && id < REQUESTS_MAX && requests[id].tcp;
    if (!sound) sim_fail(INVARIANT_BYTES, "raw bytes begin with '%.60s'", line);
    conn->plan = plan_of(id);
    server_count_execution(&conn->plan);
    /* Without an address the client was gone already. */
    if (conn->proxied[0] != '\0') server_check_owner(&conn->plan, conn->proxied);
    sim_note("server gets raw", id, conn->plan.manner, sock_number(conn->sock));
    conn->busy = conn->request_ended = conn->raw = true;
    conn->reader.state = READ_RAW;
    conn->reader.pattern_id = id;
    conn->reader.side = SIDE_REQUEST;
    conn->silent = conn->plan.manner == MANNER_SILENT;
    if (!conn->silent) put_answer(conn);
}

/* Whether a line without HTTP is to come. */
static bool wants_line(const struct server_conn *conn) {
    return conn->wants_proxy || (conn->tcp && conn->plan.id == 0);
}

static void take_lines(struct server_conn *conn, const char **bytes, size_t *size) {
    while (wants_line(conn) && *size != 0) {
        char c = *(*bytes)++;
        (*size)--;
        if (c == '\n' || conn->line_len + 1 == sizeof conn->line) {
            conn->line[conn->line_len] = '\0';
            conn->line_len = 0;
            on_line(conn);
        } else {
            conn->line[conn->line_len++] = c;
        }
    }
}

static void conn_take(struct server_conn *conn, const char *bytes, size_t size) {
    take_lines(conn, &bytes, &size);
    for (;;) {
        switch (reader_feed(&conn->reader, &bytes, &size)) {
        case READER_MORE:
            return;
        case READER_HEAD:
            on_head(conn);
            break;
        case READER_END:
            on_request(conn);
            break;
        case READER_BAD:
            sim_fail(INVARIANT_BYTES, "a server, after request %u: %s: '%.40s'", conn->plan.id,
                     conn->reader.why, conn->reader.line);
        }
    }
}

/* FIN. In a tunnel all must have come; elsewhere weir does not half-close. */
static void conn_on_fin(struct server_conn *conn) {
    conn->fin_seen = true;
    if (!conn->raw) {
        conn_end(conn);
        return;
    }
    bool excused = requests[conn->plan.id].left || frames_are_cut(&conn->reader.frames);
    if (conn->reader.body != conn->plan.request_size && !excused) {
        sim_fail(INVARIANT_BYTES, "request %u: a tunnel ends well after %llu bytes of %u",
                 conn->plan.id, (unsigned long long)conn->reader.body, conn->plan.request_size);
    }
}

static void conn_read(struct server_conn *conn) {
    static char bytes[READ_SIZE];
    while (!conn->done && !conn->fin_seen) {
        ssize_t got = sock_read(conn->sock, bytes, conn->read_max);
        if (got == -EAGAIN) return;
        if (got > 0) {
            conn_take(conn, bytes, (size_t)got);
        } else if (got == 0) {
            conn_on_fin(conn);
        } else {
            conn_end(conn);
        }
        if (conn->pace_ns && sim_one_in(2)) {
            conn->rests = true;
            return;
        }
    }
}

/* The answer is written. */
static void answer_done(struct server_conn *conn) {
    if (conn->ends) {
        if (!conn->raw || conn->resets || conn->cuts || conn->fin_seen) {
            conn_end(conn);
        } else {
            sock_shutdown(conn->sock);
        }
        return;
    }
    if (!conn->request_ended) return;
    conn->busy = false;
    conn->out.len = conn->out_at = 0;
    if (sim_has(FAULT_SERVER_IDLE_ENDS) && sim_one_in(2)) {
        sim_event(sim.now_ns + sim_skewed(SIM_SECOND), on_idle_end, conn, &conn->idle);
    }
}

/* The answer to weir's ping. False: there is no room for it. */
static bool conn_write_pong(struct server_conn *conn) {
    struct frames_out *out = &conn->frames_out;
    while (conn->raw && frames_answer(out, &conn->reader.frames)) {
        size_t left = out->pong_len - out->pong_at;
        ssize_t put = sock_write(conn->sock, out->pong + out->pong_at, left);
        if (put <= 0) return false;
        out->pong_at += (uint32_t)put;
    }
    return true;
}

/* Whether it does not rest between two frames. */
static bool conn_may_write(struct server_conn *conn, size_t *size) {
    uint64_t may = conn->raw_at - conn->out_at; /* of the head */
    if (conn->out_at >= conn->raw_at)
        may = frames_may_send(&conn->frames_out, &conn->plan, SIDE_ANSWER,
                              conn->out_at - conn->raw_at);
    if (may < *size) *size = (size_t)may;
    if (*size != 0) return true;
    if (!conn->rest) sim_event(conn->frames_out.until_ns, on_timer, conn, &conn->rest);
    return false;
}

static void conn_write(struct server_conn *conn) {
    while (!conn->done && conn->busy && !conn->silent) {
        size_t left = conn->out.len - conn->out_at;
        bool complete = conn->request_ended || conn->plan.manner == MANNER_EARLY;
        if (left == 0) {
            if (complete) answer_done(conn);
            return;
        }
        size_t size = left < conn->write_max ? left : conn->write_max;
        if (!conn_write_pong(conn)) return;
        if (conn->raw && !conn_may_write(conn, &size)) return;
        ssize_t put = sock_write(conn->sock, conn->out.bytes + conn->out_at, size);
        if (put == -EAGAIN) return;
        if (put < 0) {
            conn_end(conn);
            return;
        }
        conn->out_at += (size_t)put;
        /* The last byte is the end of it: weir may ask for more at once. */
        if (conn->out_at < conn->out.len && conn->pace_ns && sim_one_in(2)) {
            conn->rests = true;
            return;
        }
    }
}

static void conn_step(void *owner) {
    struct server_conn *conn = owner;
    if (conn->done || conn->timer) return;
    conn->rests = false;
    conn_read(conn);
    conn_write(conn);
    if (conn->done || !conn->rests) return;
    sim_event(sim.now_ns + 1 + sim_below(conn->pace_ns), on_timer, conn, &conn->timer);
}

static void on_accept(void *owner, struct sock *sock) {
    const struct server_side *server = owner;
    bool h2 = world.h2_servers && !server->tcp;
    bool tls = server->tcp ? world.tls_raw_servers : world.tls_servers;
    struct tls_end_options options = {
        .is_server = true, .alpn = h2 ? "h2" : NULL, .begins_in_line = world.sends_proxy};
    if (tls) tls_end_begin(sock, &options);
    if (h2) {
        h2_server_accept(sock);
        return;
    }
    struct server_conn *conn = calloc(1, sizeof *conn);
    CHECK(conn);
    conn->sock = sock;
    conn->tcp = server->tcp;
    conn->tls = tls;
    conn->wants_proxy = world.sends_proxy;
    conn->next = conns;
    conns = conn;
    reader_init(&conn->reader, false);
    conn->write_max = actor_step();
    conn->read_max = actor_step();
    if (sim_has(FAULT_SERVER_SLOW)) {
        conn->pace_ns = actor_pace(conn->write_max, conn->read_max);
    }
    sock_set_actor(sock, (struct sock_actor){conn_step, conn});
}

static struct connect_fate on_connect(void *owner) {
    const struct server_side *server = owner;
    struct connect_fate fate = {.wait_ns = sim_below(SIM_MS)};
    if ((server->dead && server->dead_hangs) || sim_fault(FAULT_CONNECT_HANGS)) {
        fate.never = true;
    } else if (server->dead || sim_fault(FAULT_CONNECT_REFUSED)) {
        static const int errors[] = {ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ECONNRESET};
        fate.error = -errors[sim_below(4)];
    } else if (sim_fault(FAULT_CONNECT_SLOW)) {
        fate.wait_ns = sim_skewed(world.timeout_ns / 2);
    }
    return fate;
}

void server_start(uint16_t port, bool tcp) {
    struct server_side *server = calloc(1, sizeof *server);
    CHECK(server);
    server->tcp = tcp;
    server->dead = !servers && sim_has(FAULT_SERVER_DEAD);
    server->dead_hangs = sim_one_in(2);
    server->listening = (struct kernel_server){port, on_connect, on_accept, server, NULL};
    server->next = servers;
    servers = server;
    kernel_serve(&server->listening);
}

void server_free_all(void) {
    h2_server_free_all();
    for (struct server_conn *conn = conns; conn; conn = conns) {
        conns = conn->next;
        text_free(&conn->out);
        free(conn);
    }
    for (struct server_side *server = servers; server; server = servers) {
        servers = server->next;
        free(server);
    }
}
