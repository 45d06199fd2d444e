#include "unit/proxy/proxy_fixture.h"

#include "service/respond.h"
#include "unit/config/load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fake_stream *fake_of(struct stream *stream) {
    return LIST_OWNER(stream, struct fake_stream, stream);
}

static void text_of(struct bytes bytes, char *text, size_t size) {
    snprintf(text, size, "%.*s", BYTES_FMT(bytes));
}

static void text_of_field(const struct http_fields *fields, const char *name, char *text,
                          size_t size) {
    const struct http_field *field = http_fields_find_name(fields, bytes_of(name));
    if (field) text_of(field->value, text, size);
}

static void fake_head(struct stream *stream, const struct http_message *message, bool end) {
    struct fake_stream *fake = fake_of(stream);
    assert_int_equal(fake->closes + fake->ends, 0);
    assert_int_equal(fake->heads, 0);
    if (message->status >= 100 && message->status < 200) {
        assert_false(end);
        fake->interims++;
        fake->status = message->status;
        return;
    }
    fake->heads++;
    fake->status = message->status;
    fake->body_length = message->body_length;
    fake->close_after = message->close_after;
    text_of(message->path, fake->path, sizeof fake->path);
    text_of(message->authority, fake->authority, sizeof fake->authority);
    text_of_field(&message->fields, "grpc-status", fake->grpc_status, sizeof fake->grpc_status);
    text_of_field(&message->fields, "grpc-timeout", fake->grpc_timeout, sizeof fake->grpc_timeout);
    fake->ends = end;
}

static enum stream_room fake_data(struct stream *stream, struct bytes data, struct lease *lease,
                                  bool end) {
    struct fake_stream *fake = fake_of(stream);
    assert_int_equal(fake->closes + fake->ends, 0);
    assert_true(fake->heads == 1 || fake->tunnelled);
    assert_true(lease || data.len <= STREAM_COPY_MAX);
    assert_true(fake->body_len + data.len < sizeof fake->body);
    if (data.len != 0) memcpy(fake->body + fake->body_len, data.ptr, data.len);
    fake->body_len += data.len;
    fake->ends = end;
    return fake->full ? STREAM_FULL : STREAM_ROOM;
}

static void fake_end(struct stream *stream, const struct http_fields *trailers) {
    struct fake_stream *fake = fake_of(stream);
    assert_int_equal(fake->closes + fake->ends, 0);
    assert_true(fake->heads == 1 || fake->tunnelled);
    fake->ends = 1;
    fake->trailers = trailers != NULL;
    if (trailers)
        text_of_field(trailers, "grpc-status", fake->grpc_status, sizeof fake->grpc_status);
}

static void fake_pause(struct stream *stream) {
    struct fake_stream *fake = fake_of(stream);
    assert_int_equal(fake->closes, 0);
    fake->paused = true;
    fake->pauses++;
}

static void fake_resume(struct stream *stream) {
    struct fake_stream *fake = fake_of(stream);
    assert_int_equal(fake->closes, 0);
    fake->paused = false;
    fake->resumes++;
}

static void fake_tunnel(struct stream *stream, uint64_t idle_ms) {
    struct fake_stream *fake = fake_of(stream);
    assert_true(idle_ms != 0);
    fake->tunnelled = true;
}

static bool fake_pass(struct stream *stream, struct stream *to) {
    struct fake_stream *fake = fake_of(stream);
    assert_int_equal(fake->closes, 0);
    (void)to; /* may be a service's */
    fake->passes++;
    return fake->passable;
}

static void fake_passed(struct stream *stream, uint64_t bytes) { fake_of(stream)->passed += bytes; }

