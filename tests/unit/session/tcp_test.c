/* session_tcp in both roles over real connections. */
#include "unit/session/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define IDLE_MS 2000

/* With buffers enough for what fill() sends. */
static struct session_world *world_new(void) {
    struct net_options options = net_world_options();
    options.small_count = 128;
    return session_world_new(NULL, &options);
}

static struct session_world *client_new(void) {
    struct session_world *world = world_new();
    world->ops = &session_tcp;
    session_world_accept(world);
    assert_int_equal(world->streams, 0); /* not from within accept */
    TURN_UNTIL(world->net, world->streams == 1);
    world->on_reset = seen_on_reset_close;
    return world;
}

static struct session_world *upstream_new(void) {
    struct session_world *world = world_new();
    world->ops = &session_tcp;
    session_world_connect(world);
    assert_int_equal(world->ready, 1);
    assert_non_null(session_world_open(world, NULL));
    world->on_reset = seen_on_reset_close;
    return world;
}

static struct seen *first(struct session_world *world) { return &world->seen[0]; }

static void tunnel(struct session_world *world, uint64_t idle_ms) {
    struct stream *stream = first(world)->stream;
    stream->ops->tunnel(stream, idle_ms);
}

static void end(struct session_world *world) {
    struct stream *stream = first(world)->stream;
    stream->ops->end(stream, NULL);
}

static void is_closed(struct session_world *world, enum reason reason) {
    TURN_UNTIL(world->net, world->closed == 1);
    assert_int_equal(world->closed_reason, reason);
}

static void bytes_wait_for_the_tunnel(void **state) {
    (void)state;
    struct session_world *world = client_new();
    peer_send(world->peer, "early");
    TURN_UNTIL(world->net, buf_pool_leased(&world->net->net.small) == 1);
    peer_send(world->peer, " and late");
    net_world_turn_for(world->net, 20);
    assert_int_equal(buf_pool_leased(&world->net->net.small), 1); /* the rest is the kernel's */
    assert_int_equal(first(world)->datas, 0);
    tunnel(world, IDLE_MS);
    assert_int_equal(first(world)->datas, 0); /* not from within a call */
    TURN_UNTIL(world->net, first(world)->body_len == 14);
    assert_string_equal(first(world)->body, "early and late");
    session_world_free(world);
}

static void a_fin_waits_behind_the_bytes(void **state) {
    (void)state;
    struct session_world *world = client_new();
    peer_send(world->peer, "all");
    assert_int_equal(shutdown(world->peer, SHUT_WR), 0);
    net_world_turn_for(world->net, 20);
    assert_int_equal(first(world)->ends, 0);
    tunnel(world, IDLE_MS);
    TURN_UNTIL(world->net, first(world)->ends == 1);
    assert_string_equal(first(world)->body, "all");
    session_world_free(world);
}

static void a_fin_alone_waits_too(void **state) {
    (void)state;
    struct session_world *world = client_new();
    assert_int_equal(shutdown(world->peer, SHUT_WR), 0);
    net_world_turn_for(world->net, 20);
    assert_int_equal(first(world)->ends, 0);
    tunnel(world, IDLE_MS);
    TURN_UNTIL(world->net, first(world)->ends == 1);
    assert_int_equal(first(world)->datas, 0);
    session_world_free(world);
}

static void a_reset_before_the_tunnel_is_told(void **state) {
    (void)state;
    struct session_world *world = client_new();
    tcp_reset(world->peer);
    world->peer = -1;
    TURN_UNTIL(world->net, first(world)->resets == 1);
    assert_int_equal(first(world)->reason, REASON_CLIENT_RESET);
    is_closed(world, REASON_CLIENT_RESET);
    session_world_free(world);
}

static void each_direction_ends_by_itself(void **state) {
    (void)state;
    struct session_world *world = client_new();
    tunnel(world, IDLE_MS);
    seen_data(first(world), "bye", false);
    end(world);
    peer_expect(world->net, world->peer, "bye");
    peer_expect_eof(world->net, world->peer);
    peer_send(world->peer, "still here");
    TURN_UNTIL(world->net, first(world)->body_len == 10);
    assert_int_equal(first(world)->ends, 0);
    assert_int_equal(shutdown(world->peer, SHUT_WR), 0);
    TURN_UNTIL(world->net, first(world)->ends == 1);
    seen_close(first(world), REASON_NONE);
    is_closed(world, REASON_NONE);
    session_world_free(world);
}

