#include "unit/session/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct session_options session_world_options(void) {
    return (struct session_options){.timeout_request_ms = 2000,
                                    .timeout_client_ms = 2000,
                                    .timeout_keepalive_ms = 2000,
                                    .timeout_connect_ms = 2000,
                                    .timeout_server_ms = 2000,
                                    .max_header_size = 4096,
                                    .max_headers = 32,
                                    .max_target = 2048};
}

struct session_world *session_world_new(const struct session_options *options,
                                        const struct net_options *net_options) {
    struct net_options usual = net_world_options();
    struct session_world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->net = net_world_new(net_options ? net_options : &usual);
    world->options = options ? *options : session_world_options();
    struct session_room_options room_options = {.sessions_max = 16,
                                                .h2_sessions_max = 16,
                                                .tcp_max = 16,
                                                .exchanges_max = 16,
                                                .streams_more = 16,
                                                .max_header_size = 4096,
                                                .max_headers = 32,
                                                .h2_memory_max = 1 << 20};
    assert_int_equal(session_room_init(&world->room, &world->net->net, &room_options), 0);
    world->ops = &session_h1;
    world->listening = tcp_listen(&world->address);
    world->peer = -1;
    return world;
}

void session_world_free(struct session_world *world) {
    for (uint32_t i = 0; i < world->streams; i++) {
        if (world->seen[i].stream) seen_close(&world->seen[i], REASON_CLIENT_RESET);
    }
    if (world->session && world->closed == 0)
        world->session->ops->close(world->session, REASON_DRAIN_CUT);
    TURN_UNTIL(world->net, session_room_used(&world->room) == 0);
    session_room_fini(&world->room);
    if (world->peer >= 0) close(world->peer);
    close(world->listening);
    net_world_free(world->net);
    for (uint32_t i = 0; i < SEEN_MAX; i++)
        free(world->seen[i].body);
    free(world);
}

static struct session_world *world_of(const struct stream *stream) { return stream->session->user; }

static void on_head(struct stream *stream, struct http_message *message, bool end) {
    struct seen *seen = stream->user;
    struct session_world *world = world_of(stream);
    assert_ptr_equal(seen->stream, stream);
    assert_int_equal(seen->ends + seen->resets, 0);
    seen->heads++;
    seen->status = message->status;
    seen->interims += message->status >= 100 && message->status < 200;
    seen->ended = end;
    seen->body_length = message->body_length;
    snprintf(seen->path, sizeof seen->path, "%.*s", BYTES_FMT(message->path));
    if (world->on_head) world->on_head(world, seen);
}

static void on_data(struct stream *stream, struct bytes data, struct lease *lease) {
    struct seen *seen = stream->user;
    struct session_world *world = world_of(stream);
    assert_int_equal(seen->ends + seen->resets, 0);
    assert_true(seen->heads > 0 || world->ops == &session_tcp);
    assert_true(data.ptr >= lease->memory && data.ptr + data.len <= lease->memory + lease->size);
    if (!seen->body) seen->body = calloc(1, SEEN_BODY_MAX);
    assert_true(seen->body_len + data.len < SEEN_BODY_MAX);
    memcpy(seen->body + seen->body_len, data.ptr, data.len);
    seen->body_len += data.len;
    seen->datas++;
    if (world->on_data) world->on_data(world, seen);
}

static void on_end(struct stream *stream, const struct http_fields *trailers) {
    struct seen *seen = stream->user;
    struct session_world *world = world_of(stream);
    assert_int_equal(seen->ends + seen->resets, 0);
    seen->ends++;
    seen->ended = true;
    size_t len = 0;
    for (uint32_t i = 0; trailers && i < trailers->count; i++) {
        const struct http_field *field = &trailers->items[i];
        len += (size_t)snprintf(seen->trailers + len, sizeof seen->trailers - len, "%.*s: %.*s\n",
                                BYTES_FMT(field->name), BYTES_FMT(field->value));
    }
    if (world->on_end) world->on_end(world, seen);
}

static void on_drained(struct stream *stream) { ((struct seen *)stream->user)->drained++; }

static void on_reset(struct stream *stream, enum reason reason) {
    struct seen *seen = stream->user;
    struct session_world *world = world_of(stream);
    assert_int_equal(seen->resets, 0);
    seen->resets++;
    seen->reason = reason;
    seen->reused = stream->reused;
    seen->sent = stream->sent;
    seen->answered = stream->answered;
    if (world->on_reset) world->on_reset(world, seen);
}

