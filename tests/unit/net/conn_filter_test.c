/* What a filter sees and says, with one that upper-cases what arrives, puts a dot behind every
 * piece that it sends, and ends with an exclamation mark. */
#include "net/conn_filter.h"

#include "net/pump.h"
#include "unit/net/conn_user.h"

#include <ctype.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct shouter {
    struct conn_filter filter;
    uint32_t released;
    uint32_t eofs;
    uint32_t opened;
    uint32_t asked; /* to let the kernel begin */
    bool stuck;     /* it makes nothing */
    bool broken;    /* nor can it */
};

static struct shouter *shouter_of(struct conn *conn) {
    return LIST_OWNER(conn->filter, struct shouter, filter);
}

static void on_open(struct conn *conn) {
    shouter_of(conn)->opened++;
    conn->events->on_open(conn);
}

static void on_bytes(struct conn *conn, struct bytes bytes, struct lease *lease) {
    for (char *at = (char *)(uintptr_t)bytes.ptr; at < bytes.ptr + bytes.len; at++)
        *at = (char)toupper((unsigned char)*at);
    conn->events->on_bytes(conn, bytes, lease);
}

static void on_eof(struct conn *conn) {
    shouter_of(conn)->eofs++;
    conn->events->on_eof(conn);
}

static bool flush(struct conn *conn, bool end) {
    struct shouter *shouter = shouter_of(conn);
    struct conn_out *plain = &shouter->filter.plain;
    if (shouter->broken) return false;
    if (shouter->stuck) return true;
    while (plain->queued != 0 && conn->out.queued < 8192) {
        struct bytes front = bytes_slice(conn_out_front(plain), 0, 4096);
        if (conn_filter_room(conn) < front.len + 1) return true;
        if (!conn_filter_put(conn, front) || !conn_filter_put(conn, BYTES("."))) return false;
        conn_out_take(conn->net, plain, front.len);
    }
    if (!end || plain->queued != 0) return true;
    shouter->filter.ended = true;
    return conn_filter_put(conn, BYTES("!"));
}

static void on_released(struct conn_filter *filter) {
    LIST_OWNER(filter, struct shouter, filter)->released++;
}

static bool offload(struct conn *conn) {
    shouter_of(conn)->asked++;
    assert_int_equal(conn_queued(conn), 0);
    assert_false(conn->send_armed);
    return false;
}

static const struct conn_filter_ops shouter_ops = {.on_open = on_open,
                                                   .on_bytes = on_bytes,
                                                   .on_eof = on_eof,
                                                   .flush = flush,
                                                   .offload = offload,
                                                   .on_released = on_released};

struct stage {
    struct net_world *world;
    struct conn_user *user;
    struct conn *conn;
    struct shouter shouter;
    int peer;
};

static void stage_init(struct stage *stage) {
    struct net_options options = net_world_options();
    *stage = (struct stage){.world = net_world_new(&options), .shouter.filter.ops = &shouter_ops};
    stage->user = conn_user_accept(stage->world, &stage->peer);
    stage->conn = stage->user->conn;
    conn_set_filter(stage->conn, &stage->shouter.filter);
}

static void stage_fini(struct stage *stage) {
    close(stage->peer);
    net_world_free(stage->world);
    assert_int_equal(stage->shouter.released, 1);
    free(stage->user);
}

static void bytes_pass_the_filter_both_ways(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    peer_send(stage.peer, "hello");
    TURN_UNTIL(stage.world, stage.user->len == 5);
    assert_memory_equal(stage.user->bytes, "HELLO", 5);
    assert_true(conn_send_copy(stage.conn, BYTES("one")));
    assert_true(conn_send_copy(stage.conn, BYTES("two")));
    assert_int_equal(conn_queued(stage.conn), 6);
    assert_true(conn_is_sending(stage.conn));
    conn_notify_sent(stage.conn);
    peer_expect(stage.world, stage.peer, "onetwo.");
    TURN_UNTIL(stage.world, stage.user->sent == 1);
    assert_int_equal(conn_queued(stage.conn), 0);
    assert_int_equal(stage.conn->sent_total, 7);
    conn_reset(stage.conn);
    stage_fini(&stage);
}

