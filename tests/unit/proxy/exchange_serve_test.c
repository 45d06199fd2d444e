/* The upstream's side of an exchange: which server it gets, when it has to wait for one, and when
 * its request is sent again. */
#include "proxy/exchange.h"

#include "proxy/exchange_internal.h"

#include "unit/proxy/proxy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define CONFIG                                                                                     \
    "[global]\nworkers = 1\ncpu_affinity = off\n"                                                  \
    "[listener web]\nbind = 127.0.0.1:8080\nupstream = app\n"                                      \
    "[upstream app]\nserver = 127.0.0.1:9001\nserver = 127.0.0.1:9002\n"

static struct proxy_world *world_new(void) { return proxy_world_new(CONFIG); }

static void a_failed_connect_tries_the_next_server(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_POST, "/a", 5);
    client_data(world, "hello");
    client_end(world);
    struct server *first = world->sessions[0].session.user;
    server_closed(&world->sessions[0], REASON_CONNECT_FAILED);
    assert_int_equal(world->session_count, 2);
    assert_ptr_not_equal(world->sessions[1].session.user, first);
    server_ready(&world->sessions[1]);
    assert_string_equal(world->sessions[1].stream.body, "hello");
    server_answer(&world->sessions[1], 200, 0);
    assert_answer(world, 200, REASON_NONE);
    assert_int_equal(world->net->stats.retries[REASON_CONNECT_FAILED], 1);
    proxy_world_free(world);
}

static void when_all_connects_fail_the_last_reason_answers(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_GET, "/a", 0);
    server_closed(&world->sessions[0], REASON_CONNECT_FAILED);
    server_closed(&world->sessions[1], REASON_CONNECT_TIMEOUT);
    assert_answer(world, 504, REASON_NONE);
    assert_int_equal(ended(world, REASON_CONNECT_TIMEOUT), 1);
    assert_int_equal(world->net->stats.connect_failures[REASON_CONNECT_TIMEOUT], 1);
    proxy_world_free(world);

    world = world_new();
    world->no_dial = true;
    client_request(world, HTTP_GET, "/a", 0);
    assert_answer(world, 503, REASON_NONE);
    proxy_world_free(world);
}

/* An idle connection, and on it a request that its server lets down. */
static struct fake_session *begin_reused(struct proxy_world *world, enum http_method method,
                                         uint64_t body_length) {
    client_request(world, HTTP_GET, "/first", 0);
    server_ready(&world->sessions[0]);
    server_answer(&world->sessions[0], 204, 0);
    client_request(world, method, "/again", body_length);
    return &world->sessions[0];
}

/* Having done nothing with it; the connection is lost as well, as these carry one stream. */
static void server_refuses(struct fake_session *session) {
    server_reset(session, REASON_SERVER_REFUSED);
    server_closed(session, REASON_SERVER_RESET);
}

static void a_reused_connection_that_dies_is_made_good_once(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(ONE_SERVER);
    struct fake_session *old = begin_reused(world, HTTP_GET, 0);
    old->stream.stream.sent = true;
    server_reset(old, REASON_SERVER_CLOSED);
    assert_int_equal(world->client.heads + world->client.closes, 0);
    server_closed(old, REASON_SERVER_CLOSED);
    TURN_UNTIL(world->net, world->session_count == 2);
    struct fake_session *fresh = &world->sessions[1];
    server_ready(fresh);
    assert_string_equal(fresh->stream.path, "/again");
    server_reset(fresh, REASON_SERVER_CLOSED); /* not a third time */
    assert_answer(world, 502, REASON_NONE);
    assert_int_equal(world->net->stats.retries[REASON_SERVER_CLOSED], 1);
    proxy_world_free(world);
}

