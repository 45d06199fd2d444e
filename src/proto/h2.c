#include "proto/h2.h"

#include "base/check.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

/* nghttp2's own limit on resets is out of reach: h2_flood.h counts them. */
#define H2_RESETS_UNLIMITED (UINT64_C(1) << 62)
/* Of a header block that we send, as nghttp2 counts: any head that may be received (64 KiB, 1000
 * fields) with what the configuration adds. A longer one it would drop, and its stream would wait.
 */
#define H2_BLOCK_MAX (256 * 1024)
/* Above what idle connections and ordinary heads take at once. */
#define H2_LARGE (20 * 1024)

/* A client that announces a long field gets memory for all of it before any has come: so that this
 * costs nobody his connection, half of all memory is for what is smaller. */
static bool h2_memory_is_free(const struct h2_codec *codec, uint64_t used, size_t size) {
    return used + size <= (size > H2_LARGE ? codec->memory_max / 2 : codec->memory_max);
}

static bool h2_memory_take(struct h2_codec *codec, size_t size) {
    uint64_t used = codec->memory_used + size;
    if (!h2_memory_is_free(codec, codec->memory_used, size)) return false;
    __atomic_store_n(&codec->memory_used, used, __ATOMIC_RELAXED);
    return true;
}

static void h2_memory_give(struct h2_codec *codec, size_t size) {
    CHECK(size <= codec->memory_used);
    __atomic_store_n(&codec->memory_used, codec->memory_used - size, __ATOMIC_RELAXED);
}

/* Counted as the allocator rounds it. */
static void *h2_memory_count(struct h2_codec *codec, void *memory) {
    if (!memory) return NULL;
    if (h2_memory_take(codec, malloc_usable_size(memory))) return memory;
    free(memory);
    return NULL;
}

/* NULL: there are none of about that size. */
static struct slab *h2_blocks_for(struct h2_codec *codec, size_t size) {
    if (size <= H2_BIT_SIZE) return &codec->bits;
    return size > H2_BLOCK_LEAST && size <= H2_BLOCK_SIZE ? &codec->blocks : NULL;
}

static void *h2_malloc(size_t size, void *user) {
    struct h2_codec *codec = user;
    struct slab *blocks = h2_blocks_for(codec, size);
    void *block = blocks ? slab_acquire(blocks) : NULL;
    return block ? block : h2_memory_count(codec, malloc(size));
}

static void *h2_calloc(size_t count, size_t size, void *user) {
    return h2_memory_count(user, calloc(count, size));
}

static bool h2_is_of(const struct slab *slab, const void *memory) {
    return (uintptr_t)memory - (uintptr_t)slab->memory < slab->mapped_size;
}

/* nghttp2 keeps one such buffer for each session. Only while it puts a frame together there are
 * bytes in it that matter, which the session tells the slab. */
static void *h2_frame_buffer(struct h2_codec *codec, size_t size) {
    if (size > H2_FRAME_BUFFER_SIZE) return NULL;
    void *memory = slab_acquire(&codec->frames);
    codec->frame_last = memory ? slab_index(&codec->frames, memory) : SLAB_NONE;
    return memory;
}

/* NULL: it is on the heap. */
static struct slab *h2_slab_of(struct h2_codec *codec, const void *memory) {
    if (h2_is_of(&codec->blocks, memory)) return &codec->blocks;
    if (h2_is_of(&codec->bits, memory)) return &codec->bits;
    return h2_is_of(&codec->frames, memory) ? &codec->frames : NULL;
}

static void h2_free(void *memory, void *user) {
    struct h2_codec *codec = user;
    if (!memory) return;
    struct slab *slab = h2_slab_of(codec, memory);
    if (slab) {
        slab_release_object(slab, memory);
        return;
    }
    h2_memory_give(codec, malloc_usable_size(memory));
    free(memory);
}

static void *h2_grow_block(struct h2_codec *codec, struct slab *slab, void *block, size_t size) {
    CHECK(slab != &codec->frames); /* it is as large as it gets */
    if (size <= slab->object_size) return block;
    void *grown = h2_malloc(size, codec);
    if (!grown) return NULL;
    memcpy(grown, block, slab->object_size);
    slab_release_object(slab, block);
    return grown;
}

static void *h2_realloc(void *memory, size_t size, void *user) {
    struct h2_codec *codec = user;
    if (!memory && size >= H2_FRAME_BUFFER_MIN) {
        void *buffer = h2_frame_buffer(codec, size);
        if (buffer) return buffer;
    }
    struct slab *slab = memory ? h2_slab_of(codec, memory) : NULL;
    if (slab) return h2_grow_block(codec, slab, memory, size);
    size_t before = memory ? malloc_usable_size(memory) : 0;
    /* What grows is asked for before, as the old block is gone after. */
    if (!h2_memory_is_free(codec, codec->memory_used - before, size)) return NULL;
    void *grown = realloc(memory, size);
    if (!grown) return NULL;
    h2_memory_give(codec, before);
    __atomic_store_n(&codec->memory_used, codec->memory_used + malloc_usable_size(grown),
                     __ATOMIC_RELAXED);
    return grown;
}

