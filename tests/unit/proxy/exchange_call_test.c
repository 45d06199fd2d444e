#include "proxy/exchange_internal.h"

#include "unit/proxy/proxy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define CONFIG                                                                                     \
    "[global]\nworkers = 1\ncpu_affinity = off\n"                                                  \
    "[listener web]\nbind = 127.0.0.1:8080\nupstream = app\n"                                      \
    "[route text]\npath = /text\nrespond = 200 hello\n"                                            \
    "[route set]\npath = /set\nupstream = app\nset_request_header = grpc-timeout: 9S\n"            \
    "[upstream app]\nserver = 127.0.0.1:9001 max_connections=1\nqueue = 5\n"

static struct proxy_world *world_new(void) {
    struct proxy_world *world = proxy_world_new(CONFIG);
    world->content_type = "application/grpc+proto";
    return world;
}

/* A call begins; `timeout` NULL: it has none. Its request has not ended. */
static void client_call(struct proxy_world *world, const char *path, const char *timeout) {
    world->fields[0] =
        (struct http_field){.name = BYTES("content-type"), .value = BYTES("application/grpc")};
    world->fields[1] =
        (struct http_field){.name = BYTES("grpc-timeout"), .value = bytes_of(timeout)};
    world->field_count = timeout ? 2 : 1;
    client_request(world, HTTP_POST, path, HTTP_LENGTH_UNKNOWN);
}

/* Told by a head alone. */
static void assert_told_at_once(const struct proxy_world *world, const char *status) {
    assert_int_equal(world->client.heads, 1);
    assert_int_equal(world->client.status, 200);
    assert_string_equal(world->client.grpc_status, status);
    assert_int_equal(world->client.ends, 1);
    assert_int_equal(world->client.body_len, 0);
    assert_false(world->client.trailers);
    assert_int_equal(world->client.closes, 1);
}

static void assert_told_in_trailers(const struct proxy_world *world, const char *status) {
    assert_int_equal(world->client.heads, 1);
    assert_int_equal(world->client.ends, 1);
    assert_true(world->client.trailers);
    assert_string_equal(world->client.grpc_status, status);
    assert_int_equal(world->client.closes, 1);
}

static void assert_counted(const struct proxy_world *world, enum reason reason) {
    assert_int_equal(world->net->stats.reasons[reason], 1);
    assert_int_equal(world->net->stats.failed_calls[reason], 1);
}

static void a_call_that_reaches_no_server_is_unavailable(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    world->no_dial = true;
    client_call(world, "/a", NULL);
    assert_told_at_once(world, "14");
    assert_true(world->client.close_after); /* the rest of the request is not read */
    assert_counted(world, REASON_CONNECT_FAILED);
    proxy_world_free(world);
}

static void what_is_no_call_gets_an_answer_of_http(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    world->no_dial = true;
    client_request(world, HTTP_POST, "/a", 0);
    assert_int_equal(world->client.status, 503);
    assert_true(world->client.body_len > 0);
    assert_string_equal(world->client.grpc_status, "");
    assert_int_equal(world->net->stats.failed_calls[REASON_CONNECT_FAILED], 0);
    proxy_world_free(world);
}

static void configured_answers_stay_as_they_are(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/text", "1S");
    assert_string_equal(world->client.body, "hello");
    assert_string_equal(world->client.grpc_status, "");
    client_end(world);
    assert_int_equal(world->client.reason, REASON_NONE);
    assert_int_equal(world->net->net.wheel.armed, 0);
    proxy_world_free(world);
}

static void a_server_that_dies_before_its_head_is_unavailable(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/a", NULL);
    server_ready(&world->sessions[0]);
    server_reset(&world->sessions[0], REASON_SERVER_RESET);
    assert_told_at_once(world, "14");
    assert_int_equal(world->client.reason, REASON_SERVER_RESET);
    assert_counted(world, REASON_SERVER_RESET);
    proxy_world_free(world);
}

static void a_server_that_dies_in_mid_call_is_told_in_trailers(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/a", NULL);
    server_ready(&world->sessions[0]);
    server_answer(&world->sessions[0], 200, HTTP_LENGTH_UNKNOWN);
    server_data(world, &world->sessions[0], "half a mess");
    server_reset(&world->sessions[0], REASON_SERVER_CLOSED);
    assert_string_equal(world->client.body, "half a mess");
    assert_told_in_trailers(world, "14");
    assert_counted(world, REASON_SERVER_CLOSED);
    proxy_world_free(world);
}

