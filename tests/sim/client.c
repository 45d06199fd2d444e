/* client.c: a client of a run: one connection, some requests, and the judge of what comes back. */
#include "base/check.h"
#include "sim/actors.h"
#include "sim/judge.h"
#include "sim/tls_end.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ASKED_MAX 8
#define READ_SIZE 65536
struct client {
    uint32_t number;
    struct sock *sock;
    struct reader reader;
    struct plan asked[ASKED_MAX];
    size_t head_sizes[ASKED_MAX];
    uint32_t asked_count;
    uint32_t begun;   /* requests of which some bytes were written */
    uint32_t written; /* requests written whole */
    uint32_t answered;
    uint32_t depth; /* requests that may be under way at once */
    uint32_t write_max, read_max;
    uint64_t pace_ns; /* between two writes or reads, at most */
    uint64_t next_write_ns, next_read_ns;
    struct text out; /* the request being written */
    size_t out_at;
    struct frames_out frames_out;
    enum leaving leaving;
    uint64_t leave_at; /* after so many bytes both ways */
    uint64_t moved;    /* bytes both ways */
    uint64_t progress_ns;
    uint32_t interims;
    bool tcp;
    bool tls;
    bool echo;       /* of these: what it sends comes back */
    bool bad_header; /* its PROXY header is malformed */
    bool opened;
    bool accepted; /* by weir */
    uint64_t accepted_ns;
    bool misbehaved; /* from here on weir owes nothing */
    bool no_more;    /* weir has said that it takes no more requests here */
    bool raw;        /* it writes raw bytes */
    bool fin_sent;
    bool fin_seen; /* in a tunnel */
    bool got_continue;
    bool stopped;
    bool done;
    struct sim_event *timer;
    struct client *next;
};

static struct client *clients;

static void client_step(void *owner);

static void on_timer(void *owner, uint64_t argument) {
    (void)argument;
    client_step(owner);
}

static const struct plan *current(const struct client *client) {
    return &client->asked[client->answered];
}

static void client_end(struct client *client) {
    if (client->done) return;
    client->done = true;
    for (uint32_t i = 0; i < client->begun; i++)
        requests[client->asked[i].id].left |= client->misbehaved;
    sim_cancel(&client->timer);
    sim_note("client ends", client->number, client->answered, client->misbehaved);
    if (client->leaving == LEAVES_RESETTING) {
        sock_abort(client->sock);
    } else {
        sock_close(client->sock);
    }
    text_free(&client->out);
    world.clients_left--;
}

/* TCP has no words for why there is no server. */
static bool tcp_may_fail(void) {
    return sim_has(FAULT_CONNECT_REFUSED) || sim_has(FAULT_CONNECT_HANGS) ||
           sim_has(FAULT_SERVER_DEAD) || sim_has(FAULT_SOCKET_SHORT) || world.servers_limited ||
           (world.tls_raw_servers && sim_has(FAULT_SERVER_TLS)) || world.clients_limited;
}

/* Whether a request may stay without the rest of its answer. */
static bool may_be_cut(const struct client *client, const struct plan *plan) {
    if (client->misbehaved || client->no_more || world.draining) return true;
    /* Its handshake may not be done where it has become one too many. */
    bool unheard = client->answered == 0 && reader_is_idle(&client->reader);
    if (unheard && client->tls && world.handshakes_limited) return true;
    if (sock_is_broken(client->sock) || sim_has(FAULT_FEW_SLOTS)) return true;
    /* A tunnel that is reset takes with it what of the answers before it is on its way. */
    const struct plan *newest = &client->asked[client->begun - 1];
    if (newest->upgrade && judge_may_be_cut(newest)) return true;
    if (plan->echo && world.clients_limited) return true;
    if (plan->tcp && !plan->echo && tcp_may_fail()) return true;
    if (plan != current(client)) return false;
    return judge_may_be_cut(plan);
}

