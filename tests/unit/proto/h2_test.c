#include "proto/h2.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct h2_settings settings = {.head_size_max = 16384};

static void memory_is_counted_and_comes_back(void **state) {
    (void)state;
    struct h2_codec codec;
    assert_int_equal(h2_codec_init(&codec, 1 << 20, 8, 2), 0);
    nghttp2_session *server = h2_server_new(&codec, &settings, NULL);
    assert_non_null(server);
    assert_int_not_equal(codec.memory_used, 0);
    assert_int_equal(codec.frames.used, 1);
    assert_int_equal(codec.frame_last, 0);
    nghttp2_session *client = h2_client_new(&codec, &settings, NULL);
    assert_non_null(client);
    assert_int_equal(codec.frame_last, 1);
    nghttp2_session_del(server);
    nghttp2_session_del(client);
    assert_int_equal(codec.memory_used, 0);
    assert_int_equal(codec.frames.used, 0);
    h2_codec_fini(&codec);
}

static void without_a_buffer_left_it_comes_from_the_heap(void **state) {
    (void)state;
    struct h2_codec codec;
    assert_int_equal(h2_codec_init(&codec, 1 << 20, 8, 0), 0);
    nghttp2_session *server = h2_server_new(&codec, &settings, NULL);
    assert_non_null(server);
    assert_int_equal(codec.frame_last, SLAB_NONE);
    assert_true(codec.memory_used > H2_FRAME_BUFFER_MIN);
    assert_int_equal(codec.blocks.capacity + codec.bits.capacity, 0);
    nghttp2_session_del(server);
    h2_codec_fini(&codec);
}

static void blocks_are_a_slab_s_while_there_are_some(void **state) {
    (void)state;
    struct h2_codec codec;
    assert_int_equal(h2_codec_init(&codec, 8 << 20, 8, 1), 0);
    const nghttp2_mem *memory = &codec.memory;
    static char *blocks[H2_BLOCKS + 1];
    for (uint32_t i = 0; i <= H2_BLOCKS; i++) {
        blocks[i] = memory->malloc(i % 2 ? H2_BLOCK_SIZE : H2_BLOCK_LEAST + 1, &codec);
        assert_non_null(blocks[i]);
        assert_int_equal(codec.memory_used != 0, i == H2_BLOCKS);
    }
    assert_int_equal(codec.blocks.used, H2_BLOCKS);
    for (uint32_t i = 1; i <= H2_BLOCKS; i++)
        memory->free(blocks[i], &codec);
    assert_int_equal(codec.memory_used, 0);
    memcpy(blocks[0], "kept", 5);
    assert_ptr_equal(memory->realloc(blocks[0], H2_BLOCK_SIZE, &codec), blocks[0]);
    char *bit = memory->malloc(H2_BIT_SIZE, &codec);
    assert_int_equal(codec.bits.used, 1);
    char whole[H2_BIT_SIZE];
    memset(whole, 'b', sizeof whole);
    memcpy(bit, whole, sizeof whole);
    bit = memory->realloc(bit, H2_BIT_SIZE + 1, &codec);
    assert_memory_equal(bit, whole, sizeof whole);
    assert_int_equal(codec.bits.used, 0);
    memory->free(bit, &codec);
    char *grown = memory->realloc(blocks[0], H2_BLOCK_SIZE + 1, &codec);
    assert_string_equal(grown, "kept");
    assert_int_equal(codec.blocks.used, 0);
    assert_true(codec.memory_used > H2_BLOCK_SIZE);
    memory->free(grown, &codec);
    h2_codec_fini(&codec);
}

static void a_block_that_finds_no_more_memory_stays_as_it_is(void **state) {
    (void)state;
    struct h2_codec codec;
    assert_int_equal(h2_codec_init(&codec, 0, 8, 1), 0);
    const nghttp2_mem *memory = &codec.memory;
    char *block = memory->malloc(H2_BLOCK_SIZE, &codec);
    memcpy(block, "kept", 5);
    assert_null(memory->realloc(block, H2_BLOCK_SIZE + 1, &codec));
    assert_string_equal(block, "kept");
    assert_int_equal(codec.blocks.used, 1);
    memory->free(block, &codec);
    h2_codec_fini(&codec);
}

/* What is too small or too large for a block, or grows by realloc, is counted as before. */
static void what_is_no_block_is_counted(void **state) {
    (void)state;
    struct h2_codec codec;
    assert_int_equal(h2_codec_init(&codec, 8 << 20, 8, 1), 0);
    const nghttp2_mem *memory = &codec.memory;
    void *small = memory->malloc(H2_BLOCK_LEAST, &codec);
    void *large = memory->malloc(H2_BLOCK_SIZE + 1, &codec);
    void *grows = memory->realloc(NULL, H2_BLOCK_SIZE, &codec);
    assert_true(codec.memory_used > H2_BLOCK_LEAST + 2 * H2_BLOCK_SIZE);
    assert_int_equal(codec.blocks.used, 0);
    memory->free(small, &codec);
    memory->free(large, &codec);
    memory->free(grows, &codec);
    assert_int_equal(codec.memory_used, 0);
    h2_codec_fini(&codec);
}

