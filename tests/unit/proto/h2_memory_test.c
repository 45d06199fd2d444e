/* What nghttp2 takes for a session and for a stream in the worst case, against the constants with
 * which the budget of a worker is reckoned up. */
#include "proto/h2.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PINGS 1000      /* nghttp2's own limit of answers that wait, and h2_max_pings */
#define FIELDS_MAX 1000 /* of a head, as max_headers may say */
#define HEAD_MAX 65536  /* and max_header_size */
#define TINY_FIELDS 124 /* of 33 bytes each as HPACK counts: they fill a table of 4096 */

static const struct h2_settings settings = {.head_size_max = HEAD_MAX};

struct wire_bytes {
    uint8_t *at;
    size_t len;
};

static struct wire_bytes taken;
static void *blocks[H2_BLOCKS], *bits[H2_BLOCKS];

static void frame(uint8_t type, uint8_t flags, uint32_t stream, const void *payload, size_t size) {
    const uint8_t head[9] = {(uint8_t)(size >> 16),
                             (uint8_t)(size >> 8),
                             (uint8_t)size,
                             type,
                             flags,
                             (uint8_t)(stream >> 24),
                             (uint8_t)(stream >> 16),
                             (uint8_t)(stream >> 8),
                             (uint8_t)stream};
    memcpy(taken.at + taken.len, head, sizeof head);
    if (size != 0) memcpy(taken.at + taken.len + 9, payload, size);
    taken.len += 9 + size;
}

static void feed(nghttp2_session *session) {
    assert_int_equal(nghttp2_session_mem_recv(session, taken.at, taken.len), taken.len);
    taken.len = 0;
}

/* What it has to say goes nowhere. */
static void drain(nghttp2_session *session) {
    const uint8_t *bytes;
    while (nghttp2_session_mem_send(session, &bytes) > 0) {
    }
}

static ssize_t no_body(nghttp2_session *session, int32_t id, uint8_t *to, size_t size,
                       uint32_t *flags, nghttp2_data_source *source, void *user) {
    (void)session, (void)id, (void)to, (void)size, (void)flags, (void)source, (void)user;
    return NGHTTP2_ERR_DEFERRED;
}

/* Literal fields with a new name of one byte and an empty value, to be kept in the table. */
static size_t put_tiny_fields(uint8_t *to) {
    for (int i = 0; i < TINY_FIELDS; i++) {
        to[4 * i] = 0x40;
        to[4 * i + 1] = 1;
        to[4 * i + 2] = (uint8_t)(i + 1);
        to[4 * i + 3] = 0;
    }
    return 4 * TINY_FIELDS;
}

/* A name of the length that nghttp2 reads at most (65536), Huffman coded, of which one byte has
 * come. */
static size_t put_endless_name(uint8_t *to) {
    static const uint8_t begin[] = {0x00, 0xff, 0x81, 0xfe, 0x03};
    memcpy(to, begin, sizeof begin);
    to[sizeof begin] = 0x1f;
    return sizeof begin + 1;
}

static void submit_tiny_fields(nghttp2_session *session, int32_t id) {
    static uint8_t names[TINY_FIELDS];
    nghttp2_nv fields[TINY_FIELDS];
    for (int i = 0; i < TINY_FIELDS; i++) {
        names[i] = (uint8_t)(i + (i < 'A' - 1 ? 1 : 28)); /* no capitals: they would be lowered */
        fields[i] = (nghttp2_nv){.name = &names[i], .namelen = 1, .value = names, .valuelen = 0};
    }
    assert_int_equal(nghttp2_submit_response(session, id, fields, TINY_FIELDS, NULL), 0);
    drain(session);
}

static void set_up_codec(struct h2_codec *codec) {
    assert_int_equal(h2_codec_init(codec, 1 << 30, 64, 1), 0);
    /* Others have them all. */
    for (uint32_t i = 0; i < H2_BLOCKS; i++) {
        blocks[i] = slab_acquire(&codec->blocks);
        bits[i] = slab_acquire(&codec->bits);
    }
    taken = (struct wire_bytes){malloc(4 << 20), 0};
    assert_non_null(taken.at);
}