/* The connection has ended: what was asked and not answered needs an excuse. */
static void client_judge_end(struct client *client) {
    for (uint32_t i = client->answered; i < client->begun; i++) {
        /* What was cut short may be followed by nothing. */
        bool follows_cut = i > client->answered && may_be_cut(client, current(client));
        if (!follows_cut && !may_be_cut(client, &client->asked[i])) {
            sim_fail(INVARIANT_ANSWERS, "client %u: request %u (%s) has no answer", client->number,
                     client->asked[i].id, client->asked[i].method);
        }
        world.unanswered++;
    }
    client_end(client);
}

static void judge_weirs_answer(struct client *client, const struct plan *plan) {
    const struct reader *reader = &client->reader;
    if (plan->local && reader->reason[0] == '\0') {
        if (reader->status != 200) {
            sim_fail(INVARIANT_ANSWERS, "client %u: %d instead of the answer of weir's route",
                     client->number, reader->status);
        }
        world.answers++;
        return;
    }
    bool fits = !plan->call || judge_may_end_call(plan, reader->reason, reader->outcome);
    /* What is refused before it is read is nobody's call. */
    if (strcmp(reader->reason, "max_connections") == 0 || strcmp(reader->reason, "no_memory") == 0)
        fits = true;
    /* Nor one whose head found no memory in time. */
    if (strcmp(reader->reason, "request_timeout") == 0 && sim_has(FAULT_FEW_SLOTS)) fits = true;
    if (!client->misbehaved && (!fits || !judge_may_fail(plan, reader->reason))) {
        sim_fail(INVARIANT_ANSWERS,
                 "client %u: request %u (%s): %d %s, for which there is no"
                 " reason",
                 client->number, plan->id, plan->method, reader->status, reader->reason);
    }
    world.errors++;
}

/* The tunnel is there. */
static void on_switch(struct client *client, const struct plan *plan) {
    struct reader *reader = &client->reader;
    bool proven = plan->tunnel != TUNNEL_WEBSOCKET || strcmp(reader->key, PLAN_ACCEPT) == 0;
    if (!proven || reader->has_length || reader->chunked) {
        sim_fail(INVARIANT_BYTES, "client %u: request %u: the head of a tunnel has %s",
                 client->number, plan->id, proven ? "a length" : "a wrong Sec-WebSocket-Accept");
    }
    reader->is_tunnel = true;
    reader->has_frames = plan->frames;
    frames_begin(&reader->frames, plan->id, SIDE_ANSWER);
}

static void on_head(struct client *client) {
    struct reader *reader = &client->reader;
    const struct plan *plan = current(client);
    sim_note("client gets head", client->number, reader->id, reader->status);
    /* One too many is told so before it asks for anything. */
    bool refused = strcmp(reader->reason, "max_connections") == 0 && world.clients_limited;
    if (refused) client->misbehaved = client->no_more = true;
    if (client->answered >= client->begun && !refused) {
        sim_fail(INVARIANT_ANSWERS, "client %u: a %d that nobody asked for", client->number,
                 reader->status);
    }
    if (reader->id != 0 && (reader->id != plan->id || plan->local)) {
        sim_fail(INVARIANT_OWNER, "client %u: the answer to %u for request %u", client->number,
                 reader->id, plan->id);
    }
    if (reader->status < 200 && reader->status != 101) {
        client->got_continue |= reader->status == 100;
        if (++client->interims > plan->interims + plan->expects) {
            sim_fail(INVARIANT_ANSWERS, "client %u: too many interim answers to %u", client->number,
                     plan->id);
        }
        return;
    }
    /* Of a head that it has not seen whole weir cannot know the method. */
    reader->no_body = plan->is_head && client->written > client->answered && !refused;
    if (reader->closes) client->no_more = true;
    /* The server has not waited for all of it, so weir may not wait either. */
    if (client->written <= client->answered) client->no_more = true;
    if (plan->manner == MANNER_EARLY) client->no_more = true;
    /* A head without a body may be all there is, and its stream reset behind it. */
    if (world.h2_servers && judge_is_bad(plan->manner)) client->no_more = true;
    if (reader->id == 0) {
        judge_weirs_answer(client, plan);
        return;
    }
    if (reader->status != plan->status) {
        sim_fail(INVARIANT_BYTES, "client %u: request %u: %d instead of %d", client->number,
                 plan->id, reader->status, plan->status);
    }
    reader->pattern_id = plan->id;
    reader->side = SIDE_ANSWER;
    if (plan->upgrade) on_switch(client, plan);
}

