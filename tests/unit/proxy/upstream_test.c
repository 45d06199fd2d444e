#include "proxy/upstream.h"

#include "unit/config/load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static struct config *config_new(const char *upstream) {
    char text[1024];
    snprintf(text, sizeof text,
             "[listener web]\nbind = 127.0.0.1:1\nupstream = app\n[upstream app]\n%s", upstream);
    return load_good(text);
}

static void limits_are_shared_between_workers_and_never_zero(void **state) {
    (void)state;
    static const struct {
        uint32_t whole, workers, share;
    } cases[] = {{1, 1, 1}, {8, 4, 2}, {9, 4, 3}, {1, 4, 1}, {3, 2, 2}, {100, 64, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[200];
        snprintf(text, sizeof text,
                 "keepalive = %u\nqueue = %u\nserver = 127.0.0.1:2 max_connections=%u\n",
                 cases[i].whole, cases[i].whole, cases[i].whole);
        struct config *config = config_new(text);
        struct upstream upstream;
        assert_int_equal(
            upstream_init(&upstream, &config->upstreams[0], NULL, NULL, cases[i].workers), 0);
        assert_int_equal(upstream.servers[0].connections_max, cases[i].share);
        assert_int_equal(upstream.servers[0].idle_max, cases[i].share);
        assert_int_equal(upstream.queue.max, cases[i].share);
        upstream_fini(&upstream);
        config_free(config);
    }
}

static void no_limit_stays_none(void **state) {
    (void)state;
    struct config *config = config_new("keepalive = 0\nqueue = 0\nserver = 127.0.0.1:2\n");
    struct upstream upstream;
    assert_int_equal(upstream_init(&upstream, &config->upstreams[0], NULL, NULL, 4), 0);
    assert_int_equal(upstream.servers[0].connections_max, UINT32_MAX);
    assert_int_equal(upstream.servers[0].idle_max, 0);
    assert_int_equal(upstream.queue.max, 0);
    upstream_fini(&upstream);
    config_free(config);
}

static void every_policy_is_there(void **state) {
    (void)state;
    static const char *const policies[] = {"round_robin", "least_conn", "p2c",  "random",
                                           "source_ip",   "maglev",     "first"};
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        char text[200];
        snprintf(text, sizeof text, "balance = %s\nserver = 127.0.0.1:2\nserver = 127.0.0.1:3\n",
                 policies[i]);
        struct config *config = config_new(text);
        struct upstream upstream;
        assert_int_equal(upstream_init(&upstream, &config->upstreams[0], NULL, NULL, 1), 0);
        struct balance_pick pick = {0};
        assert_true(balance_pick(&upstream.balance, &pick) < 2);
        upstream_fini(&upstream);
        config_free(config);
    }
}

static void a_server_is_available_while_it_has_room_or_an_idle_connection(void **state) {
    (void)state;
    struct config *config = config_new("server = 127.0.0.1:2 max_connections=2\n");
    struct upstream upstream;
    assert_int_equal(upstream_init(&upstream, &config->upstreams[0], NULL, NULL, 1), 0);
    struct server *server = &upstream.servers[0];
    assert_true(server->balance->available);
    server->connections = 2;
    server_update(server);
    assert_false(server->balance->available);
    server->idle_count = 1;
    server_update(server);
    assert_true(server->balance->available);
    upstream_fini(&upstream);
    config_free(config);
}

static void statuses_are_counted_by_class(void **state) {
    (void)state;
    assert_int_equal(upstream_code_class(0), 0);
    assert_int_equal(upstream_code_class(99), 0);
    assert_int_equal(upstream_code_class(101), 1);
    assert_int_equal(upstream_code_class(204), 2);
    assert_int_equal(upstream_code_class(599), 5);
    assert_int_equal(upstream_code_class(600), 0);
    assert_int_equal(upstream_code_class(999), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_are_shared_between_workers_and_never_zero),
        cmocka_unit_test(no_limit_stays_none),
        cmocka_unit_test(every_policy_is_there),
        cmocka_unit_test(a_server_is_available_while_it_has_room_or_an_idle_connection),
        cmocka_unit_test(statuses_are_counted_by_class),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