int h2_codec_init(struct h2_codec *codec, uint64_t memory_max, uint32_t continuations_max,
                  uint32_t sessions_max) {
    *codec = (struct h2_codec){.memory_max = memory_max, .frame_last = SLAB_NONE};
    uint32_t blocks = sessions_max != 0 ? H2_BLOCKS : 0;
    int error = slab_init(&codec->frames, "h2_frame", H2_FRAME_BUFFER_SIZE, sessions_max);
    if (error == 0) error = slab_init(&codec->blocks, "h2_block", H2_BLOCK_SIZE, blocks);
    if (error == 0) error = slab_init(&codec->bits, "h2_bit", H2_BIT_SIZE, blocks);
    if (error < 0) return error;
    codec->memory = (nghttp2_mem){codec, h2_malloc, h2_free, h2_calloc, h2_realloc};
    if (nghttp2_session_callbacks_new(&codec->callbacks) != 0) return -ENOMEM;
    if (nghttp2_option_new(&codec->option) != 0) return -ENOMEM;
    nghttp2_option *option = codec->option;
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_http_messaging(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_peer_max_concurrent_streams(option, H2_STREAMS_GUESS);
    nghttp2_option_set_max_deflate_dynamic_table_size(option, H2_DEFLATE_TABLE);
    nghttp2_option_set_max_continuations(option, continuations_max);
    nghttp2_option_set_max_send_header_block_length(option, H2_BLOCK_MAX);
    nghttp2_option_set_stream_reset_rate_limit(option, H2_RESETS_UNLIMITED, H2_RESETS_UNLIMITED);
    return 0;
}

void h2_codec_fini(struct h2_codec *codec) {
    CHECK(codec->memory_used == 0);
    slab_fini(&codec->frames);
    slab_fini(&codec->blocks);
    slab_fini(&codec->bits);
    nghttp2_session_callbacks_del(codec->callbacks);
    nghttp2_option_del(codec->option);
    *codec = (struct h2_codec){0};
}

/* SETTINGS and the connection's window, or no session. */
static nghttp2_session *h2_session_begin(nghttp2_session *session,
                                         const nghttp2_settings_entry *entries, size_t count) {
    if (nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, entries, count) == 0 &&
        nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0,
                                              H2_CONNECTION_WINDOW) == 0) {
        return session;
    }
    nghttp2_session_del(session);
    return NULL;
}

nghttp2_session *h2_server_new(struct h2_codec *codec, const struct h2_settings *settings,
                               void *user) {
    nghttp2_session *session;
    codec->frame_last = SLAB_NONE;
    const nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_CLIENT_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, settings->head_size_max},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1}, /* the last: it may be left out */
    };
    size_t count = sizeof entries / sizeof entries[0] - (settings->no_websocket ? 1 : 0);
    if (nghttp2_session_server_new3(&session, codec->callbacks, user, codec->option,
                                    &codec->memory) != 0) {
        return NULL;
    }
    return h2_session_begin(session, entries, count);
}

struct bytes h2_settings_limit(struct bytes frame, uint32_t streams_max,
                               char to[H2_SETTINGS_FRAME_MAX]) {
    const char limit[6] = {0,
                           NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                           (char)(streams_max >> 24),
                           (char)(streams_max >> 16),
                           (char)(streams_max >> 8),
                           (char)streams_max};
    size_t size = frame.len + sizeof limit;
    CHECK(frame.len >= 9 && frame.ptr[3] == NGHTTP2_SETTINGS && size <= H2_SETTINGS_FRAME_MAX);
    memcpy(to, frame.ptr, frame.len);
    memcpy(to + frame.len, limit, sizeof limit);
    to[2] = (char)(size - 9); /* the payload's: its two upper bytes are 0 */
    return bytes_make(to, size);
}

nghttp2_session *h2_client_new(struct h2_codec *codec, const struct h2_settings *settings,
                               void *user) {
    nghttp2_session *session;
    codec->frame_last = SLAB_NONE;
    const nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_UPSTREAM_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, settings->head_size_max},
    };
    if (nghttp2_session_client_new3(&session, codec->callbacks, user, codec->option,
                                    &codec->memory) != 0) {
        return NULL;
    }
    return h2_session_begin(session, entries, sizeof entries / sizeof entries[0]);
}

/* The six bits of a digit of base64url (RFC 4648 section 5); 64: it is none. */
static uint32_t h2_digit(char c) {
    if (c >= 'A' && c <= 'Z') return (uint32_t)(c - 'A');
    if (c >= 'a' && c <= 'z') return (uint32_t)(c - 'a') + 26;
    if (c >= '0' && c <= '9') return (uint32_t)(c - '0') + 52;
    if (c == '-') return 62;
    return c == '_' ? 63 : 64;
}

size_t h2_upgrade_settings(struct bytes text, uint8_t settings[H2_UPGRADE_SETTINGS_MAX]) {
    size_t len = 0;
    uint32_t bits = 0, count = 0;
    for (size_t i = 0; i < text.len; i++) {
        uint32_t digit = h2_digit(text.ptr[i]);
        if (digit == 64 || len == H2_UPGRADE_SETTINGS_MAX) return 0;
        bits = bits << 6 | digit;
        count += 6;
        if (count < 8) continue;
        count -= 8;
        settings[len++] = (uint8_t)(bits >> count);
    }
    return len % 6 == 0 ? len : 0;
}
