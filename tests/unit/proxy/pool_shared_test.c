/* The pool with connections that carry many streams: scripted ones, which say themselves how many
 * they take. */
#include "unit/proxy/mux_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LISTENER                                                                                   \
    "[global]\nworkers = 1\ncpu_affinity = off\n"                                                  \
    "[listener web]\nbind = 127.0.0.1:8080\nupstream = app\n"
#define CONFIG LISTENER "[upstream app]\nkeepalive = 2\nserver = 127.0.0.1:9001\n"

static void many_wait_for_one_dial_and_share_it(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[3];
    take_many(world, waiters, 3);
    assert_int_equal(mux_count, 1);
    assert_gauges(world, 1, 0, 0);
    mux_ready(muxes[0]);
    for (uint32_t i = 0; i < 3; i++) {
        assert_ptr_equal(waiters[i].stream->session, &muxes[0]->session);
        assert_int_equal(waiters[i].stream->reused, i != 0);
    }
    assert_gauges(world, 0, 1, 0);
    /* Each request has dialled one or taken one that was there. */
    assert_int_equal(gauge(world, STAT_UPSTREAM_CONNECTS), 1);
    assert_int_equal(gauge(world, STAT_UPSTREAM_REUSES), 2);
    waiter_close(&waiters[1]);
    assert_gauges(world, 0, 1, 0);
    take(world, &waiters[1]);
    assert_ptr_equal(waiters[1].stream->session, &muxes[0]->session);
    assert_int_equal(gauge(world, STAT_UPSTREAM_REUSES), 3);
    close_many(waiters, 3);
    assert_gauges(world, 0, 0, 1);
    take(world, &waiters[0]);
    assert_ptr_equal(waiters[0].stream->session, &muxes[0]->session);
    assert_gauges(world, 0, 1, 0);
    waiter_close(&waiters[0]);
    shared_world_free(world);
}

static void more_than_a_dial_is_expected_to_take_dial_another(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[9];
    take_many(world, waiters, 9);
    assert_int_equal(mux_count, 3);
    assert_gauges(world, 3, 0, 0);
    for (uint32_t i = 0; i < 3; i++)
        mux_ready(muxes[i]);
    assert_int_equal(muxes[0]->session.streams_open, 4);
    assert_int_equal(muxes[1]->session.streams_open, 4);
    assert_int_equal(muxes[2]->session.streams_open, 1);
    close_many(waiters, 9);
    assert_gauges(world, 0, 0, 2); /* as keepalive has it */
    shared_world_free(world);
}

static void above_a_share_of_the_limit_the_next_is_dialled_in_advance(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[14];
    take(world, &waiters[0]);
    mux_ready(muxes[0]);
    mux_set(muxes[0], 8);
    take_many(world, waiters + 1, 5);
    assert_int_equal(mux_count, 1);
    /* Six of eight: the next gets the seventh at once, and nobody waits for the dial. */
    take(world, &waiters[6]);
    assert_non_null(waiters[6].stream);
    assert_int_equal(mux_count, 2);
    assert_gauges(world, 1, 1, 0);
    take(world, &waiters[7]);
    assert_non_null(waiters[7].stream);
    assert_int_equal(mux_count, 2);
    /* Full: from here on they wait for what is being dialled. */
    take_many(world, waiters + 8, 4);
    assert_null(waiters[8].stream);
    assert_int_equal(mux_count, 2);
    take(world, &waiters[12]);
    assert_int_equal(mux_count, 3);
    mux_ready(muxes[1]);
    assert_int_equal(muxes[1]->session.streams_open, 4);
    mux_ready(muxes[2]);
    /* The one below its share comes before one above it. */
    waiter_close(&waiters[0]);
    take(world, &waiters[0]);
    assert_ptr_equal(waiters[0].stream->session, &muxes[2]->session);
    close_many(waiters, 13);
    shared_world_free(world);
}

