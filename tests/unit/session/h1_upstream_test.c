/* The HTTP/1 session in upstream role: h1.c, h1_in.c and h1_out.c over a real connection. */
#include "unit/session/session_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define REQUEST "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
#define OK_CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#define OK_HELLO "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

static struct session_world *upstream_new(struct arena *arena) {
    struct session_world *world = session_world_new(NULL, NULL);
    session_world_connect(world);
    assert_int_equal(world->ready, 1);
    arena_init(arena, &world->room.arenas);
    return world;
}

static void upstream_free(struct session_world *world, struct arena *arena) {
    arena_reset(arena);
    session_world_free(world);
}

/* A request that has arrived at the server. */
static struct seen *request(struct session_world *world, struct arena *arena) {
    struct seen *seen = session_world_open(world, arena);
    assert_non_null(seen);
    seen_request(seen, HTTP_GET, 0, true);
    peer_expect(world->net, world->peer, REQUEST);
    return seen;
}

static void a_connection_carries_many_requests(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    for (uint32_t i = 1; i <= 4; i++) {
        struct seen *seen = request(world, &arena);
        assert_null(session_world_open(world, &arena)); /* one at a time */
        assert_int_equal(seen->stream->reused, i > 1);
        peer_send(world->peer, OK_HELLO);
        TURN_UNTIL(world->net, seen->ended);
        assert_int_equal(seen->status, 200);
        assert_string_equal(seen->body, "hello");
        assert_int_equal(world->idle, i - 1);
        seen_close(seen, REASON_NONE);
        assert_int_equal(world->idle, i);
    }
    upstream_free(world, &arena);
}

static void an_answer_may_come_byte_by_byte(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    struct seen *seen = request(world, &arena);
    const char *answer = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
                         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                         "3\r\nabc\r\n4;e\r\ndefg\r\n0\r\nX-Sum: 1\r\n\r\n";
    for (; *answer; answer++) {
        assert_int_equal(send(world->peer, answer, 1, MSG_NOSIGNAL), 1);
        net_world_turn(world->net);
    }
    TURN_UNTIL(world->net, seen->ended);
    assert_int_equal(seen->interims, 1);
    assert_int_equal(seen->heads, 2);
    assert_string_equal(seen->body, "abcdefg");
    assert_string_equal(seen->trailers, "X-Sum: 1\n");
    seen_close(seen, REASON_NONE);
    assert_int_equal(world->idle, 1);
    assert_int_equal(world->room.heads.used, 0);
    upstream_free(world, &arena);
}

static void a_head_answer_has_no_body(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    struct seen *seen = session_world_open(world, &arena);
    seen_request(seen, HTTP_HEAD, 0, true);
    peer_expect(world->net, world->peer, "HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    peer_send(world->peer, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    TURN_UNTIL(world->net, seen->heads == 1);
    assert_true(seen->ended);
    assert_int_equal(seen->body_length, 5);
    seen_close(seen, REASON_NONE);
    assert_int_equal(world->idle, 1);
    upstream_free(world, &arena);
}

static void a_refused_connect_is_told_as_closed(void **state) {
    (void)state;
    struct session_world *world = session_world_new(NULL, NULL);
    tcp_refused(&world->address);
    session_world_connect(world);
    assert_int_equal(world->ready, 0);
    assert_int_equal(world->closed_reason, REASON_CONNECT_FAILED);
    session_world_free(world);
}

static void a_connect_that_hangs_is_a_timeout(void **state) {
    (void)state;
    struct session_options options = session_world_options();
    options.timeout_connect_ms = 60;
    struct session_world *world = session_world_new(&options, NULL);
    /* A full backlog: further handshakes get no answer. */
    assert_int_equal(listen(world->listening, 0), 0);
    int first = tcp_connect(&world->address);
    session_world_connect(world);
    assert_int_equal(world->closed_reason, REASON_CONNECT_TIMEOUT);
    close(first);
    session_world_free(world);
}

static void an_answer_may_end_with_its_connection(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    struct seen *seen = request(world, &arena);
    peer_send(world->peer, "HTTP/1.1 200 OK\r\n\r\nall of it");
    TURN_UNTIL(world->net, seen->body_len == 9);
    assert_false(seen->ended);
    close(world->peer);
    world->peer = -1;
    TURN_UNTIL(world->net, seen->ended);
    seen_close(seen, REASON_NONE);
    TURN_UNTIL(world->net, world->closed == 1);
    assert_int_equal(world->idle, 0);
    upstream_free(world, &arena);
}

static void an_end_before_the_answer_is_whole_is_a_reset(void **state) {
    (void)state;
    static const char *const answers[] = {"",
                                          "HTTP/1.1 200",
                                          "HTTP/1.1 100 Continue\r\n\r\n",
                                          "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
                                          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3",
                                          OK_CHUNKED "0\r\n"};
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct arena arena;
        struct session_world *world = upstream_new(&arena);
        world->on_reset = seen_on_reset_close;
        struct seen *seen = request(world, &arena);
        if (answers[i][0]) peer_send(world->peer, answers[i]);
        shutdown(world->peer, SHUT_WR);
        TURN_UNTIL(world->net, world->closed == 1);
        assert_int_equal(seen->resets, 1);
        assert_int_equal(seen->reason, REASON_SERVER_CLOSED);
        assert_true(seen->sent);
        assert_int_equal(seen->answered, i != 0);
        upstream_free(world, &arena);
    }
}