/* Sends more than all the room that the kernel has, or may still find after a probe of the closed
 * window: that does not grow. */
static size_t fill(struct session_world *world) {
    static char text[16384 + 1];
    memset(text, 'x', sizeof text - 1);
    const int peer_half = 65536, own_half = 8192; /* the kernel takes twice as much */
    int own = world->session->conn->fd;
    assert_int_equal(setsockopt(world->peer, SOL_SOCKET, SO_RCVBUF, &peer_half, sizeof peer_half),
                     0);
    assert_int_equal(setsockopt(own, SOL_SOCKET, SO_SNDBUF, &own_half, sizeof own_half), 0);
    size_t sent = 0;
    for (; sent < 2 * (65536 + 8192) + 65536; sent += sizeof text - 1) {
        (void)seen_data(first(world), text, false);
        net_world_turn(world->net);
    }
    return sent;
}

static size_t take_all(struct session_world *world) {
    static char memory[65536];
    size_t taken = 0;
    for (uint64_t end_ms = world->net->net.now_ms + 5000;;) {
        ssize_t got = peer_take(world->peer, memory, sizeof memory);
        if (got == 0) return taken;
        if (got > 0) taken += (size_t)got;
        net_world_turn(world->net);
        assert_true(world->net->net.now_ms < end_ms);
    }
}

static void what_is_queued_at_a_good_end_is_still_sent(void **state) {
    (void)state;
    for (int is_client = 0; is_client < 2; is_client++) {
        struct session_world *world = is_client ? client_new() : upstream_new();
        tunnel(world, IDLE_MS);
        assert_int_equal(shutdown(world->peer, SHUT_WR), 0);
        TURN_UNTIL(world->net, first(world)->ends == 1);
        size_t sent = fill(world);
        end(world);
        seen_close(first(world), REASON_NONE);
        net_world_turn_for(world->net, 20);
        assert_int_equal(world->closed, 0); /* the session stays as long */
        assert_int_equal(take_all(world), sent);
        is_closed(world, REASON_NONE);
        session_world_free(world);
    }
}

static void a_drain_that_is_over_cuts_it(void **state) {
    (void)state;
    for (uint32_t is_client = 0; is_client < 2; is_client++) {
        struct session_world *world = is_client ? client_new() : upstream_new();
        tunnel(world, IDLE_MS);
        assert_int_equal(shutdown(world->peer, SHUT_WR), 0);
        TURN_UNTIL(world->net, first(world)->ends == 1);
        (void)fill(world);
        end(world);
        seen_close(first(world), REASON_NONE);
        session_room_drain(&world->room);
        net_world_turn_for(world->net, 20);
        assert_int_equal(world->closed, 0);
        assert_int_equal(session_room_cut(&world->room), !is_client);
        is_closed(world, REASON_DRAIN_CUT);
        assert_int_equal(session_room_cut(&world->room), 0);
        peer_expect_reset(world->net, world->peer);
        session_world_free(world);
    }
}

static void what_nobody_reads_is_cut_in_the_end(void **state) {
    (void)state;
    struct session_world *world = client_new();
    tunnel(world, IDLE_MS);
    assert_int_equal(shutdown(world->peer, SHUT_WR), 0);
    TURN_UNTIL(world->net, first(world)->ends == 1);
    (void)fill(world);
    end(world);
    seen_close(first(world), REASON_NONE);
    is_closed(world, REASON_TUNNEL_TIMEOUT);
    peer_expect_reset(world->net, world->peer);
    session_world_free(world);
}

static void an_early_close_is_a_reset(void **state) {
    (void)state;
    static const enum reason reasons[] = {REASON_NONE, REASON_SERVER_RESET};
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        struct session_world *world = client_new();
        tunnel(world, IDLE_MS);
        end(world); /* one direction only */
        seen_close(first(world), reasons[i]);
        is_closed(world, reasons[i]);
        peer_expect_reset(world->net, world->peer);
        session_world_free(world);
    }
}