static void what_a_server_says_by_its_reset_is_told(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/a", NULL);
    server_ready(&world->sessions[0]);
    world->sessions[0].stream.stream.reset_code = 0xb;
    server_reset(&world->sessions[0], REASON_SERVER_RESET);
    assert_told_at_once(world, "8");
    proxy_world_free(world);
}

static void a_reset_in_mid_call_goes_on_as_one(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/a", NULL);
    server_ready(&world->sessions[0]);
    server_answer(&world->sessions[0], 200, HTTP_LENGTH_UNKNOWN);
    world->sessions[0].stream.stream.reset_code = 0x8;
    server_reset(&world->sessions[0], REASON_SERVER_RESET);
    assert_int_equal(world->client.ends, 0);
    assert_int_equal(world->client.reason, REASON_SERVER_RESET);
    assert_int_equal(world->client.stream.reset_code, 0x8);
    proxy_world_free(world);
}

/* An HTML page behind a call: its client goes by HTTP's status, and sees that it is cut. */
static void an_answer_that_is_not_grpc_is_cut(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    world->content_type = "text/html";
    client_call(world, "/a", NULL);
    server_ready(&world->sessions[0]);
    server_answer(&world->sessions[0], 200, HTTP_LENGTH_UNKNOWN);
    server_reset(&world->sessions[0], REASON_SERVER_CLOSED);
    assert_int_equal(world->client.ends, 0);
    assert_int_equal(world->client.reason, REASON_SERVER_CLOSED);
    assert_int_equal(world->net->stats.failed_calls[REASON_SERVER_CLOSED], 0);
    proxy_world_free(world);
}

static void a_client_that_has_gone_is_told_nothing(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/a", "1S");
    server_ready(&world->sessions[0]);
    server_answer(&world->sessions[0], 200, HTTP_LENGTH_UNKNOWN);
    client_reset(world, REASON_CLIENT_RESET);
    assert_int_equal(world->client.ends, 0);
    assert_int_equal(world->sessions[0].stream.reason, REASON_CLIENT_RESET);
    assert_int_equal(world->net->net.wheel.armed, 0);
    proxy_world_free(world);
}

static void a_call_ends_at_its_deadline(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/a", "20m");
    server_ready(&world->sessions[0]);
    uint64_t began_ms = world->net->net.now_ms;
    TURN_UNTIL(world->net, world->client.closes == 1);
    assert_true(world->net->net.now_ms - began_ms >= 20);
    assert_told_at_once(world, "4");
    assert_int_equal(world->sessions[0].stream.reason, REASON_GRPC_DEADLINE);
    assert_counted(world, REASON_GRPC_DEADLINE);
    proxy_world_free(world);
}

static void a_deadline_in_mid_answer_is_told_in_trailers(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/a", "20000u");
    server_ready(&world->sessions[0]);
    server_answer(&world->sessions[0], 200, HTTP_LENGTH_UNKNOWN);
    server_data(world, &world->sessions[0], "one");
    TURN_UNTIL(world->net, world->client.closes == 1);
    assert_told_in_trailers(world, "4");
    assert_int_equal(world->sessions[0].stream.reason, REASON_GRPC_DEADLINE);
    assert_counted(world, REASON_GRPC_DEADLINE);
    proxy_world_free(world);
}

static void a_deadline_holds_while_a_connection_is_made(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/a", "20m");
    TURN_UNTIL(world->net, world->client.closes == 1);
    assert_told_at_once(world, "4");
    server_ready(&world->sessions[0]); /* kept for the next one */
    assert_int_equal(world->sessions[0].stream.heads, 0);
    proxy_world_free(world);
}

/* The server's one place has a dial that nobody waits for any more. */
static void a_deadline_holds_in_the_queue(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_request(world, HTTP_GET, "/gone", 0);
    client_reset(world, REASON_CLIENT_RESET);
    client_call(world, "/a", "20m");
    assert_int_equal(world->proxy.upstreams[0].queue.count, 1);
    TURN_UNTIL(world->net, world->client.closes == 1);
    assert_told_at_once(world, "4");
    assert_int_equal(world->proxy.upstreams[0].queue.count, 0);
    proxy_world_free(world);
}

static void a_call_that_ends_in_time_disarms_its_deadline(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/a", "99999999H");
    assert_int_equal(world->net->net.wheel.armed, 1);
    client_end(world);
    server_ready(&world->sessions[0]);
    assert_string_equal(world->sessions[0].stream.grpc_timeout, "99999999H");
    server_answer(&world->sessions[0], 200, HTTP_LENGTH_UNKNOWN);
    server_end(&world->sessions[0]);
    assert_int_equal(world->client.reason, REASON_NONE);
    assert_int_equal(world->client.closes, 1);
    assert_int_equal(world->net->net.wheel.armed, 0);
    proxy_world_free(world);
}