static void what_a_server_has_said_holds_for_its_next_connections(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[5];
    take_many(world, waiters, 4);
    assert_int_equal(mux_count, 1);
    mux_ready(muxes[0]);
    mux_set(muxes[0], 2);
    mux_set(muxes[0], 0); /* which says nothing of others */
    close_many(waiters, 4);
    take_many(world, waiters, 5);
    assert_int_equal(mux_count, 4);
    for (uint32_t i = 1; i < 4; i++)
        mux_ready(muxes[i]);
    close_many(waiters, 5);
    mux_set(muxes[3], 100); /* more than is ever expected of a dial */
    for (uint32_t i = 0; i < 4; i++)
        take_as(world, &waiters[i], true, &mux_ops);
    assert_int_equal(mux_count, 5);
    mux_ready(muxes[4]);
    close_many(waiters, 4);
    shared_world_free(world);
}

static void a_server_without_a_limit_gets_another_connection_all_the_same(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    static struct waiter waiters[POOL_LOAD + 2];
    take(world, &waiters[0]);
    mux_ready(muxes[0]);
    mux_set(muxes[0], UINT32_MAX);
    take_many(world, waiters + 1, POOL_LOAD - 1);
    assert_int_equal(mux_count, 1);
    take(world, &waiters[POOL_LOAD]);
    assert_int_equal(mux_count, 2);
    mux_ready(muxes[1]);
    assert_gauges(world, 0, 1, 1);
    /* One in use comes before one that is idle, while it is below its share. */
    waiter_close(&waiters[0]);
    waiter_close(&waiters[1]);
    take(world, &waiters[0]);
    assert_ptr_equal(waiters[0].stream->session, &muxes[0]->session);
    take(world, &waiters[1]);
    assert_ptr_equal(waiters[1].stream->session, &muxes[1]->session);
    take(world, &waiters[POOL_LOAD + 1]);
    assert_ptr_equal(waiters[POOL_LOAD + 1].stream->session, &muxes[1]->session);
    close_many(waiters, POOL_LOAD + 2);
    shared_world_free(world);
}

static void a_dial_in_advance_that_fails_is_not_repeated_at_once(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[5];
    take_many(world, waiters, 3);
    mux_ready(muxes[0]);
    take(world, &waiters[3]); /* three of four is the share */
    assert_int_equal(mux_count, 2);
    mux_gone(muxes[1], REASON_CONNECT_FAILED);
    assert_int_equal(world->net->stats.connect_failures[REASON_CONNECT_FAILED], 1);
    waiter_close(&waiters[3]);
    take(world, &waiters[3]);
    assert_non_null(waiters[3].stream);
    assert_int_equal(mux_count, 2);
    world->net->net.now_ms += 2000;
    waiter_close(&waiters[3]);
    mux_refuses = true; /* nor one that cannot even begin */
    take(world, &waiters[3]);
    mux_refuses = false;
    waiter_close(&waiters[3]);
    take(world, &waiters[3]);
    assert_int_equal(mux_count, 2);
    /* Who needs one has it dialled: it is full. */
    take(world, &waiters[4]);
    assert_int_equal(mux_count, 3);
    mux_ready(muxes[2]);
    close_many(waiters, 5);
    shared_world_free(world);
}

static void a_lowered_limit_holds_for_those_that_come(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[4];
    take_many(world, waiters, 3);
    mux_ready(muxes[0]);
    mux_set(muxes[0], 2);
    assert_int_equal(muxes[0]->session.streams_open, 3);
    take(world, &waiters[3]);
    assert_null(waiters[3].stream);
    assert_int_equal(mux_count, 2);
    pool_cancel(&waiters[3].wait);
    waiter_close(&waiters[0]);
    take(world, &waiters[0]);
    assert_null(waiters[0].stream); /* two of two */
    pool_cancel(&waiters[0].wait);
    waiter_close(&waiters[1]);
    take(world, &waiters[1]);
    assert_ptr_equal(waiters[1].stream->session, &muxes[0]->session);
    waiter_close(&waiters[1]);
    mux_set(muxes[0], 100);
    take(world, &waiters[1]);
    assert_ptr_equal(waiters[1].stream->session, &muxes[0]->session);
    close_many(waiters + 1, 2);
    shared_world_free(world);
}

