#include "proxy/tunnel_ws.h"

#include "unit/net/net_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GOOD "\x81\x01x"                                /* a text of a server */
#define GOOD_MASKED "\x81\x81\x01\x02\x03\x04y"         /* one of a client: "x" */
#define CLOSE_1000 "\x88\x02\x03\xe8"                   /* of a server */
#define CLOSE_MASKED "\x88\x82\x01\x02\x03\x04\x02\xea" /* of a client: 1000 */

/* An end of the tunnel: what it was given. */
struct side {
    struct stream stream;
    char text[512];
    size_t len;
    uint32_t ends;
    bool paused;
    bool full;
};

struct world {
    struct net_world *net;
    struct tunnel_ws_room room;
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
    struct side *side = side_of(stream);
    (void)lease;
    assert_false(end);
    assert_int_equal(side->ends, 0);
    assert_true(side->len + data.len <= sizeof side->text);
    memcpy(side->text + side->len, data.ptr, data.len);
    side->len += data.len;
    return side->full ? STREAM_FULL : STREAM_ROOM;
}
static void side_end(struct stream *stream, const struct http_fields *trailers) {
    assert_null(trailers);
    assert_int_equal(side_of(stream)->ends++, 0);
}
static void side_pause(struct stream *stream) { side_of(stream)->paused = true; }
static void side_resume(struct stream *stream) { side_of(stream)->paused = false; }
static void side_tunnel(struct stream *stream, uint64_t idle_ms) {
    (void)stream;
    assert_int_equal(idle_ms, 1234);
}

static const struct stream_ops side_ops = {.data = side_data,
                                           .end = side_end,
                                           .pause = side_pause,
                                           .resume = side_resume,
                                           .tunnel = side_tunnel};

static void on_end(struct tunnel *tunnel, enum reason reason) {
    struct world *world = LIST_OWNER(tunnel, struct world, tunnel);
    world->ended++;
    world->reason = reason;
}

static struct world *world_new(uint64_t ping_ms) {
    struct world *world = aligned_alloc(64, (sizeof *world + 63) / 64 * 64);
    assert_non_null(world);
    memset(world, 0, sizeof *world);
    struct net_options net_options = net_world_options();
    world->net = net_world_new(&net_options);
    assert_int_equal(tunnel_ws_room_init(&world->room, &world->net->net, 1), 0);
    world->client.stream.ops = world->upstream.stream.ops = &side_ops;
    world->tunnel = (struct tunnel){.client = &world->client.stream,
                                    .upstream = &world->upstream.stream,
                                    .stats = &world->net->stats,
                                    .on_end = on_end};
    struct tunnel_ws_options options = {.message_max = 100, .ping_ms = ping_ms, .idle_ms = 1234};
    tunnel_ws_start(&world->tunnel, &world->room, &options);
    return world;
}

static void world_free(struct world *world) {
    assert_int_equal(world->ended, 1);
    tunnel_ws_room_fini(&world->room);
    net_world_free(world->net);
    free(world);
}

static void says_bytes(struct side *side, struct bytes bytes) {
    side->stream.events->on_data(&side->stream, bytes, NULL);
}
#define SAYS(side, literal) says_bytes(&(side), BYTES(literal))

static void assert_got(const struct side *side, struct bytes wanted) {
    assert_int_equal(side->len, wanted.len);
    if (wanted.len != 0) assert_memory_equal(side->text, wanted.ptr, wanted.len);
}
#define GOT(side, literal) assert_got(&(side), BYTES(literal))

static void finishes(struct side *side) { side->stream.events->on_end(&side->stream, NULL); }
static void breaks(struct side *side) {
    side->stream.events->on_reset(&side->stream, REASON_CLIENT_RESET);
}

