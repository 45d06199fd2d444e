#include "proto/ws.h"

#include "base/check.h"

#include <openssl/rand.h>
#include <stdlib.h>
#include <wslay/wslay.h>

/* What a state reads next: the frame parser asks for bytes by a callback. */
struct ws_state {
    struct ws_state *next; /* while spare */
    wslay_frame_context_ptr frames;
    struct bytes feed;
};

void ws_room_init(struct ws_room *room) { *room = (struct ws_room){0}; }

static void ws_state_free(struct ws_room *room, struct ws_state *state) {
    wslay_frame_context_free(state->frames);
    free(state);
    room->count--;
}

void ws_room_fini(struct ws_room *room) {
    CHECK(room->used == 0);
    while (room->spare) {
        struct ws_state *state = room->spare;
        room->spare = state->next;
        ws_state_free(room, state);
    }
    CHECK(room->count == 0);
}

static ssize_t ws_on_recv(uint8_t *to, size_t size, int flags, void *user) {
    (void)flags; /* always 0 */
    struct ws_state *state = user;
    size_t len = size < state->feed.len ? size : state->feed.len;
    if (len == 0) return -1;
    memcpy(to, state->feed.ptr, len);
    state->feed = bytes_slice(state->feed, len, SIZE_MAX);
    return (ssize_t)len;
}

static struct ws_state *ws_state_new(struct ws_room *room) {
    static const struct wslay_frame_callbacks callbacks = {.recv_callback = ws_on_recv};
    struct ws_state *state = calloc(1, sizeof *state);
    if (!state) return NULL;
    if (wslay_frame_context_init(&state->frames, &callbacks, state) != 0) {
        free(state);
        return NULL;
    }
    room->count++;
    return state;
}

static bool ws_take_state(struct ws_parser *parser) {
    struct ws_room *room = parser->room;
    struct ws_state *state = room->spare;
    if (state) {
        room->spare = state->next;
    } else {
        state = ws_state_new(room);
        if (!state) return false;
    }
    room->used++;
    parser->state = state;
    return true;
}

/* Between frames a state is like new: all it was given has been read. */
static void ws_give_state(struct ws_parser *parser) {
    struct ws_room *room = parser->room;
    struct ws_state *state = parser->state;
    parser->state = NULL;
    state->next = room->spare;
    room->spare = state;
    room->used--;
}

void ws_parser_init(struct ws_parser *parser, struct ws_room *room, bool masked,
                    uint64_t message_max) {
    *parser = (struct ws_parser){.room = room, .masked = masked, .message_max = message_max};
}

void ws_parser_fini(struct ws_parser *parser) {
    if (!parser->state) return;
    /* It is in the middle of a frame, and nothing takes it out of there. */
    struct ws_room *room = parser->room;
    ws_state_free(room, parser->state);
    parser->state = NULL;
    room->used--;
}

static enum ws_event ws_bad(struct ws_parser *parser, enum reason reason) {
    parser->reason = reason;
    parser->code = WS_CODE_PROTOCOL;
    if (reason == REASON_WEBSOCKET_BAD_TEXT) parser->code = WS_CODE_BAD_TEXT;
    if (reason == REASON_WEBSOCKET_TOO_LARGE) parser->code = WS_CODE_TOO_LARGE;
    if (reason == REASON_NO_MEMORY) parser->code = WS_CODE_INTERNAL;
    return WS_BAD;
}

/* The first byte of a character says how many follow, and what the next may be: no overlong forms,
 * no surrogates, nothing above U+10FFFF (RFC 3629 section 4). */
static bool utf8_begin(struct ws_parser *parser, uint8_t byte) {
    parser->utf8_low = 0x80;
    parser->utf8_high = 0xbf;
    if (byte >= 0xc2 && byte <= 0xdf) {
        parser->utf8_left = 1;
    } else if (byte >= 0xe0 && byte <= 0xef) {
        parser->utf8_left = 2;
        if (byte == 0xe0) parser->utf8_low = 0xa0;
        if (byte == 0xed) parser->utf8_high = 0x9f;
    } else if (byte >= 0xf0 && byte <= 0xf4) {
        parser->utf8_left = 3;
        if (byte == 0xf0) parser->utf8_low = 0x90;
        if (byte == 0xf4) parser->utf8_high = 0x8f;
    } else {
        return byte < 0x80;
    }
    return true;
}