static void a_filter_may_write_in_place(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    net_world_turn_for(stage.world, 5); /* what is written shows by itself */
    size_t size = stage.world->net.small.buffer_size, room = 0;
    char *to = conn_filter_reserve(stage.conn, 5, &room);
    assert_non_null(to);
    assert_int_equal(room, size);
    memcpy(to, "one, ", 5);
    conn_filter_commit(stage.conn, 5);
    char *behind = conn_filter_reserve(stage.conn, 1, &room);
    assert_ptr_equal(behind, to + 5);
    assert_int_equal(room, size - 5);
    memcpy(behind, "two, ", 5);
    conn_filter_commit(stage.conn, 5);
    to = conn_filter_reserve(stage.conn, size - 9, &room);
    assert_non_null(to);
    assert_int_equal(room, size);
    memcpy(to, "three", 5);
    conn_filter_commit(stage.conn, 5);
    peer_expect(stage.world, stage.peer, "one, two, three");
    conn_reset(stage.conn);
    stage_fini(&stage);
}

static void what_waits_before_the_filter_counts_as_queued(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    conn_user_narrow(stage.user, stage.peer);
    struct lease *lease = buf_take(&stage.world->net.small);
    assert_non_null(lease);
    memset(lease->memory, 'x', lease->size);
    size_t given = 0;
    while (given < 400000) {
        assert_true(conn_send_lease(stage.conn, bytes_make(lease->memory, lease->size), lease));
        given += lease->size;
        if (given % 65536 == 0) net_world_turn(stage.world);
    }
    lease_unref(lease);
    net_world_turn_for(stage.world, 10);
    assert_true(conn_is_full(stage.conn));
    assert_true(stage.conn->out.queued <= 8192 + 4097);
    assert_true(conn_queued(stage.conn) > 100000);
    assert_int_equal(stage.user->drained, 0);
    char some[8192];
    size_t plain = 0;
    TURN_UNTIL(stage.world, ({
                   for (ssize_t got; (got = peer_take(stage.peer, some, sizeof some)) > 0;)
                       for (ssize_t i = 0; i < got; i++)
                           plain += some[i] == 'x';
                   plain == given;
               }));
    net_world_turn_for(stage.world, 10);
    assert_int_equal(stage.user->drained, 1);
    assert_int_equal(conn_queued(stage.conn), 0);
    conn_reset(stage.conn);
    stage_fini(&stage);
}

static void the_end_is_marked_before_fin(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    assert_true(conn_send_copy(stage.conn, BYTES("last")));
    conn_send_fin(stage.conn);
    peer_expect(stage.world, stage.peer, "last.!");
    peer_expect_eof(stage.world, stage.peer);
    peer_send(stage.peer, "more");
    TURN_UNTIL(stage.world, stage.user->len == 4); /* the other half goes on */
    conn_close(stage.conn);
    stage_fini(&stage);
}

static void finishing_sends_all_and_the_mark(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    assert_true(conn_send_copy(stage.conn, BYTES("last")));
    conn_finish(stage.conn, 1000, false);
    peer_expect(stage.world, stage.peer, "last.!");
    peer_expect_eof(stage.world, stage.peer);
    stage_fini(&stage);
}

static void closing_says_the_end_at_once(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    net_world_turn(stage.world);
    conn_close(stage.conn);
    peer_expect(stage.world, stage.peer, "!");
    peer_expect_eof(stage.world, stage.peer);
    stage_fini(&stage);
}

/* The other side must not take it for the whole. */
static void closing_with_bytes_left_says_no_end(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    assert_true(conn_send_copy(stage.conn, BYTES("half")));
    conn_close(stage.conn);
    peer_expect_eof(stage.world, stage.peer);
    stage_fini(&stage);
}

static void a_reset_says_nothing(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    net_world_turn(stage.world);
    conn_reset(stage.conn);
    char some[8];
    TURN_UNTIL(stage.world, peer_take(stage.peer, some, sizeof some) == -ECONNRESET);
    stage_fini(&stage);
}

static void a_filter_that_makes_nothing_is_asked_again(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    stage.shouter.stuck = true;
    assert_true(conn_send_copy(stage.conn, BYTES("late")));
    conn_send_fin(stage.conn);
    net_world_turn_for(stage.world, 30);
    assert_int_equal(conn_queued(stage.conn), 4);
    stage.shouter.stuck = false;
    peer_expect(stage.world, stage.peer, "late.!");
    peer_expect_eof(stage.world, stage.peer);
    conn_close(stage.conn);
    stage_fini(&stage);
}

static void a_filter_that_fails_loses_the_connection(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    stage.shouter.broken = true;
    assert_true(conn_send_copy(stage.conn, BYTES("never")));
    TURN_UNTIL(stage.world, stage.user->lost == 1);
    assert_int_equal(stage.user->lost_error, ENOMEM);
    stage_fini(&stage);
}

