/* The queue of a connection, and its ends: conn_send.c. */
#include "net/conn.h"

#include "unit/net/conn_user.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* Reserved, copied and leased pieces of all sizes, more than two queue blocks hold, while a send is
 * in flight most of the time. */
static void a_mixed_queue_keeps_its_order(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.small_count = 1024;
    struct net_world *world = net_world_new(&options);
    int peer;
    struct conn_user *user = conn_user_accept(world, &peer);
    struct conn *conn = user->conn;
    char memory[4096];
    size_t at = 0;
    size_t seen = 0;
    for (uint32_t round = 0; round < 400; round++) {
        size_t size = 1 + (round * 997) % 4096;
        switch (round % 4) {
        case 0: {
            char *to = conn_reserve(conn, size);
            assert_non_null(to);
            size_t used = size > 1 ? size - 1 : size;
            pattern_bytes(to, at, used);
            conn_commit(conn, used);
            at += used;
            break;
        }
        case 1:
            assert_true(conn_send_copy(conn, pattern_bytes(memory, at, size)));
            at += size;
            break;
        case 2:
        case 3: {
            struct lease *lease = buf_take(&world->net.small);
            assert_non_null(lease);
            /* Two adjacent parts of one lease, then a third that is not adjacent. */
            struct bytes all = pattern_bytes(lease->memory, at, lease->size);
            assert_true(conn_send_lease(conn, bytes_slice(all, 0, size / 2), lease));
            assert_true(conn_send_lease(conn, bytes_slice(all, size / 2, size - size / 2), lease));
            at += size;
            lease_unref(lease);
            break;
        }
        }
        if (round % 7 == 0) net_world_turn(world);
        seen = peer_read_pattern(peer, seen);
    }
    TURN_UNTIL(world, (seen = peer_read_pattern(peer, seen)) == at);
    assert_int_equal(conn->out.queued, 0);
    assert_int_equal(conn->sent_total, at);
    assert_int_equal(buf_pool_leased(&world->net.small), 0);
    assert_int_equal(world->net.queues.used, 0);
    conn_close(conn);
    close(peer);
    net_world_free(world);
    free(user);
}

static void an_empty_commit_queues_nothing(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    assert_non_null(conn_reserve(line.user->conn, 100));
    conn_commit(line.user->conn, 0);
    assert_int_equal(line.user->conn->out.queued, 0);
    net_world_turn(line.world);
    assert_true(conn_send_copy(line.user->conn, BYTES("x")));
    peer_expect(line.world, line.peer, "x");
    conn_close(line.user->conn);
    conn_line_free(&line);
}

static void a_received_lease_can_be_sent_on(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    line.user->echo_lease = true;
    size_t at = 0;
    size_t seen = 0;
    for (int round = 0; round < 50; round++) {
        char memory[3000];
        struct bytes some = pattern_bytes(memory, at, sizeof memory);
        assert_int_equal(send(line.peer, some.ptr, some.len, MSG_NOSIGNAL), (ssize_t)some.len);
        at += some.len;
        TURN_UNTIL(line.world, (seen = peer_read_pattern(line.peer, seen)) == at);
    }
    conn_close(line.user->conn);
    conn_line_free(&line);
}

static void drained_comes_at_half_of_the_mark(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.small_count = 1024;
    struct conn_line line = conn_line_with(&options);
    conn_user_narrow(line.user, line.peer);
    char memory[4096];
    size_t at = 0;
    assert_false(conn_is_full(line.user->conn));
    while (at < 1000000) {
        assert_true(conn_send_copy(line.user->conn, pattern_bytes(memory, at, sizeof memory)));
        at += sizeof memory;
        if (at % 65536 == 0) net_world_turn(line.world);
    }
    assert_true(conn_is_full(line.user->conn));
    net_world_turn_for(line.world, 10);
    assert_int_equal(line.user->drained, 0);
    assert_true(line.user->conn->out.queued > 16384);
    size_t seen = 0;
    TURN_UNTIL(line.world, ({
                   seen = peer_read_pattern(line.peer, seen);
                   line.user->drained != 0;
               }));
    assert_true(line.user->conn->out.queued <= 8192);
    TURN_UNTIL(line.world, (seen = peer_read_pattern(line.peer, seen)) == at);
    net_world_turn_for(line.world, 10);
    assert_int_equal(line.user->drained, 1); /* once for one "full" */
    conn_close(line.user->conn);
    conn_line_free(&line);
}

