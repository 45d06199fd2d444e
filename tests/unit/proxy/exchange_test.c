#include "proxy/exchange.h"

#include "proxy/exchange_internal.h"

#include "unit/proxy/proxy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define CONFIG                                                                                     \
    "[global]\nworkers = 1\ncpu_affinity = off\n"                                                  \
    "[listener web]\nbind = 127.0.0.1:8080\nupstream = app\n"                                      \
    "[route moved]\npath = /old\nredirect = 301 https://$host$uri\n"                               \
    "[route text]\npath = /text\nrespond = 200 hello\n"                                            \
    "[route built_in]\npath = /service\nservice = hi\n"                                            \
    "[service hi]\ntype = respond\nstatus = 200\nbody = from the service\n"                        \
    "[upstream app]\nserver = 127.0.0.1:9001\nserver = 127.0.0.1:9002\n"

static struct proxy_world *world_new(void) { return proxy_world_new(CONFIG); }

static void a_get_goes_through(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_GET, "/a", 0);
    assert_int_equal(world->session_count, 1);
    struct fake_session *server = &world->sessions[0];
    assert_int_equal(proxy_world_server(world, 0)->balance->in_flight +
                         proxy_world_server(world, 1)->balance->in_flight,
                     1);
    server_ready(server);
    assert_string_equal(server->stream.path, "/a");
    assert_string_equal(server->stream.authority, "a.example");
    assert_int_equal(server->stream.ends, 1);
    server_answer(server, 200, 5);
    server_data(world, server, "hello");
    assert_string_equal(world->client.body, "hello");
    server_end(server);
    assert_answer(world, 200, REASON_NONE);
    assert_int_equal(server->stream.reason, REASON_NONE);
    assert_int_equal(ended(world, REASON_NONE), 1);
    proxy_world_free(world);
}

static void the_next_request_takes_the_idle_connection(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(ONE_SERVER);
    for (int i = 0; i < 3; i++) {
        client_request(world, HTTP_GET, "/", 0);
        assert_int_equal(world->session_count, 1);
        if (i == 0) server_ready(&world->sessions[0]);
        server_answer(&world->sessions[0], 204, 0);
        assert_answer(world, 204, REASON_NONE);
    }
    assert_int_equal(stat_get(&world->net->stats, STAT_UPSTREAM_REUSES), 2);
    assert_int_equal(stat_get(&world->net->stats, STAT_UPSTREAM_CONNECTIONS_IDLE), 1);
    proxy_world_free(world);
}

static void a_body_that_comes_before_the_connection_is_kept(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_POST, "/a", 10);
    assert_true(world->client.paused);
    client_data(world, "hello");
    client_data(world, "world");
    client_end(world);
    struct fake_session *server = &world->sessions[0];
    server_ready(server);
    assert_string_equal(server->stream.body, "helloworld");
    assert_int_equal(server->stream.ends, 1);
    assert_false(world->client.paused);
    server_answer(server, 200, 0);
    assert_answer(world, 200, REASON_NONE);
    proxy_world_free(world);
}

static void a_full_side_pauses_the_other(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_POST, "/a", 10);
    struct fake_session *server = &world->sessions[0];
    server_ready(server);
    assert_false(world->client.paused);
    server->stream.full = true;
    client_data(world, "hello");
    assert_true(world->client.paused);
    server_drained(server);
    assert_false(world->client.paused);
    client_data(world, "world");
    client_end(world);
    server_answer(server, 200, 10);
    world->client.full = true;
    server_data(world, server, "hello");
    assert_true(server->stream.paused);
    client_drained(world);
    assert_false(server->stream.paused);
    server_data(world, server, "world");
    server_end(server);
    assert_answer(world, 200, REASON_NONE);
    proxy_world_free(world);
}

