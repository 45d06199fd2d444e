/* Life and time of an HTTP/1 session in client role: h1.c. */
#include "unit/session/session_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void a_reset_in_each_state_ends_the_session(void **state) {
    (void)state;
    static const char *const requests[] = {
        "", "GET / HT", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n"};
    for (size_t i = 0; i < 4; i++) {
        struct session_world *world = session_world_client();
        world->on_reset = seen_on_reset_close;
        if (requests[i][0]) peer_send(world->peer, requests[i]);
        net_world_turn_for(world->net, 10);
        tcp_reset(world->peer);
        world->peer = -1;
        TURN_UNTIL(world->net, world->closed == 1);
        assert_int_equal(world->closed_reason, REASON_CLIENT_RESET);
        assert_int_equal(world->seen[0].resets, i >= 2);
        if (i >= 2) assert_int_equal(world->seen[0].reason, REASON_CLIENT_RESET);
        assert_int_equal(world->room.heads.used, 0);
        session_world_free(world);
    }
}

/* The user keeps the stream for a while after the connection is gone. */
static void a_lost_session_waits_for_its_stream(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    peer_send(world->peer, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    seen_answer_head(&world->seen[0], 200, HTTP_LENGTH_UNKNOWN, false);
    tcp_reset(world->peer);
    world->peer = -1;
    TURN_UNTIL(world->net, world->seen[0].resets == 1);
    net_world_turn_for(world->net, 10);
    assert_int_equal(world->closed, 0);
    /* All calls are harmless now. */
    seen_data(&world->seen[0], "late", false);
    world->seen[0].stream->ops->pause(world->seen[0].stream);
    world->seen[0].stream->ops->resume(world->seen[0].stream);
    world->seen[0].stream->ops->end(world->seen[0].stream, NULL);
    seen_close(&world->seen[0], REASON_CLIENT_RESET);
    TURN_UNTIL(world->net, world->closed == 1);
    session_world_free(world);
}

static struct session_world *client_with_times(uint64_t request_ms, uint64_t client_ms,
                                               uint64_t keepalive_ms) {
    struct session_options options = session_world_options();
    options.timeout_request_ms = request_ms;
    options.timeout_client_ms = client_ms;
    options.timeout_keepalive_ms = keepalive_ms;
    struct session_world *world = session_world_new(&options, NULL);
    session_world_accept(world);
    return world;
}

static void a_head_that_never_ends_is_a_408(void **state) {
    (void)state;
    struct session_world *world = client_with_times(80, 2000, 2000);
    uint64_t began_ms = world->net->net.now_ms;
    peer_send(world->peer, "GET / HTTP/1.1\r\n");
    for (int i = 0; world->refused == 0; i++) {
        assert_true(i < 200);
        peer_send(world->peer, "X: y\r\n"); /* progress is no excuse */
        net_world_turn_for(world->net, 10);
    }
    assert_int_equal(world->refused_reason, REASON_REQUEST_TIMEOUT);
    assert_in_range(world->net->net.now_ms - began_ms, 80, 1900);
    peer_expect(world->net, world->peer, "HTTP/1.1 408 Request Timeout\r\n");
    TURN_UNTIL(world->net, world->closed == 1);
    session_world_free(world);
}

static void an_idle_connection_is_closed_in_time(void **state) {
    (void)state;
    struct session_world *world = client_with_times(60, 2000, 120);
    peer_expect_eof(world->net, world->peer); /* it never asked for anything */
    assert_int_equal(world->closed_reason, REASON_CLIENT_IDLE);
    assert_int_equal(world->refused, 0);
    session_world_free(world);

    world = client_with_times(60, 2000, 120);
    world->on_head = seen_on_request_answer;
    peer_send(world->peer, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    client_expect_path(world, "/a");
    uint64_t began_ms = world->net->net.now_ms;
    peer_expect_eof(world->net, world->peer);
    assert_in_range(world->net->net.now_ms - began_ms, 100, 1900);
    assert_int_equal(world->closed_reason, REASON_CLIENT_IDLE);
    session_world_free(world);
}

static void a_stalled_body_is_a_reset_of_the_stream(void **state) {
    (void)state;
    struct session_world *world = client_with_times(2000, 60, 2000);
    world->on_reset = seen_on_reset_close;
    peer_send(world->peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc");
    TURN_UNTIL(world->net, world->seen[0].resets == 1);
    assert_int_equal(world->seen[0].reason, REASON_CLIENT_TIMEOUT);
    session_world_free(world);
}

static void a_client_that_waits_for_its_answer_is_not_late(void **state) {
    (void)state;
    struct session_world *world = client_with_times(40, 40, 40);
    peer_send(world->peer, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    net_world_turn_for(world->net, 150);
    assert_int_equal(world->seen[0].resets, 0);
    seen_answer(&world->seen[0], 200, "/");
    seen_close(&world->seen[0], REASON_NONE);
    client_expect_path(world, "/");
    session_world_free(world);
}

static void a_paused_body_is_not_late_and_does_not_come(void **state) {
    (void)state;
    struct session_world *world = client_with_times(2000, 50, 2000);
    peer_send(world->peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
    TURN_UNTIL(world->net, world->streams == 1 && world->seen[0].body_len == 3);
    struct stream *stream = world->seen[0].stream;
    stream->ops->pause(stream);
    net_world_turn_for(world->net, 20);
    peer_send(world->peer, "def");
    net_world_turn_for(world->net, 120);
    assert_int_equal(world->seen[0].body_len, 3);
    assert_int_equal(world->seen[0].resets, 0);
    stream->ops->resume(stream);
    TURN_UNTIL(world->net, world->seen[0].body_len == 6);
    peer_send(world->peer, "ghi");
    TURN_UNTIL(world->net, world->seen[0].ended);
    seen_answer(&world->seen[0], 200, "/");
    seen_close(&world->seen[0], REASON_NONE);
    client_expect_path(world, "/");
    session_world_free(world);
}

static void a_client_that_does_not_read_its_answer_is_reset(void **state) {
    (void)state;
    struct net_options net_options = net_world_options();
    net_options.small_count = 4096;
    struct session_options options = session_world_options();
    options.timeout_client_ms = 100;
    struct session_world *world = session_world_new(&options, &net_options);
    session_world_accept(world);
    int size = 32768;
    setsockopt(world->session->conn->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    peer_send(world->peer, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    seen_answer_head(&world->seen[0], 200, HTTP_LENGTH_UNKNOWN, false);
    char *much = calloc(1, 4097);
    assert_non_null(much);
    memset(much, 'x', 4096);
    enum stream_room room = STREAM_ROOM;
    for (int i = 0; i < 500; i++) {
        room = seen_data(&world->seen[0], much, false);
        if (i % 50 == 0) net_world_turn(world->net);
    }
    assert_int_equal(room, STREAM_FULL);
    TURN_UNTIL(world->net, world->seen[0].resets == 1);
    assert_int_equal(world->seen[0].reason, REASON_CLIENT_TIMEOUT);
    assert_int_equal(world->seen[0].drained, 0);
    seen_close(&world->seen[0], REASON_CLIENT_TIMEOUT);
    free(much);
    session_world_free(world);
}

static void an_idle_connection_ends_soon_after_a_drain(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    world->on_head = seen_on_request_answer;
    peer_send(world->peer, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    client_expect_path(world, "/a");
    session_room_drain(&world->room);
    net_world_turn_for(world->net, 300);
    assert_int_equal(world->closed, 0); /* a request may be on its way */
    peer_send(world->peer, "GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    peer_expect(world->net, world->peer,
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n/b");
    peer_expect_eof(world->net, world->peer);
    session_world_free(world);

    world = session_world_client();
    session_room_drain(&world->room);
    uint64_t began_ms = world->net->net.now_ms;
    peer_expect_eof(world->net, world->peer);
    assert_in_range(world->net->net.now_ms - began_ms, 800, 1900);
    assert_int_equal(world->closed_reason, REASON_DRAINED);
    session_world_free(world);
}

static void a_drain_lets_what_is_under_way_end(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    peer_send(world->peer, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    session_room_drain(&world->room);
    net_world_turn_for(world->net, 20);
    seen_answer(&world->seen[0], 200, "/a");
    seen_close(&world->seen[0], REASON_NONE);
    peer_expect(world->net, world->peer,
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n/a");
    peer_expect_eof(world->net, world->peer);
    session_world_free(world);
}

static void a_cut_resets_the_streams_and_ends_the_sessions(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    world->on_reset = seen_on_reset_answer;
    peer_send(world->peer, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    session_room_cut(&world->room);
    assert_int_equal(world->seen[0].resets, 1);
    assert_int_equal(world->seen[0].reason, REASON_DRAIN_CUT);
    session_room_cut(&world->room); /* again: nothing happens twice */
    peer_expect(world->net, world->peer,
                "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\nConnection: "
                "close\r\n\r\ncut");
    peer_expect_eof(world->net, world->peer);
    assert_int_equal(world->closed, 1);
    session_world_free(world);
}

static void a_body_under_its_minimum_rate_is_refused(void **state) {
    (void)state;
    struct session_options options = session_world_options();
    options.timeout_client_ms = 100; /* the grace as well */
    options.min_read_rate = 1000;
    struct session_world *world = session_world_new(&options, NULL);
    session_world_accept(world);
    world->on_reset = seen_on_reset_close;
    peer_send(world->peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    for (int i = 0; i < 100 && world->closed == 0; i++) {
        (void)send(world->peer, "x", 1, MSG_NOSIGNAL);
        net_world_turn_for(world->net, 20);
    }
    assert_int_equal(world->seen[0].reason, REASON_CLIENT_TOO_SLOW);
    session_world_free(world);
}

static void a_silent_tunnel_is_reset(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    peer_send(world->peer,
              "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    struct http_message message = {.status = 101, .version_minor = 1, .upgrade = BYTES("chat")};
    world->seen[0].stream->ops->head(world->seen[0].stream, &message, false);
    world->seen[0].stream->ops->tunnel(world->seen[0].stream, 60);
    TURN_UNTIL(world->net, world->seen[0].resets == 1);
    assert_int_equal(world->seen[0].reason, REASON_TUNNEL_TIMEOUT);
    seen_close(&world->seen[0], REASON_TUNNEL_TIMEOUT);
    peer_expect_reset(world->net, world->peer);
    session_world_free(world);
}

/* All small buffers are in use: no head can be written. */
static void without_memory_for_a_head_the_stream_is_reset(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    peer_send(world->peer, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    struct lease *taken[64];
    uint32_t count = 0;
    while ((taken[count] = buf_take(&world->net->net.small)) != NULL)
        count++;
    /* The user does not look before it goes on. */
    seen_answer_head(&world->seen[0], 200, 5, false);
    seen_data(&world->seen[0], "hel", false);
    seen_data(&world->seen[0], "lo", true);
    TURN_UNTIL(world->net, world->seen[0].resets == 1);
    assert_int_equal(world->seen[0].reason, REASON_NO_MEMORY);
    seen_close(&world->seen[0], REASON_NO_MEMORY);
    for (uint32_t i = 0; i < count; i++)
        lease_unref(taken[i]);
    peer_expect_reset(world->net, world->peer);
    session_world_free(world);
}

/* It is told to nobody but its own stream. */
static void a_failure_of_a_closed_stream_is_forgotten(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    peer_send(world->peer, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    struct lease *taken[64];
    uint32_t count = 0;
    while ((taken[count] = buf_take(&world->net->net.small)) != NULL)
        count++;
    seen_answer(&world->seen[0], 200, "hello");
    seen_close(&world->seen[0], REASON_NONE);
    for (uint32_t i = 0; i < count; i++)
        lease_unref(taken[i]);
    peer_expect_reset(world->net, world->peer);
    TURN_UNTIL(world->net, world->closed == 1);
    assert_int_equal(world->streams, 1);
    session_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reset_in_each_state_ends_the_session),
        cmocka_unit_test(a_lost_session_waits_for_its_stream),
        cmocka_unit_test(a_head_that_never_ends_is_a_408),
        cmocka_unit_test(an_idle_connection_is_closed_in_time),
        cmocka_unit_test(a_stalled_body_is_a_reset_of_the_stream),
        cmocka_unit_test(a_client_that_waits_for_its_answer_is_not_late),
        cmocka_unit_test(a_paused_body_is_not_late_and_does_not_come),
        cmocka_unit_test(a_client_that_does_not_read_its_answer_is_reset),
        cmocka_unit_test(an_idle_connection_ends_soon_after_a_drain),
        cmocka_unit_test(a_drain_lets_what_is_under_way_end),
        cmocka_unit_test(a_cut_resets_the_streams_and_ends_the_sessions),
        cmocka_unit_test(a_body_under_its_minimum_rate_is_refused),
        cmocka_unit_test(a_silent_tunnel_is_reset),
        cmocka_unit_test(without_memory_for_a_head_the_stream_is_reset),
        cmocka_unit_test(a_failure_of_a_closed_stream_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