static void sent_is_told_once_when_asked_for(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    assert_true(conn_send_copy(line.user->conn, BYTES("abc")));
    conn_notify_sent(line.user->conn);
    TURN_UNTIL(line.world, line.user->sent == 1);
    peer_expect(line.world, line.peer, "abc");
    assert_true(conn_send_copy(line.user->conn, BYTES("d")));
    peer_expect(line.world, line.peer, "d");
    net_world_turn_for(line.world, 10);
    assert_int_equal(line.user->sent, 1);
    conn_close(line.user->conn);
    conn_line_free(&line);
}

static void a_finish_sends_all_then_fin_and_waits_for_the_others(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.small_count = 1024;
    struct conn_line line = conn_line_with(&options);
    TURN_UNTIL(line.world, line.user->conn->recv_armed);
    char memory[4096];
    size_t at = 0;
    for (; at < 2000000; at += sizeof memory)
        assert_true(conn_send_copy(line.user->conn, pattern_bytes(memory, at, sizeof memory)));
    conn_finish(line.user->conn, 3000, true);
    size_t seen = 0;
    TURN_UNTIL(line.world, (seen = peer_read_pattern(line.peer, seen)) == at);
    peer_expect_eof(line.world, line.peer);
    /* Bytes that come now are dropped, and do not make a RST of the FIN. */
    peer_send(line.peer, "late");
    net_world_turn_for(line.world, 30);
    assert_int_equal(line.world->net.conns.used, 1);
    conn_line_hang_up(&line);
    TURN_UNTIL(line.world, line.world->net.conns.used == 0);
    assert_int_equal(line.user->len + line.user->eofs + line.user->lost + line.user->drained, 0);
    conn_line_free(&line);
}

static void a_finish_after_the_others_fin_ends_at_once(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    shutdown(line.peer, SHUT_WR);
    TURN_UNTIL(line.world, line.user->eofs == 1);
    assert_true(conn_send_copy(line.user->conn, BYTES("bye")));
    conn_finish(line.user->conn, 3000, true);
    peer_expect(line.world, line.peer, "bye");
    peer_expect_eof(line.world, line.peer);
    TURN_UNTIL(line.world, line.world->net.conns.used == 0);
    conn_line_free(&line);
}

/* The request came whole and nothing is being received: nothing of ours can get lost. */
static void a_finish_with_nothing_to_read_closes_at_once(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    conn_pause(line.user->conn);
    net_world_turn(line.world);
    assert_true(conn_send_copy(line.user->conn, BYTES("answer")));
    conn_finish(line.user->conn, 3000, false);
    peer_expect(line.world, line.peer, "answer");
    peer_expect_eof(line.world, line.peer);
    TURN_UNTIL(line.world, line.world->net.conns.used == 0);
    conn_line_free(&line);
}

static void a_finish_with_unread_bytes_does_not_reset(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    conn_pause(line.user->conn);
    net_world_turn(line.world);
    peer_send(line.peer, "more than was read");
    assert_true(conn_send_copy(line.user->conn, BYTES("answer")));
    conn_finish(line.user->conn, 3000, false);
    net_world_turn_for(line.world, 20);
    peer_expect(line.world, line.peer, "answer");
    peer_expect_eof(line.world, line.peer);
    conn_line_hang_up(&line);
    TURN_UNTIL(line.world, line.world->net.conns.used == 0);
    conn_line_free(&line);
}