/* weir may end a call that it cannot go on with in an outcome of its own. */
static bool call_is_cut(const struct client *client, const struct plan *plan) {
    const struct reader *reader = &client->reader;
    if (!plan->call || reader->id == 0 || reader->outcome == plan->outcome) return false;
    bool excused = client->misbehaved || sim_has(FAULT_FEW_SLOTS);
    if (excused || judge_may_end_call(plan, "", reader->outcome)) return true;
    sim_fail(INVARIANT_ANSWERS, "client %u: call %u ends in %d instead of %d", client->number,
             plan->id, reader->outcome, plan->outcome);
}

static void on_answer(struct client *client) {
    const struct reader *reader = &client->reader;
    const struct plan *plan = current(client);
    bool cut = frames_are_cut(&reader->frames) || call_is_cut(client, plan);
    if (cut || tls_end_breaches(client->sock)) {
        world.unanswered++;
    } else if (reader->id != 0) {
        uint64_t wanted = plan->is_head ? 0 : plan->answer_size;
        if (reader->body != wanted) {
            sim_fail(INVARIANT_BYTES, "client %u: request %u: %llu bytes of body instead of %llu",
                     client->number, plan->id, (unsigned long long)reader->body,
                     (unsigned long long)wanted);
        }
        uint32_t sum = plan->answer_trailers && reader->chunked && !plan->is_head ? plan->id : 0;
        if (reader->sum != sum) {
            sim_fail(INVARIANT_BYTES, "client %u: request %u: trailer %u instead of %u",
                     client->number, plan->id, reader->sum, sum);
        }
        world.answers++;
    }
    /* What it has sent behind is no request. */
    if (client->raw && reader->state != READ_RAW) {
        client->misbehaved = true;
        client->answered++;
        client_end(client);
        return;
    }
    sim_note("client has answer", client->number, plan->id, (int64_t)reader->body);
    client->answered++;
    client->interims = 0;
    client->got_continue = false;
}

/* What has come, as far as it goes. */
static void client_take(struct client *client, const char *bytes, size_t size) {
    while (!client->done) {
        switch (reader_feed(&client->reader, &bytes, &size)) {
        case READER_MORE:
            return;
        case READER_HEAD:
            on_head(client);
            break;
        case READER_END:
            on_answer(client);
            break;
        case READER_BAD:
            sim_fail(INVARIANT_BYTES, "client %u, request %u: %s: '%.40s'", client->number,
                     current(client)->id, client->reader.why, client->reader.line);
        }
    }
}

/* FIN: everything must be whole, or visibly cut. */
static void client_on_fin(struct client *client) {
    struct reader *reader = &client->reader;
    const struct plan *plan = current(client);
    if (reader->state == READ_UNTIL_END) {
        on_answer(client);
    } else if (reader->state == READ_RAW) {
        /* Before its PROXY header it is nobody's connection: a drain closes it. */
        if (world.takes_proxy && world.draining && client->moved == 0) {
            client->misbehaved = true;
            client_judge_end(client);
            return;
        }
        bool cut = frames_are_cut(&reader->frames);
        if (reader->body != plan->answer_size && !client->misbehaved && !cut) {
            sim_fail(INVARIANT_BYTES, "client %u: a tunnel ends well after %llu bytes of %u",
                     client->number, (unsigned long long)reader->body, plan->answer_size);
        }
        on_answer(client);
        /* This direction only: the client's goes on. */
        client->no_more = client->fin_seen = true;
        return;
    }
    client_judge_end(client);
}

static void client_moved(struct client *client, size_t count) {
    client->moved += count;
    client->progress_ns = sim.now_ns;
}

