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

static const struct upstream_share alone = {0, 1};

/* What all workers together get of a limit, of each kind; no worker gets nothing. */
static void limits_add_up_over_the_workers(void **state) {
    (void)state;
    static const uint32_t wholes[] = {1, 2, 3, 7, 8, 9, 63, 64, 65, 100};
    static const uint32_t counts[] = {1, 2, 3, 4, 64};
    for (size_t i = 0; i < sizeof wholes / sizeof wholes[0]; i++) {
        uint32_t whole = wholes[i];
        char text[200];
        snprintf(text, sizeof text,
                 "keepalive = %u\nqueue = %u\nserver = 127.0.0.1:2 max_connections=%u\n"
                 "server = 127.0.0.1:3 max_connections=%u\n",
                 whole, whole, whole, whole);
        struct config *config = config_new(text);
        for (size_t j = 0; j < sizeof counts / sizeof counts[0]; j++) {
            uint32_t connections[2] = {0, 0}, idle = 0, queued = 0;
            for (struct upstream_share share = {0, counts[j]}; share.worker < share.workers;
                 share.worker++) {
                struct upstream upstream;
                assert_int_equal(upstream_init(&upstream, &config->upstreams[0], NULL, NULL, share),
                                 0);
                assert_in_range(upstream.servers[0].connections_max, 1, whole);
                connections[0] += upstream.servers[0].connections_max;
                connections[1] += upstream.servers[1].connections_max;
                idle += upstream.servers[0].idle_max;
                queued += upstream.queue.max;
                upstream_fini(&upstream);
            }
            uint32_t wanted = whole > counts[j] ? whole : counts[j];
            assert_int_equal(connections[0], wanted);
            assert_int_equal(connections[1], wanted);
            assert_int_equal(idle, wanted);
            assert_int_equal(queued, wanted);
        }
        config_free(config);
    }
}

/* Else the first worker would have twice as many connections as the second. */
static void what_is_left_over_goes_to_different_workers(void **state) {
    (void)state;
    struct config *config = config_new("server = 127.0.0.1:2 max_connections=3\n"
                                       "server = 127.0.0.1:3 max_connections=3\n");
    for (struct upstream_share share = {0, 2}; share.worker < 2; share.worker++) {
        struct upstream upstream;
        assert_int_equal(upstream_init(&upstream, &config->upstreams[0], NULL, NULL, share), 0);
        assert_int_equal(upstream.servers[0].connections_max + upstream.servers[1].connections_max,
                         3);
        upstream_fini(&upstream);
    }
    config_free(config);
}

static void no_limit_stays_none(void **state) {
    (void)state;
    struct config *config = config_new("keepalive = 0\nqueue = 0\nserver = 127.0.0.1:2\n");
    struct upstream upstream;
    assert_int_equal(
        upstream_init(&upstream, &config->upstreams[0], NULL, NULL, (struct upstream_share){0, 4}),
        0);
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
        assert_int_equal(upstream_init(&upstream, &config->upstreams[0], NULL, NULL, alone), 0);
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
    assert_int_equal(upstream_init(&upstream, &config->upstreams[0], NULL, NULL, alone), 0);
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
        cmocka_unit_test(limits_add_up_over_the_workers),
        cmocka_unit_test(what_is_left_over_goes_to_different_workers),
        cmocka_unit_test(no_limit_stays_none),
        cmocka_unit_test(every_policy_is_there),
        cmocka_unit_test(a_server_is_available_while_it_has_room_or_an_idle_connection),
        cmocka_unit_test(statuses_are_counted_by_class),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
