#include "session/session.h"

#include "session/h2_queue.h"
#include "unit/session/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The client's end: nghttp2 by itself, as little of it as the tests need. */
struct far {
    struct session_world *world;
    nghttp2_session *ng;
    uint32_t answers; /* whole ones */
    uint32_t resets;
    uint32_t code; /* of the last */
    uint32_t goaways;
    uint32_t goaway_code;
    size_t body_len;
    bool ended;
};

static int far_on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct far *far = user;
    (void)ng;
    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        far->resets++;
        far->code = frame->rst_stream.error_code;
    } else if (frame->hd.type == NGHTTP2_GOAWAY) {
        far->goaways++;
        far->goaway_code = frame->goaway.error_code;
    } else if (frame->hd.type <= NGHTTP2_HEADERS && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        far->answers++;
    }
    return 0;
}

static int far_on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *from,
                       size_t len, void *user) {
    (void)ng;
    (void)flags;
    (void)id;
    (void)from;
    ((struct far *)user)->body_len += len;
    return 0;
}

static struct far *far_new(struct session_world *world) {
    struct far *far = calloc(1, sizeof *far);
    nghttp2_session_callbacks *callbacks;
    assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, far_on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, far_on_data);
    assert_int_equal(nghttp2_session_client_new(&far->ng, callbacks, far), 0);
    nghttp2_session_callbacks_del(callbacks);
    far->world = world;
    assert_int_equal(nghttp2_submit_settings(far->ng, NGHTTP2_FLAG_NONE, NULL, 0), 0);
    return far;
}

static void far_free(struct far *far) {
    nghttp2_session_del(far->ng);
    session_world_free(far->world);
    free(far);
}

/* What there is to be sent goes, and what has come is read; one turn between. */
static void far_turn(struct far *far) {
    const uint8_t *bytes;
    for (ssize_t size; (size = nghttp2_session_mem_send(far->ng, &bytes)) > 0;)
        assert_int_equal(write(far->world->peer, bytes, (size_t)size), size);
    net_world_turn(far->world->net);
    uint8_t memory[16384];
    ssize_t size = peer_take(far->world->peer, memory, sizeof memory);
    if (size > 0) assert_int_equal(nghttp2_session_mem_recv(far->ng, memory, (size_t)size), size);
    far->ended = size == 0;
}

#define FAR_UNTIL(far, condition)                                                                  \
    do {                                                                                           \
        for (int turns = 0; !(condition); turns++) {                                               \
            far_turn(far);                                                                         \
            assert_true(turns < 2000);                                                             \
        }                                                                                          \
    } while (0)

#define NV(name, value)                                                                            \
    {                                                                                              \
        (uint8_t *)(uintptr_t)(name), (uint8_t *)(uintptr_t)(value), sizeof(name) - 1,             \
            sizeof(value) - 1, NGHTTP2_NV_FLAG_NONE                                                \
    }

static int32_t far_get(struct far *far) {
    const nghttp2_nv fields[] = {NV(":method", "GET"), NV(":scheme", "http"), NV(":path", "/x"),
                                 NV(":authority", "a")};
    int32_t id = nghttp2_submit_request(far->ng, NULL, fields, 4, NULL, NULL);
    assert_true(id > 0);
    return id;
}

static struct far *far_client(const struct session_options *options) {
    struct session_world *world = session_world_new(options, NULL);
    world->ops = &session_h2;
    world->on_reset = seen_on_reset_close;
    session_world_accept(world);
    return far_new(world);
}

static struct session_options options_of(uint32_t streams_max) {
    struct session_options options = session_world_options();
    options.h2_streams_max = streams_max;
    return options;
}