static void client_read(struct client *client) {
    static char bytes[READ_SIZE];
    while (!client->done && !client->fin_seen && sim.now_ns >= client->next_read_ns) {
        ssize_t got = sock_read(client->sock, bytes, client->read_max);
        if (got == -EAGAIN) return;
        if (got > 0) {
            client_moved(client, (size_t)got);
            client_take(client, bytes, (size_t)got);
            if (client->pace_ns) client->next_read_ns = sim.now_ns + sim_below(client->pace_ns);
        } else if (got == 0) {
            client_on_fin(client);
        } else {
            client_judge_end(client);
        }
    }
}

/* Behind one that is malformed nothing goes any further. */
static void put_proxy_header(struct client *client, struct text *text) {
    if (!client->bad_header) {
        plan_proxy_header(client->number, text);
        return;
    }
    client->misbehaved = true;
    for (uint32_t i = 0; i < client->asked_count; i++)
        requests[client->asked[i].id].barred = true;
    plan_bad_proxy_header(text);
}

static void next_request(struct client *client) {
    static const char *const nonsense[] = {
        "GET / HTTP/9.9\r\n\r\n",
        "\r\n\r\nxyz\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"};
    uint32_t i = client->begun++;
    bool last = client->begun == client->asked_count;
    client->out.len = client->out_at = 0;
    if (i == 0 && world.takes_proxy && !client->tls) put_proxy_header(client, &client->out);
    size_t header_size = client->out.len;
    if (last && client->leaving == SENDS_NONSENSE && !client->bad_header) {
        client->misbehaved = true;
        client->asked[i] = (struct plan){.id = client->asked[i].id, .method = "nonsense"};
        const char *line = nonsense[sim_below(sizeof nonsense / sizeof *nonsense)];
        text_add(&client->out, line, strlen(line));
    } else {
        client->raw = client->tcp || plan_is_hasty(&client->asked[i]);
        requests[client->asked[i].id].asked_ns = sim.now_ns;
        requests[client->asked[i].id].left |= tls_end_breaches(client->sock);
        plan_request(&client->asked[i], last, &client->out);
        client->head_sizes[i] = header_size + plan_request_head_size(&client->asked[i], last);
    }
    sim_note("client asks", client->number, client->asked[i].id, (int64_t)client->out.len);
}

/* How much of the request may be written now. */
static size_t client_may_write(struct client *client) {
    uint32_t i = client->begun - 1;
    size_t left = client->out.len - client->out_at;
    const struct plan *plan = &client->asked[i];
    if (client->raw) {
        uint64_t may = frames_may_send(&client->frames_out, plan, SIDE_REQUEST, client->out_at);
        if (may < left) left = (size_t)may;
    }
    if (plan->expects && !client->got_continue && client->answered == i &&
        client->out_at >= client->head_sizes[i]) {
        return sim.now_ns >= client->progress_ns + EXPECT_NS ? left : 0;
    }
    if (plan->expects && !client->got_continue && client->out_at < client->head_sizes[i])
        left = client->head_sizes[i] - client->out_at;
    return left < client->write_max ? left : client->write_max;
}

static bool has_more_to_ask(const struct client *client) {
    return client->begun < client->asked_count && !client->no_more &&
           client->begun - client->answered < client->depth;
}

/* After an upgrade, and its answer: raw bytes. */
static void client_upgraded(struct client *client) {
    const struct plan *plan = &client->asked[client->begun - 1];
    if (!plan->upgrade || client->reader.state != READ_RAW || client->fin_sent) return;
    if (!client->raw) {
        client->raw = true;
        client->written--;
        client->out.len = client->out_at = 0;
        plan_raw(plan, SIDE_REQUEST, &client->out);
    }
    if (client->out_at < client->out.len) return;
    client->fin_sent = true;
    client->written = client->begun;
    sock_shutdown(client->sock);
}

/* The answer to weir's ping. False: there is no room for it. */
static bool client_write_pong(struct client *client) {
    struct frames_out *out = &client->frames_out;
    while (frames_answer(out, &client->reader.frames)) {
        size_t left = out->pong_len - out->pong_at;
        ssize_t put = sock_write(client->sock, out->pong + out->pong_at, left);
        if (put <= 0) return false;
        out->pong_at += (uint32_t)put;
        client_moved(client, (size_t)put);
    }
    return true;
}

