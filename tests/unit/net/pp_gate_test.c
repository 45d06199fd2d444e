#include "net/conn_ends.h"
#include "net/pp_gate.h"

#include "net/pp.h"

#include "unit/net/conn_user.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LINE "PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"

/* A gate, and who is behind it. */
struct gate_world {
    struct net_world *net;
    struct pp_gate_room room;
    struct pp_gate_options options;
    struct cidr trusted;
    struct conn_user user;
    uint32_t passed;
    bool refuse; /* on_conn resets */
};

static void on_conn(void *owner, struct conn *conn) {
    struct gate_world *world = owner;
    world->passed++;
    assert_null(conn->events);
    assert_int_equal(conn->deadline_ms, 0);
    world->user.conn = conn;
    if (world->refuse) {
        conn_reset(conn);
    } else {
        conn_attach(conn, &conn_user_events, &world->user);
    }
}

static struct gate_world *world_new(const char *trusted, uint32_t gates_max, uint32_t ends_max) {
    struct gate_world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    struct net_options options = net_world_options();
    options.ends_max = ends_max;
    world->net = net_world_new(&options);
    assert_true(cidr_parse(bytes_of(trusted), &world->trusted));
    world->options = (struct pp_gate_options){.versions = PP_V1 | PP_V2,
                                              .timeout_ms = 60000,
                                              .trusted = {&world->trusted, 1},
                                              .on_conn = on_conn,
                                              .user = world};
    assert_int_equal(pp_gate_room_init(&world->room, &world->net->net, gates_max), 0);
    return world;
}

static void world_free(struct gate_world *world) {
    struct net *net = &world->net->net;
    conn_close_all(net);
    TURN_UNTIL(world->net, net->conns.used == 0);
    assert_true(list_empty(&world->room.waiting));
    assert_int_equal(net->ends.used, 0);
    pp_gate_room_fini(&world->room);
    net_world_free(world->net);
    free(world);
}

/* A connection comes; gives the descriptor of its other side. */
static int enter(struct gate_world *world) {
    int fds[2];
    tcp_pair(fds);
    struct conn *conn = conn_accept(&world->net->net, fds[0], NULL, NULL);
    assert_non_null(conn);
    pp_gate_enter(&world->room, conn, &world->options);
    return fds[1];
}

static uint64_t rejected(const struct gate_world *world, enum reason reason) {
    return world->net->stats.rejected[reason];
}

static uint64_t rejected_in_all(const struct gate_world *world) {
    uint64_t sum = 0;
    for (int i = 0; i < REASON_COUNT; i++)
        sum += world->net->stats.rejected[i];
    return sum;
}

static void behind_the_header_the_connection_goes_on(void **state) {
    (void)state;
    struct gate_world *world = world_new("127.0.0.0/8", 4, 4);
    int peer = enter(world);
    assert_int_equal(world->passed, 0);
    peer_send(peer, LINE "GET /");
    TURN_UNTIL(world->net, world->user.len == 5);
    assert_string_equal(world->user.bytes, "GET /");
    assert_int_equal(world->room.gates.used, 0);
    union addr source;
    union addr destination;
    assert_true(conn_source(world->user.conn, &source));
    assert_true(conn_destination(world->user.conn, &destination));
    assert_int_equal(source.v4.sin_addr.s_addr, inet_addr("203.0.113.9"));
    assert_int_equal(ntohs(source.v4.sin_port), 4711);
    assert_int_equal(destination.v4.sin_addr.s_addr, inet_addr("198.51.100.1"));
    assert_int_equal(ntohs(destination.v4.sin_port), 443);
    peer_send(peer, " HTTP");
    TURN_UNTIL(world->net, world->user.len == 10);
    assert_true(conn_send_copy(world->user.conn, BYTES("answer")));
    peer_expect(world->net, peer, "answer");
    close(peer);
    world_free(world);
}

static void a_header_alone_and_in_pieces(void **state) {
    (void)state;
    struct gate_world *world = world_new("127.0.0.1", 1, 1);
    int peer = enter(world);
    for (const char *c = LINE; *c != '\0'; c++) {
        assert_int_equal(world->passed, 0);
        assert_int_equal(buf_pool_leased(&world->net->net.small), 0);
        char text[] = {*c, '\0'};
        peer_send(peer, text);
        net_world_turn(world->net);
    }
    TURN_UNTIL(world->net, world->passed == 1);
    assert_int_equal(world->user.reads, 0);
    close(peer);
    TURN_UNTIL(world->net, world->user.eofs == 1);
    world_free(world);
}

static void unknown_leaves_the_sockets_ends(void **state) {
    (void)state;
    struct gate_world *world = world_new("127.0.0.1", 1, 0);
    int peer = enter(world);
    peer_send(peer, "PROXY UNKNOWN\r\n");
    TURN_UNTIL(world->net, world->passed == 1);
    assert_null(world->user.conn->ends);
    union addr source;
    struct sockaddr_in own;
    socklen_t size = sizeof own;
    assert_int_equal(getsockname(peer, (struct sockaddr *)&own, &size), 0);
    assert_true(conn_source(world->user.conn, &source));
    assert_int_equal(source.v4.sin_port, own.sin_port);
    close(peer);
    world_free(world);
}

