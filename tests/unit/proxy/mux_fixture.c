#include "unit/proxy/mux_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct mux *muxes[MUX_SESSIONS];
uint32_t mux_count;
uint32_t mux_takes;
bool mux_refuses;

static void mux_stream_close(struct stream *stream, enum reason reason) {
    (void)reason;
    struct mux_stream *it = LIST_OWNER(stream, struct mux_stream, stream);
    struct session *session = &it->mux->session;
    assert_true(it->open);
    it->open = false;
    session->streams_open--;
    if (!session->closing) session->host->on_room(session);
}

static const struct stream_ops mux_stream_ops = {.close = mux_stream_close};

static struct session *mux_connect(struct session_room *room, const struct session_address *to,
                                   const struct session_options *options,
                                   const struct session_host *host, enum reason *reason) {
    (void)to;
    *reason = REASON_CONNECT_FAILED;
    if (mux_refuses) return NULL;
    assert_true(mux_count < MUX_SESSIONS);
    struct mux *mux = calloc(1, sizeof *mux);
    assert_non_null(mux);
    muxes[mux_count++] = mux;
    mux->session = (struct session){
        .ops = &mux_ops, .options = options, .host = host, .room = room, .streams_max = mux_takes};
    list_init(&mux->session.link);
    return &mux->session;
}

static struct stream *mux_open(struct session *session, struct arena *arena) {
    struct mux *mux = LIST_OWNER(session, struct mux, session);
    assert_true(mux->ready && !mux->gone);
    assert_true(session->streams_open < session->streams_max);
    if (mux->lost || session->conn) return NULL;
    for (uint32_t i = 0; i < MUX_STREAMS; i++) {
        struct mux_stream *it = &mux->streams[i];
        if (it->open) continue;
        *it = (struct mux_stream){.mux = mux, .open = true};
        it->stream = (struct stream){.ops = &mux_stream_ops, .session = session, .arena = arena};
        it->stream.reused = session->streams++ != 0;
        session->streams_open++;
        return &it->stream;
    }
    fail_msg("too many streams for this test");
    return NULL;
}

static void mux_close(struct session *session, enum reason reason) {
    (void)reason;
    struct mux *mux = LIST_OWNER(session, struct mux, session);
    assert_false(mux->closed);
    assert_int_equal(session->streams_open, 0);
    mux->closed = session->closing = true;
}

const struct session_ops mux_ops = {.proto = "mux",
                                    .multiplexed = true,
                                    .connect = mux_connect,
                                    .open = mux_open,
                                    .drain = NULL,
                                    .close = mux_close};

void mux_short_of_memory(struct mux *mux, bool is_short) {
    static struct conn conn; /* never looked into */
    mux->session.conn = is_short ? &conn : NULL;
}

void mux_ready(struct mux *mux) {
    mux->ready = true;
    mux->session.host->on_ready(&mux->session);
}

void mux_set(struct mux *mux, uint32_t streams_max) {
    mux->session.streams_max = streams_max;
    mux->session.host->on_room(&mux->session);
}

void mux_gone(struct mux *mux, enum reason reason) {
    assert_false(mux->gone);
    mux->session.closing = true;
    for (uint32_t i = 0; i < MUX_STREAMS; i++) {
        if (mux->streams[i].open) mux_stream_close(&mux->streams[i].stream, reason);
    }
    mux->session.host->on_closed(&mux->session, reason);
    mux->gone = true;
}

void waiter_close(struct waiter *waiter) {
    struct stream *stream = waiter->stream;
    waiter->stream = NULL;
    stream->ops->close(stream, REASON_NONE);
}

static void on_told(struct waiter *waiter) {
    if (waiter->cancels) pool_cancel(&waiter->cancels->wait);
    if (waiter->closes && waiter->stream) waiter_close(waiter);
}

void waiter_on_stream(struct pool_wait *wait, struct stream *stream) {
    struct waiter *waiter = LIST_OWNER(wait, struct waiter, wait);
    assert_null(waiter->stream);
    waiter->stream = stream;
    on_told(waiter);
}

void waiter_on_failed(struct pool_wait *wait, enum reason reason) {
    struct waiter *waiter = LIST_OWNER(wait, struct waiter, wait);
    waiter->failures++;
    waiter->reason = reason;
    on_told(waiter);
}

void take_as(struct proxy_world *world, struct waiter *waiter, bool fresh,
             const struct session_ops *ops) {
    *waiter = (struct waiter){
        .wait = {.ops = ops, .on_stream = waiter_on_stream, .on_failed = waiter_on_failed}};
    waiter->stream = pool_take(proxy_world_server(world, 0), &world->arena, fresh, &waiter->wait,
                               &waiter->reason);
}

void take(struct proxy_world *world, struct waiter *waiter) {
    take_as(world, waiter, false, &mux_ops);
}

void take_many(struct proxy_world *world, struct waiter *waiters, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        take(world, &waiters[i]);
}

void close_many(struct waiter *waiters, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        waiter_close(&waiters[i]);
}

uint64_t gauge(struct proxy_world *world, enum stat_id id) {
    return stat_get(&world->net->stats, id);
}

void assert_gauges(struct proxy_world *world, uint64_t connecting, uint64_t active, uint64_t idle) {
    assert_int_equal(gauge(world, STAT_UPSTREAM_CONNECTIONS_CONNECTING), connecting);
    assert_int_equal(gauge(world, STAT_UPSTREAM_CONNECTIONS_ACTIVE), active);
    assert_int_equal(gauge(world, STAT_UPSTREAM_CONNECTIONS_IDLE), idle);
    assert_int_equal(proxy_world_server(world, 0)->idle_count, idle);
    assert_int_equal(proxy_world_server(world, 0)->dials, connecting);
}

struct proxy_world *shared_world(const char *config) {
    struct proxy_world *world = proxy_world_new(config);
    world->proxy.upstreams[0].session_ops = &mux_ops;
    world->proxy.upstreams[0].limits_requests = true;
    mux_count = 0;
    mux_takes = 4;
    mux_refuses = false;
    return world;
}

void shared_world_free(struct proxy_world *world) {
    proxy_drain(&world->proxy);
    for (uint32_t i = 0; i < mux_count; i++) {
        if (!muxes[i]->gone) mux_gone(muxes[i], REASON_DRAINED);
        free(muxes[i]);
    }
    struct server *server = proxy_world_server(world, 0);
    assert_true(list_empty(&server->shared) && list_empty(&server->loaded));
    assert_true(list_empty(&server->dialling));
    proxy_world_free(world);
}