/* A POST of which three bytes have come when its server has answered in full. */
static struct proxy_world *answered_early(uint64_t body_length, bool last) {
    struct proxy_world *world = world_new();
    client_request(world, HTTP_POST, "/a", body_length);
    struct fake_session *server = &world->sessions[0];
    server_ready(server);
    client_data(world, "hel");
    world->client.stream.last = last;
    world->client.stream.ops->pause(&world->client.stream); /* the server had stopped reading */
    server_answer(server, 403, 0);
    assert_int_equal(world->client.ends, 1);
    assert_int_equal(server->stream.closes, 1);
    return world;
}

static void a_server_may_answer_before_the_request_is_whole(void **state) {
    (void)state;
    struct proxy_world *world = answered_early(10, false);
    assert_int_equal(world->client.closes, 0);
    assert_false(world->client.paused);
    client_data(world, "lo");
    assert_int_equal(world->client.closes, 0);
    client_data(world, "world");
    client_end(world);
    assert_answer(world, 403, REASON_NONE);
    assert_int_equal(ended(world, REASON_NONE), 1);
    proxy_world_free(world);
}

static void after_an_early_answer_a_long_rest_is_not_read(void **state) {
    (void)state;
    struct proxy_world *world = answered_early(3 + EXCHANGE_REST_MAX, false);
    assert_int_equal(world->client.closes, 0);
    client_reset(world, REASON_CLIENT_CLOSED); /* it has its answer */
    assert_answer(world, 403, REASON_NONE);
    assert_int_equal(ended(world, REASON_NONE), 1);
    proxy_world_free(world);
    world = answered_early(3 + EXCHANGE_REST_MAX + 1, false);
    assert_answer(world, 403, REASON_NONE);
    proxy_world_free(world);
    world = answered_early(10, true); /* nothing to keep it for */
    assert_answer(world, 403, REASON_NONE);
    proxy_world_free(world);
    /* Some of it is on its way in a pipe: nobody knows where the rest would end. */
    world = world_new();
    client_request(world, HTTP_POST, "/a", 10);
    server_ready(&world->sessions[0]);
    client_data(world, "hel");
    world->client.stream.events->on_passed(&world->client.stream, 0);
    server_answer(&world->sessions[0], 403, 0);
    assert_answer(world, 403, REASON_NONE);
    proxy_world_free(world);
    world = answered_early(HTTP_LENGTH_UNKNOWN, false);
    char piece[4001] = "";
    memset(piece, 'x', sizeof piece - 1);
    for (size_t sent = 0; sent + sizeof piece - 1 <= EXCHANGE_REST_MAX; sent += sizeof piece - 1)
        client_data(world, piece);
    assert_int_equal(world->client.closes, 0);
    client_data(world, piece);
    assert_answer(world, 403, REASON_NONE);
    proxy_world_free(world);
}

static void interim_answers_go_through(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_POST, "/a", 3);
    struct fake_session *server = &world->sessions[0];
    server_ready(server);
    server_answer(server, 100, 0);
    assert_int_equal(world->client.interims, 1);
    client_data(world, "abc");
    client_end(world);
    server_answer(server, 103, 0);
    assert_int_equal(world->client.interims, 2);
    server_answer(server, 200, 0);
    assert_answer(world, 200, REASON_NONE);
    proxy_world_free(world);
}

