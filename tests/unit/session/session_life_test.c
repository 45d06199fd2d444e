/* What the protocols share when a session begins and ends, through each of them. */
#include "session/session_life.h"

#include "unit/session/session_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

static const struct session_ops *const protocols[] = {&session_h1, &session_h2, &session_tcp};
#define PROTOCOLS (sizeof protocols / sizeof protocols[0])

static const struct session_host nobody;

/* Nothing is left of a session that could not begin. */
static enum reason fail_to_connect(struct session_world *world, const struct session_ops *ops,
                                   const struct sockaddr *address) {
    struct session_address to = {.address = address, .size = sizeof world->address};
    enum reason reason = REASON_NONE;
    uint32_t before = world->net->net.conns.used;
    assert_null(ops->connect(&world->room, &to, &world->options, &nobody, &reason));
    assert_int_equal(session_room_used(&world->room), 0);
    assert_int_equal(stat_get(&world->net->stats, STAT_SESSION_SLOTS_USED), 0);
    TURN_UNTIL(world->net, world->net->net.conns.used == before);
    return reason;
}

static void a_dial_that_cannot_begin_says_why(void **state) {
    (void)state;
    struct session_world *world = session_world_new(NULL, NULL);
    struct sockaddr_in nowhere = {.sin_family = AF_MAX};
    for (size_t i = 0; i < PROTOCOLS; i++)
        assert_int_equal(fail_to_connect(world, protocols[i], (const struct sockaddr *)&nowhere),
                         REASON_CONNECT_FAILED);
    session_world_free(world);
}

/* The world's room has no place for TLS; the context is never looked at. */
static void a_dial_without_memory_for_tls_is_given_up(void **state) {
    (void)state;
    struct session_options options = session_world_options();
    static const char context;
    options.tls = (const struct tls_context *)(const void *)&context;
    struct session_world *world = session_world_new(&options, NULL);
    const void *address = &world->address;
    for (size_t i = 0; i < PROTOCOLS; i++)
        assert_int_equal(fail_to_connect(world, protocols[i], address), REASON_NO_MEMORY);
    session_world_free(world);
}

static void a_dial_without_a_connections_slot_too(void **state) {
    (void)state;
    struct net_options net_options = net_world_options();
    net_options.conns_max = 1;
    struct session_world *world = session_world_new(NULL, &net_options);
    int fds[2];
    tcp_pair(fds);
    struct conn *conn = conn_accept(&world->net->net, fds[0], NULL, NULL);
    assert_non_null(conn);
    const void *address = &world->address;
    for (size_t i = 0; i < PROTOCOLS; i++)
        assert_int_equal(fail_to_connect(world, protocols[i], address), REASON_NO_MEMORY);
    conn_reset(conn);
    close(fds[1]);
    session_world_free(world);
}

static void an_accepted_session_is_one_of_the_rooms_clients(void **state) {
    (void)state;
    for (size_t i = 0; i < PROTOCOLS; i++) {
        struct session_world *world = session_world_new(NULL, NULL);
        world->ops = protocols[i];
        session_world_accept(world);
        struct session *session = world->session;
        assert_true(session->is_client);
        assert_ptr_equal(session->conn->user, session);
        assert_ptr_equal(world->room.clients.next, &session->link);
        assert_int_equal(session->opened_ns, world->net->net.now_ns);
        assert_int_equal(stat_get(&world->net->stats, STAT_SESSION_SLOTS_USED), 1);
        session->ops->close(session, REASON_DRAIN_CUT);
        TURN_UNTIL(world->net, world->closed == 1);
        assert_true(list_empty(&world->room.clients));
        assert_int_equal(stat_get(&world->net->stats, STAT_SESSION_SLOTS_USED), 0);
        session_world_free(world);
    }
}

static void why_a_connection_was_lost_depends_on_the_side(void **state) {
    (void)state;
    struct session client = {.is_client = true};
    struct session upstream = {.is_client = false};
    assert_int_equal(session_lost_reason(&client, ECONNRESET), REASON_CLIENT_RESET);
    assert_int_equal(session_lost_reason(&client, ETIMEDOUT), REASON_CLIENT_RESET);
    assert_int_equal(session_lost_reason(&upstream, ECONNRESET), REASON_SERVER_RESET);
    assert_int_equal(session_lost_reason(&upstream, ETIMEDOUT), REASON_SERVER_TIMEOUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dial_that_cannot_begin_says_why),
        cmocka_unit_test(a_dial_without_memory_for_tls_is_given_up),
        cmocka_unit_test(a_dial_without_a_connections_slot_too),
        cmocka_unit_test(an_accepted_session_is_one_of_the_rooms_clients),
        cmocka_unit_test(why_a_connection_was_lost_depends_on_the_side),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