static void what_may_be_sent_again(void **state) {
    (void)state;
    static const struct {
        enum http_method method;
        bool reused, sent, answered;
        enum reason reason;
        bool again;
    } cases[] = {
        {HTTP_GET, true, true, false, REASON_SERVER_RESET, true},
        {HTTP_DELETE, true, true, false, REASON_SERVER_CLOSED, true},
        {HTTP_POST, true, false, false, REASON_SERVER_CLOSED, true},
        {HTTP_POST, true, true, false, REASON_SERVER_CLOSED, false},
        {HTTP_PATCH, true, true, false, REASON_SERVER_RESET, false},
        {HTTP_GET, false, true, false, REASON_SERVER_CLOSED, false},
        {HTTP_GET, true, true, true, REASON_SERVER_CLOSED, false},
        {HTTP_GET, true, true, false, REASON_SERVER_TIMEOUT, false},
        {HTTP_GET, true, true, false, REASON_BAD_RESPONSE, false},
        {HTTP_GET, true, false, false, REASON_NO_MEMORY, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct proxy_world *world = proxy_world_new(ONE_SERVER);
        struct fake_session *old = begin_reused(world, cases[i].method, 0);
        old->stream.stream.reused = cases[i].reused;
        old->stream.stream.sent = cases[i].sent;
        old->stream.stream.answered = cases[i].answered;
        server_reset(old, cases[i].reason);
        server_closed(old, cases[i].reason);
        assert_int_equal(world->client.heads, !cases[i].again);
        if (cases[i].again) {
            TURN_UNTIL(world->net, world->session_count == 2);
            server_ready(&world->sessions[1]);
            server_answer(&world->sessions[1], 200, 0);
        }
        assert_int_equal(world->client.closes, 1);
        proxy_world_free(world);
    }
}

/* Whatever its method, and whether or not the connection was new. */
static void what_a_server_refuses_unseen_goes_to_another(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_POST, "/a", 5);
    client_data(world, "hello");
    client_end(world);
    server_ready(&world->sessions[0]);
    world->sessions[0].stream.stream.sent = true;
    server_refuses(&world->sessions[0]);
    TURN_UNTIL(world->net, world->session_count == 2);
    assert_ptr_not_equal(world->sessions[1].session.user, world->sessions[0].session.user);
    server_ready(&world->sessions[1]);
    assert_string_equal(world->sessions[1].stream.body, "hello");
    server_answer(&world->sessions[1], 200, 0);
    assert_answer(world, 200, REASON_NONE);
    assert_int_equal(world->net->stats.retries[REASON_SERVER_REFUSED], 1);
    proxy_world_free(world);
}

/* There is no other: a new connection may do better. */
static void a_single_server_is_asked_again_twice(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(ONE_SERVER);
    client_request(world, HTTP_POST, "/a", 0);
    for (uint32_t i = 0; i < 3; i++) {
        TURN_UNTIL(world->net, world->session_count == i + 1);
        assert_int_equal(world->client.heads, 0);
        server_ready(&world->sessions[i]);
        server_refuses(&world->sessions[i]);
    }
    assert_answer(world, 503, REASON_NONE);
    assert_int_equal(ended(world, REASON_SERVER_REFUSED), 1);
    proxy_world_free(world);
}

/* What is left of it takes the connection that is there already. */
static void a_connection_that_takes_no_more_says_nothing_of_others(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(ONE_SERVER);
    struct pool_wait other = {.ops = world->proxy.upstreams[0].session_ops};
    enum reason failure;
    client_request(world, HTTP_POST, "/a", 0);
    assert_null(pool_take(proxy_world_server(world, 0), &world->arena, false, &other, &failure));
    pool_cancel(&other);
    server_ready(&world->sessions[1]); /* idle */
    server_ready(&world->sessions[0]);
    world->sessions[0].session.streams_max = 0;
    server_refuses(&world->sessions[0]);
    TURN_UNTIL(world->net, world->sessions[1].session.streams_open == 1);
    assert_int_equal(world->session_count, 2);
    server_answer(&world->sessions[1], 200, 0);
    assert_answer(world, 200, REASON_NONE);
    proxy_world_free(world);
}