/* How an exchange ends, by where it was and what happened to it. */
enum at { AT_CONNECT, AT_SEND, AT_RESPOND };
static const struct ending {
    enum at at;
    bool by_client;
    enum reason reason;
    int status; /* of the answer; 0: none */
    bool interim;
} endings[] = {
    {AT_CONNECT, true, REASON_CLIENT_CLOSED, 0, false},
    {AT_CONNECT, true, REASON_CLIENT_RESET, 0, false},
    {AT_CONNECT, true, REASON_CLIENT_TIMEOUT, 408, false},
    {AT_CONNECT, true, REASON_DRAIN_CUT, 503, false},
    {AT_SEND, true, REASON_CLIENT_RESET, 0, false},
    {AT_SEND, true, REASON_CLIENT_TOO_SLOW, 408, false},
    {AT_SEND, true, REASON_BAD_CHUNK, 400, false},
    {AT_SEND, true, REASON_BODY_TOO_LARGE, 413, true},
    {AT_SEND, false, REASON_SERVER_TIMEOUT, 504, false},
    {AT_SEND, false, REASON_SERVER_CLOSED, 502, false},
    {AT_SEND, false, REASON_SERVER_RESET, 502, true},
    {AT_SEND, false, REASON_BAD_RESPONSE, 502, false},
    {AT_SEND, false, REASON_NO_MEMORY, 503, false},
    {AT_RESPOND, true, REASON_CLIENT_RESET, 200, false},
    {AT_RESPOND, true, REASON_CLIENT_TIMEOUT, 200, false},
    {AT_RESPOND, true, REASON_DRAIN_CUT, 200, false},
    {AT_RESPOND, false, REASON_SERVER_CLOSED, 200, false},
    {AT_RESPOND, false, REASON_SERVER_TIMEOUT, 200, true},
};

static void run_ending(const struct ending *ending) {
    struct proxy_world *world = world_new();
    client_request(world, HTTP_POST, "/a", 10);
    struct fake_session *server = &world->sessions[0];
    client_data(world, "hel");
    if (ending->at >= AT_SEND) {
        server_ready(server);
        client_data(world, "lo");
    }
    if (ending->interim) server_answer(server, 103, 0);
    if (ending->at == AT_RESPOND) {
        server_answer(server, 200, 5);
        server_data(world, server, "he");
    }
    if (ending->by_client) {
        client_reset(world, ending->reason);
    } else {
        server_reset(server, ending->reason);
    }
    assert_int_equal(world->client.heads, ending->status != 0);
    if (ending->status != 0) assert_int_equal(world->client.status, ending->status);
    if (ending->at != AT_RESPOND && ending->status != 0) {
        assert_int_equal(world->client.ends, 1);
        assert_true(world->client.close_after); /* the rest of the request may still come */
        assert_true(world->client.body_len > 10);
    }
    assert_int_equal(world->client.closes, 1);
    assert_int_equal(world->client.reason, ending->reason);
    if (ending->at != AT_CONNECT) assert_int_equal(server->stream.closes, 1);
    assert_int_equal(ended(world, ending->reason), 1);
    assert_int_equal(world->proxy.cut, ending->reason == REASON_DRAIN_CUT);
    /* A dial without a waiter becomes an idle connection. */
    if (ending->at == AT_CONNECT) {
        server_ready(server);
        assert_int_equal(stat_get(&world->net->stats, STAT_UPSTREAM_CONNECTIONS_IDLE), 1);
    }
    proxy_world_free(world);
}

static void every_ending_has_its_reason_and_its_answer(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
        run_ending(&endings[i]);
}

static void without_slots_a_request_is_refused(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    struct fake_stream kept[2];
    for (int i = 0; i < 2; i++) {
        client_request(world, HTTP_GET, "/", 0);
        kept[i] = world->client;
    }
    struct stream more = {.session = &world->client_session, .arena = &world->arena};
    assert_false(exchange_client_host.on_stream(&world->client_session, &more));
    /* All of them were begun on the one client there is: it stands for each in turn. */
    for (int i = 0; i < 2; i++) {
        world->client = kept[i];
        client_reset(world, REASON_CLIENT_RESET);
    }
    proxy_world_free(world);
}

static void a_redirect_and_a_text_are_answered_here(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_GET, "/old", 0);
    assert_answer(world, 301, REASON_NONE);
    client_request(world, HTTP_GET, "/text", 0);
    assert_answer(world, 200, REASON_NONE);
    assert_string_equal(world->client.body, "hello");
    /* The request's body is waited for, so that the connection stays usable. */
    client_request(world, HTTP_POST, "/text", 5);
    assert_int_equal(world->client.ends, 1);
    assert_int_equal(world->client.closes, 0);
    client_data(world, "hello");
    client_end(world);
    assert_answer(world, 200, REASON_NONE);
    client_request(world, HTTP_POST, "/text", 5);
    client_reset(world, REASON_CLIENT_CLOSED);
    assert_answer(world, 200, REASON_CLIENT_CLOSED);
    assert_int_equal(world->session_count, 0);
    proxy_world_free(world);
}