static void requests_are_answered(void **state) {
    (void)state;
    struct session_options options = options_of(100);
    struct far *far = far_client(&options);
    for (int i = 0; i < 3; i++)
        far_get(far);
    FAR_UNTIL(far, far->world->streams == 3);
    for (uint32_t i = 0; i < 3; i++) {
        struct seen *seen = &far->world->seen[i];
        assert_string_equal(seen->path, "/x");
        seen_answer(seen, 200, "hello");
        seen_close(seen, REASON_NONE);
    }
    FAR_UNTIL(far, far->answers == 3);
    assert_int_equal(far->body_len, 15);
    assert_int_equal(far->resets, 0);
    assert_int_equal(far->world->room.h2->streams.used, 0);
    far_free(far);
}

/* Or many clients at once would use up all buffers in a turn. */
static void small_bodies_share_a_buffer(void **state) {
    (void)state;
    struct session_options options = options_of(100);
    struct far *far = far_client(&options);
    for (int i = 0; i < 14; i++)
        far_get(far);
    FAR_UNTIL(far, far->world->streams == 14);
    uint32_t spare = far->world->net->net.small.spare_count;
    for (uint32_t i = 0; i < 14; i++) {
        seen_answer(&far->world->seen[i], 200, "hello");
        seen_close(&far->world->seen[i], REASON_NONE);
    }
    assert_int_equal(far->world->net->net.small.spare_count, spare - 1);
    FAR_UNTIL(far, far->answers == 14);
    assert_int_equal(far->body_len, 70);
    assert_buffers_whole(far->world->net);
    far_free(far);
}

static void a_host_without_room_refuses_the_stream(void **state) {
    (void)state;
    struct session_options options = options_of(100);
    struct far *far = far_client(&options);
    far->world->refuse_streams = true;
    far_get(far);
    FAR_UNTIL(far, far->resets == 1);
    assert_int_equal(far->code, NGHTTP2_REFUSED_STREAM);
    assert_int_equal(far->world->refused_reason, REASON_NO_MEMORY);
    assert_int_equal(far->world->room.h2->streams.used, 0);
    far_free(far);
}

/* Nor a fault of the client's. */
static void many_refused_for_lack_of_room_are_no_flood(void **state) {
    (void)state;
    struct session_options options = options_of(100);
    options.h2_flood.max[H2_FLOOD_MADE_RESET] = 2;
    struct far *far = far_client(&options);
    far->world->refuse_streams = true;
    for (uint32_t i = 0; i < 5; i++) {
        far_get(far);
        FAR_UNTIL(far, far->resets == i + 1);
    }
    far->world->refuse_streams = false;
    far_get(far);
    FAR_UNTIL(far, far->world->streams == 1);
    far_free(far);
}

/* As all slots of streams, of heads and of queued bytes are in use, one after another. */
static void all_slots_in_use_refuses_the_stream(void **state) {
    (void)state;
    struct session_options options = options_of(100);
    struct far *far = far_client(&options);
    struct slab *slabs[] = {&far->world->room.h2->streams, &far->world->room.h2->heads};
    for (uint32_t i = 0; i < 2; i++) {
        void *taken[64];
        uint32_t count = 0;
        while ((taken[count] = slab_acquire(slabs[i])))
            count++;
        far_get(far);
        FAR_UNTIL(far, far->resets == i + 1);
        assert_int_equal(far->code, NGHTTP2_REFUSED_STREAM);
        while (count != 0)
            slab_release_object(slabs[i], taken[--count]);
    }
    assert_int_equal(far->world->streams, 0);
    assert_int_equal(far->world->refused, 2);
    assert_int_equal(far->world->refused_reason, REASON_NO_MEMORY);
    far_get(far);
    FAR_UNTIL(far, far->world->streams == 1);
    far_free(far);
}

