/* WebSocket frames: whatever arrives, however it is split, gives one result, and the same as a
 * second reader that sees it whole.
 *
 * The first 3 bytes of an input choose side, size limit and splits, the rest is one direction.
 */
#include "base/check.h"
#include "proto/ws.h"

#include <stdio.h>
#include <stdlib.h>

#define OPTION_BYTES 3
#define PIECES_MAX 64
#define CONTROLS_MAX 64

struct outcome {
    enum reason reason; /* NONE: no violation so far */
    uint64_t passed; /* bytes, up to the last frame that was good; of a split text not the same */
    bool closed;     /* by a Close, behind which nothing is read */
    uint32_t controls;
    uint32_t sum; /* of what the control frames were */
};

struct options {
    bool masked;
    uint64_t message_max;
};

static void add_control(struct outcome *out, unsigned opcode, unsigned size, const uint8_t *kept) {
    out->controls++;
    out->closed = opcode == WS_CLOSE;
    out->sum = out->sum * 31 + opcode * 256 + size;
    for (unsigned i = 0; i < size && i < WS_CONTROL_KEPT; i++)
        out->sum = out->sum * 31 + kept[i];
}

/* In pieces of 1 to `piece_max` bytes, each a block of its own, so that reading past it is seen. */
static struct outcome read_in_pieces(struct bytes input, const struct options *options,
                                     size_t piece_max, uint32_t seed) {
    static struct ws_room room;
    struct outcome out = {.reason = REASON_NONE};
    struct ws_parser parser;
    ws_parser_init(&parser, &room, options->masked, options->message_max);
    enum ws_event event = WS_MORE;
    uint64_t waiting = 0;
    for (size_t at = 0; at < input.len && event != WS_BAD && !out.closed;) {
        seed = seed * 1664525 + 1013904223;
        size_t len = 1 + (seed >> 8) % piece_max;
        if (len > input.len - at) len = input.len - at;
        char *copy = malloc(len);
        CHECK(copy != NULL);
        memcpy(copy, input.ptr + at, len);
        at += len;
        struct bytes piece = bytes_make(copy, len);
        do {
            size_t used;
            event = ws_read(&parser, piece, &used);
            CHECK(used <= piece.len);
            waiting += used;
            piece = bytes_slice(piece, used, SIZE_MAX);
            if (event == WS_MORE) CHECK(piece.len == 0 && parser.undecided == waiting);
            if (event == WS_CONTROL) {
                CHECK(parser.undecided == waiting && waiting <= WS_CONTROL_SIZE_MAX);
                add_control(&out, parser.opcode, parser.control_size, parser.control);
            }
            if (event != WS_PASS && event != WS_CONTROL) continue;
            out.passed += waiting;
            waiting = 0;
        } while ((event == WS_PASS || event == WS_CONTROL) && !out.closed);
        free(copy);
        if (ws_in_frame(&parser) && event == WS_MORE) CHECK(parser.begun && waiting == 0);
        if (!ws_in_frame(&parser) && event == WS_MORE) CHECK(waiting < WS_CONTROL_SIZE_MAX);
    }
    if (event == WS_BAD) out.reason = parser.reason;
    ws_parser_fini(&parser);
    CHECK(room.used == 0);
    return out;
}

/* The second reader: one frame after the other, by the diagram of RFC 6455 section 5.2. */
struct reference {
    const struct options *options;
    bool in_message, is_text;
    uint64_t size;
    char *text; /* of the message, unmasked, as far as it has come */
    size_t text_len;
};

static bool is_utf8(const uint8_t *b, size_t len, bool may_go_on) {
    for (size_t i = 0; i < len;) {
        uint32_t c = b[i++];
        if (c < 0x80) continue;
        unsigned more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        uint32_t least = more == 3 ? 0x10000 : more == 2 ? 0x800 : 0x80;
        if (c < 0xc2 || c > 0xf4) return false;
        c &= more == 3 ? 7 : more == 2 ? 15 : 31;
        uint32_t low = c, high = c;
        for (unsigned j = 0; j < more; j++) {
            bool is_here = i < len;
            if (is_here && (b[i] & 0xc0) != 0x80) return false;
            low = low << 6 | (is_here ? b[i] & 0x3fu : 0u);
            high = high << 6 | (is_here ? b[i] & 0x3fu : 0x3fu);
            if (is_here)
                i++;
            else if (!may_go_on)
                return false;
        }
        bool surrogate = low >= 0xd800 && high <= 0xdfff;
        if (high < least || low > 0x10ffff || surrogate) return false;
    }
    return true;
}

static enum reason reference_close(const uint8_t *payload, uint64_t size, uint64_t have) {
    bool has_text = have > 2;
    if (has_text && !is_utf8(payload + 2, have - 2, true)) return REASON_WEBSOCKET_BAD_TEXT;
    if (have < size || size == 0) return REASON_NONE;
    unsigned code = size == 1 ? 0 : (unsigned)(payload[0] << 8 | payload[1]);
    bool good = (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) ||
                (code >= 3000 && code <= 4999);
    if (!good) return REASON_WEBSOCKET_PROTOCOL;
    bool cut = has_text && !is_utf8(payload + 2, have - 2, false);
    return cut ? REASON_WEBSOCKET_BAD_TEXT : REASON_NONE;
}