static void a_reset_before_the_answer_is_whole_is_a_reset(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    world->on_reset = seen_on_reset_close;
    struct seen *seen = request(world, &arena);
    tcp_reset(world->peer);
    world->peer = -1;
    TURN_UNTIL(world->net, world->closed == 1);
    assert_int_equal(seen->reason, REASON_SERVER_RESET);
    assert_false(seen->reused);
    assert_false(seen->answered);
    assert_true(seen->sent);
    upstream_free(world, &arena);
}

static void a_malformed_answer_is_a_reset(void **state) {
    (void)state;
    static const char *const answers[] = {
        "HTTP/2 200\r\n\r\n", "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n"};
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct arena arena;
        struct session_world *world = upstream_new(&arena);
        world->on_reset = seen_on_reset_close;
        struct seen *seen = request(world, &arena);
        peer_send(world->peer, answers[i]);
        TURN_UNTIL(world->net, world->closed == 1);
        assert_int_equal(seen->reason, REASON_BAD_RESPONSE);
        upstream_free(world, &arena);
    }
}

static void a_server_that_talks_unasked_is_dropped(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    struct seen *seen = request(world, &arena);
    peer_send(world->peer, OK_HELLO);
    TURN_UNTIL(world->net, seen->ended);
    seen_close(seen, REASON_NONE);
    peer_send(world->peer, OK_HELLO);
    TURN_UNTIL(world->net, world->closed == 1);
    assert_int_equal(world->closed_reason, REASON_BAD_RESPONSE);
    upstream_free(world, &arena);

    /* With the answer, before its stream was closed. */
    world = upstream_new(&arena);
    seen = request(world, &arena);
    peer_send(world->peer, OK_HELLO OK_HELLO);
    TURN_UNTIL(world->net, seen->ended);
    seen_close(seen, REASON_NONE);
    TURN_UNTIL(world->net, world->closed == 1);
    assert_int_equal(world->idle, 0);
    upstream_free(world, &arena);
}

static void an_idle_connection_ends_with_its_server_or_in_time(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    close(world->peer);
    world->peer = -1;
    TURN_UNTIL(world->net, world->closed == 1);
    assert_int_equal(world->closed_reason, REASON_SERVER_IDLE);
    upstream_free(world, &arena);

    struct session_options options = session_world_options();
    options.timeout_keepalive_ms = 60;
    world = session_world_new(&options, NULL);
    session_world_connect(world);
    peer_expect_eof(world->net, world->peer);
    TURN_UNTIL(world->net, world->closed == 1);
    assert_int_equal(world->closed_reason, REASON_SERVER_IDLE);
    session_world_free(world);
}

static void a_closing_session_opens_no_stream(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    world->session->ops->drain(world->session);
    assert_int_equal(world->closed, 0); /* never from within a call */
    assert_null(session_world_open(world, &arena));
    TURN_UNTIL(world->net, world->closed == 1);
    upstream_free(world, &arena);
}