static void one_that_takes_no_more_ends_with_its_last_stream(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[3];
    take_many(world, waiters, 2);
    mux_ready(muxes[0]);
    mux_set(muxes[0], 0);
    assert_gauges(world, 0, 1, 0);
    take(world, &waiters[2]);
    assert_int_equal(mux_count, 2);
    waiter_close(&waiters[0]);
    assert_false(muxes[0]->closed);
    waiter_close(&waiters[1]);
    assert_true(muxes[0]->closed);
    assert_gauges(world, 1, 0, 0);
    mux_ready(muxes[1]);
    waiter_close(&waiters[2]);
    assert_gauges(world, 0, 0, 1);
    mux_set(muxes[1], 5); /* idle it stays where it is */
    assert_gauges(world, 0, 0, 1);
    mux_set(muxes[1], 0);
    assert_true(muxes[1]->closed);
    assert_gauges(world, 0, 0, 0);
    shared_world_free(world);
}

static void one_waiter_of_several_may_go(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[6];
    take_many(world, waiters, 4);
    pool_cancel(&waiters[1].wait);
    pool_cancel(&waiters[1].wait);
    take(world, &waiters[4]); /* its place is free again */
    assert_int_equal(mux_count, 1);
    take(world, &waiters[5]);
    assert_int_equal(mux_count, 2);
    pool_cancel(&waiters[5].wait);
    mux_ready(muxes[0]);
    assert_null(waiters[1].stream);
    assert_int_equal(muxes[0]->session.streams_open, 4);
    mux_ready(muxes[1]);
    assert_gauges(world, 0, 1, 1);
    close_many(waiters, 1);
    close_many(waiters + 2, 3);
    /* And when all of them go, it becomes idle. */
    take_as(world, &waiters[0], true, &mux_ops);
    take_as(world, &waiters[1], true, &mux_ops);
    assert_int_equal(mux_count, 3);
    pool_cancel(&waiters[0].wait);
    pool_cancel(&waiters[1].wait);
    mux_ready(muxes[2]);
    assert_null(waiters[0].stream);
    assert_gauges(world, 0, 0, 2);
    shared_world_free(world);
}

static void a_failed_dial_is_told_to_all_who_wait_for_it(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[4];
    take_many(world, waiters, 4);
    waiters[0].cancels = &waiters[2];
    mux_gone(muxes[0], REASON_CONNECT_TIMEOUT);
    for (uint32_t i = 0; i < 4; i++) {
        assert_null(waiters[i].stream);
        assert_int_equal(waiters[i].failures, i == 2 ? 0 : 1);
        assert_int_equal(waiters[i].reason, i == 2 ? REASON_NONE : REASON_CONNECT_TIMEOUT);
    }
    assert_int_equal(world->net->stats.connect_failures[REASON_CONNECT_TIMEOUT], 1);
    assert_gauges(world, 0, 0, 0);
    shared_world_free(world);
}

static void who_is_given_a_stream_may_do_anything(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[4];
    take_many(world, waiters, 4);
    waiters[0].closes = waiters[1].closes = waiters[3].closes = true;
    waiters[1].cancels = &waiters[2];
    mux_ready(muxes[0]);
    for (uint32_t i = 0; i < 4; i++)
        assert_null(waiters[i].stream);
    assert_int_equal(muxes[0]->session.streams, 3);
    assert_gauges(world, 0, 0, 1);
    shared_world_free(world);
}

static void what_is_lost_while_streams_are_given_out_fails_the_rest(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[3];
    take_many(world, waiters, 3);
    muxes[0]->lost = true;
    mux_ready(muxes[0]);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(waiters[i].failures, 1);
    shared_world_free(world);
}

/* It lost its connection and has not said so yet. */
static void a_shared_connection_that_is_gone_is_passed_over(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[3];
    take_many(world, waiters, 2);
    mux_ready(muxes[0]);
    muxes[0]->lost = true;
    take(world, &waiters[2]);
    assert_null(waiters[2].stream);
    assert_int_equal(mux_count, 2);
    assert_gauges(world, 1, 1, 0);
    /* Or so it seemed: when one of its streams has ended it is as good as before. */
    muxes[0]->lost = false;
    waiter_close(&waiters[0]);
    take(world, &waiters[0]);
    assert_ptr_equal(waiters[0].stream->session, &muxes[0]->session);
    mux_ready(muxes[1]);
    close_many(waiters, 3);
    shared_world_free(world);
}