static void a_finish_gives_up_after_its_time(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.small_count = 4096;
    struct conn_line line = conn_line_with(&options);
    conn_user_narrow(line.user, line.peer);
    char memory[4096] = {0};
    for (size_t i = 0; i < 300; i++) {
        assert_true(conn_send_copy(line.user->conn, bytes_make(memory, sizeof memory)));
        if (i % 100 == 0) net_world_turn(line.world);
    }
    uint64_t began_ms = line.world->net.now_ms;
    conn_finish(line.user->conn, 40, true); /* nobody reads */
    TURN_UNTIL(line.world, line.world->net.conns.used == 0);
    assert_true(line.world->net.now_ms >= began_ms + 40);
    conn_line_free(&line);
}

static void a_finish_waits_for_a_reader_that_goes_on(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.small_count = 4096;
    struct conn_line line = conn_line_with(&options);
    conn_user_narrow(line.user, line.peer);
    char memory[4096];
    size_t at = 0;
    for (; at < 4000000; at += sizeof memory) {
        assert_true(conn_send_copy(line.user->conn, pattern_bytes(memory, at, sizeof memory)));
        if (at % 65536 == 0) net_world_turn(line.world);
    }
    conn_finish(line.user->conn, 800, true); /* by the clock of the kernel */
    uint64_t began_ms = line.world->net.now_ms;
    size_t seen = 0;
    /* Far longer than it may take without progress. */
    while (line.world->net.now_ms < began_ms + 2000) {
        char some[16384];
        ssize_t got = recv(line.peer, some, sizeof some, MSG_DONTWAIT);
        for (ssize_t i = 0; i < got; i++)
            assert_int_equal(some[i], *pattern_bytes(memory, seen++, 1).ptr);
        net_world_turn_for(line.world, 10);
    }
    assert_true(seen < at);
    TURN_UNTIL(line.world, (seen = peer_read_pattern(line.peer, seen)) == at);
    peer_expect_eof(line.world, line.peer);
    conn_line_hang_up(&line);
    TURN_UNTIL(line.world, line.world->net.conns.used == 0);
    conn_line_free(&line);
}

static void a_half_close_leaves_the_other_half(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    assert_true(conn_send_copy(line.user->conn, BYTES("all")));
    conn_send_fin(line.user->conn);
    peer_expect(line.world, line.peer, "all");
    peer_expect_eof(line.world, line.peer);
    peer_send(line.peer, "more");
    TURN_UNTIL(line.world, line.user->len == 4);
    conn_line_hang_up(&line);
    TURN_UNTIL(line.world, line.user->eofs == 1);
    conn_close(line.user->conn);
    conn_line_free(&line);
}

/* io_uring cannot wait for room to send once the other side's FIN is there. */
static void who_has_half_closed_still_gets_everything(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.small_count = 4096;
    struct net_world *world = net_world_new(&options);
    int peer;
    struct conn_user *user = conn_user_accept(world, &peer);
    conn_user_narrow(user, peer);
    shutdown(peer, SHUT_WR);
    TURN_UNTIL(world, user->eofs == 1);
    char memory[4096];
    size_t at = 0;
    for (; at < 1000000; at += sizeof memory)
        assert_true(conn_send_copy(user->conn, pattern_bytes(memory, at, sizeof memory)));
    uint64_t before = stat_get(&world->stats, STAT_URING_SQE);
    net_world_turn_for(world, 100); /* nobody reads: this costs next to nothing */
    assert_true(stat_get(&world->stats, STAT_URING_SQE) - before < 50);
    assert_int_equal(user->lost, 0);
    size_t seen = 0;
    TURN_UNTIL(world, (seen = peer_read_pattern(peer, seen)) == at);
    conn_finish(user->conn, 1000, true);
    peer_expect_eof(world, peer);
    TURN_UNTIL(world, world->net.conns.used == 0);
    close(peer);
    net_world_free(world);
    free(user);
}