static void a_silent_server_is_a_timeout(void **state) {
    (void)state;
    struct session_options options = session_world_options();
    options.timeout_server_ms = 60;
    struct session_world *world = session_world_new(&options, NULL);
    session_world_connect(world);
    struct arena arena;
    arena_init(&arena, &world->room.arenas);
    world->on_reset = seen_on_reset_close;
    struct seen *seen = session_world_open(world, &arena);
    seen_request(seen, HTTP_POST, 6, false);
    seen_data(seen, "abc", false);
    net_world_turn_for(world->net, 150);
    assert_int_equal(seen->resets, 0); /* the request is not whole: it is not late */
    seen_data(seen, "def", true);
    peer_expect(world->net, world->peer,
                "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\r\n\r\nabcdef");
    /* Nor while nobody wants to hear it. */
    seen->stream->ops->pause(seen->stream);
    net_world_turn_for(world->net, 150);
    assert_int_equal(seen->resets, 0);
    seen->stream->ops->resume(seen->stream);
    uint64_t began_ms = world->net->net.now_ms;
    TURN_UNTIL(world->net, seen->resets == 1);
    assert_int_equal(seen->reason, REASON_SERVER_TIMEOUT);
    assert_in_range(world->net->net.now_ms - began_ms, 50, 1900);
    arena_reset(&arena);
    session_world_free(world);
}