static const struct stream_events seen_events = {.on_head = on_head,
                                                 .on_data = on_data,
                                                 .on_end = on_end,
                                                 .on_drained = on_drained,
                                                 .on_reset = on_reset};

static struct seen *seen_begin(struct session_world *world, struct stream *stream) {
    assert_true(world->streams < SEEN_MAX);
    struct seen *seen = &world->seen[world->streams++];
    seen->stream = stream;
    stream->events = &seen_events;
    stream->user = seen;
    return seen;
}

static bool host_on_stream(struct session *session, struct stream *stream) {
    struct session_world *world = session->user;
    if (world->refuse_streams) return false;
    seen_begin(world, stream);
    return true;
}
static void host_on_refused(struct session *session, enum reason reason) {
    struct session_world *world = session->user;
    world->refused++;
    world->refused_reason = reason;
}
static void host_on_ready(struct session *session) {
    ((struct session_world *)session->user)->ready++;
}
static void host_on_room(struct session *session) {
    ((struct session_world *)session->user)->idle++;
}
static void host_on_closed(struct session *session, enum reason reason) {
    struct session_world *world = session->user;
    world->closed++;
    world->closed_reason = reason;
    for (uint32_t i = 0; i < world->streams; i++)
        assert_null(world->seen[i].stream);
}

static const struct session_host host = {host_on_stream, host_on_refused, host_on_ready,
                                         host_on_room, host_on_closed};

/* Sessions do not look at the listener: one made by hand is enough. */
void session_world_accept(struct session_world *world) {
    int fds[2];
    tcp_pair(fds);
    struct conn *conn = conn_accept(&world->net->net, fds[0], NULL, NULL);
    assert_non_null(conn);
    world->peer = fds[1];
    world->session = world->ops->accept(&world->room, conn, &world->options, &host);
    assert_non_null(world->session);
    world->session->user = world;
}

void session_world_connect(struct session_world *world) {
    struct session_address to = {.address = (const struct sockaddr *)&world->address,
                                 .size = sizeof world->address};
    enum reason reason;
    world->session = world->ops->connect(&world->room, &to, &world->options, &host, &reason);
    assert_non_null(world->session);
    world->session->user = world;
    TURN_UNTIL(world->net, world->ready + world->closed != 0);
    if (world->ready) {
        world->peer = accept(world->listening, NULL, NULL);
        assert_true(world->peer >= 0);
    }
}

struct seen *session_world_open(struct session_world *world, struct arena *arena) {
    struct stream *stream = world->session->ops->open(world->session, arena);
    return stream ? seen_begin(world, stream) : NULL;
}

void seen_answer_head(struct seen *seen, int status, uint64_t body_length, bool end) {
    struct http_message message = {
        .status = (uint16_t)status, .version_minor = 1, .body_length = body_length};
    seen->stream->ops->head(seen->stream, &message, end);
}

void seen_answer(struct seen *seen, int status, const char *body) {
    seen_answer_head(seen, status, strlen(body), false);
    seen_data(seen, body, true);
}

void seen_request(struct seen *seen, enum http_method method, uint64_t body_length, bool end) {
    struct http_message message = {.method = method,
                                   .method_text = http_method_text(method),
                                   .scheme = BYTES("http"),
                                   .authority = BYTES("a.example"),
                                   .path = BYTES("/"),
                                   .version_minor = 1,
                                   .body_length = body_length};
    seen->stream->ops->head(seen->stream, &message, end);
}

enum stream_room seen_data(struct seen *seen, const char *text, bool end) {
    return seen->stream->ops->data(seen->stream, bytes_of(text), NULL, end);
}

void seen_close(struct seen *seen, enum reason reason) {
    struct stream *stream = seen->stream;
    seen->stream = NULL;
    stream->ops->close(stream, reason);
}

struct session_world *session_world_client(void) {
    struct session_world *world = session_world_new(NULL, NULL);
    session_world_accept(world);
    return world;
}

void seen_on_request_answer(struct session_world *world, struct seen *seen) {
    (void)world;
    if (!seen->ended) return;
    seen_answer(seen, 200, seen->path);
    seen_close(seen, REASON_NONE);
}

void client_expect_path(struct session_world *world, const char *path) {
    char text[400];
    snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(path),
             path);
    peer_expect(world->net, world->peer, text);
}

void seen_on_reset_close(struct session_world *world, struct seen *seen) {
    (void)world;
    seen_close(seen, seen->reason);
}

void seen_on_reset_answer(struct session_world *world, struct seen *seen) {
    (void)world;
    seen_answer(seen, 503, "cut");
    seen_close(seen, seen->reason);
}
