/* How pumps end: whoever ends them, wherever they are. */
#include "net/pump.h"

#include "unit/net/pump_line.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static void fin_comes_after_the_bytes(void **state) {
    (void)state;
    struct line *line = line_new();
    line_pump(line);
    TURN_UNTIL(line->world, (line_feed(line, MB), line_drain(line), line->sent == MB));
    shutdown(line->source, SHUT_WR);
    TURN_UNTIL(line->world, (line_drain(line), line->from->eofs == 1));
    assert_int_equal(line->from->pumped_at_eof, MB);
    assert_false(line->from->pumping_at_eof);
    TURN_UNTIL(line->world, line_drain(line) == MB);
    conn_send_fin(line->to->conn);
    peer_expect_eof(line->world, line->sink);
    assert_int_equal(line->from->eofs, 1);
    line_free(line);
}

/* All of it lies in the completion queue when the first bytes start the pump. */
static void fin_while_starting_ends_the_pump_first(void **state) {
    (void)state;
    struct line *line = line_new();
    line_feed(line, 1); /* from the second receive on it is multishot */
    TURN_UNTIL(line->world, line->from->len == 1);
    net_world_turn(line->world);
    line->from->send_on = true;
    line->from->pump_to = line->to->conn;
    line_feed(line, 40000);
    shutdown(line->source, SHUT_WR);
    TURN_UNTIL(line->world, line->from->eofs == 1);
    assert_false(line->from->pumping_at_eof);
    assert_null(line->to->conn->pump_in);
    conn_send_fin(line->to->conn);
    net_world_turn_for(line->world, 30);
    assert_int_equal(line->from->eofs, 1);
    line_free(line);
}

static void reset_of_the_source_comes_after_the_bytes_held(void **state) {
    (void)state;
    struct line *line = line_new();
    conn_user_narrow(line->to, line->sink);
    line_fill(line);
    size_t passed = line->from->pumped + line->from->conn->pump_out->pipe->len;
    tcp_reset(line->source);
    line->source = -1;
    TURN_UNTIL(line->world, (line_drain(line), line->from->lost == 1));
    assert_int_equal(line->from->lost_error, ECONNRESET);
    assert_int_equal(line->to->lost, 0);
    TURN_UNTIL(line->world, line_drain(line) >= passed);
    line_free(line);
}

static void reset_of_the_source_is_seen_while_waiting(void **state) {
    (void)state;
    struct line *line = line_new();
    line_pump(line);
    line_carry(line, MB);
    tcp_reset(line->source);
    line->source = -1;
    TURN_UNTIL(line->world, line->from->lost == 1);
    assert_int_equal(line->from->lost_error, ECONNRESET);
    assert_null(line->to->conn->pump_in);
    line_free(line);
}

/* What is in the pipe is lost with it, and nobody else ever finds it. */
static void reset_of_the_sink_gives_the_pipe_back(void **state) {
    (void)state;
    struct line *line = line_new();
    conn_user_narrow(line->to, line->sink);
    line_fill(line);
    assert_int_equal(line_stat(line, STAT_PIPES_USED), 1);
    tcp_reset(line->sink);
    line->sink = -1;
    TURN_UNTIL(line->world, line->to->lost == 1);
    assert_null(line->from->conn->pump_out);
    assert_int_equal(line->from->lost, 0);
    TURN_UNTIL(line->world, line_stat(line, STAT_PIPES_USED) == 0);
    assert_int_equal(line_stat(line, STAT_PIPES_SPARE), 0);
    struct line *next = line_new_in(line->world);
    line_pump(next);
    line_carry(next, MB);
    TURN_UNTIL(line->world, line->from->len != 0); /* it receives again */
    struct net_world *world = line->world;
    conn_close_all(&world->net);
    TURN_UNTIL(world, world->net.conns.used == 0);
    line_close(next);
    line_free(line);
}

/* The sink's own receive does not see it: the write has to. */
static void a_write_that_fails_loses_to_and_tells_from_before(void **state) {
    (void)state;
    struct line *line = line_new();
    conn_pause(line->to->conn);
    line_pump(line);
    line_carry(line, MB);
    TURN_UNTIL(line->world, !line->to->conn->recv_armed);
    tcp_reset(line->sink);
    line->sink = -1;
    uint32_t calls = line->from->pumped_calls;
    TURN_UNTIL(line->world, (line_feed(line, 2 * MB), line->to->lost == 1));
    assert_true(line->to->lost_error == ECONNRESET || line->to->lost_error == EPIPE);
    /* Bytes were taken from the source that no sink will get. */
    assert_true(line->from->pumped_calls > calls);
    assert_int_equal(line->from->lost, 0);
    line_free(line);
}

static void a_stop_drops_what_is_held_and_from_receives_on(void **state) {
    (void)state;
    struct line *line = line_new();
    conn_user_narrow(line->to, line->sink);
    line_fill(line);
    pump_stop(line->from->conn->pump_out);
    assert_int_equal(line_stat(line, STAT_PIPES_USED), 0);
    assert_int_equal(line_stat(line, STAT_PIPES_SPARE), 0);
    uint32_t calls = line->from->pumped_calls;
    TURN_UNTIL(line->world, line->from->len != 0);
    assert_int_equal(line->from->pumped_calls, calls);
    line_free(line);
}