/* Neither is it given up, idle or shared, nor is another one dialled, which could not help. */
static void a_connection_stays_where_it_is_while_memory_is_short(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[2];
    take(world, &waiters[0]);
    mux_ready(muxes[0]);
    waiter_close(&waiters[0]);
    assert_gauges(world, 0, 0, 1);
    for (uint32_t shared = 0; shared < 2; shared++) {
        mux_short_of_memory(muxes[0], true);
        take(world, &waiters[1]);
        assert_null(waiters[1].stream);
        assert_int_equal(waiters[1].reason, REASON_NO_MEMORY);
        assert_null(waiters[1].wait.session);
        assert_int_equal(mux_count, 1);
        assert_gauges(world, 0, shared, 1 - shared);
        mux_short_of_memory(muxes[0], false);
        take(world, &waiters[shared]);
        assert_ptr_equal(waiters[shared].stream->session, &muxes[0]->session);
        assert_gauges(world, 0, 1, 0);
    }
    close_many(waiters, 2);
    assert_gauges(world, 0, 0, 1);
    shared_world_free(world);
}

static void fresh_ones_share_what_is_being_dialled_only(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[3];
    take(world, &waiters[0]);
    mux_ready(muxes[0]);
    take_as(world, &waiters[1], true, &mux_ops);
    take_as(world, &waiters[2], true, &mux_ops);
    assert_int_equal(mux_count, 2);
    mux_ready(muxes[1]);
    assert_ptr_equal(waiters[1].stream->session, &muxes[1]->session);
    assert_ptr_equal(waiters[2].stream->session, &muxes[1]->session);
    close_many(waiters, 3);
    shared_world_free(world);
}

static void a_relay_does_not_wait_for_a_shared_dial(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[3];
    take(world, &waiters[0]);
    take_as(world, &waiters[1], true, world->proxy.tcp_ops);
    assert_int_equal(mux_count, 1);
    assert_int_equal(world->session_count, 1);
    take(world, &waiters[2]);
    assert_int_equal(mux_count, 1);
    pool_cancel(&waiters[1].wait);
    assert_true(world->sessions[0].closed);
    mux_ready(muxes[0]);
    waiter_close(&waiters[0]);
    waiter_close(&waiters[2]);
    shared_world_free(world);
}

static void without_keepalive_it_is_shared_as_long_as_it_is_used(void **state) {
    (void)state;
    struct proxy_world *world =
        shared_world(LISTENER "[upstream app]\nkeepalive = 0\nserver = 127.0.0.1:9001\n");
    struct waiter waiters[2];
    take(world, &waiters[0]);
    mux_ready(muxes[0]);
    take(world, &waiters[1]);
    assert_ptr_equal(waiters[1].stream->session, &muxes[0]->session);
    waiter_close(&waiters[0]);
    assert_false(muxes[0]->closed);
    waiter_close(&waiters[1]);
    assert_true(muxes[0]->closed);
    shared_world_free(world);
}

static void while_draining_nothing_is_dialled_in_advance_or_kept(void **state) {
    (void)state;
    struct proxy_world *world = shared_world(CONFIG);
    struct waiter waiters[4];
    take_many(world, waiters, 3);
    mux_ready(muxes[0]);
    world->room.draining = true;
    pool_drain(proxy_world_server(world, 0));
    take(world, &waiters[3]);
    assert_non_null(waiters[3].stream);
    assert_int_equal(mux_count, 1);
    close_many(waiters, 3);
    assert_false(muxes[0]->closed);
    waiter_close(&waiters[3]);
    assert_true(muxes[0]->closed);
    shared_world_free(world);
}