static void a_full_send_pool_is_a_refusal_not_a_crash(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.small_count = 4;
    options.conns_max = 4;
    struct net_world *world = net_world_new(&options);
    int peer;
    struct conn_user *user = conn_user_accept(world, &peer);
    struct lease *kept[4];
    uint32_t count = 0;
    /* net_start lent all of them to the kernel. */
    while ((kept[count] = buf_take(&world->net.small)) != NULL)
        count++;
    assert_null(conn_reserve(user->conn, 10));
    assert_false(conn_send_copy(user->conn, BYTES("x")));
    for (uint32_t i = 0; i < count; i++)
        lease_unref(kept[i]);
    conn_reset(user->conn);
    close(peer);
    net_world_free(world);
    free(user);
}

/* Nothing is queued whose end could tell that buffers are back. */
static void who_finds_no_buffer_is_told_when_there_is_one(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    struct net_world *world = net_world_new(&options);
    int peer;
    struct conn_user *user = conn_user_accept(world, &peer);
    assert_true(conn_has_room(user->conn));
    struct lease *kept[32];
    uint32_t count = 0;
    while ((kept[count] = buf_take(&world->net.small)) != NULL)
        count++;
    assert_false(conn_has_room(user->conn));
    net_world_turn_for(world, 50);
    assert_true(user->drained > 0); /* it looks, and may find none once more */
    user->drained = 0;
    assert_false(conn_has_room(user->conn));
    while (count != 0)
        lease_unref(kept[--count]);
    TURN_UNTIL(world, user->drained == 1);
    assert_true(conn_has_room(user->conn));
    assert_true(conn_send_copy(user->conn, BYTES("hello")));
    peer_expect(world, peer, "hello");
    net_world_turn_for(world, 50);
    assert_int_equal(user->drained, 1);
    conn_close(user->conn);
    close(peer);
    net_world_free(world);
    free(user);
}

static void progress_of_a_send_is_seen(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.small_count = 4096;
    struct conn_line line = conn_line_with(&options);
    char memory[4096];
    size_t at = 0;
    for (; at < 8000000; at += sizeof memory) {
        assert_true(conn_send_copy(line.user->conn, pattern_bytes(memory, at, sizeof memory)));
        if (at % (1 << 20) == 0) net_world_turn(line.world);
    }
    net_world_turn_for(line.world, 700); /* the receiver's window fills, the last by a probe */
    struct conn_taken before = conn_taken(line.user->conn);
    assert_true(before.bytes < line.user->conn->sent_total && before.ago_ms >= 200);
    size_t seen = 0;
    TURN_UNTIL(line.world, ({
                   seen = peer_read_pattern(line.peer, seen);
                   struct conn_taken after = conn_taken(line.user->conn);
                   after.bytes > before.bytes &&after.ago_ms < 200;
               }));
    conn_reset(line.user->conn);
    conn_line_free(&line);
}

/* There the kernel counts the memory that bytes take, which is more than they are. */
static void of_little_on_a_unix_socket_no_more_is_taken_than_was_sent(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    struct net_world *world = net_world_new(&options);
    struct conn_user *user = calloc(1, sizeof *user);
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_non_null(user);
    user->conn = conn_accept(&world->net, fds[0], &conn_user_events, user);
    for (uint64_t sent = 5; sent <= 50; sent += 5) {
        assert_true(conn_send_copy(user->conn, BYTES("piece")));
        TURN_UNTIL(world, user->conn->sent_total == sent);
    }
    assert_int_equal(conn_taken(user->conn).bytes, 0);
    assert_int_equal(conn_taken(user->conn).ago_ms, UINT64_MAX); /* nothing since the last look */
    char memory[50];
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(peer_take(fds[1], memory, 5), 5);
        struct conn_taken taken = conn_taken(user->conn);
        assert_in_range(taken.bytes, 0, i < 9 ? 49 : 50);
        assert_int_equal(taken.ago_ms, i < 9 ? 0 : UINT64_MAX); /* then nothing is due */
    }
    assert_int_equal(conn_taken(user->conn).bytes, 50);
    conn_close_all(&world->net);
    TURN_UNTIL(world, world->net.conns.used == 0);
    close(fds[1]);
    free(user);
    net_world_free(world);
}

