#include "net/conn.h"

#include "unit/net/conn_user.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct net_world *world_new(void) {
    struct net_options options = net_world_options();
    return net_world_new(&options);
}

static void bytes_come_in_and_go_out_in_order(void **state) {
    (void)state;
    struct net_world *world = world_new();
    int peer;
    struct conn_user *user = conn_user_accept(world, &peer);
    user->echo = true;
    peer_send(peer, "hello");
    peer_expect(world, peer, "hello");
    peer_send(peer, " again");
    peer_expect(world, peer, " again");
    assert_string_equal(user->bytes, "hello again");
    assert_int_equal(stat_get(&world->stats, STAT_CLIENT_BYTES_RECEIVED), 11);
    assert_int_equal(stat_get(&world->stats, STAT_CLIENT_BYTES_SENT), 11);
    close(peer);
    TURN_UNTIL(world, user->eofs == 1);
    conn_close(user->conn);
    TURN_UNTIL(world, world->net.conns.used == 0);
    net_world_free(world);
    free(user);
}

static void a_pause_stops_receiving_until_the_resume(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    peer_send(line.peer, "a");
    TURN_UNTIL(line.world, line.user->len == 1);
    conn_pause(line.user->conn);
    TURN_UNTIL(line.world, !line.user->conn->recv_armed);
    peer_send(line.peer, "bcd");
    net_world_turn_for(line.world, 30);
    assert_int_equal(line.user->len, 1);
    conn_resume(line.user->conn);
    TURN_UNTIL(line.world, line.user->len == 4);
    /* Both in one turn, and before the cancel has completed. */
    conn_pause(line.user->conn);
    conn_resume(line.user->conn);
    peer_send(line.peer, "e");
    TURN_UNTIL(line.world, line.user->len == 5);
    conn_pause(line.user->conn);
    net_world_turn(line.world);
    conn_resume(line.user->conn);
    peer_send(line.peer, "f");
    TURN_UNTIL(line.world, line.user->len == 6);
    assert_string_equal(line.user->bytes, "abcdef");
    conn_close(line.user->conn);
    conn_line_free(&line);
}

static void a_pause_holds_back_the_end_of_the_stream(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    TURN_UNTIL(line.world, line.user->conn->recv_armed);
    conn_pause(line.user->conn);
    TURN_UNTIL(line.world, !line.user->conn->recv_armed);
    conn_line_hang_up(&line);
    net_world_turn_for(line.world, 20);
    assert_int_equal(line.user->eofs, 0);
    conn_resume(line.user->conn);
    TURN_UNTIL(line.world, line.user->eofs == 1);
    net_world_turn_for(line.world, 20);
    assert_int_equal(line.user->eofs, 1);
    conn_close(line.user->conn);
    conn_line_free(&line);
}