static void fake_close(struct stream *stream, enum reason reason) {
    struct fake_stream *fake = fake_of(stream);
    assert_int_equal(fake->closes, 0);
    fake->closes++;
    fake->reason = reason;
    fake->stream.events = NULL;
    struct fake_session *session = fake->session;
    if (session) session->session.streams_open = 0;
    if (!session) {
        assert_true(reason != REASON_NONE || fake->heads == 1 || fake->tunnelled);
        /* As sessions do: nobody may need what lies there. */
        if (stream->arena) arena_reset(stream->arena);
        return;
    }
    if (session->closed) return;
    bool reusable = reason == REASON_NONE && fake->ends && !fake->tunnelled;
    if (reusable) {
        session->session.host->on_room(&session->session);
    } else {
        session->closed = session->session.closing = true;
        session->reason = reason;
    }
}

static const struct stream_ops fake_stream_ops = {
    .head = fake_head,
    .data = fake_data,
    .end = fake_end,
    .pause = fake_pause,
    .resume = fake_resume,
    .tunnel = fake_tunnel,
    .pass = fake_pass,
    .passed = fake_passed,
    .close = fake_close,
};

static struct proxy_world *world_of_room(struct session_room *room) {
    return LIST_OWNER(room, struct proxy_world, room);
}

static struct session *fake_connect(struct session_room *room, const struct session_address *to,
                                    const struct session_options *options,
                                    const struct session_host *host, enum reason *reason) {
    struct proxy_world *world = world_of_room(room);
    assert_non_null(to->address);
    if (world->no_dial) {
        *reason = REASON_CONNECT_FAILED;
        return NULL;
    }
    assert_true(world->session_count < FAKE_SESSIONS_MAX);
    if (to->client) world->told[world->session_count] = *to->client;
    struct fake_session *session = &world->sessions[world->session_count++];
    extern const struct session_ops fake_session_ops;
    session->session =
        (struct session){.ops = &fake_session_ops, .options = options, .host = host, .room = room};
    list_init(&session->session.link);
    session->session.streams_max = 1;
    return &session->session;
}

extern const struct session_ops fake_tcp_ops;

static struct session *fake_connect_tcp(struct session_room *room, const struct session_address *to,
                                        const struct session_options *options,
                                        const struct session_host *host, enum reason *reason) {
    struct session *session = fake_connect(room, to, options, host, reason);
    if (session) session->ops = &fake_tcp_ops;
    return session;
}

static struct stream *fake_open(struct session *session, struct arena *arena) {
    struct fake_session *fake = LIST_OWNER(session, struct fake_session, session);
    assert_false(fake->gone);
    if (fake->closed) return NULL;
    fake->stream = (struct fake_stream){
        .session = fake, .stream = {.ops = &fake_stream_ops, .session = session, .arena = arena}};
    fake->stream.stream.reused = session->streams++ != 0;
    session->streams_open = 1;
    return &fake->stream.stream;
}

static void fake_session_close(struct session *session, enum reason reason) {
    struct fake_session *fake = LIST_OWNER(session, struct fake_session, session);
    assert_false(fake->gone);
    if (fake->closed) return;
    fake->closed = true;
    fake->reason = reason;
}

static void fake_drain(struct session *session) { fake_session_close(session, REASON_DRAINED); }

extern const struct session_ops fake_session_ops;
const struct session_ops fake_session_ops = {.proto = "fake",
                                             .connect = fake_connect,
                                             .open = fake_open,
                                             .drain = fake_drain,
                                             .close = fake_session_close};

const struct session_ops fake_tcp_ops = {.proto = "fake_tcp",
                                         .one_stream = true,
                                         .connect = fake_connect_tcp,
                                         .open = fake_open,
                                         .drain = fake_drain,
                                         .close = fake_session_close};

