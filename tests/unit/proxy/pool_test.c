#include "proxy/pool.h"

#include "unit/proxy/proxy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define CONFIG                                                                                     \
    "[global]\nworkers = 1\ncpu_affinity = off\n"                                                  \
    "[listener web]\nbind = 127.0.0.1:8080\nupstream = app\n"                                      \
    "[upstream app]\nkeepalive = 2\nserver = 127.0.0.1:9001 max_connections=4\n"

struct waiter {
    struct pool_wait wait;
    struct stream *stream;
    uint32_t failures;
    enum reason reason;
};

static void on_stream(struct pool_wait *wait, struct stream *stream) {
    LIST_OWNER(wait, struct waiter, wait)->stream = stream;
}

static void on_failed(struct pool_wait *wait, enum reason reason) {
    struct waiter *waiter = LIST_OWNER(wait, struct waiter, wait);
    waiter->failures++;
    waiter->reason = reason;
}

static void take(struct proxy_world *world, struct waiter *waiter, bool fresh) {
    *waiter = (struct waiter){.wait = {.ops = world->proxy.upstreams[0].session_ops,
                                       .on_stream = on_stream,
                                       .on_failed = on_failed}};
    waiter->stream = pool_take(proxy_world_server(world, 0), &world->arena, fresh, &waiter->wait,
                               &waiter->reason);
}

static void give_back(struct proxy_world *world, struct waiter *waiter) {
    (void)world;
    struct stream *stream = waiter->stream;
    LIST_OWNER(stream, struct fake_stream, stream)->ends = 1; /* it ended well */
    stream->ops->close(stream, REASON_NONE);
}

static uint64_t gauge(struct proxy_world *world, enum stat_id id) {
    return stat_get(&world->net->stats, id);
}

static void assert_gauges(struct proxy_world *world, uint64_t connecting, uint64_t active,
                          uint64_t idle) {
    assert_int_equal(gauge(world, STAT_UPSTREAM_CONNECTIONS_CONNECTING), connecting);
    assert_int_equal(gauge(world, STAT_UPSTREAM_CONNECTIONS_ACTIVE), active);
    assert_int_equal(gauge(world, STAT_UPSTREAM_CONNECTIONS_IDLE), idle);
    assert_int_equal(proxy_world_server(world, 0)->idle_count, idle);
}

static void a_connection_is_counted_where_it_is(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(CONFIG);
    struct waiter waiter;
    take(world, &waiter, false);
    assert_null(waiter.stream);
    assert_int_equal(waiter.reason, REASON_NONE);
    assert_gauges(world, 1, 0, 0);
    server_ready(&world->sessions[0]);
    assert_non_null(waiter.stream);
    assert_gauges(world, 0, 1, 0);
    give_back(world, &waiter);
    assert_gauges(world, 0, 0, 1);
    take(world, &waiter, false);
    assert_non_null(waiter.stream);
    assert_gauges(world, 0, 1, 0);
    assert_int_equal(gauge(world, STAT_UPSTREAM_REUSES), 1);
    assert_int_equal(gauge(world, STAT_UPSTREAM_CONNECTS), 1);
    give_back(world, &waiter);
    server_closed(&world->sessions[0], REASON_SERVER_IDLE);
    assert_gauges(world, 0, 0, 0);
    assert_int_equal(proxy_world_server(world, 0)->connections, 0);
    proxy_world_free(world);
}

static void fresh_does_not_take_an_idle_one(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(CONFIG);
    struct waiter waiter;
    take(world, &waiter, false);
    server_ready(&world->sessions[0]);
    give_back(world, &waiter);
    take(world, &waiter, true);
    assert_null(waiter.stream);
    assert_int_equal(world->session_count, 2);
    server_ready(&world->sessions[1]);
    give_back(world, &waiter);
    assert_gauges(world, 0, 0, 2);
    proxy_world_free(world);
}