static void fin_comes_to_the_filter(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    shutdown(stage.peer, SHUT_WR);
    TURN_UNTIL(stage.world, stage.user->eofs == 1);
    assert_int_equal(stage.shouter.eofs, 1);
    conn_close(stage.conn);
    stage_fini(&stage);
}

static void a_pump_would_pass_it_by(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    int other_peer;
    struct conn_user *other = conn_user_accept(stage.world, &other_peer);
    assert_false(pump_start(stage.conn, other->conn));
    assert_false(pump_start(other->conn, stage.conn));
    conn_reset(other->conn);
    conn_reset(stage.conn);
    close(other_peer);
    stage_fini(&stage);
    free(other);
}

/* A kernel that refuses; one that does not is met in tests/behaviour/tls/test_ktls.py. */
static void a_pump_ends_where_the_kernel_does_not_begin(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    stage.shouter.filter.offers = true;
    int other_peer;
    struct conn_user *other = conn_user_accept(stage.world, &other_peer);
    other->pump_limit = 100000;
    assert_false(pump_start(other->conn, stage.conn)); /* too little */
    other->pump_limit = UINT64_MAX;
    assert_true(conn_send_copy(stage.conn, BYTES("before")));
    assert_true(pump_start(other->conn, stage.conn));
    assert_int_equal(stage.shouter.asked, 0);
    peer_send(other_peer, "hello");
    TURN_UNTIL(stage.world, other->len == 5);
    assert_memory_equal(other->bytes, "hello", 5);
    assert_int_equal(stage.shouter.asked, 1);
    assert_null(other->conn->pump_out);
    assert_null(stage.conn->pump_in);
    assert_int_equal(other->pumped, 0);
    peer_expect(stage.world, stage.peer, "before.");
    assert_false(pump_start(other->conn, stage.conn)); /* it is not asked twice */
    conn_reset(other->conn);
    conn_reset(stage.conn);
    close(other_peer);
    stage_fini(&stage);
    free(other);
}

static void without_the_filter_bytes_are_bare(void **state) {
    (void)state;
    struct stage stage;
    stage_init(&stage);
    assert_true(conn_filter_put(stage.conn, BYTES("alert ")));
    conn_drop_filter(stage.conn);
    assert_int_equal(stage.shouter.released, 1);
    assert_true(conn_send_copy(stage.conn, BYTES("bare")));
    conn_finish(stage.conn, 1000, false);
    peer_expect(stage.world, stage.peer, "alert bare");
    peer_expect_eof(stage.world, stage.peer);
    stage_fini(&stage);
}

static void a_connect_is_told_to_the_filter(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    struct net_world *world = net_world_new(&options);
    struct shouter shouter = {.filter.ops = &shouter_ops};
    struct conn_user user = {.world = world};
    struct sockaddr_in address;
    int listening = tcp_listen(&address);
    struct conn_dial_options dial = {.address = (const struct sockaddr *)&address,
                                     .address_size = sizeof address,
                                     .deadline_ms = world->net.now_ms + 1000};
    int error = 0;
    struct conn *conn = conn_dial(&world->net, &dial, &conn_user_events, &user, &error);
    assert_non_null(conn);
    conn_set_filter(conn, &shouter.filter);
    TURN_UNTIL(world, user.opened == 1);
    assert_int_equal(shouter.opened, 1);
    conn_reset(conn);
    close(listening);
    net_world_free(world);
    assert_int_equal(shouter.released, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_pass_the_filter_both_ways),
        cmocka_unit_test(a_filter_may_write_in_place),
        cmocka_unit_test(what_waits_before_the_filter_counts_as_queued),
        cmocka_unit_test(the_end_is_marked_before_fin),
        cmocka_unit_test(finishing_sends_all_and_the_mark),
        cmocka_unit_test(closing_says_the_end_at_once),
        cmocka_unit_test(closing_with_bytes_left_says_no_end),
        cmocka_unit_test(a_reset_says_nothing),
        cmocka_unit_test(a_filter_that_makes_nothing_is_asked_again),
        cmocka_unit_test(a_filter_that_fails_loses_the_connection),
        cmocka_unit_test(fin_comes_to_the_filter),
        cmocka_unit_test(a_pump_would_pass_it_by),
        cmocka_unit_test(a_pump_ends_where_the_kernel_does_not_begin),
        cmocka_unit_test(without_the_filter_bytes_are_bare),
        cmocka_unit_test(a_connect_is_told_to_the_filter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