static void whoever_is_not_trusted_is_reset_unread(void **state) {
    (void)state;
    struct gate_world *world = world_new("10.0.0.0/8", 1, 1);
    int peer = enter(world);
    peer_expect_reset(world->net, peer);
    assert_int_equal(rejected(world, REASON_PROXY_UNTRUSTED), 1);
    assert_int_equal(rejected_in_all(world), 1);
    assert_int_equal(world->passed + world->room.gates.used, 0);
    close(peer);
    world_free(world);
}

static void without_a_slot_it_is_reset(void **state) {
    (void)state;
    struct gate_world *world = world_new("127.0.0.1", 1, 0);
    int waiting = enter(world);
    int second = enter(world);
    peer_expect_reset(world->net, second);
    assert_int_equal(rejected(world, REASON_NO_MEMORY), 1);
    /* The gate has a slot, the ends have none. */
    peer_send(waiting, LINE);
    peer_expect_reset(world->net, waiting);
    assert_int_equal(rejected(world, REASON_NO_MEMORY), 2);
    assert_int_equal(world->passed, 0);
    close(waiting);
    close(second);
    world_free(world);
}

static void who_refuses_a_connection_gets_no_bytes(void **state) {
    (void)state;
    struct gate_world *world = world_new("127.0.0.1", 1, 1);
    world->refuse = true;
    int peer = enter(world);
    peer_send(peer, LINE "GET /");
    peer_expect_reset(world->net, peer);
    assert_int_equal(world->passed, 1);
    assert_int_equal(world->user.reads, 0);
    assert_int_equal(buf_pool_leased(&world->net->net.small), 0);
    close(peer);
    world_free(world);
}

static void a_late_header_is_rejected(void **state) {
    (void)state;
    struct gate_world *world = world_new("127.0.0.1", 1, 1);
    world->options.timeout_ms = 30;
    int peer = enter(world);
    peer_send(peer, "PROXY ");
    peer_expect_reset(world->net, peer);
    assert_int_equal(rejected(world, REASON_PROXY_HEADER_TIMEOUT), 1);
    assert_int_equal(rejected_in_all(world), 1);
    close(peer);
    world_free(world);
}

static void what_ends_within_the_header_is_counted(void **state) {
    (void)state;
    struct gate_world *world = world_new("127.0.0.1", 4, 1);
    int probe = enter(world);
    shutdown(probe, SHUT_WR);
    peer_expect_eof(world->net, probe);
    int gone = enter(world);
    tcp_reset(gone);
    TURN_UNTIL(world->net, world->room.gates.used == 0);
    assert_int_equal(rejected_in_all(world), 0);
    int closed = enter(world);
    peer_send(closed, "PRO");
    shutdown(closed, SHUT_WR);
    TURN_UNTIL(world->net, rejected(world, REASON_CLIENT_CLOSED) == 1);
    int reset = enter(world);
    peer_send(reset, "PRO");
    net_world_turn_for(world->net, 20);
    tcp_reset(reset);
    TURN_UNTIL(world->net, rejected(world, REASON_CLIENT_RESET) == 1);
    assert_int_equal(rejected_in_all(world), 2);
    close(probe);
    close(closed);
    world_free(world);
}

static void a_drain_shortens_the_wait(void **state) {
    (void)state;
    struct gate_world *world = world_new("127.0.0.1", 4, 1);
    int idle = enter(world);
    int begun = enter(world);
    peer_send(begun, "PRO");
    net_world_turn_for(world->net, 20);
    pp_gate_drain(&world->room);
    int late = enter(world);
    peer_expect_eof(world->net, idle);
    peer_expect_reset(world->net, begun);
    peer_expect_eof(world->net, late);
    assert_int_equal(rejected(world, REASON_PROXY_HEADER_TIMEOUT), 1);
    assert_int_equal(rejected_in_all(world), 1);
    close(idle);
    close(begun);
    close(late);
    world_free(world);
}

static void a_cut_resets_all_that_wait(void **state) {
    (void)state;
    struct gate_world *world = world_new("127.0.0.1", 4, 1);
    int peers[3];
    for (size_t i = 0; i < 3; i++)
        peers[i] = enter(world);
    pp_gate_cut(&world->room);
    for (size_t i = 0; i < 3; i++) {
        peer_expect_reset(world->net, peers[i]);
        close(peers[i]);
    }
    assert_int_equal(rejected(world, REASON_DRAIN_CUT), 3);
    world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(behind_the_header_the_connection_goes_on),
        cmocka_unit_test(a_header_alone_and_in_pieces),
        cmocka_unit_test(unknown_leaves_the_sockets_ends),
        cmocka_unit_test(whoever_is_not_trusted_is_reset_unread),
        cmocka_unit_test(without_a_slot_it_is_reset),
        cmocka_unit_test(who_refuses_a_connection_gets_no_bytes),
        cmocka_unit_test(a_late_header_is_rejected),
        cmocka_unit_test(what_ends_within_the_header_is_counted),
        cmocka_unit_test(a_drain_shortens_the_wait),
        cmocka_unit_test(a_cut_resets_all_that_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