static void no_memory_for_a_body_resets_its_stream(void **state) {
    (void)state;
    struct session_options options = options_of(100);
    struct far *far = far_client(&options);
    struct slab *blocks = &far->world->room.h2->blocks;
    far_get(far);
    FAR_UNTIL(far, far->world->streams == 1);
    void *taken[64];
    uint32_t count = 0;
    while ((taken[count] = slab_acquire(blocks)))
        count++;
    struct seen *seen = &far->world->seen[0];
    seen_answer_head(seen, 200, HTTP_LENGTH_UNKNOWN, false);
    assert_int_equal(seen_data(seen, "lost", false), STREAM_FULL);
    assert_int_equal(seen->resets, 0); /* not from within the call */
    FAR_UNTIL(far, far->resets == 1);
    assert_int_equal(seen->resets, 1);
    assert_int_equal(seen->reason, REASON_NO_MEMORY);
    while (count != 0)
        slab_release_object(blocks, taken[--count]);
    far_get(far);
    FAR_UNTIL(far, far->world->streams == 2);
    far_free(far);
}

#define LEASES_MAX 64

/* Takes all small buffers that are spare; returns how many. */
static uint32_t take_spare(struct far *far, struct lease *taken[LEASES_MAX]) {
    uint32_t count = 0;
    while ((taken[count] = buf_take(&far->world->net->net.small)))
        assert_true(++count < LEASES_MAX);
    return count;
}

static void give_back(struct lease *const *taken, uint32_t count) {
    while (count != 0)
        lease_unref(taken[--count]);
}

/* Its RST_STREAM needs one to go out. */
static void an_aborted_stream_gives_back_its_buffers(void **state) {
    (void)state;
    const nghttp2_settings_entry shut = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0};
    struct session_options options = options_of(100);
    struct far *far = far_client(&options);
    assert_int_equal(nghttp2_submit_settings(far->ng, NGHTTP2_FLAG_NONE, &shut, 1), 0);
    far_get(far);
    FAR_UNTIL(far, far->world->streams == 1);
    struct seen *seen = &far->world->seen[0];
    seen_answer_head(seen, 200, HTTP_LENGTH_UNKNOWN, false);
    assert_int_equal(seen_data(seen, "kept", false), STREAM_ROOM);
    far_turn(far);
    struct lease *taken[LEASES_MAX];
    uint32_t count = take_spare(far, taken);
    seen_close(seen, REASON_SERVER_RESET);
    assert_int_equal(far->world->net->net.small.spare_count, 1);
    FAR_UNTIL(far, far->resets == 1);
    assert_int_equal(far->code, NGHTTP2_INTERNAL_ERROR);
    assert_int_equal(far->body_len, 0);
    give_back(taken, count);
    far_free(far);
}

/* No frame waits for memory, only the body for a window: what it holds comes back in its time. */
static void a_shut_window_is_late_also_without_memory(void **state) {
    (void)state;
    enum { BLOCKS_MAX = 4096 };
    static void *taken[BLOCKS_MAX];
    uint32_t count = 0;
    const nghttp2_settings_entry shut = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0};
    struct session_options options = options_of(100);
    options.timeout_client_ms = 100;
    struct far *far = far_client(&options);
    struct slab *blocks = &far->world->net->net.queues;
    assert_int_equal(nghttp2_submit_settings(far->ng, NGHTTP2_FLAG_NONE, &shut, 1), 0);
    far_get(far);
    FAR_UNTIL(far, far->world->streams == 1);
    struct seen *seen = &far->world->seen[0];
    seen_answer_head(seen, 200, HTTP_LENGTH_UNKNOWN, false);
    far_turn(far);
    TURN_UNTIL(far->world->net, blocks->used == 0);
    while ((taken[count] = slab_acquire(blocks)))
        assert_true(++count < BLOCKS_MAX);
    (void)seen_data(seen, "kept", false); /* there may be room for more, or not */
    TURN_UNTIL(far->world->net, seen->resets == 1);
    assert_int_equal(seen->reason, REASON_CLIENT_TIMEOUT);
    while (count != 0)
        slab_release_object(blocks, taken[--count]);
    FAR_UNTIL(far, far->resets == 1);
    far_free(far);
}