static void what_was_answered_or_not_kept_is_not_sent_again_when_refused(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_GET, "/a", 0);
    server_ready(&world->sessions[0]);
    world->sessions[0].stream.stream.answered = true;
    server_refuses(&world->sessions[0]);
    assert_answer(world, 503, REASON_NONE);
    proxy_world_free(world);

    world = world_new();
    client_request(world, HTTP_PUT, "/a", 100);
    server_ready(&world->sessions[0]);
    client_passed(world, 10);
    server_refuses(&world->sessions[0]);
    assert_int_equal(world->client.status, 503);
    assert_int_equal(world->session_count, 1);
    proxy_world_free(world);
}

static void the_kept_body_is_sent_again(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(ONE_SERVER);
    struct fake_session *old = begin_reused(world, HTTP_PUT, 10);
    client_data(world, "hello");
    server_reset(old, REASON_SERVER_RESET);
    assert_true(world->client.paused);
    client_data(world, "wor"); /* was under way */
    server_closed(old, REASON_SERVER_RESET);
    TURN_UNTIL(world->net, world->session_count == 2);
    struct fake_session *fresh = &world->sessions[1];
    server_ready(fresh);
    assert_false(world->client.paused);
    client_data(world, "ld");
    client_end(world);
    assert_string_equal(fresh->stream.body, "helloworld");
    assert_int_equal(fresh->stream.ends, 1);
    server_answer(fresh, 200, 0);
    assert_answer(world, 200, REASON_NONE);
    proxy_world_free(world);
}

static void a_body_that_was_not_kept_is_not_sent_again(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(ONE_SERVER);
    struct fake_session *old = begin_reused(world, HTTP_PUT, 100);
    for (int i = 0; i < 6; i++) /* each piece holds a buffer of 4 KB */
        client_data(world, "hello");
    assert_int_equal(buf_pool_leased(&world->net->net.small), 0);
    server_reset(old, REASON_SERVER_RESET);
    assert_int_equal(world->client.status, 502);
    assert_int_equal(world->client.closes, 1);
    proxy_world_free(world);
}

static void a_client_that_goes_before_the_repetition_is_let_go(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(ONE_SERVER);
    struct fake_session *old = begin_reused(world, HTTP_PUT, 10);
    client_data(world, "hello");
    server_reset(old, REASON_SERVER_RESET);
    client_reset(world, REASON_CLIENT_RESET);
    assert_int_equal(world->client.closes, 1);
    server_closed(old, REASON_SERVER_RESET);
    net_world_turn_for(world->net, 10);
    assert_int_equal(world->session_count, 1);
    proxy_world_free(world);
}

static void a_server_at_its_limit_is_busy(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(
        "[global]\nworkers = 1\ncpu_affinity = off\n[listener web]\nbind = 127.0.0.1:8080\n"
        "upstream = app\n[upstream app]\nqueue = 0\n"
        "server = 127.0.0.1:9001 max_connections=1\n");
    client_request(world, HTTP_GET, "/a", 0);
    client_reset(world, REASON_CLIENT_RESET); /* the dial goes on without it */
    client_request(world, HTTP_GET, "/b", 0);
    assert_answer(world, 503, REASON_NONE);
    assert_int_equal(ended(world, REASON_SERVER_BUSY), 1);
    server_ready(&world->sessions[0]);
    client_request(world, HTTP_GET, "/c", 0);
    assert_int_equal(world->session_count, 1);
    server_answer(&world->sessions[0], 200, 0);
    assert_answer(world, 200, REASON_NONE);
    proxy_world_free(world);
}

/* One server for one request, whose place a dial has that nobody waits for any more. */
static struct proxy_world *world_busy(const char *keys) {
    char text[512];
    snprintf(text, sizeof text,
             "[global]\nworkers = 1\ncpu_affinity = off\n[listener web]\nbind = 127.0.0.1:8080\n"
             "upstream = app\n[upstream app]\nserver = 127.0.0.1:9001 max_connections=1\n%s",
             keys);
    struct proxy_world *world = proxy_world_new(text);
    client_request(world, HTTP_GET, "/gone", 0);
    client_reset(world, REASON_CLIENT_RESET);
    return world;
}