static void with_send_proxy_nothing_is_shared(void **state) {
    (void)state;
    struct proxy_world *world =
        shared_world(LISTENER "[upstream app]\nsend_proxy = v2\nserver = 127.0.0.1:9001\n");
    int fds[2];
    tcp_pair(fds);
    struct conn *conn = conn_accept(&world->net->net, fds[0], NULL, NULL);
    struct session client = {.conn = conn};
    struct waiter waiters[3];
    for (uint32_t i = 0; i < 3; i++) {
        waiters[i] = (struct waiter){.wait = {.ops = &mux_ops,
                                              .on_stream = waiter_on_stream,
                                              .on_failed = waiter_on_failed,
                                              .client = &client}};
        waiters[i].stream = pool_take(proxy_world_server(world, 0), &world->arena, false,
                                      &waiters[i].wait, &waiters[i].reason);
        assert_null(waiters[i].stream);
        assert_int_equal(mux_count, i + 1);
        if (i == 0) mux_ready(muxes[0]);
    }
    mux_ready(muxes[1]);
    waiter_close(&waiters[0]);
    assert_true(muxes[0]->closed);
    pool_cancel(&waiters[2].wait);
    mux_ready(muxes[2]);
    assert_true(muxes[2]->closed);
    waiter_close(&waiters[1]);
    conn_reset(conn);
    shared_world_free(world);
    close(fds[1]);
}

static void max_connections_bounds_requests(void **state) {
    (void)state;
    struct proxy_world *world =
        shared_world(LISTENER "[upstream app]\nserver = 127.0.0.1:9001 max_connections=3\n");
    struct server *server = proxy_world_server(world, 0);
    struct waiter waiters[3];
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(server->balance->available);
        server_enter(server);
        take(world, &waiters[i]);
    }
    assert_false(server->balance->available);
    assert_int_equal(mux_count, 1);
    mux_ready(muxes[0]);
    assert_false(server->balance->available);
    waiter_close(&waiters[0]);
    assert_false(server->balance->available); /* its request has not left yet */
    server_leave(server);
    assert_true(server->balance->available);
    /* A connection that is going counts for nothing. */
    mux_set(muxes[0], 0);
    server_enter(server);
    take(world, &waiters[0]);
    assert_int_equal(waiters[0].reason, REASON_NONE);
    assert_int_equal(mux_count, 2);
    mux_ready(muxes[1]);
    for (uint32_t i = 0; i < 3; i++) {
        waiter_close(&waiters[i]);
        server_leave(server);
    }
    shared_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_wait_for_one_dial_and_share_it),
        cmocka_unit_test(more_than_a_dial_is_expected_to_take_dial_another),
        cmocka_unit_test(above_a_share_of_the_limit_the_next_is_dialled_in_advance),
        cmocka_unit_test(what_a_server_has_said_holds_for_its_next_connections),
        cmocka_unit_test(a_server_without_a_limit_gets_another_connection_all_the_same),
        cmocka_unit_test(a_dial_in_advance_that_fails_is_not_repeated_at_once),
        cmocka_unit_test(a_lowered_limit_holds_for_those_that_come),
        cmocka_unit_test(one_that_takes_no_more_ends_with_its_last_stream),
        cmocka_unit_test(one_waiter_of_several_may_go),
        cmocka_unit_test(a_failed_dial_is_told_to_all_who_wait_for_it),
        cmocka_unit_test(who_is_given_a_stream_may_do_anything),
        cmocka_unit_test(what_is_lost_while_streams_are_given_out_fails_the_rest),
        cmocka_unit_test(a_shared_connection_that_is_gone_is_passed_over),
        cmocka_unit_test(a_connection_stays_where_it_is_while_memory_is_short),
        cmocka_unit_test(fresh_ones_share_what_is_being_dialled_only),
        cmocka_unit_test(a_relay_does_not_wait_for_a_shared_dial),
        cmocka_unit_test(without_keepalive_it_is_shared_as_long_as_it_is_used),
        cmocka_unit_test(while_draining_nothing_is_dialled_in_advance_or_kept),
        cmocka_unit_test(with_send_proxy_nothing_is_shared),
        cmocka_unit_test(max_connections_bounds_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