static bool utf8_read(struct ws_parser *parser, const uint8_t *bytes, size_t len) {
    for (size_t i = 0; i < len;) {
        uint64_t eight;
        if (parser->utf8_left == 0 && len - i >= sizeof eight) {
            memcpy(&eight, bytes + i, sizeof eight);
            if ((eight & 0x8080808080808080) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        uint8_t byte = bytes[i++];
        if (parser->utf8_left == 0) {
            if (!utf8_begin(parser, byte)) return false;
        } else {
            if (byte < parser->utf8_low || byte > parser->utf8_high) return false;
            parser->utf8_left--;
            parser->utf8_low = 0x80;
            parser->utf8_high = 0xbf;
        }
    }
    return true;
}

/* RFC 6455 section 7.4: codes an endpoint may send; those up to 1014 are registered with IANA. */
static bool ws_code_valid(unsigned code) {
    if (code >= 3000 && code <= 4999) return true;
    return code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006;
}

/* The header of a frame is there: REASON_NONE when it may stand here. */
static enum reason ws_judge_header(struct ws_parser *parser, const struct wslay_frame_iocb *frame) {
    uint8_t opcode = frame->opcode;
    bool is_control = wslay_is_ctrl_frame(opcode) != 0;
    bool is_known = is_control ? opcode <= WS_PONG : opcode <= WS_BINARY;
    if (!is_known || frame->rsv != 0 || (frame->mask != 0) != parser->masked)
        return REASON_WEBSOCKET_PROTOCOL;
    parser->opcode = opcode;
    parser->fin = frame->fin != 0;
    parser->left = frame->payload_length;
    if (is_control) {
        parser->control_size = 0;
        return REASON_NONE;
    }
    /* RFC 6455 section 5.4: one message at a time, in order. */
    if (parser->in_message != (opcode == WS_CONTINUATION)) return REASON_WEBSOCKET_PROTOCOL;
    if (opcode != WS_CONTINUATION) {
        parser->is_text = opcode == WS_TEXT;
        parser->utf8_left = 0;
        parser->message_size = 0;
        parser->in_message = true;
    }
    parser->message_size += frame->payload_length; /* both are under 2^63: none wraps */
    bool too_large = parser->message_max != 0 && parser->message_size > parser->message_max;
    if (parser->message_size > INT64_MAX || too_large) return REASON_WEBSOCKET_TOO_LARGE;
    return REASON_NONE;
}

/* Of a Close the text behind the code is UTF-8. No more of a message follows it, so that message's
 * place in a character is of no use any more. */
static bool ws_take_control(struct ws_parser *parser, const uint8_t *bytes, size_t len) {
    size_t at = parser->control_size;
    parser->control_size = (uint8_t)(at + len);
    for (size_t i = 0; i < len && at + i < WS_CONTROL_KEPT; i++)
        parser->control[at + i] = bytes[i];
    if (parser->opcode != WS_CLOSE) return true;
    if (at == 0) parser->utf8_left = 0;
    size_t code_left = at < 2 ? 2 - at : 0;
    return len <= code_left || utf8_read(parser, bytes + code_left, len - code_left);
}

static enum reason ws_judge_payload(struct ws_parser *parser, const uint8_t *bytes, size_t len) {
    bool is_good = true;
    if (parser->opcode >= WS_CLOSE) {
        is_good = ws_take_control(parser, bytes, len);
    } else if (parser->is_text) {
        is_good = utf8_read(parser, bytes, len);
    }
    return is_good ? REASON_NONE : REASON_WEBSOCKET_BAD_TEXT;
}

static enum reason ws_judge_close(const struct ws_parser *parser) {
    if (parser->control_size == 0) return REASON_NONE;
    if (parser->control_size == 1) return REASON_WEBSOCKET_PROTOCOL;
    unsigned code = (unsigned)parser->control[0] << 8 | parser->control[1];
    if (!ws_code_valid(code)) return REASON_WEBSOCKET_PROTOCOL;
    return parser->utf8_left == 0 ? REASON_NONE : REASON_WEBSOCKET_BAD_TEXT;
}

static enum ws_event ws_end_frame(struct ws_parser *parser) {
    enum reason reason = REASON_NONE;
    bool is_control = parser->opcode >= WS_CLOSE;
    if (parser->opcode == WS_CLOSE) reason = ws_judge_close(parser);
    if (!is_control && parser->fin) {
        parser->in_message = false;
        if (parser->is_text && parser->utf8_left != 0) reason = REASON_WEBSOCKET_BAD_TEXT;
    }
    parser->begun = false;
    ws_give_state(parser);
    if (reason != REASON_NONE) return ws_bad(parser, reason);
    if (is_control) return WS_CONTROL; /* its size is asked for */
    parser->passed = false;
    parser->undecided = 0;
    return WS_PASS;
}

/* Reads a part that does not reach beyond the frame it belongs to. MORE unless the frame ends. */
static enum ws_event ws_read_part(struct ws_parser *parser, struct bytes part) {
    struct ws_state *state = parser->state;
    struct wslay_frame_iocb frame;
    state->feed = part;
    for (;;) {
        ssize_t len = wslay_frame_recv(state->frames, &frame);
        if (len == WSLAY_ERR_WANT_READ) return WS_MORE;
        if (len < 0) return ws_bad(parser, REASON_WEBSOCKET_PROTOCOL);
        if (!parser->begun) {
            enum reason reason = ws_judge_header(parser, &frame);
            if (reason != REASON_NONE) return ws_bad(parser, reason);
            parser->begun = true;
        }
        enum reason reason = ws_judge_payload(parser, frame.data, (size_t)len);
        if (reason != REASON_NONE) return ws_bad(parser, reason);
        CHECK((uint64_t)len <= parser->left);
        parser->left -= (uint64_t)len;
        if (parser->left == 0) return ws_end_frame(parser);
    }
}

/* How much may be given to the frame parser without going beyond the frame: what it has read too
 * much would not come out again. Until the length is known that is the shortest header, and then a
 * byte at a time. A frame that is shorter than this is refused for its masking. */
static size_t ws_part_max(const struct ws_parser *parser) {
    if (parser->begun) return parser->left < SIZE_MAX ? (size_t)parser->left : SIZE_MAX;
    size_t shortest = parser->masked ? 6 : 2;
    return parser->undecided < shortest ? shortest - parser->undecided : 1;
}

enum ws_event ws_read(struct ws_parser *parser, struct bytes input, size_t *used) {
    *used = 0;
    if (!parser->state) parser->undecided = 0;
    while (*used < input.len) {
        if (!parser->state && !ws_take_state(parser)) return ws_bad(parser, REASON_NO_MEMORY);
        struct bytes part = bytes_slice(input, *used, ws_part_max(parser));
        *used += part.len;
        parser->undecided += (uint32_t)part.len;
        enum ws_event event = ws_read_part(parser, part);
        if (event != WS_MORE) return event;
    }
    bool is_data = parser->begun && parser->opcode < WS_CLOSE;
    if (!is_data || parser->undecided == 0) return WS_MORE;
    parser->undecided = 0;
    parser->passed = true;
    return WS_PASS;
}

size_t ws_write_control(char *to, enum ws_opcode opcode, struct bytes payload, bool masked) {
    CHECK(payload.len <= WS_CONTROL_PAYLOAD_MAX);
    char *at = to;
    *at++ = (char)(0x80 | opcode);
    *at++ = (char)((masked ? 0x80 : 0) | payload.len);
    uint8_t mask[4] = {0};
    if (masked) {
        /* RFC 6455 section 5.3: a key that nobody can foresee. Failing, it is 0: that protects
         * nobody from a cache that misreads frames, of which a control frame cannot make use. */
        (void)RAND_bytes(mask, sizeof mask);
        memcpy(at, mask, sizeof mask);
        at += sizeof mask;
    }
    for (size_t i = 0; i < payload.len; i++)
        *at++ = (char)((uint8_t)payload.ptr[i] ^ mask[i % 4]);
    return (size_t)(at - to);
}

size_t ws_write_close(char *to, enum ws_code code, bool masked) {
    char payload[2] = {(char)(code >> 8), (char)(code & 0xff)};
    return ws_write_control(to, WS_CLOSE, bytes_make(payload, sizeof payload), masked);
}