static void what_is_large_leaves_half_of_the_memory(void **state) {
    (void)state;
    struct h2_codec codec;
    assert_int_equal(h2_codec_init(&codec, 1 << 20, 8, 2), 0);
    const nghttp2_mem *memory = &codec.memory;
    void *large = memory->malloc(400 << 10, &codec);
    assert_non_null(large);
    assert_null(memory->malloc(200 << 10, &codec));
    assert_null(memory->calloc(2, 100 << 10, &codec));
    void *small = memory->malloc(100, &codec);
    assert_null(memory->realloc(small, 200 << 10, &codec));
    void *many[32];
    for (uint32_t i = 0; i < 32; i++) {
        many[i] = memory->malloc(16 << 10, &codec);
        assert_non_null(many[i]);
    }
    for (uint32_t i = 0; i < 32; i++)
        memory->free(many[i], &codec);
    memory->free(large, &codec);
    large = memory->realloc(small, 200 << 10, &codec);
    assert_non_null(large);
    memory->free(large, &codec);
    assert_int_equal(codec.memory_used, 0);
    h2_codec_fini(&codec);
}

/* Wherever memory ends while a session begins, there is none and nothing is lost. */
static void memory_that_ends_gives_no_session(void **state) {
    (void)state;
    struct h2_codec codec;
    uint32_t failed = 0;
    for (uint64_t max = 0; max < 16384; max += 64) {
        assert_int_equal(h2_codec_init(&codec, max, 8, 1), 0);
        nghttp2_session *server = h2_server_new(&codec, &settings, NULL);
        failed += !server;
        nghttp2_session_del(server);
        assert_int_equal(codec.memory_used, 0);
        assert_int_equal(codec.frames.used, 0);
        h2_codec_fini(&codec);
    }
    assert_true(failed > 32 && failed < 256);
}

/* The first frame of a server has everything but the limit on streams, which is added. */
static void the_limit_on_streams_is_added_to_the_settings(void **state) {
    (void)state;
    struct h2_codec codec;
    char to[H2_SETTINGS_FRAME_MAX];
    assert_int_equal(h2_codec_init(&codec, 1 << 20, 8, 1), 0);
    nghttp2_session *server = h2_server_new(&codec, &settings, NULL);
    const uint8_t *frame;
    ssize_t size = nghttp2_session_mem_send(server, &frame);
    assert_true(size > 9);
    struct bytes sent = bytes_make((const char *)frame, (size_t)size);
    struct bytes told = h2_settings_limit(sent, 0x01020304, to);
    assert_int_equal(told.len, sent.len + 6);
    assert_int_equal(told.ptr[2], told.len - 9);
    assert_memory_equal(told.ptr + 3, sent.ptr + 3, sent.len - 3);
    assert_memory_equal(told.ptr + sent.len, "\0\3\1\2\3\4", 6);
    nghttp2_session_del(server);
    h2_codec_fini(&codec);
}

static void settings_of_an_upgrade(void **state) {
    (void)state;
    uint8_t payload[H2_UPGRADE_SETTINGS_MAX];
    assert_int_equal(h2_upgrade_settings(BYTES("AAQAAP-_"), payload), 6);
    const uint8_t wanted[] = {0, 4, 0, 0, 0xff, 0xbf};
    assert_memory_equal(payload, wanted, 6);
    assert_int_equal(h2_upgrade_settings(BYTES(""), payload), 0);
    assert_int_equal(h2_upgrade_settings(BYTES("AAQAAP-"), payload), 0);
    assert_int_equal(h2_upgrade_settings(BYTES("AAQAAP+/"), payload), 0);
    assert_int_equal(h2_upgrade_settings(BYTES("AAQAAP-_="), payload), 0);
    char text[321];
    for (int i = 0; i < 321; i++)
        text[i] = 'A';
    assert_int_equal(h2_upgrade_settings(bytes_make(text, 320), payload), 240);
    assert_int_equal(h2_upgrade_settings(bytes_make(text, 321), payload), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_counted_and_comes_back),
        cmocka_unit_test(without_a_buffer_left_it_comes_from_the_heap),
        cmocka_unit_test(blocks_are_a_slab_s_while_there_are_some),
        cmocka_unit_test(a_block_that_finds_no_more_memory_stays_as_it_is),
        cmocka_unit_test(what_is_no_block_is_counted),
        cmocka_unit_test(what_is_large_leaves_half_of_the_memory),
        cmocka_unit_test(memory_that_ends_gives_no_session),
        cmocka_unit_test(the_limit_on_streams_is_added_to_the_settings),
        cmocka_unit_test(settings_of_an_upgrade),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