struct proxy_world *proxy_world_new(const char *config) {
    struct net_options net_options = net_world_options();
    struct proxy_world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->net = net_world_new(&net_options);
    struct session_room_options room_options = {.sessions_max = 4,
                                                .h2_sessions_max = 4,
                                                .exchanges_max = 4,
                                                .max_header_size = 4096,
                                                .max_headers = 32};
    assert_int_equal(session_room_init(&world->room, &world->net->net, &room_options), 0);
    world->config = load_good(config);
    for (uint32_t i = 0; i < world->config->service_count; i++)
        world->services[i] = respond_new(&world->config->services[i]);
    struct proxy_options options = {.config = world->config,
                                    .idle_max = UINT32_MAX,
                                    .net = &world->net->net,
                                    .room = &world->room,
                                    .client_ops = &fake_session_ops,
                                    .upstream_ops = &fake_session_ops,
                                    .tcp_ops = &fake_tcp_ops,
                                    .services = world->services,
                                    .exchanges_max = 2,
                                    .relays_max = 2};
    assert_int_equal(proxy_init(&world->proxy, &options), 0);
    world->client_session = (struct session){.ops = &fake_session_ops,
                                             .host = world->proxy.fronts[0].host,
                                             .room = &world->room,
                                             .is_client = true,
                                             .user = &world->proxy.fronts[0]};
    arena_init(&world->arena, &world->room.arenas);
    return world;
}

struct server *proxy_world_server(struct proxy_world *world, uint32_t index) {
    return &world->proxy.upstreams[0].servers[index];
}

static void let_go(struct proxy_world *world) {
    if (world->lease) lease_unref(world->lease);
    world->lease = NULL;
}

void proxy_world_free(struct proxy_world *world) {
    const struct stat_block *stats = &world->net->stats;
    assert_int_equal(world->proxy.exchanges.used, 0);
    assert_int_equal(world->proxy.relays.used, 0);
    assert_int_equal(stat_get(stats, STAT_HTTP_REQUESTS_IN_FLIGHT), 0);
    proxy_drain(&world->proxy);
    for (uint32_t i = 0; i < world->session_count; i++) {
        if (!world->sessions[i].gone) server_closed(&world->sessions[i], REASON_DRAINED);
    }
    for (uint32_t i = 0; i < world->config->upstream_count; i++) {
        struct upstream *upstream = &world->proxy.upstreams[i];
        for (uint32_t j = 0; j < upstream->config->server_count; j++) {
            assert_int_equal(upstream->servers[j].connections, 0);
            assert_int_equal(upstream->servers[j].idle_count, 0);
            assert_int_equal(upstream->servers[j].balance->in_flight, 0);
            assert_true(list_empty(&upstream->servers[j].idle));
        }
    }
    assert_int_equal(stat_get(stats, STAT_UPSTREAM_CONNECTIONS_IDLE), 0);
    assert_int_equal(stat_get(stats, STAT_UPSTREAM_CONNECTIONS_ACTIVE), 0);
    assert_int_equal(stat_get(stats, STAT_UPSTREAM_CONNECTIONS_CONNECTING), 0);
    let_go(world);
    arena_reset(&world->arena);
    for (uint32_t i = 0; i < world->config->service_count; i++)
        respond_free(world->services[i]);
    proxy_fini(&world->proxy);
    config_free(world->config);
    session_room_fini(&world->room);
    net_world_free(world->net);
    free(world);
}

bool client_connect(struct proxy_world *world) {
    world->client = (struct fake_stream){
        .stream = {.ops = &fake_stream_ops, .session = &world->client_session}};
    return world->client_session.host->on_stream(&world->client_session, &world->client.stream);
}

void client_request(struct proxy_world *world, enum http_method method, const char *path,
                    uint64_t body_length) {
    arena_reset(&world->arena);
    world->client = (struct fake_stream){
        .stream = {.ops = &fake_stream_ops,
                   .session = &world->client_session,
                   .arena = &world->arena,
                   .began_ns = world->net->net.now_ns - world->began_ms_ago * 1000000}};
    world->request = (struct http_message){.method = method,
                                           .method_text = http_method_text(method),
                                           .scheme = BYTES("http"),
                                           .authority = BYTES("a.example"),
                                           .path = bytes_of(path),
                                           .version_minor = 1,
                                           .upgrade = world->request.upgrade,
                                           .body_length = body_length};
    struct http_fields *fields = &world->request.fields;
    assert_true(http_fields_init(fields, &world->arena, 2));
    for (uint32_t i = 0; i < world->field_count; i++)
        assert_true(
            http_fields_add(fields, &world->arena, world->fields[i].name, world->fields[i].value));
    struct stream *stream = &world->client.stream;
    assert_true(exchange_client_host.on_stream(&world->client_session, stream));
    stream->events->on_head(stream, &world->request, body_length == 0);
}