static void a_deadline_that_is_over_reaches_no_server(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/a", "0m");
    assert_told_at_once(world, "4");
    assert_int_equal(world->session_count, 0);
    assert_counted(world, REASON_GRPC_DEADLINE);
    proxy_world_free(world);
}

static void what_is_no_timeout_goes_on_and_bounds_nothing(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/a", "1 second");
    assert_int_equal(world->net->net.wheel.armed, 0);
    server_ready(&world->sessions[0]);
    assert_string_equal(world->sessions[0].stream.grpc_timeout, "1 second");
    client_reset(world, REASON_CLIENT_RESET);
    proxy_world_free(world);
}

static void the_server_is_told_how_much_is_left(void **state) {
    (void)state;
    const struct {
        const char *given;
        uint64_t ms_ago;
        const char *told;
    } rows[] = {
        {"2S", 0, "2S"},
        {"2S", 500, "1500m"},
        {"2500000u", 500, "2000m"},
        {"99999999S", 500, "99999999S"},
        {"99999999m", 1, "99999998m"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct proxy_world *world = world_new();
        world->began_ms_ago = rows[i].ms_ago;
        client_call(world, "/a", rows[i].given);
        server_ready(&world->sessions[0]);
        assert_string_equal(world->sessions[0].stream.grpc_timeout, rows[i].told);
        client_reset(world, REASON_CLIENT_RESET);
        proxy_world_free(world);
    }
}

static void a_configured_timeout_is_told_as_it_is(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    world->began_ms_ago = 500;
    client_call(world, "/set", "20S");
    server_ready(&world->sessions[0]);
    assert_string_equal(world->sessions[0].stream.grpc_timeout, "9S");
    client_reset(world, REASON_CLIENT_RESET);
    proxy_world_free(world);
}

/* A configured answer has been given in full: the rest of the request is all that is late. */
static void a_deadline_after_the_answer_is_no_failure(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/text", "20m");
    assert_int_equal(world->client.ends, 1);
    assert_int_equal(world->client.closes, 0);
    TURN_UNTIL(world->net, world->client.closes == 1);
    assert_int_equal(world->client.reason, REASON_NONE);
    assert_int_equal(world->net->stats.reasons[REASON_GRPC_DEADLINE], 0);
    proxy_world_free(world);
}

static void the_rest_of_a_call_that_was_answered_is_not_waited_for(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    client_call(world, "/a", NULL);
    server_ready(&world->sessions[0]);
    server_answer(&world->sessions[0], 200, HTTP_LENGTH_UNKNOWN);
    server_end(&world->sessions[0]);
    assert_int_equal(world->client.closes, 1);
    assert_int_equal(world->client.reason, REASON_NONE);
    assert_int_equal(world->sessions[0].stream.closes, 1);
    proxy_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_that_reaches_no_server_is_unavailable),
        cmocka_unit_test(what_is_no_call_gets_an_answer_of_http),
        cmocka_unit_test(configured_answers_stay_as_they_are),
        cmocka_unit_test(a_server_that_dies_before_its_head_is_unavailable),
        cmocka_unit_test(a_server_that_dies_in_mid_call_is_told_in_trailers),
        cmocka_unit_test(what_a_server_says_by_its_reset_is_told),
        cmocka_unit_test(a_reset_in_mid_call_goes_on_as_one),
        cmocka_unit_test(an_answer_that_is_not_grpc_is_cut),
        cmocka_unit_test(a_client_that_has_gone_is_told_nothing),
        cmocka_unit_test(a_call_ends_at_its_deadline),
        cmocka_unit_test(a_deadline_in_mid_answer_is_told_in_trailers),
        cmocka_unit_test(a_deadline_holds_while_a_connection_is_made),
        cmocka_unit_test(a_deadline_holds_in_the_queue),
        cmocka_unit_test(a_call_that_ends_in_time_disarms_its_deadline),
        cmocka_unit_test(a_deadline_that_is_over_reaches_no_server),
        cmocka_unit_test(what_is_no_timeout_goes_on_and_bounds_nothing),
        cmocka_unit_test(the_server_is_told_how_much_is_left),
        cmocka_unit_test(a_configured_timeout_is_told_as_it_is),
        cmocka_unit_test(a_deadline_after_the_answer_is_no_failure),
        cmocka_unit_test(the_rest_of_a_call_that_was_answered_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