static void frames_without_a_buffer_end_the_connection_in_its_time(void **state) {
    (void)state;
    struct session_options options = options_of(100);
    options.timeout_client_ms = 100;
    struct far *far = far_client(&options);
    far->world->on_head = seen_on_request_answer;
    far_get(far);
    FAR_UNTIL(far, far->answers == 1); /* no buffer is on its way any more */
    far->world->on_head = NULL;
    far_get(far);
    FAR_UNTIL(far, far->world->streams == 2);
    struct lease *taken[LEASES_MAX];
    uint32_t count = take_spare(far, taken);
    struct seen *seen = &far->world->seen[1];
    seen_answer_head(seen, 204, 0, true);
    seen_close(seen, REASON_NONE);
    TURN_UNTIL(far->world->net, far->world->closed == 1);
    assert_int_equal(far->world->closed_reason, REASON_NO_MEMORY);
    give_back(taken, count);
    far_free(far);
}

/* What nghttp2 cannot get ends the connection, at whatever allocation. */
static void memory_of_nghttp2_that_ends_costs_the_connection(void **state) {
    (void)state;
    for (uint64_t more = 0; more < 2048; more += 64) {
        struct session_options options = options_of(100);
        struct far *far = far_client(&options);
        struct h2_codec *codec = &far->world->room.h2->codec;
        far_turn(far);
        codec->memory_max = codec->memory_used + more;
        far_get(far);
        FAR_UNTIL(far, far->world->streams == 1 || far->world->closed == 1 || far->resets == 1);
        if (far->world->streams == 1 && far->world->seen[0].stream) {
            seen_answer(&far->world->seen[0], 200, "hello");
            if (far->world->seen[0].stream) seen_close(&far->world->seen[0], REASON_NONE);
            FAR_UNTIL(far, far->answers == 1 || far->world->closed == 1);
        }
        far_free(far);
    }
}

static void a_session_that_gets_no_memory_does_not_begin(void **state) {
    (void)state;
    struct session_world *world = session_world_new(NULL, NULL);
    int fds[2];
    tcp_pair(fds);
    struct conn *conn = conn_accept(&world->net->net, fds[0], NULL, NULL);
    world->room.h2->codec.memory_max = 1000;
    assert_null(session_h2.accept(&world->room, conn, &world->options, NULL));
    assert_int_equal(session_room_used(&world->room), 0);
    conn_close(conn);
    close(fds[1]);
    session_world_free(world);
}

static void a_close_answers_what_it_cuts(void **state) {
    (void)state;
    struct session_options options = options_of(100);
    struct far *far = far_client(&options);
    far->world->on_reset = seen_on_reset_answer;
    far_get(far);
    FAR_UNTIL(far, far->world->streams == 1);
    far->world->session->ops->close(far->world->session, REASON_DRAIN_CUT);
    assert_int_equal(far->world->closed, 0); /* not from within the call */
    FAR_UNTIL(far, far->goaways == 1);
    assert_int_equal(far->goaway_code, NGHTTP2_NO_ERROR);
    assert_int_equal(far->answers, 1);
    FAR_UNTIL(far, far->world->closed == 1);
    far_free(far);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_answered),
        cmocka_unit_test(small_bodies_share_a_buffer),
        cmocka_unit_test(a_host_without_room_refuses_the_stream),
        cmocka_unit_test(many_refused_for_lack_of_room_are_no_flood),
        cmocka_unit_test(all_slots_in_use_refuses_the_stream),
        cmocka_unit_test(no_memory_for_a_body_resets_its_stream),
        cmocka_unit_test(an_aborted_stream_gives_back_its_buffers),
        cmocka_unit_test(a_shut_window_is_late_also_without_memory),
        cmocka_unit_test(frames_without_a_buffer_end_the_connection_in_its_time),
        cmocka_unit_test(memory_of_nghttp2_that_ends_costs_the_connection),
        cmocka_unit_test(a_session_that_gets_no_memory_does_not_begin),
        cmocka_unit_test(a_close_answers_what_it_cuts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