static void its_users_may_reset_either_side_when_told(void **state) {
    (void)state;
    for (int which = 1; which < 4; which++) {
        for (int held = 0; held < 2; held++) {
            struct line *line = line_new();
            if (held) conn_user_narrow(line->to, line->sink);
            if (which & 1) line->from->reset_on_pumped[0] = line->from->conn;
            if (which & 2) line->from->reset_on_pumped[1] = line->to->conn;
            line_pump(line);
            TURN_UNTIL(line->world, (line_feed(line, 2 * MB), line->from->pumped_calls != 0));
            assert_int_equal(line->from->pumped_calls, 1);
            TURN_UNTIL(line->world,
                       line->world->net.conns.used == 2U - !!(which & 1) - !!(which & 2));
            assert_int_equal(line_stat(line, STAT_PIPES_USED), 0);
            assert_int_equal(line->from->lost + line->to->lost, 0);
            line_free(line);
        }
    }
}

/* Every end in every state: line_free sees what is left behind. */
enum place { STARTING_RECV, STARTING_QUEUE, WAITS_IN, WAITS_OUT, PLACES };

static struct line *line_at(enum place place) {
    struct net_options options = net_world_options();
    options.small_count = 64;
    struct line *line = line_new_in(net_world_new(&options));
    static char much[50000];
    switch (place) {
    case STARTING_RECV:
        net_world_turn_for(line->world, 10);
        line_pump(line);
        assert_true(line->from->conn->recv_armed);
        break;
    case STARTING_QUEUE:
        conn_user_narrow(line->to, line->sink);
        /* More than a narrow line has room for, also when the kernel looks for it once more. */
        for (int i = 0; i < 4; i++) {
            assert_true(conn_send_copy(line->to->conn, bytes_make(much, sizeof much)));
            net_world_turn_for(line->world, 5);
        }
        line_pump(line);
        line_feed(line, 100000);
        net_world_turn_for(line->world, 20);
        assert_true(line->to->conn->out.queued != 0);
        assert_int_equal(line->from->pumped_calls, 0);
        assert_true(conn_is_held(line->from->conn));
        break;
    case WAITS_IN:
        line_pump(line);
        line_carry(line, MB);
        net_world_turn(line->world);
        assert_true(line->from->conn->poll_in_armed);
        break;
    case WAITS_OUT:
        conn_user_narrow(line->to, line->sink);
        line_fill(line);
        assert_true(line->to->conn->poll_out_armed);
        break;
    case PLACES:
        break;
    }
    assert_non_null(line->from->conn->pump_out);
    return line;
}

typedef void (*line_end)(struct line *line);

static void end_close_from(struct line *line) { conn_close(line->from->conn); }
static void end_close_to(struct line *line) { conn_close(line->to->conn); }
static void end_reset_from(struct line *line) { conn_reset(line->from->conn); }
static void end_reset_to(struct line *line) { conn_reset(line->to->conn); }
static void end_finish_from(struct line *line) { conn_finish(line->from->conn, 100, true); }
static void end_finish_to(struct line *line) { conn_finish(line->to->conn, 100, false); }
static void end_close_both(struct line *line) {
    conn_close(line->to->conn);
    conn_close(line->from->conn);
}
static void end_finish_both(struct line *line) {
    conn_finish(line->from->conn, 100, false);
    conn_finish(line->to->conn, 100, true);
}
static void end_stop(struct line *line) { pump_stop(line->from->conn->pump_out); }
static void end_stop_and_start(struct line *line) {
    pump_stop(line->from->conn->pump_out);
    line_pump(line);
}
static void end_source_resets(struct line *line) {
    tcp_reset(line->source);
    line->source = -1;
}
static void end_sink_resets(struct line *line) {
    tcp_reset(line->sink);
    line->sink = -1;
}
static void end_both_reset(struct line *line) {
    end_source_resets(line);
    end_sink_resets(line);
}
static void end_source_finishes(struct line *line) { shutdown(line->source, SHUT_WR); }
static void end_pause(struct line *line) { conn_pause(line->from->conn); }

static void every_end_in_every_state_leaves_nothing_behind(void **state) {
    (void)state;
    const line_end ends[] = {end_close_from,     end_close_to,        end_reset_from,
                             end_reset_to,       end_finish_from,     end_finish_to,
                             end_close_both,     end_finish_both,     end_stop,
                             end_stop_and_start, end_source_resets,   end_sink_resets,
                             end_both_reset,     end_source_finishes, end_pause};
    for (int place = 0; place < PLACES; place++) {
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
            for (int turns = 0; turns < 3; turns += 2) {
                struct line *line = line_at((enum place)place);
                ends[i](line);
                for (int turn = 0; turn < turns; turn++)
                    net_world_turn(line->world);
                line_free(line);
            }
        }
    }
}

int main(void) {
    (void)signal(SIGPIPE, SIG_IGN); /* as the program does: splice(2) has no MSG_NOSIGNAL */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fin_comes_after_the_bytes),
        cmocka_unit_test(fin_while_starting_ends_the_pump_first),
        cmocka_unit_test(reset_of_the_source_comes_after_the_bytes_held),
        cmocka_unit_test(reset_of_the_source_is_seen_while_waiting),
        cmocka_unit_test(reset_of_the_sink_gives_the_pipe_back),
        cmocka_unit_test(a_write_that_fails_loses_to_and_tells_from_before),
        cmocka_unit_test(a_stop_drops_what_is_held_and_from_receives_on),
        cmocka_unit_test(its_users_may_reset_either_side_when_told),
        cmocka_unit_test(every_end_in_every_state_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
