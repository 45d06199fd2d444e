#include "proxy/relay.h"

#include "unit/proxy/proxy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define CONFIG                                                                                     \
    "[global]\nworkers = 1\ncpu_affinity = off\n"                                                  \
    "[listener raw]\nbind = 127.0.0.1:8080\nmode = tcp\nupstream = app\n"                          \
    "[upstream app]\nbalance = first\nserver = 127.0.0.1:9001 max_connections=1\n"                 \
    "server = 127.0.0.1:9002 max_connections=1\n"

static struct proxy_world *world_new(void) {
    struct proxy_world *world = proxy_world_new(CONFIG);
    assert_ptr_equal(world->client_session.host, &relay_client_host);
    return world;
}

static uint32_t in_flight(struct proxy_world *world, uint32_t server) {
    return proxy_world_server(world, server)->balance->in_flight;
}

static void assert_ended(struct proxy_world *world, enum reason reason) {
    assert_int_equal(world->client.closes, 1);
    assert_int_equal(world->client.reason, reason);
    assert_int_equal(world->net->stats.relays[reason], 1);
    assert_int_equal(world->net->stats.reasons[reason], 0); /* it was no request */
    assert_int_equal(world->proxy.relays.used, 0);
    assert_int_equal(in_flight(world, 0) + in_flight(world, 1), 0);
}

static void bytes_and_ends_go_through(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    assert_true(client_connect(world));
    assert_false(world->client.tunnelled); /* its session holds what it sends */
    assert_int_equal(in_flight(world, 0), 1);
    struct fake_session *server = &world->sessions[0];
    server_ready(server);
    assert_true(world->client.tunnelled && server->stream.tunnelled);
    client_data(world, "ping");
    assert_string_equal(server->stream.body, "ping");
    server_data(world, server, "pong");
    assert_string_equal(world->client.body, "pong");
    client_end(world);
    assert_int_equal(server->stream.ends, 1);
    assert_int_equal(world->client.closes, 0);
    server_end(server);
    assert_ended(world, REASON_NONE);
    assert_int_equal(server->stream.reason, REASON_NONE);
    assert_true(server->closed); /* never idle */
    assert_int_equal(proxy_world_server(world, 0)->idle_count, 0);
    proxy_world_free(world);
}

static void a_failed_connect_tries_the_next_server(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    assert_true(client_connect(world));
    server_closed(&world->sessions[0], REASON_CONNECT_FAILED);
    assert_int_equal(world->session_count, 2);
    assert_int_equal(in_flight(world, 0), 0);
    assert_int_equal(in_flight(world, 1), 1);
    assert_int_equal(world->net->stats.retries[REASON_CONNECT_FAILED], 1);
    server_ready(&world->sessions[1]);
    client_end(world);
    server_end(&world->sessions[1]);
    assert_ended(world, REASON_NONE);
    proxy_world_free(world);
}

static void the_last_failure_is_the_reason(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    assert_true(client_connect(world));
    server_closed(&world->sessions[0], REASON_CONNECT_FAILED);
    server_closed(&world->sessions[1], REASON_CONNECT_TIMEOUT);
    assert_ended(world, REASON_CONNECT_TIMEOUT);
    proxy_world_free(world);
}

static void a_dial_that_cannot_begin_ends_it_at_once(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    world->no_dial = true;
    assert_true(client_connect(world));
    assert_ended(world, REASON_CONNECT_FAILED);
    proxy_world_free(world);
}

/* Both servers have all they may have. */
static struct proxy_world *world_full(uint32_t queue_max) {
    struct proxy_world *world = world_new();
    world->proxy.upstreams[0].queue.max = queue_max;
    for (uint32_t i = 0; i < 2; i++) {
        proxy_world_server(world, i)->connections_max = 0;
        server_update(proxy_world_server(world, i));
    }
    return world;
}

static void give_room(struct proxy_world *world, uint32_t index) {
    proxy_world_server(world, index)->connections_max = 1;
    server_update(proxy_world_server(world, index));
}

static void without_a_queue_full_servers_are_busy(void **state) {
    (void)state;
    struct proxy_world *world = world_full(0);
    assert_true(client_connect(world));
    assert_ended(world, REASON_SERVER_BUSY);
    assert_int_equal(world->session_count, 0);
    proxy_world_free(world);
}