static nghttp2_session *begin(struct h2_codec *codec) {
    nghttp2_session *session = h2_server_new(codec, &settings, NULL);
    assert_non_null(session);
    memcpy(taken.at, NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN);
    taken.len = NGHTTP2_CLIENT_MAGIC_LEN;
    frame(NGHTTP2_SETTINGS, 0, 0, NULL, 0);
    frame(NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, NULL, 0);
    drain(session);
    feed(session);
    drain(session);
    return session;
}

static void end(struct h2_codec *codec, nghttp2_session *session) {
    nghttp2_session_del(session);
    for (uint32_t i = 0; i < H2_BLOCKS; i++) {
        slab_release(&codec->blocks, blocks[i]);
        slab_release(&codec->bits, bits[i]);
    }
    h2_codec_fini(codec);
    free(taken.at);
}

static void assert_measured(const char *what, uint64_t most, uint64_t constant) {
    print_message("%s: %llu bytes, reckoned with %llu\n", what, (unsigned long long)most,
                  (unsigned long long)constant);
    assert_true(most <= constant);
    assert_true(most > constant / 2); /* else it says nothing */
}

static void a_session_at_its_worst(void **state) {
    (void)state;
    struct h2_codec codec;
    set_up_codec(&codec);
    nghttp2_session *session = begin(&codec);
    uint8_t block[8192];
    uint8_t flags = NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM;
    frame(NGHTTP2_HEADERS, flags, 1, block, put_tiny_fields(block));
    feed(session);
    submit_tiny_fields(session, 1);
    assert_true(nghttp2_session_get_hd_inflate_dynamic_table_size(session) > 4000);
    assert_true(nghttp2_session_get_hd_deflate_dynamic_table_size(session) > 4000);
    assert_null(nghttp2_session_find_stream(session, 1));
    static const uint8_t zeros[8];
    for (int i = 0; i < PINGS; i++)
        frame(NGHTTP2_PING, 0, 0, zeros, sizeof zeros);
    frame(NGHTTP2_HEADERS, 0, 3, block, put_endless_name(block));
    feed(session);
    assert_measured("a session", codec.memory_used, H2_SESSION_MEMORY);
    end(&codec, session);
}

/* Requests that are open, each with an answer whose head nobody takes. */
static void streams_at_their_worst(void **state) {
    (void)state;
    enum { STREAMS = 64 };
    struct h2_codec codec;
    set_up_codec(&codec);
    nghttp2_session *session = begin(&codec);
    uint64_t before = codec.memory_used;
    static const uint8_t get[] = {0x82, 0x84, 0x87};
    uint8_t flags = NGHTTP2_FLAG_END_HEADERS;
    for (uint32_t i = 0; i < STREAMS; i++)
        frame(NGHTTP2_HEADERS, flags, 2 * i + 1, get, sizeof get);
    feed(session);
    size_t size = HEAD_MAX / FIELDS_MAX / 2;
    nghttp2_nv fields[FIELDS_MAX];
    static uint8_t text[HEAD_MAX];
    for (int i = 0; i < FIELDS_MAX; i++)
        fields[i] = (nghttp2_nv){.name = text, .namelen = size, .value = text, .valuelen = size};
    nghttp2_data_provider provider = {.read_callback = no_body};
    for (int i = 0; i < STREAMS; i++)
        assert_int_equal(nghttp2_submit_response(session, 2 * i + 1, fields, FIELDS_MAX, &provider),
                         0);
    uint64_t most = (codec.memory_used - before) / STREAMS;
    assert_measured("a stream", most, h2_stream_memory(HEAD_MAX, FIELDS_MAX));
    /* With heads as small as most are, too. */
    drain(session);
    most = (codec.memory_used - before) / STREAMS;
    assert_measured("a stream whose head has gone", most, h2_stream_memory(0, 0));
    end(&codec, session);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_at_its_worst),
        cmocka_unit_test(streams_at_their_worst),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