static void a_service_answers_like_a_server(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_GET, "/service", 0);
    assert_int_equal(world->client.heads, 0);
    TURN_UNTIL(world->net, world->client.closes == 1);
    assert_answer(world, 200, REASON_NONE);
    assert_string_equal(world->client.body, "from the service");
    /* Its answer is whole before the request is. */
    client_request(world, HTTP_POST, "/service", 5);
    world->client.full = true;
    TURN_UNTIL(world->net, world->client.ends == 1);
    assert_int_equal(world->client.closes, 0);
    client_drained(world);
    net_world_turn_for(world->net, 10);
    client_data(world, "hello");
    client_end(world);
    assert_answer(world, 200, REASON_NONE);
    /* The client goes before the answer is given. */
    client_request(world, HTTP_GET, "/service", 0);
    client_reset(world, REASON_CLIENT_RESET);
    net_world_turn_for(world->net, 10);
    assert_int_equal(world->client.heads, 0);
    proxy_world_free(world);
}

static void connect_is_refused(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_CONNECT, "", 0);
    assert_answer(world, 405, REASON_NONE);
    proxy_world_free(world);
}

static struct fake_session *begin_upgrade(struct proxy_world *world, uint64_t body_length) {
    world->request.upgrade = BYTES("chat");
    client_request(world, HTTP_GET, "/ws", body_length);
    struct fake_session *server = &world->sessions[0];
    server_ready(server);
    return server;
}

static void an_upgrade_becomes_a_tunnel(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    struct fake_session *server = begin_upgrade(world, 0);
    server->stream.ends = 0; /* a tunnel begins anew */
    server_answer(server, 101, 0);
    assert_int_equal(world->client.interims, 1);
    assert_true(world->client.tunnelled && server->stream.tunnelled);
    client_data(world, "ping");
    assert_string_equal(server->stream.body, "ping");
    server_data(world, server, "pong");
    assert_string_equal(world->client.body, "pong");
    client_end(world);
    assert_int_equal(server->stream.ends, 1);
    server_data(world, server, "!");
    assert_int_equal(world->client.closes, 0);
    server_end(server);
    assert_int_equal(world->client.closes, 1);
    assert_int_equal(world->client.reason, REASON_NONE);
    assert_int_equal(server->stream.reason, REASON_NONE);
    proxy_world_free(world);
}

static void a_reset_in_a_tunnel_resets_the_other_side(void **state) {
    (void)state;
    for (int by_client = 0; by_client < 2; by_client++) {
        struct proxy_world *world = world_new();
        struct fake_session *server = begin_upgrade(world, 0);
        server->stream.ends = 0;
        server_answer(server, 101, 0);
        enum reason reason = by_client ? REASON_CLIENT_RESET : REASON_SERVER_RESET;
        if (by_client) {
            client_reset(world, reason);
        } else {
            server_reset(server, reason);
        }
        assert_int_equal(world->client.heads, 0); /* no error answer in the middle of it */
        assert_int_equal(world->client.reason, reason);
        assert_int_equal(server->stream.reason, reason);
        proxy_world_free(world);
    }
}

static void an_upgrade_nobody_asked_for_is_a_bad_answer(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_GET, "/", 0);
    server_ready(&world->sessions[0]);
    server_answer(&world->sessions[0], 101, 0);
    assert_answer(world, 502, REASON_NONE);
    proxy_world_free(world);
}

