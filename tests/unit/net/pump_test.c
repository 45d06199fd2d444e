#include "net/pump.h"

#include "unit/net/pump_line.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* The pattern goes on at `from` with what no pump took. */
static void assert_received(const struct conn_user *user, size_t at, size_t len) {
    char *wanted = malloc(len + 1);
    assert_non_null(wanted);
    (void)pattern_bytes(wanted, at, len);
    assert_int_equal(user->len, len);
    assert_memory_equal(user->bytes, wanted, len);
    free(wanted);
}

static void megabytes_pass_whole_and_in_order(void **state) {
    (void)state;
    struct line *line = line_new();
    line_pump(line);
    line_carry(line, 20 * MB);
    assert_int_equal(line->from->len, 0);
    assert_int_equal(line->from->pumped, 20 * MB);
    assert_int_equal(line->to->conn->sent_total, 20 * MB);
    assert_int_equal(line_stat(line, STAT_SPLICED_BYTES), 20 * MB);
    assert_int_equal(line_stat(line, STAT_CLIENT_BYTES_RECEIVED), 20 * MB);
    assert_int_equal(line_stat(line, STAT_CLIENT_BYTES_SENT), 20 * MB);
    assert_int_equal(line_stat(line, STAT_PIPES_USED), 0);
    assert_int_equal(line_stat(line, STAT_PIPES_SPARE), 1);
    line_free(line);
}

static void pumps_that_move_much_count_as_busy_for_a_moment(void **state) {
    (void)state;
    struct line *line = line_new();
    struct net *net = &line->world->net;
    assert_int_equal(pump_busy_count(net), 0);
    line_pump(line);
    line_feed(line, 100000);
    TURN_UNTIL(line->world, line->from->pumped != 0);
    assert_int_equal(pump_busy_count(net), 1);
    net->now_ms++;
    assert_int_equal(pump_busy_count(net), 1);
    net->now_ms++;
    assert_int_equal(pump_busy_count(net), 0);
    line_carry(line, 100000);
    line_free(line);
}

static void what_follows_the_limit_is_received(void **state) {
    (void)state;
    const size_t limits[] = {1,         4095,          65536,         PIPE_SIZE - 1,
                             PIPE_SIZE, PIPE_SIZE + 1, 4 * PIPE_SIZE, 5 * PIPE_SIZE + 7};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct line *line = line_new();
        line->from->pump_limit = limits[i];
        line_pump(line);
        TURN_UNTIL(line->world, (line_feed(line, limits[i] + 10), line_drain(line),
                                 line->from->len == 10 && line->taken == limits[i]));
        assert_received(line->from, limits[i], 10);
        assert_null(line->from->conn->pump_out);
        assert_null(line->to->conn->pump_in);
        assert_int_equal(line->from->pumped, limits[i]);
        line_free(line);
    }
}

static void what_was_queued_before_goes_first(void **state) {
    (void)state;
    struct line *line = line_new();
    line->from->send_on = true;
    line->from->pump_to = line->to->conn;
    conn_user_narrow(line->to, line->sink);
    line_feed(line, 30000); /* more than one buffer: the next ones come while it is starting */
    line_carry(line, 2 * MB);
    assert_false(conn_is_held(line->from->conn));
    assert_true(line->from->len >= 4096);
    assert_int_equal(line->from->len + line->from->pumped, 2 * MB);
    line_free(line);
}

static void a_slow_sink_holds_the_source_and_goes_on(void **state) {
    (void)state;
    struct line *line = line_new();
    conn_user_narrow(line->to, line->sink);
    line_fill(line);
    assert_true(conn_is_held(line->from->conn));
    assert_true(conn_is_sending(line->to->conn));
    assert_int_equal(line_stat(line, STAT_PIPES_USED), 1);
    /* What the two sockets of that side take, and no more. */
    assert_true(line->from->pumped < 300000);
    assert_true(line->sent > line->from->pumped);
    line_carry(line, line->sent + 2 * MB);
    assert_false(conn_is_held(line->from->conn));
    assert_false(conn_is_sending(line->to->conn));
    assert_int_equal(line->from->pumped, line->taken);
    line_free(line);
}