static void a_long_stream_comes_in_bulk_buffers(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    peer_send(line.peer, "x");
    TURN_UNTIL(line.world, line.user->len == 1);
    assert_int_equal(line.user->reads_bulk, 0);
    conn_expect_bulk(line.user->conn, true);
    net_world_turn(line.world);
    net_world_turn(line.world);
    char *much = calloc(1, 200000);
    assert_non_null(much);
    size_t sent = 0;
    TURN_UNTIL(line.world, ({
                   ssize_t part = send(line.peer, much, 200000 - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
                   if (part > 0) sent += (size_t)part;
                   line.user->len == 200001;
               }));
    assert_true(line.user->reads_bulk > 0);
    conn_expect_bulk(line.user->conn, false);
    uint32_t before = line.user->reads_bulk;
    peer_send(line.peer, "a");
    TURN_UNTIL(line.world, line.user->len == 200002);
    peer_send(line.peer, "b");
    TURN_UNTIL(line.world, line.user->len == 200003);
    assert_true(line.user->reads_bulk <= before + 1);
    free(much);
    conn_close(line.user->conn);
    conn_line_free(&line);
}

static void more_streams_than_bulk_buffers_are_all_served(void **state) {
    (void)state;
    struct net_world *world = world_new();
    enum { COUNT = 12 };
    struct conn_user *users[COUNT];
    int peers[COUNT];
    char *much = calloc(1, 150000);
    assert_non_null(much);
    size_t sent[COUNT] = {0};
    for (int i = 0; i < COUNT; i++) {
        users[i] = conn_user_accept(world, &peers[i]);
        conn_expect_bulk(users[i]->conn, true);
    }
    uint32_t done = 0;
    TURN_UNTIL(world, ({
                   done = 0;
                   for (int i = 0; i < COUNT; i++) {
                       ssize_t part = send(peers[i], much, 150000 - sent[i], MSG_DONTWAIT);
                       if (part > 0) sent[i] += (size_t)part;
                       done += users[i]->len == 150000;
                   }
                   done == COUNT;
               }));
    for (int i = 0; i < COUNT; i++) {
        conn_close(users[i]->conn);
        close(peers[i]);
    }
    net_world_free(world);
    for (int i = 0; i < COUNT; i++)
        free(users[i]);
    free(much);
}

static void a_linger_ends_without_the_others_fin(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    TURN_UNTIL(line.world, line.user->conn->recv_armed);
    conn_finish(line.user->conn, 3000, true);
    peer_expect_eof(line.world, line.peer);
    uint64_t began_ms = line.world->net.now_ms;
    TURN_UNTIL(line.world, line.world->net.conns.used == 0);
    assert_in_range(line.world->net.now_ms - began_ms, 900, 2900);
    conn_line_free(&line);
}

/* Nothing of what the other side may still send has come yet, nor was it asked for. */
static void who_was_paused_lingers_too(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    conn_pause(line.user->conn);
    TURN_UNTIL(line.world, !line.user->conn->recv_armed);
    conn_finish(line.user->conn, 3000, true);
    peer_expect_eof(line.world, line.peer);
    uint64_t began_ms = line.world->net.now_ms;
    TURN_UNTIL(line.world, line.world->net.conns.used == 0);
    assert_in_range(line.world->net.now_ms - began_ms, 900, 2900);
    conn_line_free(&line);
}

static void a_reset_is_one_for_the_other_side(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    TURN_UNTIL(line.world, line.user->conn->recv_armed);
    conn_reset(line.user->conn);
    peer_expect_reset(line.world, line.peer);
    TURN_UNTIL(line.world, line.world->net.conns.used == 0);
    assert_int_equal(line.user->lost, 0);
    conn_line_free(&line);
}

static void a_close_keeps_the_slot_until_its_operations_ended(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.small_count = 4096;
    struct net_world *world = net_world_new(&options);
    int peer;
    struct conn_user *user = conn_user_accept(world, &peer);
    conn_user_narrow(user, peer);
    char memory[4096] = {0};
    for (size_t i = 0; i < 300; i++) {
        assert_true(conn_send_copy(user->conn, bytes_make(memory, sizeof memory)));
        if (i % 100 == 0) net_world_turn(world);
    }
    TURN_UNTIL(world, user->conn->send_armed && user->conn->recv_armed);
    struct conn *conn = user->conn;
    uint32_t generation = conn->generation;
    assert_int_not_equal(generation, 0);
    uint32_t leased = buf_pool_leased(&world->net.small);
    assert_true(leased > 0);
    conn_close(conn);
    assert_int_equal(conn->ops_in_flight, 2);
    assert_int_equal(world->net.conns.used, 1);
    /* What the kernel still sends from is not given back before. */
    assert_int_equal(buf_pool_leased(&world->net.small), leased);
    TURN_UNTIL(world, world->net.conns.used == 0);
    assert_int_equal(buf_pool_leased(&world->net.small), 0);
    /* No completion can mean a free slot, and none of the last use means the next. */
    assert_int_equal(conn->generation, 0);
    close(peer);
    struct conn_user *next = conn_user_accept(world, &peer);
    assert_ptr_equal(next->conn, conn);
    assert_int_not_equal(conn->generation, generation);
    assert_int_not_equal(conn->generation, 0);
    net_world_free(world);
    close(peer);
    free(next);
    free(user);
}

static void a_close_from_within_an_event_is_safe(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    line.user->close_on_bytes = true;
    peer_send(line.peer, "first");
    TURN_UNTIL(line.world, line.world->net.conns.used == 0);
    assert_int_equal(line.user->reads, 1);
    conn_line_free(&line);
}

static void a_reset_of_the_other_side_loses_the_conn(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    TURN_UNTIL(line.world, line.user->conn->recv_armed);
    tcp_reset(line.peer);
    line.peer = -1;
    TURN_UNTIL(line.world, line.user->lost == 1);
    assert_int_equal(line.user->lost_error, ECONNRESET);
    TURN_UNTIL(line.world, line.world->net.conns.used == 0);
    conn_line_free(&line);
}

static struct conn_user *user_dial(struct net_world *world, const struct sockaddr_in *address,
                                   uint64_t deadline_ms) {
    struct conn_user *user = calloc(1, sizeof *user);
    assert_non_null(user);
    struct conn_dial_options options = {.address = (const struct sockaddr *)address,
                                        .address_size = sizeof *address,
                                        .deadline_ms = deadline_ms,
                                        .nodelay = true};
    int error = 0;
    user->conn = conn_dial(&world->net, &options, &conn_user_events, user, &error);
    assert_non_null(user->conn);
    return user;
}

static void a_dialled_conn_opens_and_talks(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct sockaddr_in address;
    int listening = tcp_listen(&address);
    struct conn_user *user = user_dial(world, &address, world->net.now_ms + 1000);
    TURN_UNTIL(world, user->opened == 1);
    conn_deadline(user->conn, 0);
    int peer = accept(listening, NULL, NULL);
    assert_true(peer >= 0);
    peer_send(peer, "hi");
    TURN_UNTIL(world, user->len == 2);
    assert_true(conn_send_copy(user->conn, BYTES("ho")));
    peer_expect(world, peer, "ho");
    assert_int_equal(stat_get(&world->stats, STAT_CLIENT_BYTES_SENT), 0);
    conn_close(user->conn);
    close(peer);
    close(listening);
    net_world_free(world);
    free(user);
}

static void a_refused_dial_is_lost(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct sockaddr_in address;
    tcp_refused(&address);
    struct conn_user *user = user_dial(world, &address, world->net.now_ms + 1000);
    TURN_UNTIL(world, user->lost == 1);
    assert_int_equal(user->lost_error, ECONNREFUSED);
    assert_int_equal(user->opened, 0);
    TURN_UNTIL(world, world->net.conns.used == 0);
    net_world_free(world);
    free(user);
}

static void a_dial_that_hangs_meets_its_deadline(void **state) {
    (void)state;
    struct net_world *world = world_new();
    /* A full backlog: further handshakes get no answer. */
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    assert_int_equal(bind(listening, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listening, 0), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&address, &size), 0);
    struct conn_user *first = user_dial(world, &address, world->net.now_ms + 1000);
    TURN_UNTIL(world, first->opened == 1);
    struct conn_user *user = user_dial(world, &address, world->net.now_ms + 50);
    TURN_UNTIL(world, user->deadlines == 1);
    assert_int_equal(user->opened, 0);
    conn_close(user->conn);
    TURN_UNTIL(world, world->net.conns.used == 1);
    conn_close(first->conn);
    close(listening);
    net_world_free(world);
    free(first);
    free(user);
}

