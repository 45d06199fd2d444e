/* h2_client.c: a client of a run that speaks HTTP/2: one connection, many requests at once, and the
 * judge of what comes back on each stream. */
#include "base/check.h"
#include "proto/h2.h"
#include "sim/actors.h"
#include "sim/h2_ask.h"
#include "sim/judge.h"
#include "sim/tls_end.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Without limits of the other side. */
#define WINDOW_LARGE (1 << 30)
/* Round trips after which what weir has to say of its window has come. */
#define PINGS 2

static struct h2_client *clients;

static void client_step(void *owner);

static void on_timer(void *owner, uint64_t argument) {
    (void)argument;
    client_step(owner);
}

void h2_client_wake(struct h2_client *client, uint64_t at_ns) {
    if (client->done) return;
    sim_cancel(&client->timer);
    sim_event(at_ns, on_timer, client, &client->timer);
}

static void client_end(struct h2_client *client) {
    if (client->done) return;
    client->done = true;
    for (uint32_t i = 0; i < client->asked_count; i++)
        sim_cancel(&client->asked[i].timer);
    for (uint32_t i = 0; i < client->begun; i++)
        requests[client->asked[i].plan.id].left |= client->misbehaved;
    sim_cancel(&client->timer);
    sim_note("h2 client ends", client->number, client->closed, client->misbehaved);
    if (client->leaving == LEAVES_RESETTING) {
        sock_abort(client->link.sock);
    } else {
        sock_close(client->link.sock);
    }
    h2_link_fini(&client->link);
    world.clients_left--;
}

/* The connection has ended. */
static void client_judge_end(struct h2_client *client) {
    for (uint32_t i = 0; i < client->begun; i++)
        h2_ask_close(&client->asked[i], NGHTTP2_NO_ERROR);
    client_end(client);
}

/* What is no HTTP/2, in the middle of it. */
static void send_nonsense(struct h2_client *client) {
    static const char *const frames[] = {
        "\0\0\1\0\0\0\0\0\0x",         /* DATA on stream 0 */
        "\0\0\1\1\4\0\0\0\2\x82",      /* HEADERS on an even one */
        "\0\0\1\1\4\0\0\xff\1\xff",    /* a header block that is none */
        "\0\0\5\4\0\0\0\0\0abcde",     /* SETTINGS of five bytes */
        "\0\0\4\3\0\0\0\xff\xfdzzzz",  /* RST_STREAM of an idle stream */
        "\0\0\4\x8\0\0\0\0\0\0\0\0\0", /* WINDOW_UPDATE of nothing */
        "\xff\xff\xff\0\0\0\0\0\1",    /* far too large */
    };
    static const size_t sizes[] = {10, 10, 10, 14, 13, 13, 9};
    size_t i = (size_t)sim_below(sizeof sizes / sizeof *sizes);
    client->link.may_break = true;
    /* Between two frames, whatever of the last has gone out. */
    text_add(&client->link.out, frames[i], sizes[i]);
}

/* Having had enough, one way or the other. True: gone. */
static bool client_leaves(struct h2_client *client) {
    bool acts = client->leaving >= LEAVES_CLOSING && client->link.moved >= client->leave_at;
    if (!acts || client->done) return client->done;
    bool first = !client->misbehaved;
    client->misbehaved = true;
    if (first) client->progress_ns = sim.now_ns;
    if (client->leaving == LEAVES_CLOSING || client->leaving == LEAVES_RESETTING) {
        client_judge_end(client);
        return true;
    }
    if (client->leaving == SENDS_NONSENSE) {
        if (first) send_nonsense(client);
        return false;
    }
    client->stopped = true;
    if (sock_is_over(client->link.sock)) client_judge_end(client);
    return client->done;
}

/* The answer of a listener with one connection too many is HTTP/1's. */
static void judge_broken(struct h2_client *client) {
    if (!client->link.broken || client->misbehaved) return;
    if (!world.clients_limited && !sim_has(FAULT_FEW_SLOTS)) {
        sim_fail(INVARIANT_BYTES, "client %u gets what is no HTTP/2", client->number);
    }
    client->refused = true;
}

static bool client_has_sent_all(const struct h2_client *client) {
    if (client->begun < client->asked_count || client->link.out_at < client->link.out.len)
        return false;
    for (uint32_t i = 0; i < client->begun; i++) {
        const struct h2_ask *ask = &client->asked[i];
        bool sent = nghttp2_session_get_stream_local_close(client->link.ng, ask->id) != 0;
        if (!ask->closed && !sent) return false;
    }
    return nghttp2_session_want_write(client->link.ng) == 0;
}

/* What it has sent into a tunnel last may still be on its way: a close with something unread would
 * take it back. */
static bool client_waits_for_fin(struct h2_client *client) {
    bool tunnels = false;
    for (uint32_t i = 0; i < client->begun; i++)
        tunnels |= client->asked[i].plan.upgrade;
    if (!tunnels || client->misbehaved) return false;
    bool sends = client->link.out_at < client->link.out.len ||
                 nghttp2_session_want_write(client->link.ng) != 0;
    if (sends || client->fin_sent) return true;
    client->fin_sent = true;
    sock_shutdown(client->link.sock);
    return true;
}