/* A poll ends at once and for ever when the other side has sent FIN. */
static void a_half_closed_slow_sink_does_not_keep_the_worker_busy(void **state) {
    (void)state;
    for (int known = 0; known < 2; known++) {
        struct line *line = line_new();
        if (!known) conn_pause(line->to->conn); /* its user will not hear of the FIN */
        conn_user_narrow(line->to, line->sink);
        shutdown(line->sink, SHUT_WR);
        line_fill(line);
        assert_int_equal(line->to->eofs, known);
        uint64_t before = line_stat(line, STAT_URING_ENTER);
        net_world_turn_for(line->world, 200);
        assert_in_range(line_stat(line, STAT_URING_ENTER) - before, 1, 60);
        line_carry(line, line->sent + 2 * MB);
        line_free(line);
    }
}

static void few_bytes_at_a_time_are_received_again(void **state) {
    (void)state;
    struct line *line = line_new();
    line->from->send_on = true; /* it goes on to the same sink: the order shows */
    line_pump(line);
    line->from->pump_to = NULL;
    line_carry(line, MB);
    line->from->pump_to = line->to->conn;
    for (size_t i = 1; line->from->conn->pump_out; i++) {
        line_carry(line, MB + i * 100);
        net_world_turn(line->world);
        assert_true(i < 20);
    }
    line->from->pump_to = line->to->conn;
    uint64_t pumped = line->from->pumped;
    size_t end = line->sent + 300;
    TURN_UNTIL(line->world, (line_feed(line, end), line_drain(line) == end));
    assert_int_equal(line->from->pumped, pumped);
    assert_int_equal(line->from->len, 300);
    /* And a stream again with the next start: on_bytes has asked for it. */
    line_carry(line, end + 4 * MB);
    assert_true(line->from->pumped > pumped + 3 * MB);
    line_free(line);
}

/* To be slow is not to be chatty: what the sink takes late is much when it comes. */
static void a_sink_that_is_slow_at_times_keeps_the_pump(void **state) {
    (void)state;
    struct line *line = line_new();
    line_pump(line);
    for (int i = 1; i <= 10; i++) {
        /* A small move, then a large one that ends with the sink full. */
        line_carry(line, line->sent + 1000);
        net_world_turn(line->world);
        size_t end = line->sent + 64 * MB; /* more than all sockets hold */
        TURN_UNTIL(line->world, (line_feed(line, end), conn_is_held(line->from->conn)));
        line_carry(line, line->sent);
        assert_non_null(line->from->conn->pump_out);
    }
    line_free(line);
}

static void without_a_pipe_bytes_are_received(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.pipes_max = 1;
    struct line *slow = line_new_in(net_world_new(&options));
    conn_user_narrow(slow->to, slow->sink);
    line_fill(slow);
    struct line *line = line_new_in(slow->world);
    line_pump(line);
    TURN_UNTIL(slow->world, (line_feed(line, 900000), line->from->len == 900000));
    assert_received(line->from, 0, 900000);
    assert_true(line->from->reads_bulk > 0);
    assert_int_equal(line->from->pumped, 0);
    assert_null(line->from->conn->pump_out);
    assert_int_equal(line_stat(line, STAT_PIPE_SHORTAGES), 1);
    /* The sink takes what is held, the pipe comes back, the next pump gets it. */
    line_carry(slow, slow->sent);
    assert_int_equal(line_stat(line, STAT_PIPES_USED), 0);
    struct net_world *world = slow->world;
    conn_close_all(&world->net);
    TURN_UNTIL(world, world->net.conns.used == 0);
    line_close(line);
    line_free(slow);
}

static void no_pipes_no_pump(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    options.pipes_max = 0;
    struct line *line = line_new_in(net_world_new(&options));
    assert_false(pump_start(line->from->conn, line->to->conn));
    assert_null(line->from->conn->pump_out);
    assert_null(line->to->conn->pump_in);
    line_free(line);
}

static void a_pause_stops_the_pump_until_the_resume(void **state) {
    (void)state;
    struct line *line = line_new();
    line_pump(line);
    line_carry(line, MB);
    conn_pause(line->from->conn);
    net_world_turn_for(line->world, 10);
    line_feed(line, MB + 100000);
    net_world_turn_for(line->world, 30);
    assert_int_equal(line_drain(line), MB);
    conn_resume(line->from->conn);
    line_carry(line, 2 * MB);
    assert_int_equal(line->from->pumped, 2 * MB);
    line_free(line);
}