static void a_stream_that_is_refused_is_a_reset(void **state) {
    (void)state;
    struct session_world *world = session_world_new(NULL, NULL);
    world->ops = &session_tcp;
    world->refuse_streams = true;
    session_world_accept(world);
    is_closed(world, REASON_NO_MEMORY);
    assert_int_equal(world->refused, 1);
    assert_int_equal(world->refused_reason, REASON_NO_MEMORY);
    peer_expect_reset(world->net, world->peer);
    session_world_free(world);
}

static void an_idle_stream_is_reset(void **state) {
    (void)state;
    struct session_world *world = upstream_new();
    tunnel(world, 60);
    uint64_t began_ms = world->net->net.now_ms;
    TURN_UNTIL(world->net, first(world)->resets == 1);
    assert_int_equal(first(world)->reason, REASON_TUNNEL_TIMEOUT);
    assert_true(world->net->net.now_ms >= began_ms + 60);
    is_closed(world, REASON_TUNNEL_TIMEOUT);
    peer_expect_reset(world->net, world->peer);
    session_world_free(world);
}

static void bytes_of_either_direction_keep_it_alive(void **state) {
    (void)state;
    struct session_world *world = upstream_new();
    tunnel(world, 240);
    for (int i = 0; i < 4; i++) {
        net_world_turn_for(world->net, 80);
        peer_send(world->peer, "x");
    }
    for (int i = 0; i < 4; i++) {
        net_world_turn_for(world->net, 80);
        seen_data(first(world), "x", false);
    }
    assert_int_equal(first(world)->resets, 0);
    assert_int_equal(first(world)->body_len, 4);
    session_world_free(world);
}

static uint32_t asked;
static uint64_t other_idle_ms;

static uint64_t on_idle(struct stream *stream) {
    (void)stream;
    asked++;
    return other_idle_ms;
}

static void while_bytes_move_on_the_other_side_it_is_not_idle(void **state) {
    (void)state;
    struct session_world *world = upstream_new();
    struct stream *stream = first(world)->stream;
    struct stream_events events = *stream->events;
    events.on_idle = on_idle;
    stream->events = &events;
    asked = 0;
    other_idle_ms = 30;
    tunnel(world, 60);
    uint64_t began_ms = world->net->net.now_ms;
    TURN_UNTIL(world->net, asked == 3);
    assert_true(world->net->net.now_ms >= began_ms + 60 + 30 + 30);
    assert_int_equal(first(world)->resets, 0);
    other_idle_ms = 60;
    TURN_UNTIL(world->net, first(world)->resets == 1);
    assert_int_equal(asked, 4);
    session_world_free(world);
}

static void how_long_nothing_has_moved(void **state) {
    (void)state;
    struct session_world *world = upstream_new();
    struct stream *stream = first(world)->stream;
    tunnel(world, IDLE_MS);
    net_world_turn_for(world->net, 50);
    assert_in_range(stream->ops->idle_ms(stream), 40, 1000);
    seen_data(first(world), "x", false);
    assert_int_equal(stream->ops->idle_ms(stream), 0);
    net_world_turn_for(world->net, 50);
    assert_in_range(stream->ops->idle_ms(stream), 40, 1000);
    peer_send(world->peer, "x");
    TURN_UNTIL(world->net, first(world)->body_len == 1);
    assert_in_range(stream->ops->idle_ms(stream), 0, 40);
    session_world_free(world);
}

static void a_server_connection_carries_one_stream(void **state) {
    (void)state;
    struct session_world *world = upstream_new();
    assert_null(session_world_open(world, NULL));
    tunnel(world, IDLE_MS);
    seen_data(first(world), "ping", false);
    peer_expect(world->net, world->peer, "ping");
    peer_send(world->peer, "pong");
    TURN_UNTIL(world->net, first(world)->body_len == 4);
    assert_int_equal(shutdown(world->peer, SHUT_WR), 0);
    TURN_UNTIL(world->net, first(world)->ends == 1);
    end(world);
    seen_close(first(world), REASON_NONE);
    is_closed(world, REASON_NONE);
    assert_int_equal(world->idle, 0);
    peer_expect_eof(world->net, world->peer);
    session_world_free(world);
}