/* All streams have ended: what weir had to say since comes, then the window must be there again. */
static void client_finish(struct h2_client *client) {
    bool asks = client->begun < client->asked_count && !client->no_more;
    if (asks || client->closed < client->begun) return;
    bool judged = !client->no_more && !client->misbehaved && !client->fin_sent;
    if (judged && client->pings == 0) {
        client->pings = PINGS + 1;
        client->progress_ns = sim.now_ns;
        CHECK(nghttp2_submit_ping(client->link.ng, NGHTTP2_FLAG_NONE, NULL) == 0);
        h2_link_write(&client->link);
        return;
    }
    if (judged && client->pings > 1) return;
    if (!judged && client_waits_for_fin(client)) return;
    int32_t window = nghttp2_session_get_remote_window_size(client->link.ng);
    /* Without memory an answer to PING may overtake what opens the window. */
    if (judged && window < H2_CONNECTION_WINDOW / 2 && !sim_has(FAULT_FEW_SLOTS)) {
        sim_fail(INVARIANT_WINDOWS, "client %u: without a stream the window is %d", client->number,
                 window);
    }
    client_end(client);
}

/* Once all its requests have gone out: nghttp2 would say it before them. */
static void say_goaway(struct h2_client *client) {
    nghttp2_session *ng = client->link.ng;
    if (!client->says_goaway || client->no_more || client->begun < client->asked_count) return;
    for (uint32_t i = 0; i < client->begun; i++) {
        const struct h2_ask *ask = &client->asked[i];
        if (!ask->closed && !nghttp2_session_get_stream_user_data(ng, ask->id)) return;
    }
    client->no_more = true;
    CHECK(nghttp2_submit_goaway(ng, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0) == 0);
}

static void client_talk(struct h2_client *client) {
    struct h2_link *link = &client->link;
    bool reads = !client->stopped || client->leaving != STOPS_READING;
    bool writes = !client->fin_sent && (!client->stopped || client->leaving != STOPS_WRITING);
    if (reads) h2_link_read(link);
    judge_broken(client);
    if (client_leaves(client)) return;
    while (!client->no_more && client->begun < client->asked_count && !client->refused &&
           client->begun - client->closed < client->depth && writes)
        h2_ask_next(client);
    for (uint32_t i = 0; i < client->begun; i++)
        if (!h2_ask_is_over(&client->asked[i])) h2_ask_go_on(&client->asked[i]);
    say_goaway(client);
    if (writes) h2_link_write(link);
    if (client_leaves(client)) return;
    if (client->leaving == LEAVES_HALF && !client->fin_sent && client_has_sent_all(client)) {
        client->fin_sent = true;
        sock_shutdown(link->sock);
    }
    if (link->fin || link->reset || link->broken) {
        /* Without a frame it may have been that answer, too short for nghttp2 to give it up. */
        client->refused |= link->may_break && world.clients_limited;
        client_judge_end(client);
    } else {
        client_finish(client);
    }
}

static void client_opening(struct h2_client *client) {
    enum tls_opening opening = tls_end_opening(client->link.sock);
    if (opening == TLS_OPENING_DONE) {
        client->opened = true;
        client->progress_ns = sim.now_ns;
        return;
    }
    bool gives_up = world.draining && !sock_is_open(client->link.sock) &&
                    sim.now_ns > client->progress_ns + SIM_SECOND;
    bool over = opening == TLS_OPENING_OVER;
    if (over && !tls_end_may_be_refused(client->link.sock)) {
        sim_fail(INVARIANT_ANSWERS, "client %u is refused", client->number);
    }
    if (over || gives_up) client_end(client);
}

static void judge_time(const struct h2_client *client) {
    /* In the backlog it waits for all those before it. */
    uint64_t times = client->accepted ? 1 : CLIENTS_MAX;
    uint64_t limit_ns = world.client_limit_ns * times;
    for (uint32_t i = 0; i < client->begun && !client->stopped; i++) {
        const struct h2_ask *ask = &client->asked[i];
        bool judged = client->accepted && !tls_end_breaches(client->link.sock);
        if (!ask->closed && !ask->answered && !ask->misbehaved && judged)
            judge_call_time(&ask->plan, client->accepted_ns);
        if (ask->closed || sim.now_ns - ask->progress_ns <= limit_ns) continue;
        sim_fail(INVARIANT_TIME, "client %u: nothing has moved for %.1f s: request %u (%s)",
                 client->number, (double)(sim.now_ns - ask->progress_ns) / 1e9, ask->plan.id,
                 ask->plan.method);
    }
    if (client->stopped) limit_ns *= 1 + client->begun - client->closed;
    if (sim.now_ns - client->progress_ns <= limit_ns || client->begun > client->closed) return;
    sim_fail(INVARIANT_TIME, "client %u: its end takes %.1f s", client->number,
             (double)(sim.now_ns - client->progress_ns) / 1e9);
}