static enum reason reference_header(struct reference *r, const uint8_t *b, uint64_t size) {
    unsigned opcode = b[0] & 15u;
    bool fin = b[0] & 0x80, control = opcode & 8;
    if ((b[0] & 0x70) || ((b[1] & 0x80) != 0) != r->options->masked)
        return REASON_WEBSOCKET_PROTOCOL;
    if (control) {
        bool bad = opcode > 10 || !fin || size > 125;
        return bad ? REASON_WEBSOCKET_PROTOCOL : REASON_NONE;
    }
    if (opcode > 2 || (opcode == 0) != r->in_message) return REASON_WEBSOCKET_PROTOCOL;
    if (opcode != 0) {
        r->size = r->text_len = 0;
        r->is_text = opcode == 1;
    }
    r->in_message = true;
    r->size += size;
    uint64_t max = r->options->message_max ? r->options->message_max : INT64_MAX;
    return r->size > max ? REASON_WEBSOCKET_TOO_LARGE : REASON_NONE;
}

/* Reads one frame at the start of `b`; how many bytes it has, 0 when it is not whole. */
static size_t reference_frame(struct reference *r, const uint8_t *b, size_t len,
                              struct outcome *out) {
    if (len < 2) return 0;
    unsigned form = b[1] & 127u;
    bool control = b[0] & 8;
    bool masked = b[1] & 0x80;
    /* The frame parser refuses these two without waiting for the rest of the header. */
    if (control && (!(b[0] & 0x80) || form > 125)) {
        out->reason = REASON_WEBSOCKET_PROTOCOL;
        return 0;
    }
    size_t at = 2, extra = form == 127 ? 8 : form == 126 ? 2 : 0;
    if (len < at + extra) return 0;
    uint64_t size = extra ? 0 : form;
    for (size_t i = 0; i < extra; i++)
        size = size << 8 | b[at++];
    if ((extra == 2 && size < 126) || (extra == 8 && (size < 65536 || size > INT64_MAX))) {
        out->reason = REASON_WEBSOCKET_PROTOCOL;
        return 0;
    }
    if (len < at + (masked ? 4 : 0)) return 0;
    const uint8_t *mask = masked ? b + at : NULL;
    at += masked ? 4 : 0;
    if (size != 0 && len == at) return 0; /* judged with the first byte of payload */
    out->reason = reference_header(r, b, size);
    if (out->reason != REASON_NONE) return 0;
    uint64_t have = size < len - at ? size : len - at;
    char *payload = malloc(have + 1);
    for (size_t i = 0; i < have; i++)
        payload[i] = (char)(b[at + i] ^ (mask ? mask[i % 4] : 0));
    unsigned opcode = b[0] & 15u;
    if (opcode == 8) out->reason = reference_close((uint8_t *)payload, size, have);
    if (!control && r->is_text) {
        memcpy(r->text + r->text_len, payload, have);
        r->text_len += have;
        bool ends = have == size && (b[0] & 0x80);
        if (!is_utf8((uint8_t *)r->text, r->text_len, !ends))
            out->reason = REASON_WEBSOCKET_BAD_TEXT;
    }
    bool whole = have == size && out->reason == REASON_NONE;
    if (whole && control) add_control(out, opcode, (unsigned)size, (uint8_t *)payload);
    if (!control && (b[0] & 0x80) && whole) r->in_message = false;
    /* Of a frame of data what has come so far passes. */
    if (out->reason == REASON_NONE && (whole || !control)) out->passed += at + have;
    free(payload);
    return whole ? at + have : 0;
}

static struct outcome read_reference(struct bytes input, const struct options *options) {
    struct outcome out = {.reason = REASON_NONE};
    struct reference r = {.options = options, .text = malloc(input.len + 1)};
    for (size_t at = 0, size = 1; at < input.len && size != 0 && !out.closed; at += size)
        size = reference_frame(&r, (const uint8_t *)input.ptr + at, input.len - at, &out);
    free(r.text);
    return out;
}

static void check_same(const struct outcome *a, const struct outcome *b) {
    CHECK(a->reason == b->reason && a->closed == b->closed);
    CHECK(a->controls == b->controls && a->sum == b->sum);
    /* How much of a text passes before its bad byte goes by the pieces. */
    if (a->reason != REASON_WEBSOCKET_BAD_TEXT) CHECK(a->passed == b->passed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size <= OPTION_BYTES) return 0;
    struct bytes input = bytes_make((const char *)data + OPTION_BYTES, size - OPTION_BYTES);
    struct options options = {.masked = data[0] & 1, .message_max = data[1]};
    struct outcome whole = read_in_pieces(input, &options, input.len, 0);
    struct outcome reference = read_reference(input, &options);
    check_same(&whole, &reference);
    struct outcome bytes = read_in_pieces(input, &options, 1, 0);
    check_same(&whole, &bytes);
    struct outcome pieces = read_in_pieces(input, &options, 2 + data[2] % PIECES_MAX, data[2]);
    check_same(&whole, &pieces);
    return 0;
}