static void full_servers_are_waited_for(void **state) {
    (void)state;
    struct proxy_world *world = world_full(1);
    struct queue *queue = &world->proxy.upstreams[0].queue;
    assert_true(client_connect(world));
    assert_int_equal(queue->count, 1);
    struct fake_stream first = world->client;
    assert_true(client_connect(world)); /* there is no place for a second one */
    assert_int_equal(world->client.closes, 1);
    assert_int_equal(world->client.reason, REASON_QUEUE_FULL);
    assert_int_equal(world->net->stats.relays[REASON_QUEUE_FULL], 1);
    world->client = first;
    give_room(world, 1);
    assert_int_equal(world->session_count, 0);
    TURN_UNTIL(world->net, world->session_count == 1);
    assert_int_equal(queue->count, 0);
    /* It could not be reached: back to waiting, for the other one only. */
    server_closed(&world->sessions[0], REASON_CONNECT_FAILED);
    assert_int_equal(queue->count, 1);
    queue_poke(queue);
    net_world_turn_for(world->net, 10);
    assert_int_equal(world->session_count, 1);
    give_room(world, 0);
    TURN_UNTIL(world->net, world->session_count == 2);
    server_ready(&world->sessions[1]);
    client_end(world);
    server_end(&world->sessions[1]);
    assert_ended(world, REASON_NONE);
    proxy_world_free(world);
}

static void who_waits_may_leave_or_be_late(void **state) {
    (void)state;
    struct proxy_world *world = world_full(1);
    struct queue *queue = &world->proxy.upstreams[0].queue;
    assert_true(client_connect(world));
    client_reset(world, REASON_CLIENT_RESET);
    assert_ended(world, REASON_CLIENT_RESET);
    assert_int_equal(queue->count, 0);
    queue->timeout_ms = 10;
    assert_true(client_connect(world));
    TURN_UNTIL(world->net, world->client.closes == 1);
    assert_ended(world, REASON_QUEUE_TIMEOUT);
    proxy_world_free(world);
}

static void a_client_that_leaves_takes_its_dial_with_it(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    assert_true(client_connect(world));
    client_reset(world, REASON_CLIENT_RESET);
    assert_ended(world, REASON_CLIENT_RESET);
    assert_true(world->sessions[0].closed);
    proxy_world_free(world);
}

static void a_reset_of_one_side_resets_the_other(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    assert_true(client_connect(world));
    server_ready(&world->sessions[0]);
    client_reset(world, REASON_CLIENT_RESET);
    assert_ended(world, REASON_CLIENT_RESET);
    assert_int_equal(world->sessions[0].stream.reason, REASON_CLIENT_RESET);
    server_closed(&world->sessions[0], REASON_CLIENT_RESET);

    assert_true(client_connect(world));
    server_ready(&world->sessions[1]);
    server_reset(&world->sessions[1], REASON_SERVER_RESET);
    assert_ended(world, REASON_SERVER_RESET);
    assert_int_equal(world->sessions[1].stream.closes, 1);
    proxy_world_free(world);
}

static void without_a_slot_the_client_is_refused(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    struct slab *slab = &world->proxy.relays;
    void *taken[] = {slab_acquire(slab), slab_acquire(slab)};
    assert_false(client_connect(world));
    for (size_t i = 0; i < 2; i++)
        slab_release_object(slab, taken[i]);
    relay_client_host.on_refused(&world->client_session, REASON_NO_MEMORY);
    assert_int_equal(world->net->stats.relays[REASON_NO_MEMORY], 1);
    proxy_world_free(world);
}

static void what_a_drain_cuts_is_counted(void **state) {
    (void)state;
    struct proxy_world *world = world_new();
    relay_client_host.on_closed(&world->client_session, REASON_NONE);
    assert_int_equal(world->proxy.cut, 0);
    relay_client_host.on_closed(&world->client_session, REASON_DRAIN_CUT);
    assert_int_equal(world->proxy.cut, 1);
    proxy_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_and_ends_go_through),
        cmocka_unit_test(a_failed_connect_tries_the_next_server),
        cmocka_unit_test(the_last_failure_is_the_reason),
        cmocka_unit_test(a_dial_that_cannot_begin_ends_it_at_once),
        cmocka_unit_test(without_a_queue_full_servers_are_busy),
        cmocka_unit_test(full_servers_are_waited_for),
        cmocka_unit_test(who_waits_may_leave_or_be_late),
        cmocka_unit_test(a_client_that_leaves_takes_its_dial_with_it),
        cmocka_unit_test(a_reset_of_one_side_resets_the_other),
        cmocka_unit_test(without_a_slot_the_client_is_refused),
        cmocka_unit_test(what_a_drain_cuts_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