static struct queue *queue_of(struct proxy_world *world) {
    return &world->proxy.upstreams[0].queue;
}

static void a_busy_server_is_waited_for(void **state) {
    (void)state;
    struct proxy_world *world = world_busy("");
    client_request(world, HTTP_POST, "/a", 10);
    assert_int_equal(queue_of(world)->count, 1);
    assert_int_equal(proxy_world_server(world, 0)->balance->in_flight, 0);
    assert_false(world->client.paused); /* a small body is read */
    client_data(world, "hello");
    client_data(world, "world");
    client_end(world);
    server_ready(&world->sessions[0]);
    /* Not from within what made the room. */
    assert_int_equal(world->sessions[0].session.streams, 0);
    TURN_UNTIL(world->net, world->sessions[0].session.streams == 1);
    assert_int_equal(queue_of(world)->count, 0);
    assert_string_equal(world->sessions[0].stream.body, "helloworld");
    assert_int_equal(world->sessions[0].stream.ends, 1);
    server_answer(&world->sessions[0], 200, 0);
    assert_answer(world, 200, REASON_NONE);
    assert_int_equal(world->net->stats.histogram[STAT_HIST_UPSTREAM_QUEUE].count, 1);
    proxy_world_free(world);
}

static void a_connect_that_fails_makes_room(void **state) {
    (void)state;
    struct proxy_world *world = world_busy("");
    client_request(world, HTTP_GET, "/a", 0);
    server_closed(&world->sessions[0], REASON_CONNECT_FAILED);
    TURN_UNTIL(world->net, world->session_count == 2);
    server_ready(&world->sessions[1]);
    server_answer(&world->sessions[1], 200, 0);
    assert_answer(world, 200, REASON_NONE);
    proxy_world_free(world);
}

static void a_large_body_is_not_read_while_its_request_waits(void **state) {
    (void)state;
    struct proxy_world *world = world_busy("");
    client_request(world, HTTP_POST, "/a", EXCHANGE_KEPT_MAX + 1);
    assert_true(world->client.paused);
    client_data(world, "was under way");
    client_reset(world, REASON_CLIENT_RESET);
    client_request(world, HTTP_POST, "/a", EXCHANGE_KEPT_MAX);
    assert_false(world->client.paused);
    client_reset(world, REASON_CLIENT_CLOSED);
    /* Of unknown length: until enough is there. A piece holds a buffer of 4 KB. */
    client_request(world, HTTP_POST, "/a", HTTP_LENGTH_UNKNOWN);
    for (int i = 0; i < 4; i++) {
        assert_false(world->client.paused);
        client_data(world, "x");
    }
    assert_true(world->client.paused);
    server_ready(&world->sessions[0]);
    TURN_UNTIL(world->net, world->sessions[0].session.streams == 1);
    assert_false(world->client.paused);
    client_data(world, "y");
    client_end(world);
    assert_string_equal(world->sessions[0].stream.body, "xxxxy");
    server_answer(&world->sessions[0], 200, 0);
    assert_answer(world, 200, REASON_NONE);
    proxy_world_free(world);
}

/* Of a request that is whole nothing more is awaited but that its client stays. */
static void a_whole_request_listens_while_it_waits(void **state) {
    (void)state;
    struct proxy_world *world = world_busy("");
    client_request(world, HTTP_GET, "/a", 0);
    assert_int_equal(world->client.resumes, 1);
    assert_false(world->client.paused);
    client_reset(world, REASON_CLIENT_RESET);
    proxy_world_free(world);
}

