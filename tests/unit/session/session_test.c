#include "session/session.h"

#include "unit/session/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

static void the_clients_address_is_asked_for_once(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    assert_int_equal(getsockname(world->peer, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(world->session->client_ip_size, 0);
    struct bytes ip = session_client_ip(world->session);
    assert_true(bytes_equal(ip, BYTES("127.0.0.1")));
    assert_int_equal(world->session->client_port, ntohs(address.sin_port));
    struct bytes again = session_client_ip(world->session);
    assert_ptr_equal(again.ptr, ip.ptr);
    session_world_free(world);
}

static void of_a_lost_connection_the_address_is_unknown(void **state) {
    (void)state;
    struct session session = {.conn = NULL};
    assert_true(bytes_equal(session_client_ip(&session), BYTES("unknown")));
    assert_true(bytes_equal(session_client_ip(&session), BYTES("unknown")));
}

static void a_room_without_slots_takes_no_connection(void **state) {
    (void)state;
    struct net_options net_options = net_world_options();
    struct session_world *world = session_world_new(NULL, &net_options);
    struct session_host host = {0};
    session_world_accept(world);
    for (uint32_t i = 1; i < 16; i++) {
        void *slot = slab_acquire(&world->room.sessions);
        assert_non_null(slot);
    }
    int fds[2];
    tcp_pair(fds);
    struct conn *conn = conn_accept(&world->net->net, fds[0], NULL, NULL);
    assert_non_null(conn);
    assert_null(session_h1.accept(&world->room, conn, &world->options, &host));
    conn_reset(conn); /* as its listener does then */
    peer_expect_reset(world->net, fds[1]);
    close(fds[1]);
    for (uint32_t i = 1; i < 16; i++)
        slab_release_object(&world->room.sessions, slab_at(&world->room.sessions, i));
    session_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_clients_address_is_asked_for_once),
        cmocka_unit_test(of_a_lost_connection_the_address_is_unknown),
        cmocka_unit_test(a_room_without_slots_takes_no_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
