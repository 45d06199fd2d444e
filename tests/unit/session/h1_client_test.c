/* What a client of an HTTP/1 session sends and gets: h1_in.c and h1_out.c in client role. */
#include "unit/session/session_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void a_connection_carries_many_requests(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    world->on_head = seen_on_request_answer;
    for (int i = 0; i < 5; i++) {
        peer_send(world->peer, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        client_expect_path(world, "/a");
    }
    assert_int_equal(world->streams, 5);
    assert_int_equal(world->closed, 0);
    close(world->peer);
    world->peer = -1;
    TURN_UNTIL(world->net, world->closed == 1);
    assert_int_equal(world->closed_reason, REASON_NONE);
    assert_int_equal(world->refused, 0);
    session_world_free(world);
}

static void pipelined_requests_are_answered_in_order(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    peer_send(world->peer, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
                           "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                           "GET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    for (uint32_t i = 0; i < 3; i++) {
        TURN_UNTIL(world->net, world->streams == i + 1 && world->seen[i].ended);
        net_world_turn_for(world->net, 10);
        assert_int_equal(world->streams, i + 1); /* the next waits for this answer */
        seen_answer(&world->seen[i], 200, world->seen[i].path);
        seen_close(&world->seen[i], REASON_NONE);
        client_expect_path(world, world->seen[i].path);
    }
    assert_string_equal(world->seen[2].path, "/3");
    session_world_free(world);
}

static void many_pipelined_requests_in_pieces_are_all_answered(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    world->on_head = seen_on_request_answer;
    world->on_end = seen_on_request_answer;
    char text[4096];
    size_t size = 0;
    for (int i = 0; i < 40; i++) {
        size +=
            (size_t)snprintf(text + size, sizeof text - size,
                             i % 2 ? "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
                                   : "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nzz");
    }
    for (size_t at = 0; at < size; at += 11) {
        size_t part = size - at < 11 ? size - at : 11;
        assert_int_equal(send(world->peer, text + at, part, MSG_NOSIGNAL), part);
        if (at % 3 == 0) net_world_turn(world->net);
    }
    for (int i = 0; i < 40; i++)
        client_expect_path(world, "/x");
    session_world_free(world);
}

static void a_refused_request_is_answered_and_the_connection_ends(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    peer_send(world->peer, "GET / HTTP/1.1\r\nHost : a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const char *body = "400 Bad Request: a field name is empty or invalid, or stands before a "
                       "space.\n";
    char got[800] = "";
    size_t len = 0;
    TURN_UNTIL(world->net, ({
                   ssize_t part = peer_take(world->peer, got + len, sizeof got - 1 - len);
                   if (part > 0) len += (size_t)part;
                   part == 0;
               }));
    assert_int_equal(strncmp(got, "HTTP/1.1 400 Bad Request\r\n", 26), 0);
    assert_non_null(strstr(got, "details=\"bad_field_name\"\r\n"));
    assert_non_null(strstr(got, "Connection: close\r\n"));
    assert_string_equal(strstr(got, "\r\n\r\n") + 4, body);
    assert_int_equal(world->streams, 0);
    assert_int_equal(world->refused, 1);
    assert_int_equal(world->refused_reason, REASON_BAD_FIELD_NAME);
    assert_int_equal(world->closed, 1);
    session_world_free(world);
}

static void a_refusal_comes_after_the_answers_before_it(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    peer_send(world->peer, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    net_world_turn_for(world->net, 10);
    assert_int_equal(world->refused, 0);
    seen_answer(&world->seen[0], 200, "/1");
    seen_close(&world->seen[0], REASON_NONE);
    client_expect_path(world, "/1");
    peer_expect(world->net, world->peer, "HTTP/1.1 400 Bad Request\r\n");
    assert_int_equal(world->refused, 1);
    session_world_free(world);
}

/* Takes all there is; returns how many. */
static uint32_t use_up(struct slab *slab, void *objects[1024]) {
    uint32_t count = 0;
    while ((objects[count] = slab_acquire(slab)) != NULL)
        count++;
    assert_int_equal(slab->used, slab->capacity);
    return count;
}

static void a_pool_at_its_limit_refuses_with_its_reason(void **state) {
    (void)state;
    /* A head in pieces needs a place to wait, each message an arena. */
    for (int i = 0; i < 2; i++) {
        struct session_world *world = session_world_client();
        struct slab *slab = i == 0 ? &world->room.heads : &world->room.arenas.small;
        static void *objects[1024];
        uint32_t count = use_up(slab, objects);
        peer_send(world->peer,
                  i == 0 ? "GET / HTTP/1.1\r\nHo" : "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        TURN_UNTIL(world->net, world->closed == 1);
        assert_int_equal(world->refused_reason, REASON_NO_MEMORY);
        assert_int_equal(slab->used, slab->capacity);
        while (count != 0)
            slab_release_object(slab, objects[--count]);
        /* An answer is a message as well. */
        if (i == 0)
            peer_expect(world->net, world->peer, "HTTP/1.1 503 Service Unavailable\r\n");
        else
            peer_expect_eof(world->net, world->peer);
        session_world_free(world);
    }
}

static void without_send_queues_the_stream_is_reset(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    world->on_reset = seen_on_reset_close;
    peer_send(world->peer, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    struct slab *slab = &world->net->net.queues;
    static void *objects[1024];
    uint32_t count = use_up(slab, objects);
    seen_answer_head(&world->seen[0], 200, 5, false);
    TURN_UNTIL(world->net, world->seen[0].resets == 1);
    assert_int_equal(world->seen[0].reason, REASON_NO_MEMORY);
    while (count != 0)
        slab_release_object(slab, objects[--count]);
    peer_expect_reset(world->net, world->peer);
    session_world_free(world);
}

static void a_host_without_room_is_a_503(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    world->refuse_streams = true;
    peer_send(world->peer, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    peer_expect(world->net, world->peer, "HTTP/1.1 503 Service Unavailable\r\n");
    assert_int_equal(world->refused_reason, REASON_NO_MEMORY);
    TURN_UNTIL(world->net, world->closed == 1);
    session_world_free(world);
}

/* One byte a turn. */
static void send_slowly(struct session_world *world, const char *text) {
    for (; *text; text++) {
        assert_int_equal(send(world->peer, text, 1, MSG_NOSIGNAL), 1);
        net_world_turn(world->net);
    }
}

static void a_body_may_come_byte_by_byte(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    world->on_end = seen_on_request_answer;
    send_slowly(world, "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world");
    client_expect_path(world, "/up");
    assert_string_equal(world->seen[0].body, "hello world");
    assert_int_equal(world->seen[0].body_length, 11);
    assert_int_equal(world->room.heads.used, 0);
    session_world_free(world);
}

static void chunks_with_trailers_may_come_byte_by_byte(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    world->on_end = seen_on_request_answer;
    send_slowly(world, "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\n\r\n");
    client_expect_path(world, "/up");
    assert_string_equal(world->seen[0].body, "hello world");
    assert_string_equal(world->seen[0].trailers, "X-Sum: 7\nX-More: 8\n");
    assert_int_equal(world->seen[0].body_length, HTTP_LENGTH_UNKNOWN);
    assert_int_equal(world->room.heads.used, 0);
    /* And the connection is as good as new. */
    peer_send(world->peer, "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "1\r\nx\r\n0\r\n\r\n");
    client_expect_path(world, "/b");
    session_world_free(world);
}

/* The user gets rid of the stream in the middle of what one receive brought. */
static void answer_and_close(struct session_world *world, struct seen *seen) {
    (void)world;
    if (!seen->stream) return;
    seen_answer(seen, 200, "enough");
    seen_close(seen, REASON_NONE);
}

static void a_stream_may_be_closed_in_each_event(void **state) {
    (void)state;
    for (int in_event = 0; in_event < 3; in_event++) {
        struct session_world *world = session_world_client();
        if (in_event == 0) world->on_head = answer_and_close;
        if (in_event == 1) world->on_data = answer_and_close;
        if (in_event == 2) world->on_end = answer_and_close;
        peer_send(world->peer, "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "5\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n"
                               "GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
        TURN_UNTIL(world->net, world->streams != 0);
        peer_expect(world->net, world->peer, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nenough");
        net_world_turn_for(world->net, 10);
        /* What is left of a body nobody waits for ends the connection. */
        assert_int_equal(world->closed, in_event == 2 ? 0 : 1);
        assert_int_equal(world->streams, in_event == 2 ? 2 : 1);
        session_world_free(world);
    }
}

static void reset_and_close(struct session_world *world, struct seen *seen) {
    (void)world;
    seen_close(seen, REASON_SERVER_RESET);
}

static void a_stream_closed_with_a_reason_resets_the_connection(void **state) {
    (void)state;
    for (int in_event = 0; in_event < 3; in_event++) {
        struct session_world *world = session_world_client();
        if (in_event == 0) world->on_head = reset_and_close;
        if (in_event == 1) world->on_data = reset_and_close;
        if (in_event == 2) world->on_end = reset_and_close;
        peer_send(world->peer, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                               "GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
        peer_expect_reset(world->net, world->peer);
        TURN_UNTIL(world->net, world->closed == 1);
        assert_int_equal(world->streams, 1);
        assert_int_equal(world->closed_reason, REASON_SERVER_RESET);
        session_world_free(world);
    }
}

static void a_cut_answer_looks_cut(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    peer_send(world->peer, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    seen_answer_head(&world->seen[0], 200, HTTP_LENGTH_UNKNOWN, false);
    seen_data(&world->seen[0], "part", false);
    seen_close(&world->seen[0], REASON_SERVER_CLOSED);
    /* No last chunk: only then may the connection end like any other. */
    peer_expect(world->net, world->peer,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
    peer_expect_eof(world->net, world->peer);
    session_world_free(world);

    world = session_world_client();
    peer_send(world->peer, "GET / HTTP/1.0\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    seen_answer_head(&world->seen[0], 200, HTTP_LENGTH_UNKNOWN, false);
    seen_data(&world->seen[0], "part", false);
    net_world_turn(world->net);
    seen_close(&world->seen[0], REASON_SERVER_CLOSED);
    peer_expect_reset(world->net, world->peer); /* its end is the only framing */
    session_world_free(world);
}

static void after_a_half_close_the_answers_still_come(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    peer_send(world->peer, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    shutdown(world->peer, SHUT_WR);
    for (uint32_t i = 0; i < 2; i++) {
        TURN_UNTIL(world->net, world->streams == i + 1);
        net_world_turn_for(world->net, 10);
        assert_int_equal(world->seen[i].resets, 0);
        seen_answer(&world->seen[i], 200, world->seen[i].path);
        seen_close(&world->seen[i], REASON_NONE);
        client_expect_path(world, i == 0 ? "/1" : "/2");
    }
    peer_expect_eof(world->net, world->peer);
    TURN_UNTIL(world->net, world->closed == 1);
    assert_int_equal(world->closed_reason, REASON_NONE);
    session_world_free(world);
}

static void the_end_of_the_stream_in_a_body_is_a_reset(void **state) {
    (void)state;
    static const char *const requests[] = {
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    };
    for (size_t i = 0; i < 3; i++) {
        struct session_world *world = session_world_client();
        world->on_reset = seen_on_reset_close;
        peer_send(world->peer, requests[i]);
        TURN_UNTIL(world->net, world->streams == 1);
        shutdown(world->peer, SHUT_WR);
        TURN_UNTIL(world->net, world->closed == 1);
        assert_int_equal(world->seen[0].resets, 1);
        assert_int_equal(world->seen[0].reason, REASON_CLIENT_CLOSED);
        session_world_free(world);
    }
}

static void full_is_followed_by_drained(void **state) {
    (void)state;
    struct net_options net_options = net_world_options();
    net_options.small_count = 4096;
    struct session_world *world = session_world_new(NULL, &net_options);
    session_world_accept(world);
    peer_send(world->peer, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    seen_answer_head(&world->seen[0], 200, 40000, false);
    char *much = calloc(1, 10001);
    assert_non_null(much);
    memset(much, 'x', 10000);
    assert_int_equal(seen_data(&world->seen[0], much, false), STREAM_ROOM);
    assert_int_equal(seen_data(&world->seen[0], much, false), STREAM_FULL);
    TURN_UNTIL(world->net, world->seen[0].drained == 1);
    seen_data(&world->seen[0], much, false);
    seen_data(&world->seen[0], much, true);
    seen_close(&world->seen[0], REASON_NONE);
    net_world_turn_for(world->net, 10);
    assert_int_equal(world->seen[0].drained, 1);
    free(much);
    session_world_free(world);
}

/* What was seen is not looked at: its place is used again. */
static uint32_t answered;
static void answer_and_count(struct session_world *world, struct seen *seen) {
    seen_on_request_answer(world, seen);
    answered++;
    world->streams = 0;
}

/* A client that sends requests and does not read: it is not given memory without end, and when it
 * reads, it gets everything. */
static void a_pipelining_client_must_read_its_answers(void **state) {
    (void)state;
    struct net_options net_options = net_world_options();
    net_options.small_count = 2048;
    /* Such a client is not idle, however long it takes. */
    struct session_options options = session_world_options();
    options.timeout_keepalive_ms = 50;
    struct session_world *world = session_world_new(&options, &net_options);
    session_world_accept(world);
    world->on_head = answer_and_count;
    answered = 0;
    int size = 16384;
    setsockopt(world->session->conn->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    setsockopt(world->peer, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    char path[1200];
    memset(path, 'p', sizeof path);
    path[0] = '/';
    path[200] = 0;
    char request[1400];
    int len = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path);
    char answer[1400];
    snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n%s", path);
    uint32_t sent = 0;
    for (int i = 0; i < 1600; i++) {
        if (sent < 900 && send(world->peer, request, (size_t)len, MSG_NOSIGNAL) == len) sent++;
        if (i % 8 == 0) net_world_turn(world->net);
    }
    assert_int_equal(sent, 900);
    assert_true(answered < sent); /* the rest waits */
    assert_true(world->session->conn->out.queued < 16384 + 4096);
    net_world_turn_for(world->net, 200);
    /* The kernel takes more answers, of which the client reads none either. */
    uint32_t before = answered;
    size *= 4;
    setsockopt(world->session->conn->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    TURN_UNTIL(world->net, answered > before);
    net_world_turn_for(world->net, 200);
    assert_true(answered < sent);
    for (uint32_t i = 0; i < sent; i++) {
        peer_expect(world->net, world->peer, answer);
        if (i % 64 == 0) net_world_turn_for(world->net, 20);
    }
    assert_int_equal(answered, sent);
    session_world_free(world);
}

static void expect_continue_goes_end_to_end(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    world->on_end = seen_on_request_answer;
    peer_send(world->peer, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
                           "Expect: 100-continue\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    seen_answer_head(&world->seen[0], 100, 0, false);
    peer_expect(world->net, world->peer, "HTTP/1.1 100 Continue\r\n\r\n");
    peer_send(world->peer, "abc");
    client_expect_path(world, "/a");
    assert_int_equal(world->closed, 0);

    /* A final answer instead: the client may or may not send the body, so nothing can follow. */
    world->on_end = NULL;
    peer_send(world->peer, "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
                           "Expect: 100-continue\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 2);
    seen_answer(&world->seen[1], 403, "no");
    seen_close(&world->seen[1], REASON_NONE);
    peer_expect(world->net, world->peer,
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
    peer_expect_eof(world->net, world->peer);
    session_world_free(world);
}

static void http10_gets_no_chunks_and_no_interim_answers(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    peer_send(world->peer, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    seen_answer_head(&world->seen[0], 103, 0, false);
    seen_answer(&world->seen[0], 200, "/");
    seen_close(&world->seen[0], REASON_NONE);
    peer_expect(world->net, world->peer,
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n/");
    peer_send(world->peer, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 2);
    seen_answer_head(&world->seen[1], 200, HTTP_LENGTH_UNKNOWN, false);
    seen_data(&world->seen[1], "till the end", true);
    seen_close(&world->seen[1], REASON_NONE);
    peer_expect(world->net, world->peer,
                "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ntill the end");
    peer_expect_eof(world->net, world->peer);
    session_world_free(world);
}

static void head_and_304_have_no_body_but_a_length(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    peer_send(world->peer, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    seen_answer(&world->seen[0], 200, "never sent");
    seen_close(&world->seen[0], REASON_NONE);
    peer_expect(world->net, world->peer, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    peer_send(world->peer, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 2);
    seen_answer_head(&world->seen[1], 304, 77, true);
    seen_close(&world->seen[1], REASON_NONE);
    peer_expect(world->net, world->peer, "HTTP/1.1 304 Not Modified\r\n");
    session_world_free(world);
}

static void a_body_over_the_limit_is_refused(void **state) {
    (void)state;
    struct session_options options = session_world_options();
    options.max_body_size = 4;
    struct session_world *world = session_world_new(&options, NULL);
    session_world_accept(world);
    peer_send(world->peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    peer_expect(world->net, world->peer, "HTTP/1.1 413 ");
    assert_int_equal(world->refused_reason, REASON_BODY_TOO_LARGE);
    session_world_free(world);

    world = session_world_new(&options, NULL);
    session_world_accept(world);
    world->on_reset = seen_on_reset_answer;
    peer_send(world->peer, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "4\r\nfour\r\n1\r\n!\r\n0\r\n\r\n");
    peer_expect(world->net, world->peer, "HTTP/1.1 503 ");
    assert_int_equal(world->seen[0].reason, REASON_BODY_TOO_LARGE);
    assert_int_equal(world->seen[0].body_len, 4);
    session_world_free(world);
}

static void raw_begins(struct session_world *world, struct seen *seen) {
    (void)world;
    struct http_message message = {.status = 101, .version_minor = 1, .upgrade = BYTES("chat")};
    seen->stream->ops->head(seen->stream, &message, false);
    seen->stream->ops->tunnel(seen->stream, 1000);
}

static void a_tunnel_carries_raw_bytes_both_ways(void **state) {
    (void)state;
    struct session_world *world = session_world_client();
    /* What was sent ahead of the 101 belongs to the tunnel. */
    peer_send(world->peer, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n"
                           "\r\nahead");
    TURN_UNTIL(world->net, world->streams == 1);
    net_world_turn(world->net);
    raw_begins(world, &world->seen[0]);
    peer_expect(world->net, world->peer,
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: "
                "chat\r\n\r\n");
    TURN_UNTIL(world->net, world->seen[0].body_len == 5);
    peer_send(world->peer, " more");
    TURN_UNTIL(world->net, world->seen[0].body_len == 10);
    assert_string_equal(world->seen[0].body, "ahead more");
    seen_data(&world->seen[0], "raw", false);
    peer_expect(world->net, world->peer, "raw");
    world->seen[0].stream->ops->end(world->seen[0].stream, NULL);
    peer_expect_eof(world->net, world->peer);
    peer_send(world->peer, "!");
    TURN_UNTIL(world->net, world->seen[0].body_len == 11);
    shutdown(world->peer, SHUT_WR);
    TURN_UNTIL(world->net, world->seen[0].ends == 1);
    seen_close(&world->seen[0], REASON_NONE);
    TURN_UNTIL(world->net, world->closed == 1);
    session_world_free(world);
}

static void what_is_sent_ahead_of_a_tunnel_with_a_fin_ends_it_once(void **state) {
    (void)state;
    for (int ahead = 0; ahead < 2; ahead++) {
        struct session_world *world = session_world_client();
        world->on_head = raw_begins;
        peer_send(world->peer,
                  "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
        if (ahead) peer_send(world->peer, "ahead");
        shutdown(world->peer, SHUT_WR);
        TURN_UNTIL(world->net, world->streams == 1 && world->seen[0].ends == 1);
        net_world_turn_for(world->net, 20);
        assert_int_equal(world->seen[0].body_len, ahead ? 5 : 0);
        seen_data(&world->seen[0], "last", true);
        seen_close(&world->seen[0], REASON_NONE);
        peer_expect(world->net, world->peer,
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: "
                    "upgrade\r\nUpgrade: chat\r\n\r\nlast");
        peer_expect_eof(world->net, world->peer);
        session_world_free(world);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_carries_many_requests),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(many_pipelined_requests_in_pieces_are_all_answered),
        cmocka_unit_test(a_refused_request_is_answered_and_the_connection_ends),
        cmocka_unit_test(a_refusal_comes_after_the_answers_before_it),
        cmocka_unit_test(a_pool_at_its_limit_refuses_with_its_reason),
        cmocka_unit_test(without_send_queues_the_stream_is_reset),
        cmocka_unit_test(a_host_without_room_is_a_503),
        cmocka_unit_test(a_body_may_come_byte_by_byte),
        cmocka_unit_test(chunks_with_trailers_may_come_byte_by_byte),
        cmocka_unit_test(a_stream_may_be_closed_in_each_event),
        cmocka_unit_test(a_stream_closed_with_a_reason_resets_the_connection),
        cmocka_unit_test(a_cut_answer_looks_cut),
        cmocka_unit_test(after_a_half_close_the_answers_still_come),
        cmocka_unit_test(the_end_of_the_stream_in_a_body_is_a_reset),
        cmocka_unit_test(full_is_followed_by_drained),
        cmocka_unit_test(a_pipelining_client_must_read_its_answers),
        cmocka_unit_test(expect_continue_goes_end_to_end),
        cmocka_unit_test(http10_gets_no_chunks_and_no_interim_answers),
        cmocka_unit_test(head_and_304_have_no_body_but_a_length),
        cmocka_unit_test(a_body_over_the_limit_is_refused),
        cmocka_unit_test(a_tunnel_carries_raw_bytes_both_ways),
        cmocka_unit_test(what_is_sent_ahead_of_a_tunnel_with_a_fin_ends_it_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
