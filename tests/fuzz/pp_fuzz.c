/* PROXY protocol: whatever arrives, however it is split, gives one result; what a header told can
 * be told on.
 *
 * The first 2 bytes of an input choose the versions taken and the splits, the rest is the
 * connection.
 */
#include "base/check.h"
#include "net/pp.h"

#include <stdio.h>
#include <stdlib.h>

#define OPTION_BYTES 2
#define PIECES_MAX 64

struct outcome {
    enum pp_result result;
    struct pp_header header;
    size_t rest; /* bytes behind the header */
};

/* In pieces of 1 to `piece_max` bytes, each a block of its own, so that reading past it is seen. */
static struct outcome read_in_pieces(struct bytes input, unsigned versions, size_t piece_max,
                                     uint32_t seed) {
    struct outcome out = {.result = PP_MORE};
    struct pp_reader *reader = malloc(sizeof *reader);
    CHECK(reader != NULL);
    reader->len = 0;
    for (size_t at = 0; at < input.len && out.result == PP_MORE;) {
        seed = seed * 1664525 + 1013904223;
        size_t len = 1 + (seed >> 8) % piece_max;
        if (len > input.len - at) len = input.len - at;
        char *copy = malloc(len);
        CHECK(copy != NULL);
        memcpy(copy, input.ptr + at, len);
        at += len;
        struct bytes piece = bytes_make(copy, len);
        out.result = pp_read(reader, versions, &piece, &out.header);
        CHECK(out.result != PP_MORE || reader->len == at);
        if (out.result == PP_DONE) out.rest = piece.len + input.len - at;
        free(copy);
    }
    free(reader);
    return out;
}

static bool same_end(const union addr *a, const union addr *b) {
    char memory[2][ADDR_TEXT_MAX];
    struct writer texts[] = {writer_make(memory[0], ADDR_TEXT_MAX),
                             writer_make(memory[1], ADDR_TEXT_MAX)};
    /* A mapped IPv4 address may have become IPv4: their text is the same. */
    addr_host(&a->any, &texts[0]);
    addr_host(&b->any, &texts[1]);
    return bytes_equal(writer_bytes(&texts[0]), writer_bytes(&texts[1])) &&
           addr_port(&a->any) == addr_port(&b->any);
}

static bool same_ends(const struct addr_pair *a, const struct addr_pair *b) {
    return same_end(&a->source, &b->source) && same_end(&a->destination, &b->destination);
}

static void check_same(const struct outcome *a, const struct outcome *b) {
    CHECK(a->result == b->result);
    if (a->result == PP_BAD) CHECK(a->header.reason == b->header.reason);
    if (a->result != PP_DONE) return;
    CHECK(a->header.size == b->header.size && a->rest == b->rest);
    CHECK(a->header.has_ends == b->header.has_ends);
    if (a->header.has_ends) CHECK(same_ends(&a->header.ends, &b->header.ends));
}

static void check_whole(struct bytes input, unsigned versions, const struct outcome *out) {
    const struct pp_header *header = &out->header;
    bool is_reason = out->result == PP_BAD;
    if (is_reason) {
        CHECK(header->reason == REASON_PROXY_HEADER_MALFORMED ||
              header->reason == REASON_PROXY_HEADER_VERSION);
    }
    if (out->result == PP_MORE) CHECK(input.len < PP_SIZE_MAX);
    if (out->result != PP_DONE) return;
    CHECK(header->size <= PP_SIZE_MAX && header->size + out->rest == input.len);
    CHECK(versions & (input.ptr[0] == 'P' ? PP_V1 : PP_V2));
}

/* Of unix sockets nothing can be told on. */
static void check_told_on(const struct addr_pair *ends) {
    bool is_ip = ends->source.any.sa_family != AF_UNIX;
    for (unsigned version = PP_V1; version <= PP_V2; version++) {
        char memory[PP_V1_SIZE_MAX];
        struct writer text = writer_make(memory, sizeof memory);
        pp_write(&text, version, ends);
        CHECK(!text.full);
        struct pp_header again;
        CHECK(pp_parse(writer_bytes(&text), version, &again) == PP_DONE);
        CHECK(again.size == text.len && again.has_ends == is_ip);
        if (is_ip) CHECK(same_ends(ends, &again.ends));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size <= OPTION_BYTES) return 0;
    struct bytes input = bytes_make((const char *)data + OPTION_BYTES, size - OPTION_BYTES);
    unsigned versions = 1 + data[0] % 3u;
    struct outcome whole = {.result = PP_MORE};
    whole.result = pp_parse(input, versions, &whole.header);
    if (whole.result == PP_DONE) whole.rest = input.len - whole.header.size;
    check_whole(input, versions, &whole);
    struct outcome bytes = read_in_pieces(input, versions, 1, 0);
    check_same(&whole, &bytes);
    struct outcome pieces = read_in_pieces(input, versions, 2 + data[1] % PIECES_MAX, data[1]);
    check_same(&whole, &pieces);
    if (whole.result == PP_DONE && whole.header.has_ends) check_told_on(&whole.header.ends);
    return 0;
}