static void client_write(struct client *client) {
    while (!client->done && sim.now_ns >= client->next_write_ns) {
        if (client->begun != 0) client_upgraded(client);
        if (client->written == client->begun && has_more_to_ask(client)) next_request(client);
        if (client->written == client->begun || !client_write_pong(client)) return;
        size_t size = client_may_write(client);
        if (size == 0) return;
        ssize_t put = sock_write(client->sock, client->out.bytes + client->out_at, size);
        if (put <= 0) return;
        client->out_at += (size_t)put;
        client_moved(client, (size_t)put);
        if (client->out_at == client->out.len) client->written++;
        if (client->pace_ns) client->next_write_ns = sim.now_ns + sim_below(client->pace_ns);
    }
}

/* Having had enough, one way or the other. True: gone. */
static bool client_leaves(struct client *client) {
    bool asked_all = client->begun == client->asked_count && client->written == client->begun;
    bool raw = client->reader.state == READ_RAW && !(client->fin_seen && client->fin_sent);
    bool stuck = sock_is_dead(client->sock) || tls_end_is_stuck(client->sock);
    if (client->fin_seen && stuck) client_judge_end(client);
    if (client->done) return true;
    if (client->answered == client->begun && (asked_all || client->no_more) && !raw) {
        client_end(client);
        return true;
    }
    if (client->leaving == LEAVES_HALF && asked_all && !client->fin_sent && !raw &&
        !client->asked[client->begun - 1].upgrade) {
        client->fin_sent = true;
        sock_shutdown(client->sock);
    }
    if (client->leaving < LEAVES_CLOSING || client->leaving == SENDS_NONSENSE) return false;
    if (client->moved < client->leave_at) return false;
    client->misbehaved = true;
    if (client->leaving == LEAVES_CLOSING || client->leaving == LEAVES_RESETTING) {
        client_judge_end(client);
        return true;
    }
    if (!client->stopped) client->progress_ns = sim.now_ns;
    client->stopped = true;
    if (sock_is_over(client->sock)) client_judge_end(client);
    return client->done;
}

/* Nobody may accept it any more. */
static bool gives_up(const struct client *client) {
    return world.draining && !sock_is_open(client->sock) &&
           sim.now_ns > client->progress_ns + SIM_SECOND;
}

static void client_opening(struct client *client) {
    enum tls_opening opening = tls_end_opening(client->sock);
    if (opening == TLS_OPENING_DONE) {
        client->opened = true;
        client->progress_ns = sim.now_ns;
        if (!client->tcp) return;
        client->reader.state = READ_RAW;
        client->reader.id = client->reader.pattern_id = client->asked[0].id;
        client->reader.side = client->echo ? SIDE_REQUEST : SIDE_ANSWER;
        return;
    }
    bool over = opening == TLS_OPENING_OVER;
    bool lost = client->tcp && (tcp_may_fail() || judge_may_be_cut(&client->asked[0]));
    if (over && !client->misbehaved && !lost && !tls_end_may_be_refused(client->sock)) {
        sim_fail(INVARIANT_ANSWERS, "client %u is refused", client->number);
    }
    if (over || gives_up(client)) client_end(client);
}

static void client_wait(struct client *client) {
    if (client->done) return;
    sim_cancel(&client->timer);
    uint64_t at_ns = sim.now_ns + 50 * SIM_MS;
    if (client->next_write_ns > sim.now_ns && client->next_write_ns < at_ns)
        at_ns = client->next_write_ns;
    if (client->next_read_ns > sim.now_ns && client->next_read_ns < at_ns)
        at_ns = client->next_read_ns;
    sim_event(at_ns, on_timer, client, &client->timer);
}