static void who_waits_may_leave(void **state) {
    (void)state;
    static const struct {
        enum reason reason;
        int status;
    } cases[] = {{REASON_CLIENT_CLOSED, 0},
                 {REASON_CLIENT_RESET, 0},
                 {REASON_CLIENT_TOO_SLOW, 408},
                 {REASON_BAD_CHUNK, 400},
                 {REASON_DRAIN_CUT, 503}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct proxy_world *world = world_busy("");
        client_request(world, HTTP_POST, "/a", 10);
        client_data(world, "hel");
        server_ready(&world->sessions[0]); /* its turn is near */
        client_reset(world, cases[i].reason);
        assert_int_equal(queue_of(world)->count, 0);
        assert_int_equal(world->client.status, cases[i].status);
        assert_int_equal(world->client.closes, 1);
        assert_int_equal(ended(world, cases[i].reason),
                         cases[i].reason == REASON_CLIENT_RESET ? 2 : 1);
        net_world_turn_for(world->net, 10);
        assert_int_equal(world->sessions[0].session.streams, 0);
        proxy_world_free(world);
    }
}

static void who_waits_too_long_is_refused(void **state) {
    (void)state;
    struct proxy_world *world = world_busy("timeout_queue = 20ms\n");
    client_request(world, HTTP_GET, "/a", 0);
    uint64_t since_ms = world->net->net.now_ms;
    TURN_UNTIL(world->net, world->client.closes == 1);
    assert_true(world->net->net.now_ms >= since_ms + 20);
    assert_answer(world, 503, REASON_NONE);
    assert_int_equal(ended(world, REASON_QUEUE_TIMEOUT), 1);
    proxy_world_free(world);
}

/* Another user of the same queue, who never takes his turn. */
struct neighbour {
    struct queue_entry entry;
    uint32_t asked;
};

static enum queue_turn neighbour_on_turn(struct queue_entry *entry) {
    LIST_OWNER(entry, struct neighbour, entry)->asked++;
    return QUEUE_PASSED;
}

static void neighbour_on_timeout(struct queue_entry *entry) { (void)entry; /* it has left */ }

static void neighbour_join(struct proxy_world *world, struct neighbour *neighbour) {
    *neighbour = (struct neighbour){.asked = 0};
    queue_entry_init(&neighbour->entry, neighbour_on_turn, neighbour_on_timeout);
    assert_true(queue_join(queue_of(world), &neighbour->entry));
}

static void in_a_full_queue_there_is_no_waiting(void **state) {
    (void)state;
    struct proxy_world *world = world_busy("queue = 1\n");
    struct neighbour neighbour;
    neighbour_join(world, &neighbour);
    client_request(world, HTTP_GET, "/a", 0);
    assert_answer(world, 503, REASON_NONE);
    assert_int_equal(ended(world, REASON_QUEUE_FULL), 1);
    queue_leave(queue_of(world), &neighbour.entry);
    client_request(world, HTTP_GET, "/b", 0);
    assert_int_equal(queue_of(world)->count, 1);
    client_reset(world, REASON_CLIENT_RESET);
    proxy_world_free(world);
}

/* There is room, and yet it is not for who comes last. */
static void nobody_overtakes_those_who_wait(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    struct neighbour neighbour;
    neighbour_join(world, &neighbour);
    client_request(world, HTTP_GET, "/a", 0);
    assert_int_equal(world->session_count, 0);
    assert_int_equal(queue_of(world)->count, 2);
    TURN_UNTIL(world->net, world->session_count == 1);
    assert_int_equal(neighbour.asked, 1); /* before it */
    server_ready(&world->sessions[0]);
    server_answer(&world->sessions[0], 200, 0);
    assert_answer(world, 200, REASON_NONE);
    queue_leave(queue_of(world), &neighbour.entry);
    proxy_world_free(world);
}