static void a_reset_server_is_told(void **state) {
    (void)state;
    struct session_world *world = upstream_new();
    tunnel(world, IDLE_MS);
    tcp_reset(world->peer);
    world->peer = -1;
    TURN_UNTIL(world->net, first(world)->resets == 1);
    assert_int_equal(first(world)->reason, REASON_SERVER_RESET);
    session_world_free(world);
}

static void connects_that_fail_are_told_as_closed(void **state) {
    (void)state;
    struct session_world *world = session_world_new(NULL, NULL);
    world->ops = &session_tcp;
    tcp_refused(&world->address);
    session_world_connect(world);
    assert_int_equal(world->closed_reason, REASON_CONNECT_FAILED);
    session_world_free(world);

    struct session_options options = session_world_options();
    options.timeout_connect_ms = 60;
    world = session_world_new(&options, NULL);
    world->ops = &session_tcp;
    assert_int_equal(listen(world->listening, 0), 0); /* further handshakes get no answer */
    int other = tcp_connect(&world->address);
    session_world_connect(world);
    assert_int_equal(world->closed_reason, REASON_CONNECT_TIMEOUT);
    close(other);
    session_world_free(world);
}

static uint32_t given_up;

static void on_given_up(struct session *session, enum reason reason) {
    (void)session;
    assert_int_equal(reason, REASON_SERVER_IDLE);
    given_up++;
}

static void a_dial_may_be_given_up(void **state) {
    (void)state;
    static const struct session_host host = {.on_closed = on_given_up};
    struct session_world *world = session_world_new(NULL, NULL);
    assert_int_equal(listen(world->listening, 0), 0);
    int other = tcp_connect(&world->address);
    struct session_address to = {.address = (const struct sockaddr *)&world->address,
                                 .size = sizeof world->address};
    enum reason reason;
    struct session *session =
        session_tcp.connect(&world->room, &to, &world->options, &host, &reason);
    assert_non_null(session);
    net_world_turn_for(world->net, 10);
    given_up = 0;
    session->ops->close(session, REASON_SERVER_IDLE);
    assert_int_equal(given_up, 0); /* not from within a call */
    TURN_UNTIL(world->net, given_up == 1);
    TURN_UNTIL(world->net, world->net->net.conns.used == 0); /* long before timeout_connect */
    close(other);
    session_world_free(world);
}

static void all_slots_in_use_is_no_memory(void **state) {
    (void)state;
    struct session_world *world = session_world_new(NULL, NULL);
    struct slab *slab = &world->room.tcp;
    void *taken[16];
    for (uint32_t i = 0; i < slab->capacity; i++)
        taken[i] = slab_acquire(slab);
    struct session_address to = {.address = (const struct sockaddr *)&world->address,
                                 .size = sizeof world->address};
    enum reason reason = REASON_NONE;
    assert_null(session_tcp.connect(&world->room, &to, &world->options, NULL, &reason));
    assert_int_equal(reason, REASON_NO_MEMORY);
    for (uint32_t i = 0; i < slab->capacity; i++)
        slab_release_object(slab, taken[i]);
    session_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_wait_for_the_tunnel),
        cmocka_unit_test(a_fin_waits_behind_the_bytes),
        cmocka_unit_test(a_fin_alone_waits_too),
        cmocka_unit_test(a_reset_before_the_tunnel_is_told),
        cmocka_unit_test(each_direction_ends_by_itself),
        cmocka_unit_test(what_is_queued_at_a_good_end_is_still_sent),
        cmocka_unit_test(a_drain_that_is_over_cuts_it),
        cmocka_unit_test(what_nobody_reads_is_cut_in_the_end),
        cmocka_unit_test(an_early_close_is_a_reset),
        cmocka_unit_test(a_stream_that_is_refused_is_a_reset),
        cmocka_unit_test(an_idle_stream_is_reset),
        cmocka_unit_test(bytes_of_either_direction_keep_it_alive),
        cmocka_unit_test(while_bytes_move_on_the_other_side_it_is_not_idle),
        cmocka_unit_test(how_long_nothing_has_moved),
        cmocka_unit_test(a_server_connection_carries_one_stream),
        cmocka_unit_test(a_reset_server_is_told),
        cmocka_unit_test(connects_that_fail_are_told_as_closed),
        cmocka_unit_test(a_dial_may_be_given_up),
        cmocka_unit_test(all_slots_in_use_is_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