/* What comes in one buffer goes in one piece, but for what is not judged yet. */
static void a_header_waits_for_its_first_byte(void **state) {
    (void)state;
    struct world *world = world_new(0);
    SAYS(world->upstream, GOOD GOOD "\x82");
    GOT(world->client, GOOD GOOD);
    SAYS(world->upstream, "\x02");
    GOT(world->client, GOOD GOOD);
    SAYS(world->upstream, "a");
    GOT(world->client, GOOD GOOD "\x82\x02"
                                 "a");
    SAYS(world->upstream, "b" GOOD);
    GOT(world->client, GOOD GOOD "\x82\x02"
                                 "ab" GOOD);
    assert_int_equal(stat_get(&world->net->stats, STAT_TUNNEL_BYTES_TO_CLIENT), 13);
    breaks(&world->client);
    world_free(world);
}

static void a_slow_reader_pauses_the_other_side(void **state) {
    (void)state;
    struct world *world = world_new(0);
    world->client.full = true;
    SAYS(world->upstream, GOOD);
    assert_true(world->upstream.paused);
    world->client.stream.events->on_drained(&world->client.stream);
    assert_false(world->upstream.paused);
    breaks(&world->client);
    world_free(world);
}

static void a_violation_tells_both_and_ends(void **state) {
    (void)state;
    struct world *world = world_new(0);
    SAYS(world->upstream, GOOD "\x83\x00");
    GOT(world->client, GOOD "\x88\x02\x03\xe9");
    assert_int_equal(world->upstream.len, 8); /* masked */
    assert_int_equal(world->client.ends, 1);
    assert_int_equal(world->upstream.ends, 1);
    assert_true(world->tunnel.upstream_told);
    assert_int_equal(world->reason, REASON_WEBSOCKET_PROTOCOL);
    world_free(world);
}

/* Where a frame was cut no Close can stand: that side is not ended in order. */
static void who_has_half_a_frame_is_told_nothing(void **state) {
    (void)state;
    struct world *world = world_new(0);
    SAYS(world->upstream, "\x81\x05xy");
    SAYS(world->client, "\x83\x80\x01\x02\x03\x04");
    GOT(world->client, "\x81\x05xy");
    assert_int_equal(world->client.ends, 0);
    assert_int_equal(world->upstream.ends, 1);
    assert_int_equal(world->reason, REASON_WEBSOCKET_PROTOCOL);
    world_free(world);
}

static void both_closes_end_both_sides(void **state) {
    (void)state;
    struct world *world = world_new(0);
    SAYS(world->client, CLOSE_MASKED GOOD_MASKED);
    GOT(world->upstream, CLOSE_MASKED); /* and nothing behind it */
    SAYS(world->upstream, GOOD CLOSE_1000);
    GOT(world->client, GOOD CLOSE_1000);
    assert_int_equal(world->client.ends, 1);
    assert_int_equal(world->upstream.ends, 1);
    assert_int_equal(world->ended, 0);
    finishes(&world->upstream);
    finishes(&world->client);
    assert_int_equal(world->reason, REASON_NONE);
    world_free(world);
}

static void who_does_not_end_after_both_closes_is_ended(void **state) {
    (void)state;
    struct world *world = world_new(0);
    SAYS(world->client, CLOSE_MASKED);
    SAYS(world->upstream, CLOSE_1000);
    TURN_UNTIL(world->net, world->ended == 1);
    assert_int_equal(world->reason, REASON_NONE);
    assert_true(world->tunnel.upstream_told);
    world_free(world);
}

static void a_drain_waits_for_both_answers(void **state) {
    (void)state;
    struct world *world = world_new(0);
    world->client.full = true;
    SAYS(world->upstream, "\x82\x02"
                          "a");
    assert_true(world->upstream.paused);
    tunnel_ws_drain(&world->room);
    GOT(world->client, "\x82\x02"
                       "a"); /* in the middle of a frame */
    assert_int_equal(world->upstream.len, 8);
    SAYS(world->upstream, "b" GOOD);
    GOT(world->client, "\x82\x02"
                       "ab" GOOD "\x88\x02\x03\xe9");
    assert_false(world->upstream.paused); /* nothing of it goes on any more */
    SAYS(world->upstream, GOOD CLOSE_1000);
    SAYS(world->client, CLOSE_MASKED);
    assert_int_equal(world->client.len, 11);
    assert_int_equal(world->upstream.len, 8);
    finishes(&world->client);
    finishes(&world->upstream);
    assert_int_equal(world->reason, REASON_DRAINED);
    world_free(world);
}