static void a_server_that_cannot_be_connected_is_not_waited_for(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(
        "[global]\nworkers = 1\ncpu_affinity = off\n[listener web]\nbind = 127.0.0.1:8080\n"
        "upstream = app\n[upstream app]\nbalance = first\nserver = 127.0.0.1:9001\n"
        "server = 127.0.0.1:9002 max_connections=1\n");
    client_request(world, HTTP_GET, "/gone", 0);
    server_closed(&world->sessions[0], REASON_CONNECT_FAILED);
    client_reset(world, REASON_CLIENT_RESET); /* the dial to the second goes on */
    client_request(world, HTTP_GET, "/a", 0);
    server_closed(&world->sessions[2], REASON_CONNECT_FAILED);
    assert_int_equal(queue_of(world)->count, 1); /* the other one is only busy */
    queue_poke(queue_of(world));
    net_world_turn_for(world->net, 10);
    assert_int_equal(world->session_count, 3); /* the first has room, but was tried */
    server_closed(&world->sessions[1], REASON_CONNECT_FAILED);
    TURN_UNTIL(world->net, world->session_count == 4);
    server_closed(&world->sessions[3], REASON_CONNECT_TIMEOUT);
    assert_answer(world, 504, REASON_NONE); /* now all have failed */
    proxy_world_free(world);
}

/* The place of the connection that died was taken when its request is sent again. */
static void what_is_sent_again_may_have_to_wait(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(
        "[global]\nworkers = 1\ncpu_affinity = off\n[listener web]\nbind = 127.0.0.1:8080\n"
        "upstream = app\n[upstream app]\nserver = 127.0.0.1:9001 max_connections=1\n");
    struct fake_session *old = begin_reused(world, HTTP_PUT, 5);
    client_data(world, "hello");
    server_reset(old, REASON_SERVER_RESET);
    server_closed(old, REASON_SERVER_RESET);
    struct pool_wait other = {.ops = world->proxy.upstreams[0].session_ops};
    enum reason failure;
    assert_null(pool_take(proxy_world_server(world, 0), &world->arena, false, &other, &failure));
    pool_cancel(&other);
    TURN_UNTIL(world->net, queue_of(world)->count == 1);
    assert_false(world->client.paused);
    client_end(world);
    server_closed(&world->sessions[1], REASON_CONNECT_FAILED);
    TURN_UNTIL(world->net, world->session_count == 3);
    server_ready(&world->sessions[2]);
    assert_string_equal(world->sessions[2].stream.body, "hello");
    assert_int_equal(world->sessions[2].stream.ends, 1);
    server_answer(&world->sessions[2], 200, 0);
    assert_answer(world, 200, REASON_NONE);
    proxy_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_connect_tries_the_next_server),
        cmocka_unit_test(when_all_connects_fail_the_last_reason_answers),
        cmocka_unit_test(a_reused_connection_that_dies_is_made_good_once),
        cmocka_unit_test(what_may_be_sent_again),
        cmocka_unit_test(what_a_server_refuses_unseen_goes_to_another),
        cmocka_unit_test(a_single_server_is_asked_again_twice),
        cmocka_unit_test(a_connection_that_takes_no_more_says_nothing_of_others),
        cmocka_unit_test(what_was_answered_or_not_kept_is_not_sent_again_when_refused),
        cmocka_unit_test(the_kept_body_is_sent_again),
        cmocka_unit_test(a_body_that_was_not_kept_is_not_sent_again),
        cmocka_unit_test(a_client_that_goes_before_the_repetition_is_let_go),
        cmocka_unit_test(a_server_at_its_limit_is_busy),
        cmocka_unit_test(a_busy_server_is_waited_for),
        cmocka_unit_test(a_connect_that_fails_makes_room),
        cmocka_unit_test(a_large_body_is_not_read_while_its_request_waits),
        cmocka_unit_test(a_whole_request_listens_while_it_waits),
        cmocka_unit_test(who_waits_may_leave),
        cmocka_unit_test(who_waits_too_long_is_refused),
        cmocka_unit_test(in_a_full_queue_there_is_no_waiting),
        cmocka_unit_test(nobody_overtakes_those_who_wait),
        cmocka_unit_test(a_server_that_cannot_be_connected_is_not_waited_for),
        cmocka_unit_test(what_is_sent_again_may_have_to_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
