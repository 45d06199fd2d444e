#include "proxy/tunnel.h"

#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A side of the tunnel: what it was given. */
struct side {
    struct stream stream;
    char text[256];
    uint32_t ends;
    uint64_t idle_ms;
    uint64_t idle_for_ms; /* what it answers when asked */
    bool paused;
    bool full;
};

struct world {
    struct stat_block stats;
    struct tunnel tunnel;
    struct side client;
    struct side upstream;
    uint32_t ended;
    enum reason reason;
};

static struct side *side_of(struct stream *stream) {
    return LIST_OWNER(stream, struct side, stream);
}

static enum stream_room side_data(struct stream *stream, struct bytes data, struct lease *lease,
                                  bool end) {
    (void)lease;
    assert_false(end);
    assert_int_equal(side_of(stream)->ends, 0);
    strncat(side_of(stream)->text, data.ptr, data.len);
    return side_of(stream)->full ? STREAM_FULL : STREAM_ROOM;
}
static void side_end(struct stream *stream, const struct http_fields *trailers) {
    assert_null(trailers);
    side_of(stream)->ends++;
}
static void side_pause(struct stream *stream) { side_of(stream)->paused = true; }
static void side_resume(struct stream *stream) { side_of(stream)->paused = false; }
static uint64_t side_idle_ms(struct stream *stream) { return side_of(stream)->idle_for_ms; }
static void side_tunnel(struct stream *stream, uint64_t idle_ms) {
    side_of(stream)->idle_ms = idle_ms;
}

static const struct stream_ops side_ops = {.data = side_data,
                                           .end = side_end,
                                           .pause = side_pause,
                                           .resume = side_resume,
                                           .tunnel = side_tunnel,
                                           .idle_ms = side_idle_ms};

static void on_end(struct tunnel *tunnel, enum reason reason) {
    struct world *world = LIST_OWNER(tunnel, struct world, tunnel);
    world->ended++;
    world->reason = reason;
}

static struct world *world_new(void) {
    struct world *world = aligned_alloc(64, sizeof *world);
    assert_non_null(world);
    memset(world, 0, sizeof *world);
    world->client.stream.ops = world->upstream.stream.ops = &side_ops;
    world->tunnel = (struct tunnel){.client = &world->client.stream,
                                    .upstream = &world->upstream.stream,
                                    .stats = &world->stats,
                                    .on_end = on_end};
    tunnel_start(&world->tunnel, 1234);
    return world;
}

static void says(struct side *side, const char *text) {
    side->stream.events->on_data(&side->stream, bytes_of(text), NULL);
}
static void finishes(struct side *side) { side->stream.events->on_end(&side->stream, NULL); }
static void drains(struct side *side) {
    side->full = false;
    side->stream.events->on_drained(&side->stream);
}

static void bytes_go_both_ways_and_are_counted(void **state) {
    (void)state;
    struct world *world = world_new();
    assert_int_equal(world->client.idle_ms, 1234);
    assert_int_equal(world->upstream.idle_ms, 1234);
    says(&world->client, "ping");
    says(&world->upstream, "pong!");
    assert_string_equal(world->upstream.text, "ping");
    assert_string_equal(world->client.text, "pong!");
    assert_int_equal(stat_get(&world->stats, STAT_TUNNEL_BYTES_TO_UPSTREAM), 4);
    assert_int_equal(stat_get(&world->stats, STAT_TUNNEL_BYTES_TO_CLIENT), 5);
    free(world);
}

static void it_ends_when_both_directions_have(void **state) {
    (void)state;
    for (int client_first = 0; client_first < 2; client_first++) {
        struct world *world = world_new();
        struct side *first = client_first ? &world->client : &world->upstream;
        struct side *second = client_first ? &world->upstream : &world->client;
        finishes(first);
        assert_int_equal(second->ends, 1);
        assert_int_equal(world->ended, 0);
        says(second, "still");
        assert_string_equal(first->text, "still");
        finishes(second);
        assert_int_equal(first->ends, 1);
        assert_int_equal(world->ended, 1);
        assert_int_equal(world->reason, REASON_NONE);
        free(world);
    }
}

static void a_side_that_is_idle_learns_of_the_other(void **state) {
    (void)state;
    struct world *world = world_new();
    struct stream *client = &world->client.stream, *upstream = &world->upstream.stream;
    world->client.idle_for_ms = 11;
    world->upstream.idle_for_ms = 22;
    assert_int_equal(client->events->on_idle(client), 22);
    assert_int_equal(upstream->events->on_idle(upstream), 11);
    /* A service, or a protocol that does not know. */
    struct stream_ops ops = side_ops;
    ops.idle_ms = NULL;
    upstream->ops = &ops;
    assert_int_equal(client->events->on_idle(client), UINT64_MAX);
    free(world);
}

static void a_slow_reader_pauses_the_other_side(void **state) {
    (void)state;
    struct world *world = world_new();
    world->upstream.full = true;
    says(&world->client, "x");
    assert_true(world->client.paused);
    assert_false(world->upstream.paused);
    drains(&world->upstream);
    assert_false(world->client.paused);
    world->client.full = true;
    says(&world->upstream, "x");
    assert_true(world->upstream.paused);
    drains(&world->client);
    assert_false(world->upstream.paused);
    free(world);
}

static void a_reset_ends_it_with_its_reason(void **state) {
    (void)state;
    struct world *world = world_new();
    world->upstream.stream.events->on_reset(&world->upstream.stream, REASON_SERVER_RESET);
    assert_int_equal(world->ended, 1);
    assert_int_equal(world->reason, REASON_SERVER_RESET);
    free(world);
    world = world_new();
    finishes(&world->upstream);
    world->client.stream.events->on_reset(&world->client.stream, REASON_TUNNEL_TIMEOUT);
    assert_int_equal(world->reason, REASON_TUNNEL_TIMEOUT);
    free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_go_both_ways_and_are_counted),
        cmocka_unit_test(it_ends_when_both_directions_have),
        cmocka_unit_test(a_side_that_is_idle_learns_of_the_other),
        cmocka_unit_test(a_slow_reader_pauses_the_other_side),
        cmocka_unit_test(a_reset_ends_it_with_its_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