static void an_upgrade_before_the_request_is_whole_is_a_bad_answer(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    struct fake_session *server = begin_upgrade(world, 10);
    client_data(world, "hello");
    server_answer(server, 101, 0);
    assert_int_equal(world->client.status, 502);
    assert_int_equal(world->client.closes, 1);
    proxy_world_free(world);
}

/* The client was paused for the connect, and what came nevertheless was the end of its request. */
static void a_tunnel_begins_unpaused(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    world->request.upgrade = BYTES("chat");
    client_request(world, HTTP_POST, "/ws", 5);
    assert_true(world->client.paused);
    client_data(world, "hello");
    client_end(world);
    struct fake_session *server = &world->sessions[0];
    server_ready(server);
    server->stream.ends = 0;
    server_answer(server, 101, 0);
    assert_false(world->client.paused);
    client_reset(world, REASON_CLIENT_RESET);
    proxy_world_free(world);
}

static uint64_t first_bytes(struct proxy_world *world) {
    return world->net->stats.histogram[STAT_HIST_HTTP_TIME_TO_FIRST_BYTE].count;
}

static void every_answer_has_its_first_byte_observed(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_GET, "/old", 0);
    client_request(world, HTTP_GET, "/text", 0);
    client_request(world, HTTP_CONNECT, "", 0); /* refused */
    assert_int_equal(first_bytes(world), 3);
    client_request(world, HTTP_GET, "/service", 0);
    TURN_UNTIL(world->net, world->client.closes == 1);
    assert_int_equal(first_bytes(world), 4);
    client_request(world, HTTP_GET, "/", 0);
    server_ready(&world->sessions[0]);
    server_answer(&world->sessions[0], 103, 0);
    assert_int_equal(first_bytes(world), 4);
    server_answer(&world->sessions[0], 200, 5);
    assert_int_equal(first_bytes(world), 5);
    client_reset(world, REASON_CLIENT_RESET);
    client_request(world, HTTP_GET, "/", 0);
    client_reset(world, REASON_CLIENT_RESET); /* without an answer */
    assert_int_equal(first_bytes(world), 5);
    proxy_world_free(world);
    world = world_new();
    begin_upgrade(world, 0)->stream.ends = 0;
    server_answer(&world->sessions[0], 101, 0);
    assert_int_equal(first_bytes(world), 1);
    client_reset(world, REASON_CLIENT_RESET);
    proxy_world_free(world);
}

static void h2c_is_not_passed_on(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    world->request.upgrade = BYTES("h2c");
    client_request(world, HTTP_GET, "/", 0);
    server_ready(&world->sessions[0]);
    server_answer(&world->sessions[0], 101, 0);
    assert_answer(world, 502, REASON_NONE);
    proxy_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_get_goes_through),
        cmocka_unit_test(the_next_request_takes_the_idle_connection),
        cmocka_unit_test(a_body_that_comes_before_the_connection_is_kept),
        cmocka_unit_test(a_full_side_pauses_the_other),
        cmocka_unit_test(a_server_may_answer_before_the_request_is_whole),
        cmocka_unit_test(after_an_early_answer_a_long_rest_is_not_read),
        cmocka_unit_test(interim_answers_go_through),
        cmocka_unit_test(every_ending_has_its_reason_and_its_answer),
        cmocka_unit_test(without_slots_a_request_is_refused),
        cmocka_unit_test(a_redirect_and_a_text_are_answered_here),
        cmocka_unit_test(a_service_answers_like_a_server),
        cmocka_unit_test(connect_is_refused),
        cmocka_unit_test(an_upgrade_becomes_a_tunnel),
        cmocka_unit_test(a_reset_in_a_tunnel_resets_the_other_side),
        cmocka_unit_test(an_upgrade_nobody_asked_for_is_a_bad_answer),
        cmocka_unit_test(an_upgrade_before_the_request_is_whole_is_a_bad_answer),
        cmocka_unit_test(a_tunnel_begins_unpaused),
        cmocka_unit_test(every_answer_has_its_first_byte_observed),
        cmocka_unit_test(h2c_is_not_passed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