/* Before the first turn, so that nothing has been sent yet. */
static size_t queued_until_full(struct conn_user *user) {
    char memory[1024];
    while (!conn_is_full(user->conn))
        assert_true(conn_send_copy(user->conn, pattern_bytes(memory, 0, sizeof memory)));
    return user->conn->out.queued;
}

static void the_mark_shrinks_as_buffers_get_few(void **state) {
    (void)state;
    static const struct {
        uint32_t left_of_16; /* buffers that are spare */
        size_t full_at;
    } cases[] = {{16, 60000}, {12, 30000}, {8, 13000}, {4, 4096}, {1, 4096}};
    struct net_options options = net_world_options();
    options.small_count = 1024;
    options.queue_mark = 65536;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct net_world *world = net_world_new(&options);
        int peer;
        struct conn_user *user = conn_user_accept(world, &peer);
        uint32_t usable = world->net.small.total - world->net.small.kernel_count;
        struct lease *taken = NULL;
        while (world->net.small.spare_count > usable * cases[i].left_of_16 / 16) {
            struct lease *lease = buf_take(&world->net.small);
            lease->next = taken;
            taken = lease;
        }
        size_t full_at = queued_until_full(user);
        assert_in_range(full_at, cases[i].full_at, cases[i].full_at + cases[i].full_at / 3);
        while (taken) {
            struct lease *lease = taken;
            taken = lease->next;
            lease_unref(lease);
        }
        conn_reset(user->conn);
        close(peer);
        net_world_free(world);
        free(user);
    }
}

/* The kernel counts what the send under way got rid of, and has no error left for the receive. */
static void a_reset_that_a_send_has_met_is_no_end_of_the_stream(void **state) {
    (void)state;
    struct conn_line line = conn_line_new();
    struct conn *conn = line.user->conn;
    conn_user_narrow(line.user, line.peer);
    struct lease *lease = buf_take(&line.world->net.bulk);
    assert_non_null(lease);
    for (int i = 0; i < 8; i++)
        assert_true(conn_send_lease(conn, bytes_make(lease->memory, lease->size), lease));
    lease_unref(lease);
    net_world_turn_for(line.world, 20);
    assert_true(conn->send_armed && conn->recv_armed);
    tcp_reset(line.peer);
    line.peer = -1;
    TURN_UNTIL(line.world, line.user->lost == 1);
    assert_int_equal(line.user->lost_error, ECONNRESET);
    assert_int_equal(line.user->eofs, 0);
    conn_line_free(&line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mixed_queue_keeps_its_order),
        cmocka_unit_test(an_empty_commit_queues_nothing),
        cmocka_unit_test(a_received_lease_can_be_sent_on),
        cmocka_unit_test(drained_comes_at_half_of_the_mark),
        cmocka_unit_test(the_mark_shrinks_as_buffers_get_few),
        cmocka_unit_test(sent_is_told_once_when_asked_for),
        cmocka_unit_test(a_finish_sends_all_then_fin_and_waits_for_the_others),
        cmocka_unit_test(a_finish_after_the_others_fin_ends_at_once),
        cmocka_unit_test(a_finish_with_nothing_to_read_closes_at_once),
        cmocka_unit_test(a_finish_with_unread_bytes_does_not_reset),
        cmocka_unit_test(a_reset_that_a_send_has_met_is_no_end_of_the_stream),
        cmocka_unit_test(a_finish_gives_up_after_its_time),
        cmocka_unit_test(a_finish_waits_for_a_reader_that_goes_on),
        cmocka_unit_test(a_half_close_leaves_the_other_half),
        cmocka_unit_test(who_has_half_closed_still_gets_everything),
        cmocka_unit_test(a_full_send_pool_is_a_refusal_not_a_crash),
        cmocka_unit_test(who_finds_no_buffer_is_told_when_there_is_one),
        cmocka_unit_test(progress_of_a_send_is_seen),
        cmocka_unit_test(of_little_on_a_unix_socket_no_more_is_taken_than_was_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