static void a_deadline_moves_and_fires_once(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    net_world_turn(line.world);
    uint64_t began_ms = line.world->net.now_ms;
    conn_deadline(line.user->conn, began_ms + 10);
    conn_deadline(line.user->conn, began_ms + 60);
    TURN_UNTIL(line.world, line.user->deadlines == 1);
    assert_true(line.world->net.now_ms >= began_ms + 60);
    conn_deadline(line.user->conn, line.world->net.now_ms + 1000);
    conn_deadline(line.user->conn, line.world->net.now_ms + 20); /* sooner than the timer that is
                                                                    armed */
    TURN_UNTIL(line.world, line.user->deadlines == 2);
    conn_deadline(line.user->conn, line.world->net.now_ms + 10);
    conn_deadline(line.user->conn, 0);
    net_world_turn_for(line.world, 40);
    assert_int_equal(line.user->deadlines, 2);
    conn_close(line.user->conn);
    conn_line_free(&line);
}

/* In one turn a socket may have more than there are buffers. */
static void one_turn_brings_few_buffers_of_a_connection(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.small_count = 1024;
    struct net_world *world = net_world_new(&options);
    int peer;
    struct conn_user *user = conn_user_accept(world, &peer);
    peer_send(peer, "x"); /* from the second receive on it is multishot */
    TURN_UNTIL(world, user->len == 1);
    net_world_turn(world);
    char *much = calloc(1, 1 << 17);
    assert_non_null(much);
    ssize_t sent = send(peer, much, 1 << 17, MSG_NOSIGNAL | MSG_DONTWAIT);
    assert_true(sent > 40000);
    while (user->len != (size_t)sent + 1) {
        size_t before = user->len;
        net_world_turn(world);
        if (world->net.recv_unlimited) skip(); /* before Linux 6.17 */
        assert_true(user->len > before && user->len - before <= 5 * options.small_size);
    }
    free(much);
    conn_close(user->conn);
    close(peer);
    net_world_free(world);
    free(user);
}