static void the_one_used_last_is_taken_first(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(CONFIG);
    struct waiter waiters[2];
    for (int i = 0; i < 2; i++) {
        take(world, &waiters[i], false);
        server_ready(&world->sessions[i]);
    }
    give_back(world, &waiters[1]);
    give_back(world, &waiters[0]);
    struct waiter waiter;
    take(world, &waiter, false);
    assert_ptr_equal(waiter.stream->session, &world->sessions[0].session);
    give_back(world, &waiter);
    proxy_world_free(world);
}

static void with_send_proxy_no_connection_becomes_idle(void **state) {
    (void)state;
    struct proxy_world *world =
        proxy_world_new("[global]\nworkers = 1\ncpu_affinity = off\n"
                        "[listener web]\nbind = 127.0.0.1:8080\nupstream = app\n"
                        "[upstream app]\nsend_proxy = v2\nserver = 127.0.0.1:9001\n");
    int fds[2];
    tcp_pair(fds);
    struct conn *conn = conn_accept(&world->net->net, fds[0], NULL, NULL);
    struct session client = {.conn = conn};
    struct waiter waiters[2];
    for (uint32_t i = 0; i < 2; i++) {
        struct waiter *waiter = &waiters[i];
        *waiter = (struct waiter){.wait = {.ops = world->proxy.upstreams[0].session_ops,
                                           .on_stream = on_stream,
                                           .on_failed = on_failed,
                                           .client = &client}};
        assert_null(pool_take(proxy_world_server(world, 0), &world->arena, false, &waiter->wait,
                              &waiter->reason));
        assert_int_equal(world->session_count, i + 1);
        assert_int_equal(world->told[i].source.any.sa_family, AF_INET);
        assert_int_equal(world->told[i].source.v4.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
        assert_int_not_equal(world->told[i].source.v4.sin_port,
                             world->told[i].destination.v4.sin_port);
    }
    server_ready(&world->sessions[0]);
    give_back(world, &waiters[0]);
    assert_true(world->sessions[0].closed);
    pool_cancel(&waiters[1].wait);
    server_ready(&world->sessions[1]);
    assert_true(world->sessions[1].closed);
    assert_gauges(world, 0, 0, 0);
    conn_reset(conn);
    proxy_world_free(world);
    close(fds[1]);
}

static void of_a_client_that_is_gone_no_server_is_told(void **state) {
    (void)state;
    struct proxy_world *world =
        proxy_world_new("[global]\nworkers = 1\ncpu_affinity = off\n"
                        "[listener web]\nbind = 127.0.0.1:8080\nupstream = app\n"
                        "[upstream app]\nsend_proxy = v1\nserver = 127.0.0.1:9001\n");
    struct session client = {.conn = NULL};
    struct waiter waiter = {.wait = {.ops = world->proxy.upstreams[0].session_ops,
                                     .on_stream = on_stream,
                                     .on_failed = on_failed,
                                     .client = &client}};
    assert_null(pool_take(proxy_world_server(world, 0), &world->arena, false, &waiter.wait,
                          &waiter.reason));
    assert_int_equal(waiter.reason, REASON_CLIENT_RESET);
    assert_int_equal(world->session_count, 0);
    proxy_world_free(world);
}

static void over_the_limit_of_idle_ones_the_oldest_goes(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(CONFIG);
    struct waiter waiters[3];
    for (int i = 0; i < 3; i++) {
        take(world, &waiters[i], false);
        server_ready(&world->sessions[i]);
    }
    for (int i = 0; i < 3; i++)
        give_back(world, &waiters[i]);
    assert_gauges(world, 0, 0, 2);
    assert_true(world->sessions[0].closed);
    assert_false(world->sessions[1].closed || world->sessions[2].closed);
    /* It counts as a connection until it is gone. */
    assert_int_equal(proxy_world_server(world, 0)->connections, 3);
    server_closed(&world->sessions[0], REASON_SERVER_IDLE);
    assert_int_equal(proxy_world_server(world, 0)->connections, 2);
    proxy_world_free(world);
}

static void at_max_connections_the_server_is_busy(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(CONFIG);
    struct server *server = proxy_world_server(world, 0);
    struct waiter waiters[4];
    for (int i = 0; i < 4; i++) {
        assert_true(server->balance->available);
        take(world, &waiters[i], false);
        server_ready(&world->sessions[i]);
    }
    assert_false(server->balance->available);
    struct waiter more;
    take(world, &more, false);
    assert_null(more.stream);
    assert_int_equal(more.reason, REASON_SERVER_BUSY);
    assert_int_equal(world->session_count, 4);
    give_back(world, &waiters[0]);
    assert_true(server->balance->available); /* there is an idle one */
    take(world, &more, false);
    assert_non_null(more.stream);
    assert_false(server->balance->available);
    waiters[0] = more;
    for (int i = 0; i < 4; i++)
        give_back(world, &waiters[i]);
    proxy_world_free(world);
}

static void an_idle_connection_makes_room_for_a_fresh_one(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(CONFIG);
    struct server *server = proxy_world_server(world, 0);
    struct waiter waiters[4];
    for (int i = 0; i < 4; i++) {
        take(world, &waiters[i], false);
        server_ready(&world->sessions[i]);
    }
    give_back(world, &waiters[0]);
    give_back(world, &waiters[1]);
    struct waiter more;
    take(world, &more, true);
    assert_int_equal(more.reason, REASON_NONE);
    assert_true(world->sessions[0].closed); /* the one that was idle longest */
    assert_false(world->sessions[1].closed);
    assert_gauges(world, 1, 2, 1);
    server_closed(&world->sessions[0], REASON_SERVER_IDLE);
    assert_int_equal(server->connections, 4);
    server_ready(&world->sessions[4]);
    waiters[0] = more;
    give_back(world, &waiters[0]);
    give_back(world, &waiters[2]);
    give_back(world, &waiters[3]);
    proxy_world_free(world);
}

static void a_dial_for_one_stream_ends_with_its_waiter(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(CONFIG);
    struct waiter waiter = {
        .wait = {.ops = world->proxy.tcp_ops, .on_stream = on_stream, .on_failed = on_failed}};
    assert_null(pool_take(proxy_world_server(world, 0), NULL, true, &waiter.wait, &waiter.reason));
    assert_gauges(world, 1, 0, 0);
    pool_cancel(&waiter.wait);
    assert_true(world->sessions[0].closed);
    assert_gauges(world, 0, 0, 0);
    server_closed(&world->sessions[0], REASON_SERVER_IDLE);
    assert_null(waiter.stream);
    assert_int_equal(waiter.failures, 0);
    proxy_world_free(world);
}

static void a_waiter_that_goes_leaves_an_idle_connection(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(CONFIG);
    struct waiter waiter;
    take(world, &waiter, false);
    pool_cancel(&waiter.wait);
    pool_cancel(&waiter.wait);
    assert_gauges(world, 1, 0, 0);
    server_ready(&world->sessions[0]);
    assert_null(waiter.stream);
    assert_gauges(world, 0, 0, 1);
    /* And one whose connect fails is told nothing. */
    take(world, &waiter, true);
    pool_cancel(&waiter.wait);
    server_closed(&world->sessions[1], REASON_CONNECT_FAILED);
    assert_int_equal(waiter.failures, 0);
    assert_gauges(world, 0, 0, 1);
    proxy_world_free(world);
}

static void a_failed_connect_is_told_and_counted(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(CONFIG);
    struct waiter waiter;
    take(world, &waiter, false);
    server_closed(&world->sessions[0], REASON_CONNECT_TIMEOUT);
    assert_int_equal(waiter.failures, 1);
    assert_int_equal(waiter.reason, REASON_CONNECT_TIMEOUT);
    assert_gauges(world, 0, 0, 0);
    assert_int_equal(world->net->stats.connect_failures[REASON_CONNECT_TIMEOUT], 1);
    world->no_dial = true;
    take(world, &waiter, false);
    assert_null(waiter.stream);
    assert_int_equal(waiter.reason, REASON_CONNECT_FAILED);
    assert_int_equal(world->net->stats.connect_failures[REASON_CONNECT_FAILED], 1);
    assert_int_equal(proxy_world_server(world, 0)->connections, 0);
    proxy_world_free(world);
}

/* It lost its connection and has not said so yet. */
static void an_idle_connection_that_is_gone_is_passed_over(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(CONFIG);
    struct waiter waiters[2];
    for (int i = 0; i < 2; i++) {
        take(world, &waiters[i], false);
        server_ready(&world->sessions[i]);
    }
    give_back(world, &waiters[0]);
    give_back(world, &waiters[1]);
    world->sessions[1].closed = true;
    struct waiter waiter;
    take(world, &waiter, false);
    assert_ptr_equal(waiter.stream->session, &world->sessions[0].session);
    assert_gauges(world, 0, 1, 0);
    server_closed(&world->sessions[1], REASON_SERVER_IDLE);
    assert_gauges(world, 0, 1, 0);
    give_back(world, &waiter);
    proxy_world_free(world);
}

static void a_drain_closes_the_idle_and_then_what_becomes_idle(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(CONFIG);
    struct waiter waiters[3];
    for (int i = 0; i < 3; i++)
        take(world, &waiters[i], false);
    server_ready(&world->sessions[0]);
    server_ready(&world->sessions[1]);
    give_back(world, &waiters[0]);
    world->room.draining = true;
    pool_drain(proxy_world_server(world, 0));
    assert_true(world->sessions[0].closed);
    assert_false(world->sessions[1].closed);
    assert_gauges(world, 1, 1, 0);
    give_back(world, &waiters[1]);
    assert_true(world->sessions[1].closed);
    pool_cancel(&waiters[2].wait);
    server_ready(&world->sessions[2]);
    assert_true(world->sessions[2].closed);
    assert_gauges(world, 0, 0, 0);
    proxy_world_free(world);
}

static void without_keepalive_nothing_becomes_idle(void **state) {
    (void)state;
    struct proxy_world *world = proxy_world_new(
        "[global]\nworkers = 1\ncpu_affinity = off\n[listener web]\nbind = 127.0.0.1:8080\n"
        "upstream = app\n[upstream app]\nkeepalive = 0\nserver = 127.0.0.1:9001\n");
    struct waiter waiter;
    take(world, &waiter, false);
    server_ready(&world->sessions[0]);
    give_back(world, &waiter);
    assert_true(world->sessions[0].closed);
    assert_gauges(world, 0, 0, 0);
    proxy_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_is_counted_where_it_is),
        cmocka_unit_test(fresh_does_not_take_an_idle_one),
        cmocka_unit_test(the_one_used_last_is_taken_first),
        cmocka_unit_test(with_send_proxy_no_connection_becomes_idle),
        cmocka_unit_test(of_a_client_that_is_gone_no_server_is_told),
        cmocka_unit_test(over_the_limit_of_idle_ones_the_oldest_goes),
        cmocka_unit_test(at_max_connections_the_server_is_busy),
        cmocka_unit_test(an_idle_connection_makes_room_for_a_fresh_one),
        cmocka_unit_test(a_dial_for_one_stream_ends_with_its_waiter),
        cmocka_unit_test(a_waiter_that_goes_leaves_an_idle_connection),
        cmocka_unit_test(a_failed_connect_is_told_and_counted),
        cmocka_unit_test(an_idle_connection_that_is_gone_is_passed_over),
        cmocka_unit_test(a_drain_closes_the_idle_and_then_what_becomes_idle),
        cmocka_unit_test(without_keepalive_nothing_becomes_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
