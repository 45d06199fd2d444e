/* Long bodies that pass by themselves: what the exchange asks for, and what it then cannot do. */
#include "unit/proxy/proxy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* Nobody has a copy of what a pump has taken, also before any of it has reached the server. */
static void a_body_on_its_way_is_not_sent_again(void **state) {
    (void)state;
    for (uint64_t bytes = 0; bytes < 2; bytes++) {
        struct proxy_world *world = proxy_world_new(ONE_SERVER);
        struct fake_session *old = &world->sessions[0];
        client_request(world, HTTP_GET, "/", 0);
        server_ready(old);
        server_answer(old, 204, 0);
        client_request(world, HTTP_PUT, "/again", 100000);
        old->stream.stream.sent = true;
        client_data(world, "hello");
        client_passed(world, bytes);
        assert_int_equal(buf_pool_leased(&world->net->net.small), 0);
        assert_int_equal(old->stream.passed, bytes);
        server_reset(old, REASON_SERVER_RESET);
        assert_int_equal(world->client.status, 502);
        assert_int_equal(world->client.closes, 1);
        proxy_world_free(world);
    }
}

static void a_long_body_is_passed_on_as_soon_as_there_is_a_server(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(ONE_SERVER);
    client_request(world, HTTP_PUT, "/", 100000);
    client_data(world, "a small piece"); /* as if it were not a stream */
    assert_int_equal(world->client.passes, 0);
    server_ready(&world->sessions[0]);
    assert_string_equal(world->sessions[0].stream.body, "a small piece");
    assert_int_equal(world->client.passes, 1);
    client_data(world, ", another");
    assert_int_equal(world->client.passes, 1);
    world->client.stream.bulk = true;
    client_data(world, ", and much");
    assert_int_equal(world->client.passes, 2);
    client_end(world);
    server_answer(&world->sessions[0], 200, 100000);
    assert_int_equal(world->sessions[0].stream.passes, 0); /* it has not said that much comes */
    world->sessions[0].stream.stream.bulk = true;
    server_data(world, &world->sessions[0], "much");
    assert_int_equal(world->sessions[0].stream.passes, 1);
    server_end(&world->sessions[0]);
    assert_int_equal(world->client.status, 200);
    assert_int_equal(world->client.closes, 1);
    proxy_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_on_its_way_is_not_sent_again),
        cmocka_unit_test(a_long_body_is_passed_on_as_soon_as_there_is_a_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