static void client_step(void *owner) {
    struct client *client = owner;
    if (client->done) return;
    if (!client->opened) client_opening(client);
    if (client->opened && !client->done) {
        if (!client->stopped || client->leaving != STOPS_READING) client_read(client);
        if (client->done || client_leaves(client)) return;
        if (!client->stopped || client->leaving != STOPS_WRITING) client_write(client);
        if (client->done || client_leaves(client)) return;
    }
    if (!client->accepted && client->opened && sock_is_accepted(client->sock)) {
        client->accepted = true;
        client->accepted_ns = client->progress_ns = sim.now_ns;
    }
    /* A request behind another one is not looked at. */
    bool alone = client->accepted && !client->stopped && client->depth == 1 &&
                 !tls_end_breaches(client->sock);
    if (alone && client->answered < client->begun)
        judge_call_time(current(client), client->accepted_ns);
    /* In the backlog it waits for all those before it. */
    uint64_t times = client->accepted ? 1 : CLIENTS_MAX;
    /* One that does not read does not see that its requests are answered one by one. */
    if (client->stopped) times += client->begun - client->answered;
    if (sim.now_ns - client->progress_ns > world.client_limit_ns * times) {
        sim_fail(INVARIANT_TIME, "client %u: nothing has moved for %.1f s: request %u (%s)",
                 client->number, (double)(sim.now_ns - client->progress_ns) / 1e9,
                 current(client)->id, current(client)->method);
    }
    client_wait(client);
}

static void client_secure(struct client *client) {
    struct text header = {0};
    if (world.takes_proxy) put_proxy_header(client, &header);
    struct tls_end_options options = {.is_http = !client->tcp,
                                      .alpn = client->tcp || sim_one_in(2) ? NULL : "http/1.1",
                                      .clear = &header};
    tls_end_begin(client->sock, &options);
    client->misbehaved |= tls_end_breaches(client->sock);
    text_free(&header);
}

static void client_open(void *owner, uint64_t argument) {
    (void)argument;
    struct client *client = owner;
    client->progress_ns = sim.now_ns;
    struct sock_actor actor = {client_step, client};
    uint16_t port = client->tcp ? world.tcp_port : world.http_port;
    client->sock = sock_connect(client->echo ? world.echo_port : port, client->number, actor);
    if (client->tls) client_secure(client);
    client_wait(client);
}

/* What a client that goes on asks for; an upgrade and an Expect come last. */
static void pick_requests(struct client *client) {
    uint32_t count = client->tcp ? 1 : (uint32_t)sim_between(1, ASKED_MAX);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = plan_next(client->number, client->tcp);
        if (id == 0) break;
        requests[id].echo = client->echo;
        client->asked[client->asked_count++] = plan_of(id);
        const struct plan *plan = &client->asked[i];
        if (plan->tunnel != TUNNEL_NONE || plan->expects) break;
    }
}

static void client_start_h1(uint32_t number, uint64_t at_ns, bool tcp) {
    struct client *client = calloc(1, sizeof *client);
    CHECK(client);
    client->number = number;
    client->next = clients;
    clients = client;
    reader_init(&client->reader, true);
    client->tcp = tcp;
    client->echo = tcp && sim_one_in(3);
    client->tls =
        tcp ? world.tls_raw_clients && !(client->echo && world.tls_passes) : world.tls_clients;
    pick_requests(client);
    if (client->asked_count == 0) {
        clients = client->next;
        free(client);
        return;
    }
    client->depth = sim_one_in(2) ? 1 : (uint32_t)sim_between(1, ASKED_MAX);
    client->write_max = actor_step();
    client->read_max = actor_step();
    if (sim_one_in(3)) client->pace_ns = actor_pace(client->write_max, client->read_max);
    client->leaving = client_pick_leaving();
    if (client->leaving == SENDS_NONSENSE)
        client->bad_header = world.takes_proxy && (client->tcp || sim_one_in(2));
    if (client->tcp && client->leaving == SENDS_NONSENSE && !client->bad_header)
        client->leaving = LEAVES_WELL;
    client->leave_at = sim_skewed(200000);
    world.clients_left++;
    sim_at(at_ns, client_open, client, 0);
}

void client_start(uint32_t number, uint64_t at_ns) {
    bool tcp = sim_one_in(4);
    if (!tcp && world.h2_clients && !sim_one_in(4)) {
        h2_client_start(number, at_ns);
    } else {
        client_start_h1(number, at_ns, tcp);
    }
}

void client_free_all(void) {
    h2_client_free_all();
    for (struct client *client = clients; client; client = clients) {
        clients = client->next;
        text_free(&client->out);
        free(client);
    }
}