static void both_directions_pass_at_once(void **state) {
    (void)state;
    struct line *line = line_new();
    struct line back = {.world = line->world,
                        .from = line->to,
                        .to = line->from,
                        .source = line->sink,
                        .sink = line->source};
    back.from->pump_limit = UINT64_MAX;
    line_pump(line);
    line_pump(&back);
    TURN_UNTIL(line->world, (line_feed(line, 8 * MB), line_feed(&back, 5 * MB), line_drain(line),
                             line_drain(&back), line->taken == 8 * MB && back.taken == 5 * MB));
    assert_int_equal(line_stat(line, STAT_SPLICED_BYTES), 13 * MB);
    /* One ends, the other goes on. */
    shutdown(line->source, SHUT_WR);
    TURN_UNTIL(line->world, line->from->eofs == 1);
    conn_send_fin(line->to->conn);
    peer_expect_eof(line->world, line->sink);
    line_carry(&back, 7 * MB);
    line_free(line);
}

/* A poll that an earlier pump left behind, and all operations a connection can have at once. */
static void pumps_of_all_directions_leave_polls_to_each_other(void **state) {
    (void)state;
    struct line *line = line_new();
    struct line back = {.world = line->world,
                        .from = line->to,
                        .to = line->from,
                        .source = line->sink,
                        .sink = line->source};
    back.from->pump_limit = UINT64_MAX;
    conn_user_narrow(line->to, line->sink);
    line_fill(line); /* `to` waits for room */
    line_pump(&back);
    net_world_turn_for(line->world, 20); /* `to` waits for bytes as well */
    struct conn *to = line->to->conn;
    assert_int_equal(to->ops_in_flight, 2);
    pump_stop(to->pump_out);
    pump_stop(to->pump_in);
    assert_true(conn_send_copy(to, BYTES("more than there is room for")));
    TURN_UNTIL(line->world, to->ops_in_flight == 4); /* a send and a receive beside them */
    line_pump(&back);
    peer_send(line->sink, "x");
    TURN_UNTIL(line->world, to->ops_in_flight < 4);
    assert_int_equal(line_stat(line, STAT_URING_CQ_OVERFLOW), 0);
    line_free(line);
}

static void unix_sockets_pass_too(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    struct net_world *world = net_world_new(&options);
    struct line *line = line_new_in(world);
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    struct conn_user *unix_user = calloc(1, sizeof *unix_user);
    assert_non_null(unix_user);
    unix_user->pump_limit = UINT64_MAX;
    unix_user->conn = conn_accept(&world->net, fds[0], &conn_user_events, unix_user);
    struct line to_unix = *line, from_unix = *line;
    to_unix.to = from_unix.from = unix_user;
    to_unix.sink = from_unix.source = fds[1];
    line_pump(&to_unix);
    line_carry(&to_unix, 3 * MB);
    assert_int_equal(line->from->pumped, 3 * MB);
    /* A receive is under way there: what it brings goes first. */
    unix_user->send_on = true;
    unix_user->pump_to = line->to->conn;
    line_pump(&from_unix);
    line_carry(&from_unix, 3 * MB);
    assert_int_equal(unix_user->pumped + unix_user->len, 3 * MB);
    assert_true(unix_user->pumped > 2 * MB);
    conn_close_all(&world->net);
    TURN_UNTIL(world, world->net.conns.used == 0);
    close(fds[1]);
    free(unix_user);
    line_free(line);
}

int main(void) {
    (void)signal(SIGPIPE, SIG_IGN); /* as the program does: splice(2) has no MSG_NOSIGNAL */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(megabytes_pass_whole_and_in_order),
        cmocka_unit_test(pumps_that_move_much_count_as_busy_for_a_moment),
        cmocka_unit_test(what_follows_the_limit_is_received),
        cmocka_unit_test(what_was_queued_before_goes_first),
        cmocka_unit_test(a_slow_sink_holds_the_source_and_goes_on),
        cmocka_unit_test(a_half_closed_slow_sink_does_not_keep_the_worker_busy),
        cmocka_unit_test(few_bytes_at_a_time_are_received_again),
        cmocka_unit_test(a_sink_that_is_slow_at_times_keeps_the_pump),
        cmocka_unit_test(without_a_pipe_bytes_are_received),
        cmocka_unit_test(no_pipes_no_pump),
        cmocka_unit_test(a_pause_stops_the_pump_until_the_resume),
        cmocka_unit_test(both_directions_pass_at_once),
        cmocka_unit_test(pumps_of_all_directions_leave_polls_to_each_other),
        cmocka_unit_test(unix_sockets_pass_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