static void an_end_that_answers_no_ping_is_gone(void **state) {
    (void)state;
    struct world *world = world_new(5);
    TURN_UNTIL(world->net, world->client.len != 0);
    assert_int_equal(world->client.len, 10);
    assert_int_equal(world->upstream.len, 14);
    char pong[10];
    memcpy(pong, "\x8a\x08", 2);
    for (int i = 0; i < 8; i++)
        pong[2 + i] = (char)(world->upstream.text[6 + i] ^ world->upstream.text[2 + i % 4]);
    says_bytes(&world->upstream, bytes_make(pong, sizeof pong));
    assert_int_equal(world->client.len, 10); /* its own affair */
    TURN_UNTIL(world->net, world->ended == 1);
    assert_int_equal(world->reason, REASON_WEBSOCKET_TIMEOUT);
    assert_int_equal(world->client.ends, 0);
    assert_int_equal(world->upstream.ends, 1);
    world_free(world);
}

/* As long as the client is slow nothing of the server is read: its pong neither. */
static void who_is_not_read_is_not_gone(void **state) {
    (void)state;
    struct world *world = world_new(5);
    world->client.full = true;
    SAYS(world->upstream, GOOD);
    assert_true(world->upstream.paused);
    for (size_t asked = 3 + 10; asked <= 3 + 4 * 10; asked += 10) {
        TURN_UNTIL(world->net, world->client.len == asked);
        char pong[14] = "\x8a\x88"; /* masked with zeros */
        memcpy(pong + 6, world->client.text + asked - 8, 8);
        says_bytes(&world->client, bytes_make(pong, sizeof pong));
    }
    assert_int_equal(world->ended, 0);
    world->client.stream.events->on_drained(&world->client.stream);
    assert_false(world->upstream.paused);
    TURN_UNTIL(world->net, world->ended == 1);
    assert_int_equal(world->reason, REASON_WEBSOCKET_TIMEOUT);
    world_free(world);
}

/* Whose pong may have come long ago is read only now. */
static void who_was_not_read_has_its_time_from_then_on(void **state) {
    (void)state;
    struct world *world = world_new(200);
    const struct net *net = &world->net->net;
    world->client.full = true;
    SAYS(world->upstream, GOOD);
    assert_true(world->upstream.paused);
    TURN_UNTIL(world->net, world->upstream.len != 0);
    SAYS(world->client, GOOD_MASKED);
    size_t len = world->upstream.len;
    TURN_UNTIL(world->net, world->client.len == 3 + 10 + 10);
    assert_int_equal(world->upstream.len, len); /* one ping is enough */
    uint64_t asked_ms = net->now_ms;
    TURN_UNTIL(world->net, net->now_ms >= asked_ms + 10);
    world->client.stream.events->on_drained(&world->client.stream);
    assert_false(world->upstream.paused);
    uint64_t drained_ms = net->now_ms;
    TURN_UNTIL(world->net, world->ended == 1);
    assert_true(net->now_ms >= drained_ms + 200);
    assert_int_equal(world->reason, REASON_WEBSOCKET_TIMEOUT);
    world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_waits_for_its_first_byte),
        cmocka_unit_test(a_slow_reader_pauses_the_other_side),
        cmocka_unit_test(a_violation_tells_both_and_ends),
        cmocka_unit_test(who_has_half_a_frame_is_told_nothing),
        cmocka_unit_test(both_closes_end_both_sides),
        cmocka_unit_test(who_does_not_end_after_both_closes_is_ended),
        cmocka_unit_test(a_drain_waits_for_both_answers),
        cmocka_unit_test(an_end_that_answers_no_ping_is_gone),
        cmocka_unit_test(who_is_not_read_is_not_gone),
        cmocka_unit_test(who_was_not_read_has_its_time_from_then_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
