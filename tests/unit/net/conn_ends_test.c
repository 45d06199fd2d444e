#include "net/conn.h"

#include "net/conn_ends.h"
#include "net/pp.h"

#include "unit/net/conn_user.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct net_world *world_new(uint32_t ends_max) {
    struct net_options options = net_world_options();
    options.ends_max = ends_max;
    return net_world_new(&options);
}

static struct addr_pair some_ends(void) {
    struct addr_pair ends = {
        .source.v4 = {.sin_family = AF_INET, .sin_port = htons(4711)},
        .destination.v4 = {.sin_family = AF_INET, .sin_port = htons(443)},
    };
    ends.source.v4.sin_addr.s_addr = inet_addr("203.0.113.9");
    ends.destination.v4.sin_addr.s_addr = inet_addr("198.51.100.1");
    return ends;
}

static struct conn_user *dial(struct net_world *world, const struct sockaddr_in *address,
                              unsigned version, const struct addr_pair *ends, int *error) {
    struct conn_dial_options options = {.address = (const struct sockaddr *)address,
                                        .address_size = sizeof *address,
                                        .deadline_ms = world->net.now_ms + 5000,
                                        .pp_version = (uint8_t)version,
                                        .pp_ends = ends};
    struct conn_user *user = calloc(1, sizeof *user);
    assert_non_null(user);
    user->world = world;
    user->conn = conn_dial(&world->net, &options, &conn_user_events, user, error);
    return user;
}

static void what_was_set_stands_for_the_sockets_ends(void **state) {
    (void)state;
    struct net_world *world = world_new(1);
    struct addr_pair ends = some_ends();
    int peers[2];
    struct conn_user *users[2];
    for (size_t i = 0; i < 2; i++)
        users[i] = conn_user_accept(world, &peers[i]);
    assert_true(conn_set_ends(users[0]->conn, &ends));
    assert_true(conn_set_ends(users[0]->conn, &ends));
    assert_int_equal(world->net.ends.used, 1);
    assert_false(conn_set_ends(users[1]->conn, &ends));
    union addr address;
    assert_true(conn_source(users[0]->conn, &address));
    assert_int_equal(address.v4.sin_port, htons(4711));
    assert_true(conn_destination(users[0]->conn, &address));
    assert_int_equal(address.v4.sin_port, htons(443));
    struct sockaddr_in own;
    socklen_t size = sizeof own;
    assert_int_equal(getpeername(peers[1], (struct sockaddr *)&own, &size), 0);
    assert_true(conn_destination(users[1]->conn, &address));
    assert_int_equal(address.v4.sin_port, own.sin_port);
    conn_close(users[0]->conn);
    TURN_UNTIL(world, world->net.ends.used == 0);
    for (size_t i = 0; i < 2; i++)
        close(peers[i]);
    net_world_free(world);
    for (size_t i = 0; i < 2; i++)
        free(users[i]);
}

static void a_dialled_connection_begins_with_its_header(void **state) {
    (void)state;
    struct net_world *world = world_new(1);
    struct sockaddr_in address;
    int listening = tcp_listen(&address);
    struct addr_pair ends = some_ends();
    int error = 0;
    struct conn_user *user = dial(world, &address, PP_V1, &ends, &error);
    assert_non_null(user->conn);
    assert_int_equal(world->net.ends.used, 1);
    ends = (struct addr_pair){0}; /* it has its own copy */
    TURN_UNTIL(world, user->opened == 1);
    assert_int_equal(world->net.ends.used, 0);
    assert_true(conn_send_copy(user->conn, BYTES("GET /")));
    int peer = accept(listening, NULL, NULL);
    peer_expect(world, peer, "PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\nGET /");
    close(peer);
    close(listening);
    net_world_free(world);
    free(user);
}

static void of_nobody_unknown_is_told(void **state) {
    (void)state;
    struct net_world *world = world_new(0);
    struct sockaddr_in address;
    int listening = tcp_listen(&address);
    int error = 0;
    struct conn_user *user = dial(world, &address, PP_V1, NULL, &error);
    TURN_UNTIL(world, user->opened == 1);
    int peer = accept(listening, NULL, NULL);
    peer_expect(world, peer, "PROXY UNKNOWN\r\n");
    close(peer);
    close(listening);
    net_world_free(world);
    free(user);
}

static void without_a_slot_a_dial_cannot_begin(void **state) {
    (void)state;
    struct net_world *world = world_new(0);
    struct sockaddr_in address;
    int listening = tcp_listen(&address);
    struct addr_pair ends = some_ends();
    int error = 0;
    struct conn_user *user = dial(world, &address, PP_V2, &ends, &error);
    assert_null(user->conn);
    assert_int_equal(error, -ENOMEM);
    assert_int_equal(world->net.conns.used, 0);
    close(listening);
    net_world_free(world);
    free(user);
}

static void without_a_buffer_for_the_header_the_connection_is_lost(void **state) {
    (void)state;
    struct net_world *world = world_new(1);
    struct sockaddr_in address;
    int listening = tcp_listen(&address);
    struct addr_pair ends = some_ends();
    int error = 0;
    struct lease *taken[64];
    size_t count = 0;
    while ((taken[count] = buf_take(&world->net.small)))
        count++;
    struct conn_user *user = dial(world, &address, PP_V2, &ends, &error);
    TURN_UNTIL(world, user->lost == 1);
    assert_int_equal(user->lost_error, ENOMEM);
    assert_int_equal(user->opened, 0);
    TURN_UNTIL(world, world->net.conns.used == 0);
    assert_int_equal(world->net.ends.used, 0);
    while (count != 0)
        lease_unref(taken[--count]);
    close(listening);
    net_world_free(world);
    free(user);
}

static void a_dial_that_fails_gives_its_ends_back(void **state) {
    (void)state;
    struct net_world *world = world_new(1);
    struct sockaddr_in address;
    tcp_refused(&address);
    struct addr_pair ends = some_ends();
    int error = 0;
    struct conn_user *user = dial(world, &address, PP_V2, &ends, &error);
    TURN_UNTIL(world, user->lost == 1);
    TURN_UNTIL(world, world->net.conns.used == 0);
    assert_int_equal(world->net.ends.used, 0);
    net_world_free(world);
    free(user);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_set_stands_for_the_sockets_ends),
        cmocka_unit_test(a_dialled_connection_begins_with_its_header),
        cmocka_unit_test(of_nobody_unknown_is_told),
        cmocka_unit_test(without_a_slot_a_dial_cannot_begin),
        cmocka_unit_test(without_a_buffer_for_the_header_the_connection_is_lost),
        cmocka_unit_test(a_dial_that_fails_gives_its_ends_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