static void client_step(void *owner) {
    struct h2_client *client = owner;
    if (client->done) return;
    if (!client->opened) client_opening(client);
    if (client->opened && !client->done) client_talk(client);
    if (client->done) return;
    if (!client->accepted && client->opened && sock_is_accepted(client->link.sock)) {
        client->accepted = true;
        client->accepted_ns = client->progress_ns = sim.now_ns;
        for (uint32_t i = 0; i < client->begun; i++)
            client->asked[i].progress_ns = sim.now_ns;
    }
    judge_time(client);
    uint64_t next_ns = h2_link_next_ns(&client->link);
    uint64_t latest_ns = sim.now_ns + 50 * SIM_MS;
    h2_client_wake(client, next_ns < latest_ns ? next_ns : latest_ns);
}

static void on_window_due(void *owner, uint64_t argument) {
    (void)argument;
    struct h2_client *client = owner;
    if (client->done) return;
    h2_link_open_window(&client->link);
    h2_client_wake(client, sim.now_ns);
}

static void put_settings(struct h2_client *client) {
    static const uint32_t windows[] = {2000, 20000, 65535, 300000};
    bool half = client->leaving == LEAVES_HALF;
    uint32_t window = half ? WINDOW_LARGE : windows[sim_below(4)];
    if (!half && h2_link_begins_shut()) {
        window = 0;
        sim_at(sim.now_ns + sim_skewed(SIM_SECOND), on_window_due, client, 0);
    }
    nghttp2_session *ng = client->link.ng;
    const nghttp2_settings_entry entries[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window},
                                              {NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    CHECK(nghttp2_submit_settings(ng, NGHTTP2_FLAG_NONE, entries, 2) == 0);
    if (!half) return;
    CHECK(nghttp2_session_set_local_window_size(ng, NGHTTP2_FLAG_NONE, 0, WINDOW_LARGE) == 0);
}

static void client_open(void *owner, uint64_t argument) {
    (void)argument;
    struct h2_client *client = owner;
    struct h2_link *link = &client->link;
    client->progress_ns = sim.now_ns;
    h2_link_init(link, h2_ask_callbacks(), false);
    struct text header = {0};
    if (world.takes_proxy)
        plan_proxy_header(client->number, world.tls_clients ? &header : &link->out);
    put_settings(client);
    /* The preface comes before SETTINGS are due. */
    struct sock_actor actor = {client_step, client};
    link->sock = sock_connect(world.http_port, client->number, actor);
    struct tls_end_options options = {.is_http = true, .alpn = "h2", .clear = &header};
    if (world.tls_clients) tls_end_begin(link->sock, &options);
    text_free(&header);
    client->misbehaved |= tls_end_breaches(link->sock);
    link->may_break |= client->misbehaved;
    h2_client_wake(client, sim.now_ns + 50 * SIM_MS);
}

static enum mood pick_mood(void) {
    if (sim_has(FAULT_STREAM_SLOW) && sim_one_in(4)) return MOOD_SLOW;
    if (sim_has(FAULT_STREAM_STOPS) && sim_one_in(6)) return MOOD_STOPS;
    return sim_has(FAULT_STREAM_RESETS) && sim_one_in(4) ? MOOD_RESETS : MOOD_WELL;
}

static void pick_requests(struct h2_client *client) {
    uint32_t most = sim_has(FAULT_SLOW_NETWORK) ? 4 : H2_ASKED_MAX;
    uint32_t count = (uint32_t)sim_between(1, most);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = plan_next(client->number, false);
        if (id == 0) return;
        requests[id].h2 = true;
        struct h2_ask *ask = &client->asked[client->asked_count++];
        *ask = (struct h2_ask){.client = client,
                               .plan = plan_of(id),
                               .mood = pick_mood(),
                               .leave_at = sim_skewed(100000)};
    }
}

void h2_client_start(uint32_t number, uint64_t at_ns) {
    struct h2_client *client = calloc(1, sizeof *client);
    CHECK(client);
    client->number = number;
    client->next = clients;
    clients = client;
    pick_requests(client);
    struct h2_link *link = &client->link;
    *link = (struct h2_link){.write_max = actor_step(), .read_max = actor_step()};
    snprintf(link->name, sizeof link->name, "client %u", number);
    if (sim_one_in(3)) link->pace_ns = actor_pace(link->write_max, link->read_max) / 4;
    /* Whether it is one too many only its first answer shows. */
    link->may_break = world.clients_limited || sim_has(FAULT_FEW_SLOTS);
    client->depth = sim_one_in(4) ? 1 : (uint32_t)sim_between(1, H2_ASKED_MAX);
    client->leaving = client_pick_leaving();
    client->leave_at = sim_skewed(200000);
    client->says_goaway = sim_one_in(8);
    if (client->asked_count == 0) return;
    world.clients_left++;
    sim_at(at_ns, client_open, client, 0);
}

void h2_client_free_all(void) {
    for (struct h2_client *client = clients; client; client = clients) {
        clients = client->next;
        if (client->link.ng) h2_link_fini(&client->link);
        free(client);
    }
}
