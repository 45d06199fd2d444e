/* The upstream's side of an exchange: which server it gets, when it has to wait for one, and when
 * its request is sent again. */
#include "proxy/exchange.h"

#include "unit/proxy/proxy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define CONFIG                                                                                     \
    "[global]\nworkers = 1\ncpu_affinity = off\n"                                                  \
    "[listener web]\nbind = 127.0.0.1:8080\nupstream = app\n"                                      \
    "[upstream app]\nserver = 127.0.0.1:9001\nserver = 127.0.0.1:9002\n"

static struct proxy_world *world_new(void) { return proxy_world_new(CONFIG); }

static uint64_t ended(struct proxy_world *world, enum reason reason) {
    return world->net->stats.reasons[reason];
}

static void assert_answer(struct proxy_world *world, int status, enum reason closed_with) {
    assert_int_equal(world->client.heads, 1);
    assert_int_equal(world->client.status, status);
    assert_int_equal(world->client.closes, 1);
    assert_int_equal(world->client.reason, closed_with);
    assert_int_equal(world->proxy.exchanges.used, 0);
}

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

#define ONE_SERVER                                                                                 \
    "[global]\nworkers = 1\ncpu_affinity = off\n[listener web]\nbind = 127.0.0.1:8080\n"           \
    "upstream = app\n[upstream app]\nserver = 127.0.0.1:9001\n"

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
        "upstream = app\n[upstream app]\nserver = 127.0.0.1:9001 max_connections=1\n");
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_connect_tries_the_next_server),
        cmocka_unit_test(when_all_connects_fail_the_last_reason_answers),
        cmocka_unit_test(a_reused_connection_that_dies_is_made_good_once),
        cmocka_unit_test(what_may_be_sent_again),
        cmocka_unit_test(the_kept_body_is_sent_again),
        cmocka_unit_test(a_body_that_was_not_kept_is_not_sent_again),
        cmocka_unit_test(a_client_that_goes_before_the_repetition_is_let_go),
        cmocka_unit_test(a_server_at_its_limit_is_busy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