static struct bytes lease_text(struct proxy_world *world, const char *text) {
    let_go(world);
    world->lease = buf_take(&world->net->net.small);
    assert_non_null(world->lease);
    size_t len = strlen(text);
    memcpy(world->lease->memory, text, len);
    return bytes_make(world->lease->memory, len);
}

void client_data(struct proxy_world *world, const char *text) {
    struct bytes data = lease_text(world, text);
    struct stream *stream = &world->client.stream;
    stream->events->on_data(stream, data, world->lease);
    let_go(world);
}

void client_passed(struct proxy_world *world, uint64_t bytes) {
    world->client.stream.events->on_passed(&world->client.stream, bytes);
}

void client_end(struct proxy_world *world) {
    struct stream *stream = &world->client.stream;
    stream->events->on_end(stream, NULL);
}

void client_reset(struct proxy_world *world, enum reason reason) {
    struct stream *stream = &world->client.stream;
    stream->events->on_reset(stream, reason);
}

void client_drained(struct proxy_world *world) {
    world->client.full = false;
    struct stream *stream = &world->client.stream;
    stream->events->on_drained(stream);
}

void server_ready(struct fake_session *session) {
    session->session.host->on_ready(&session->session);
}

void server_closed(struct fake_session *session, enum reason reason) {
    assert_false(session->gone);
    session->closed = true;
    session->session.host->on_closed(&session->session, reason);
    session->gone = true;
}

void server_answer(struct fake_session *session, int status, uint64_t body_length) {
    struct stream *stream = &session->stream.stream;
    struct http_message message = {.status = (uint16_t)status,
                                   .version_minor = 1,
                                   .upgrade = status == 101 ? BYTES("chat") : BYTES_NONE,
                                   .body_length = body_length};
    const char *type = world_of_room(session->session.room)->content_type;
    assert_true(http_fields_init(&message.fields, stream->arena, 2));
    if (type)
        assert_true(
            http_fields_add(&message.fields, stream->arena, BYTES("content-type"), bytes_of(type)));
    stream->answered = true;
    stream->events->on_head(stream, &message, status >= 200 && body_length == 0);
}

void server_data(struct proxy_world *world, struct fake_session *session, const char *text) {
    struct stream *stream = &session->stream.stream;
    struct bytes data = lease_text(world, text);
    stream->events->on_data(stream, data, world->lease);
    let_go(world);
}

void server_end(struct fake_session *session) {
    struct stream *stream = &session->stream.stream;
    stream->events->on_end(stream, NULL);
}

void server_reset(struct fake_session *session, enum reason reason) {
    struct stream *stream = &session->stream.stream;
    session->closed = true;
    stream->events->on_reset(stream, reason);
}

void server_drained(struct fake_session *session) {
    session->stream.full = false;
    struct stream *stream = &session->stream.stream;
    stream->events->on_drained(stream);
}

uint64_t ended(const struct proxy_world *world, enum reason reason) {
    return world->net->stats.reasons[reason];
}

void assert_answer(const struct proxy_world *world, int status, enum reason closed_with) {
    assert_int_equal(world->client.heads, 1);
    assert_int_equal(world->client.status, status);
    assert_int_equal(world->client.closes, 1);
    assert_int_equal(world->client.reason, closed_with);
    assert_int_equal(world->proxy.exchanges.used, 0);
}