/* The bytes of 40 connections, each more than a buffer, with 8 buffers for all, some of which one
 * connection keeps for a while. */
static void with_few_buffers_every_connection_is_served(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.small_count = 8;
    struct net_world *world = net_world_new(&options);
    enum { COUNT = 40, SIZE = 20000 };
    struct lease *kept[6];
    for (int i = 0; i < 6; i++)
        kept[i] = NULL;
    struct conn_user *users[COUNT];
    int peers[COUNT];
    char *much = calloc(1, SIZE);
    assert_non_null(much);
    for (int i = 0; i < COUNT; i++) {
        users[i] = conn_user_accept(world, &peers[i]);
        assert_int_equal(send(peers[i], much, SIZE, MSG_NOSIGNAL), SIZE);
    }
    uint32_t done = 0;
    TURN_UNTIL(world, ({
                   done = 0;
                   for (int i = 0; i < 6; i++) {
                       if (kept[i]) {
                           lease_unref(kept[i]);
                           kept[i] = NULL;
                       } else {
                           kept[i] = buf_take(&world->net.small);
                       }
                   }
                   for (int i = 0; i < COUNT; i++)
                       done += users[i]->len == SIZE;
                   done == COUNT;
               }));
    assert_true(stat_get(&world->stats, STAT_URING_ENOBUFS) > 0);
    for (int i = 0; i < 6; i++) {
        if (kept[i]) lease_unref(kept[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        conn_close(users[i]->conn);
        close(peers[i]);
    }
    net_world_free(world);
    for (int i = 0; i < COUNT; i++)
        free(users[i]);
    free(much);
}

static void a_starved_conn_may_close(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.small_count = 3; /* the last one is not lent */
    struct net_world *world = net_world_new(&options);
    int peer;
    struct conn_user *user = conn_user_accept(world, &peer);
    /* The kernel's buffers go to another connection, whose user keeps them. */
    int other_peer;
    struct conn_user *other = conn_user_accept(world, &other_peer);
    other->echo_lease = true;
    conn_pause(user->conn);
    net_world_turn(world);
    int tiny = 1;
    setsockopt(other->conn->fd, SOL_SOCKET, SO_SNDBUF, &tiny, sizeof tiny);
    char memory[3000] = {0};
    while (buf_pool_leased(&world->net.small) < 2) {
        (void)send(other_peer, memory, sizeof memory, MSG_DONTWAIT | MSG_NOSIGNAL);
        net_world_turn(world);
    }
    conn_resume(user->conn);
    peer_send(peer, "x");
    TURN_UNTIL(world, user->conn->recv_starved);
    conn_close(user->conn);
    TURN_UNTIL(world, world->net.conns.used == 1);
    conn_reset(other->conn);
    TURN_UNTIL(world, world->net.conns.used == 0);
    close(peer);
    close(other_peer);
    net_world_free(world);
    free(user);
    free(other);
}

/* One that waits for a buffer and then is told not to read. */
static void a_paused_conn_leaves_the_buffer_to_the_next(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.small_count = 3; /* the last one is not lent */
    struct net_world *world = net_world_new(&options);
    int peers[2];
    struct conn_user *users[2];
    for (int i = 0; i < 2; i++) {
        users[i] = conn_user_accept(world, &peers[i]);
        conn_pause(users[i]->conn);
    }
    struct lease *kept[2];
    for (int i = 0; i < 2; i++)
        kept[i] = NULL;
    int other_peer;
    struct conn_user *other = conn_user_accept(world, &other_peer);
    other->keep = kept;
    while (buf_pool_leased(&world->net.small) < 2) {
        peer_send(other_peer, "x");
        net_world_turn(world);
    }
    conn_close(other->conn);
    for (int i = 0; i < 2; i++) {
        conn_resume(users[i]->conn);
        peer_send(peers[i], "x");
        TURN_UNTIL(world, users[i]->conn->recv_starved);
    }
    conn_pause(users[0]->conn);
    net_world_turn(world);
    lease_unref(kept[0]);
    net_world_turn(world);
    assert_false(users[1]->conn->recv_starved);
    TURN_UNTIL(world, users[1]->len == 1);
    lease_unref(kept[1]);
    for (int i = 0; i < 2; i++) {
        conn_close(users[i]->conn);
        close(peers[i]);
    }
    close(other_peer);
    net_world_free(world);
    for (int i = 0; i < 2; i++)
        free(users[i]);
    free(other);
}

static void no_slot_leaves_the_socket_alone(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.conns_max = 1;
    struct net_world *world = net_world_new(&options);
    int peer;
    struct conn_user *user = conn_user_accept(world, &peer);
    int fds[2];
    tcp_pair(fds);
    assert_null(conn_accept(&world->net, fds[0], &conn_user_events, user));
    peer_send(fds[0], "alive");
    peer_expect(world, fds[1], "alive");
    struct sockaddr_in address;
    tcp_refused(&address);
    struct conn_dial_options dial = {.address = (const struct sockaddr *)&address,
                                     .address_size = sizeof address};
    int error = 0;
    assert_null(conn_dial(&world->net, &dial, &conn_user_events, user, &error));
    assert_int_equal(error, -ENOMEM);
    close(fds[0]);
    close(fds[1]);
    conn_close(user->conn);
    close(peer);
    net_world_free(world);
    free(user);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_in_and_go_out_in_order),
        cmocka_unit_test(a_pause_stops_receiving_until_the_resume),
        cmocka_unit_test(a_pause_holds_back_the_end_of_the_stream),
        cmocka_unit_test(a_long_stream_comes_in_bulk_buffers),
        cmocka_unit_test(more_streams_than_bulk_buffers_are_all_served),
        cmocka_unit_test(a_linger_ends_without_the_others_fin),
        cmocka_unit_test(who_was_paused_lingers_too),
        cmocka_unit_test(a_reset_is_one_for_the_other_side),
        cmocka_unit_test(a_close_keeps_the_slot_until_its_operations_ended),
        cmocka_unit_test(a_close_from_within_an_event_is_safe),
        cmocka_unit_test(a_reset_of_the_other_side_loses_the_conn),
        cmocka_unit_test(a_dialled_conn_opens_and_talks),
        cmocka_unit_test(a_refused_dial_is_lost),
        cmocka_unit_test(a_dial_that_hangs_meets_its_deadline),
        cmocka_unit_test(a_deadline_moves_and_fires_once),
        cmocka_unit_test(with_few_buffers_every_connection_is_served),
        cmocka_unit_test(one_turn_brings_few_buffers_of_a_connection),
        cmocka_unit_test(a_starved_conn_may_close),
        cmocka_unit_test(a_paused_conn_leaves_the_buffer_to_the_next),
        cmocka_unit_test(no_slot_leaves_the_socket_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