static void a_slow_server_that_goes_on_is_no_timeout(void **state) {
    (void)state;
    struct session_options options = session_world_options();
    options.timeout_server_ms = 80;
    struct session_world *world = session_world_new(&options, NULL);
    session_world_connect(world);
    struct arena arena;
    arena_init(&arena, &world->room.arenas);
    struct seen *seen = request(world, &arena);
    peer_send(world->peer, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n");
    for (int i = 0; i < 6; i++) {
        net_world_turn_for(world->net, 40);
        peer_send(world->peer, "x");
    }
    TURN_UNTIL(world->net, seen->ended);
    seen_close(seen, REASON_NONE);
    arena_reset(&arena);
    session_world_free(world);
}

static void request_bodies_are_framed_as_their_length_is_known(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    struct seen *seen = session_world_open(world, &arena);
    seen_request(seen, HTTP_POST, HTTP_LENGTH_UNKNOWN, false);
    seen_data(seen, "hello", false);
    struct http_field field = {.name = BYTES("X-Sum"), .value = BYTES("1")};
    struct http_fields trailers = {.items = &field, .count = 1, .capacity = 1};
    seen->stream->ops->end(seen->stream, &trailers);
    peer_expect(world->net, world->peer,
                "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
                "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n");
    peer_send(world->peer, OK_HELLO);
    TURN_UNTIL(world->net, seen->ended);
    seen_close(seen, REASON_NONE);
    assert_int_equal(world->idle, 1);
    upstream_free(world, &arena);
}

static void a_stream_closed_early_resets_the_connection(void **state) {
    (void)state;
    for (int answered = 0; answered < 3; answered++) {
        struct arena arena;
        struct session_world *world = upstream_new(&arena);
        struct seen *seen = session_world_open(world, &arena);
        seen_request(seen, HTTP_POST, 6, false);
        seen_data(seen, "abc", false);
        peer_expect(world->net, world->peer,
                    "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\r\n\r\nabc");
        if (answered == 1) {
            peer_send(world->peer, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel");
            TURN_UNTIL(world->net, seen->heads == 1);
        } else if (answered == 2) { /* whole, but the request is not */
            peer_send(world->peer, OK_HELLO);
            TURN_UNTIL(world->net, seen->ended);
        }
        seen_close(seen, answered == 2 ? REASON_NONE : REASON_CLIENT_CLOSED);
        assert_int_equal(world->idle, 0);
        peer_expect_reset(world->net, world->peer);
        TURN_UNTIL(world->net, world->closed == 1);
        upstream_free(world, &arena);
    }
}

static void an_answer_that_says_close_ends_the_connection(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    struct seen *seen = request(world, &arena);
    peer_send(world->peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    TURN_UNTIL(world->net, seen->ended);
    seen_close(seen, REASON_NONE);
    assert_int_equal(world->idle, 0);
    peer_expect_eof(world->net, world->peer);
    upstream_free(world, &arena);
}

static void a_pause_holds_back_the_answer(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    struct seen *seen = request(world, &arena);
    peer_send(world->peer, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
    TURN_UNTIL(world->net, seen->body_len == 3);
    seen->stream->ops->pause(seen->stream);
    net_world_turn_for(world->net, 20);
    peer_send(world->peer, "def");
    net_world_turn_for(world->net, 30);
    assert_int_equal(seen->body_len, 3);
    seen->stream->ops->resume(seen->stream);
    peer_send(world->peer, "ghi");
    TURN_UNTIL(world->net, seen->ended);
    assert_string_equal(seen->body, "abcdefghi");
    /* A stream that ends paused leaves a connection that is not. */
    seen->stream->ops->pause(seen->stream);
    seen_close(seen, REASON_NONE);
    seen = request(world, &arena);
    peer_send(world->peer, OK_HELLO);
    TURN_UNTIL(world->net, seen->ended);
    seen_close(seen, REASON_NONE);
    upstream_free(world, &arena);
}

/* The server takes some of the request, not all: that much has left, though the send has not
 * completed. */
static void a_send_under_way_counts_as_sent(void **state) {
    (void)state;
    struct net_options net_options = net_world_options();
    net_options.small_count = 4096;
    struct session_world *world = session_world_new(NULL, &net_options);
    int size = 4096;
    setsockopt(world->listening, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    session_world_connect(world);
    struct arena arena;
    arena_init(&arena, &world->room.arenas);
    setsockopt(world->session->conn->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    world->on_reset = seen_on_reset_close;
    struct seen *seen = session_world_open(world, &arena);
    char *much = calloc(1, 4097);
    assert_non_null(much);
    memset(much, 'x', 4096);
    seen_request(seen, HTTP_POST, HTTP_LENGTH_UNKNOWN, false);
    for (int i = 0; i < 400; i++)
        seen_data(seen, much, false);
    net_world_turn_for(world->net, 50);
    assert_true(world->session->conn->send_armed && world->session->conn->sent_total == 0);
    char some[100];
    assert_int_equal(peer_take(world->peer, some, sizeof some), sizeof some);
    shutdown(world->peer, SHUT_WR);
    TURN_UNTIL(world->net, seen->resets == 1);
    assert_true(seen->sent);
    free(much);
    arena_reset(&arena);
    session_world_free(world);
}

static void a_stream_whose_request_never_left_says_so(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    world->on_reset = seen_on_reset_close;
    struct seen *seen = request(world, &arena);
    peer_send(world->peer, OK_HELLO);
    TURN_UNTIL(world->net, seen->ended);
    seen_close(seen, REASON_NONE);
    /* The server goes just as the next request is written. */
    shutdown(world->peer, SHUT_WR);
    seen = session_world_open(world, &arena);
    assert_non_null(seen);
    world->session->ops->close(world->session, REASON_SERVER_CLOSED);
    assert_int_equal(seen->resets, 1);
    assert_true(seen->reused);
    assert_false(seen->sent);
    assert_false(seen->answered);
    upstream_free(world, &arena);
}

static void tunnel_begin(struct session_world *world, struct seen *seen) {
    (void)world;
    if (seen->status == 101) seen->stream->ops->tunnel(seen->stream, 1000);
}

static struct seen *upgrade(struct session_world *world, struct arena *arena) {
    world->on_head = tunnel_begin;
    struct seen *seen = session_world_open(world, arena);
    struct http_message message = {.method = HTTP_GET,
                                   .method_text = BYTES("GET"),
                                   .authority = BYTES("a.example"),
                                   .path = BYTES("/"),
                                   .upgrade = BYTES("chat"),
                                   .version_minor = 1};
    seen->stream->ops->head(seen->stream, &message, true);
    peer_expect(world->net, world->peer,
                "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: "
                "chat\r\n\r\n");
    return seen;
}

static void a_tunnel_begins_right_behind_its_101(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    struct seen *seen = upgrade(world, &arena);
    peer_send(world->peer, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: "
                           "chat\r\n\r\nHTTP/1.1 raw\r\n");
    TURN_UNTIL(world->net, seen->body_len != 0);
    assert_string_equal(seen->body, "HTTP/1.1 raw\r\n");
    seen_data(seen, "back", false);
    peer_expect(world->net, world->peer, "back");
    shutdown(world->peer, SHUT_WR);
    TURN_UNTIL(world->net, seen->ends == 1);
    seen_data(seen, " and more", true);
    peer_expect(world->net, world->peer, " and more");
    seen_close(seen, REASON_NONE);
    peer_expect_eof(world->net, world->peer);
    TURN_UNTIL(world->net, world->closed == 1);
    assert_int_equal(world->idle, 0);
    upstream_free(world, &arena);
}

/* Its user has written all and goes: what is queued still has to arrive. */
static void the_last_bytes_of_a_tunnel_arrive(void **state) {
    (void)state;
    struct net_options net_options = net_world_options();
    net_options.small_count = 4096;
    struct session_world *world = session_world_new(NULL, &net_options);
    session_world_connect(world);
    struct arena arena;
    arena_init(&arena, &world->room.arenas);
    int size = 16384;
    setsockopt(world->session->conn->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    struct seen *seen = upgrade(world, &arena);
    peer_send(world->peer, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: "
                           "chat\r\n\r\n");
    shutdown(world->peer, SHUT_WR);
    TURN_UNTIL(world->net, seen->ends == 1);
    char much[4097];
    memset(much, 'x', 4096);
    much[4096] = 0;
    for (int i = 0; i < 400; i++)
        seen_data(seen, much, false);
    seen->stream->ops->end(seen->stream, NULL);
    seen_close(seen, REASON_NONE);
    net_world_turn_for(world->net, 50);
    size_t got = 0;
    ssize_t part = 0;
    TURN_UNTIL(world->net, ({
                   while ((part = peer_take(world->peer, much, 4096)) > 0)
                       got += (size_t)part;
                   part != -EAGAIN;
               }));
    assert_int_equal(part, 0);
    assert_int_equal(got, 400 * 4096);
    arena_reset(&arena);
    session_world_free(world);
}

static void without_memory_for_a_request_the_stream_is_reset(void **state) {
    (void)state;
    struct arena arena;
    struct session_world *world = upstream_new(&arena);
    world->on_reset = seen_on_reset_close;
    struct lease *taken[64];
    uint32_t count = 0;
    while ((taken[count] = buf_take(&world->net->net.small)) != NULL)
        count++;
    struct seen *seen = session_world_open(world, &arena);
    seen_request(seen, HTTP_POST, 5, false);
    seen_data(seen, "hello", true);
    assert_int_equal(seen->resets, 0); /* not from within a call */
    TURN_UNTIL(world->net, seen->resets == 1);
    assert_int_equal(seen->reason, REASON_NO_MEMORY);
    assert_false(seen->sent);
    for (uint32_t i = 0; i < count; i++)
        lease_unref(taken[i]);
    upstream_free(world, &arena);
}

static void without_slots_a_connect_says_why(void **state) {
    (void)state;
    struct net_options net_options = net_world_options();
    net_options.conns_max = 1;
    struct session_world *world = session_world_new(NULL, &net_options);
    session_world_connect(world);
    struct session_address to = {.address = (const struct sockaddr *)&world->address,
                                 .size = sizeof world->address};
    enum reason reason = REASON_NONE;
    assert_null(
        session_h1.connect(&world->room, &to, &world->options, world->session->host, &reason));
    assert_int_equal(reason, REASON_NO_MEMORY);
    assert_int_equal(world->room.sessions.used, 1);
    session_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_carries_many_requests),
        cmocka_unit_test(an_answer_may_come_byte_by_byte),
        cmocka_unit_test(a_head_answer_has_no_body),
        cmocka_unit_test(a_refused_connect_is_told_as_closed),
        cmocka_unit_test(a_connect_that_hangs_is_a_timeout),
        cmocka_unit_test(an_answer_may_end_with_its_connection),
        cmocka_unit_test(an_end_before_the_answer_is_whole_is_a_reset),
        cmocka_unit_test(a_reset_before_the_answer_is_whole_is_a_reset),
        cmocka_unit_test(a_malformed_answer_is_a_reset),
        cmocka_unit_test(a_server_that_talks_unasked_is_dropped),
        cmocka_unit_test(an_idle_connection_ends_with_its_server_or_in_time),
        cmocka_unit_test(a_closing_session_opens_no_stream),
        cmocka_unit_test(a_silent_server_is_a_timeout),
        cmocka_unit_test(a_slow_server_that_goes_on_is_no_timeout),
        cmocka_unit_test(request_bodies_are_framed_as_their_length_is_known),
        cmocka_unit_test(a_stream_closed_early_resets_the_connection),
        cmocka_unit_test(an_answer_that_says_close_ends_the_connection),
        cmocka_unit_test(a_pause_holds_back_the_answer),
        cmocka_unit_test(a_send_under_way_counts_as_sent),
        cmocka_unit_test(a_stream_whose_request_never_left_says_so),
        cmocka_unit_test(a_tunnel_begins_right_behind_its_101),
        cmocka_unit_test(the_last_bytes_of_a_tunnel_arrive),
        cmocka_unit_test(without_memory_for_a_request_the_stream_is_reset),
        cmocka_unit_test(without_slots_a_connect_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
