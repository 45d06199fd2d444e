#include "proto/ws.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

static struct ws_room room;

/* What a reader of one direction sees: control frames by their letters ("c", "p", "o"), then "."
 * for more or "!" for a violation. */
struct outcome {
    char events[64];
    size_t passed; /* bytes that were let pass, and of control frames */
    enum reason reason;
    uint16_t code;
    bool in_frame;
};

/* Reads `input` in parts, each a block of exactly its size. */
static struct outcome read_parts(struct bytes input, size_t part_size, bool masked,
                                 uint64_t message_max) {
    struct outcome out = {.reason = REASON_NONE};
    struct writer events = writer_make(out.events, sizeof out.events - 1);
    struct ws_parser parser;
    ws_parser_init(&parser, &room, masked, message_max);
    size_t waiting = 0;
    enum ws_event event = WS_MORE;
    for (size_t at = 0; at < input.len && event != WS_BAD; at += part_size) {
        struct bytes part = bytes_slice(input, at, part_size);
        char *copy = malloc(part.len);
        memcpy(copy, part.ptr, part.len);
        size_t read = 0;
        do {
            size_t used;
            event = ws_read(&parser, bytes_make(copy + read, part.len - read), &used);
            read += used;
            waiting += used;
            if (event == WS_CONTROL)
                writer_char(&events, parser.opcode == WS_CLOSE  ? 'c'
                                     : parser.opcode == WS_PING ? 'p'
                                                                : 'o');
            if (event == WS_CONTROL) assert_int_equal(parser.undecided, waiting);
            if (event == WS_PASS || event == WS_CONTROL) {
                out.passed += waiting;
                waiting = 0;
            }
        } while (event == WS_PASS || event == WS_CONTROL);
        if (event == WS_MORE) assert_int_equal(parser.undecided, waiting);
        free(copy);
    }
    writer_char(&events, event == WS_BAD ? '!' : '.');
    if (event == WS_BAD) {
        out.reason = parser.reason;
        out.code = parser.code;
    }
    out.in_frame = ws_in_frame(&parser);
    ws_parser_fini(&parser);
    assert_int_equal(room.used, 0);
    return out;
}

/* Whole, byte by byte, and in parts of three: all alike. */
static struct outcome read_all_ways(struct bytes input, bool masked, uint64_t message_max) {
    struct outcome whole = read_parts(input, input.len, masked, message_max);
    for (size_t part = 1; part <= 3; part += 2) {
        struct outcome other = read_parts(input, part, masked, message_max);
        assert_string_equal(other.events, whole.events);
        assert_int_equal(other.reason, whole.reason);
        assert_int_equal(other.code, whole.code);
        if (whole.reason != REASON_WEBSOCKET_BAD_TEXT) assert_int_equal(other.passed, whole.passed);
    }
    return whole;
}

#define FROM_SERVER(literal) read_all_ways(BYTES(literal), false, 0)
#define FROM_CLIENT(literal) read_all_ways(BYTES(literal), true, 0)

static void assert_bad(struct outcome out, enum reason reason, int code) {
    assert_int_equal(out.events[strlen(out.events) - 1], '!');
    assert_int_equal(out.reason, reason);
    assert_int_equal(out.code, code);
}

static void assert_protocol(struct outcome out) {
    assert_bad(out, REASON_WEBSOCKET_PROTOCOL, WS_CODE_PROTOCOL);
}

static void examples_of_the_rfc_pass(void **state) {
    (void)state;
    struct outcome out = FROM_SERVER("\x81\x05Hello");
    assert_string_equal(out.events, ".");
    assert_int_equal(out.passed, 7);
    out = FROM_CLIENT("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    assert_int_equal(out.passed, 11);
    out = FROM_SERVER("\x01\x03Hel\x80\x02lo");
    assert_int_equal(out.passed, 9);
    out = FROM_SERVER("\x89\x05Hello");
    assert_string_equal(out.events, "p.");
    out = FROM_CLIENT("\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    assert_string_equal(out.events, "o.");
}

static void frames_of_every_length_form_pass(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 125, 126, 127, 65535, 65536, 70000};
    char *frame = malloc(70000 + 10);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t size = sizes[i], at = 0;
        frame[at++] = (char)0x82;
        size_t bytes = size < 126 ? 0 : size < 65536 ? 2 : 8;
        frame[at++] = (char)(bytes == 0 ? size : bytes == 2 ? 126 : 127);
        for (size_t j = bytes; j-- > 0;)
            frame[at++] = (char)(size >> (8 * j));
        memset(frame + at, 0xff, size);
        struct outcome out = read_all_ways(bytes_make(frame, at + size), false, size);
        assert_string_equal(out.events, ".");
        assert_int_equal(out.passed, at + size);
        assert_false(out.in_frame);
        if (size == 0) continue;
        out = read_all_ways(bytes_make(frame, at + size), false, size - 1);
        if (size > 1) assert_bad(out, REASON_WEBSOCKET_TOO_LARGE, WS_CODE_TOO_LARGE);
    }
    free(frame);
}

static void lengths_that_are_not_shortest_are_refused(void **state) {
    (void)state;
    assert_protocol(FROM_SERVER("\x82\x7e\x00\x7d........"));
    assert_protocol(FROM_SERVER("\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff...."));
    assert_protocol(FROM_SERVER("\x82\x7f\x80\x00\x00\x00\x00\x00\xff\xff...."));
}

static void masking_goes_by_side(void **state) {
    (void)state;
    assert_protocol(FROM_CLIENT("\x81\x05Hello"));
    assert_protocol(FROM_CLIENT("\x81\x00\x81\x00\x81\x00"));
    assert_protocol(FROM_SERVER("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"));
}

static void reserved_bits_and_opcodes_are_refused(void **state) {
    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        char frame[3] = {(char)first, 1, 'x'};
        unsigned opcode = first & 15;
        struct outcome out = read_all_ways(bytes_make(frame, 3), false, 0);
        bool good =
            (first & 0x70) == 0 && (opcode == 1 || opcode == 2 || first == 0x89 || first == 0x8a);
        assert_int_equal(out.reason, good ? REASON_NONE : REASON_WEBSOCKET_PROTOCOL);
    }
}

static void control_frames_are_whole_and_short(void **state) {
    (void)state;
    assert_protocol(FROM_SERVER("\x09\x01x"));
    char frame[130] = "\x89\x7e\x00\x7e";
    assert_protocol(read_all_ways(bytes_make(frame, sizeof frame), false, 0));
    char longest[127] = "\x89\x7d";
    struct outcome out = read_all_ways(bytes_make(longest, sizeof longest), false, 0);
    assert_string_equal(out.events, "p.");
}

static void messages_come_one_after_the_other(void **state) {
    (void)state;
    assert_protocol(FROM_SERVER("\x80\x01x"));
    assert_protocol(FROM_SERVER("\x01\x01x\x81\x01y"));
    assert_protocol(FROM_SERVER("\x81\x01x\x80\x01y"));
    struct outcome out = FROM_SERVER("\x01\x01x\x89\x01p\x00\x01y\x8a\x00\x80\x00\x82\x01z");
    assert_string_equal(out.events, "po.");
    assert_int_equal(out.passed, 16);
}

static void sizes_count_over_the_frames_of_a_message(void **state) {
    (void)state;
    struct bytes frames = BYTES("\x02\x02xx\x89\x05_____\x80\x02yy\x82\x04zzzz");
    assert_string_equal(read_all_ways(frames, false, 4).events, "p.");
    struct outcome out = read_all_ways(frames, false, 3);
    assert_string_equal(out.events, "p!");
    assert_int_equal(out.passed, 11);
    assert_bad(out, REASON_WEBSOCKET_TOO_LARGE, WS_CODE_TOO_LARGE);
}

static void text_is_utf8_over_frames(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool good;
    } rows[] = {
        {"plain ascii, longer than eight bytes", true},
        {"\xc2\x80 \xdf\xbf", true},
        {"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf", true},
        {"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", true},
        {"\x80", false},
        {"\xc0\x80", false},
        {"\xc1\xbf", false},
        {"\xe0\x9f\xbf", false},
        {"\xed\xa0\x80", false},
        {"\xf0\x8f\xbf\xbf", false},
        {"\xf4\x90\x80\x80", false},
        {"\xf5\x80\x80\x80", false},
        {"\xff", false},
        {"\xe2\x82", false},
        {"\xe2\x28\xa1", false},
        {"01234567\xc3(", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t len = strlen(rows[i].text);
        for (size_t cut = 0; cut <= len; cut++) {
            char memory[64];
            struct writer frame = writer_make(memory, sizeof memory);
            writer_char(&frame, 0x01);
            writer_char(&frame, (char)cut);
            writer_put(&frame, bytes_make(rows[i].text, cut));
            writer_put(&frame, BYTES("\x89\x01\xff")); /* no text, in the middle of a character */
            writer_char(&frame, (char)0x80);
            writer_char(&frame, (char)(len - cut));
            writer_put(&frame, bytes_make(rows[i].text + cut, len - cut));
            struct outcome out = read_all_ways(writer_bytes(&frame), false, 0);
            if (rows[i].good) {
                assert_string_equal(out.events, "p.");
            } else {
                assert_bad(out, REASON_WEBSOCKET_BAD_TEXT, WS_CODE_BAD_TEXT);
            }
        }
    }
    /* In a message of bytes anything goes. */
    assert_string_equal(FROM_SERVER("\x82\x02\xff\xfe").events, ".");
}

static void closes_say_what_they_may(void **state) {
    (void)state;
    assert_string_equal(FROM_SERVER("\x88\x00").events, "c.");
    assert_protocol(FROM_SERVER("\x88\x01\x03"));
    assert_string_equal(FROM_SERVER("\x88\x05\x03\xe8\xe2\x82\xac").events, "c.");
    assert_bad(FROM_SERVER("\x88\x03\x03\xe8\xff"), REASON_WEBSOCKET_BAD_TEXT, WS_CODE_BAD_TEXT);
    assert_bad(FROM_SERVER("\x88\x04\x03\xe8\xe2\x82"), REASON_WEBSOCKET_BAD_TEXT,
               WS_CODE_BAD_TEXT);
    /* In the middle of a character of a message. */
    assert_string_equal(FROM_SERVER("\x01\x01\xe2\x88\x03\x03\xe8!").events, "c.");
    for (unsigned code = 0; code < 6000; code++) {
        char frame[4] = {(char)0x88, 2, (char)(code >> 8), (char)code};
        struct outcome out = read_all_ways(bytes_make(frame, 4), false, 0);
        bool good = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                    (code >= 3000 && code <= 4999);
        assert_int_equal(out.reason, good ? REASON_NONE : REASON_WEBSOCKET_PROTOCOL);
    }
}

/* A header is judged with the first byte of its payload: before, nothing of it passes. */
static void nothing_of_a_frame_passes_before_it_is_judged(void **state) {
    (void)state;
    struct outcome out = FROM_SERVER("\x81\x01x\x82\x7e\x01\x00");
    assert_int_equal(out.passed, 3);
    assert_false(out.in_frame);
    out = FROM_SERVER("\x81\x01x\x82\x7e\x01\x00y");
    assert_int_equal(out.passed, 8);
    assert_true(out.in_frame);
    out = FROM_SERVER("\x81\x01x\x8a\x08_______");
    assert_int_equal(out.passed, 3);
    assert_false(out.in_frame);
}

/* Of a text whose bad byte comes later some has passed: nothing may be put in behind it. */
static void a_frame_that_was_cut_is_known(void **state) {
    (void)state;
    struct outcome out = read_parts(BYTES("\x81\x03xy\xff"), 4, false, 0);
    assert_int_equal(out.passed, 4);
    assert_true(out.in_frame);
    out = read_parts(BYTES("\x81\x03xy\xff"), 5, false, 0);
    assert_int_equal(out.passed, 0);
    assert_false(out.in_frame);
}

static void the_start_of_a_control_frame_is_kept(void **state) {
    (void)state;
    struct ws_parser parser;
    size_t used;
    ws_parser_init(&parser, &room, true, 0);
    char memory[WS_CONTROL_SIZE_MAX];
    struct bytes pong =
        bytes_make(memory, ws_write_control(memory, WS_PONG, BYTES("123456789"), true));
    for (size_t i = 0; i + 1 < pong.len; i++)
        assert_int_equal(ws_read(&parser, bytes_slice(pong, i, 1), &used), WS_MORE);
    assert_int_equal(ws_read(&parser, bytes_slice(pong, pong.len - 1, 1), &used), WS_CONTROL);
    assert_int_equal(parser.opcode, WS_PONG);
    assert_int_equal(parser.control_size, 9);
    assert_memory_equal(parser.control, "12345678", 8);
    ws_parser_fini(&parser);
}

static void what_is_written_is_read_again(void **state) {
    (void)state;
    char payload[WS_CONTROL_PAYLOAD_MAX];
    memset(payload, 'x', sizeof payload);
    for (size_t len = 0; len <= sizeof payload; len++) {
        for (unsigned masked = 0; masked < 2; masked++) {
            char frame[WS_CONTROL_SIZE_MAX];
            size_t size = ws_write_control(frame, WS_PING, bytes_make(payload, len), masked != 0);
            assert_true(size <= sizeof frame);
            struct outcome out = read_all_ways(bytes_make(frame, size), masked != 0, 0);
            assert_string_equal(out.events, "p.");
        }
    }
    char close[WS_CONTROL_SIZE_MAX];
    assert_int_equal(ws_write_close(close, WS_CODE_GOING_AWAY, false), 4);
    assert_memory_equal(close, "\x88\x02\x03\xe9", 4);
    size_t size = ws_write_close(close, WS_CODE_TOO_LARGE, true);
    assert_string_equal(read_all_ways(bytes_make(close, size), true, 0).events, "c.");
}

/* Between frames a parser holds nothing of the room. */
static void idle_parsers_share_states(void **state) {
    (void)state;
    struct ws_room own;
    ws_room_init(&own);
    struct ws_parser parsers[10];
    size_t used;
    for (size_t i = 0; i < 10; i++) {
        ws_parser_init(&parsers[i], &own, false, 0);
        assert_int_equal(ws_read(&parsers[i], BYTES("\x81\x02xy"), &used), WS_PASS);
        assert_int_equal(own.used, 0);
    }
    assert_int_equal(own.count, 1);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(ws_read(&parsers[i], BYTES("\x81"), &used), WS_MORE);
    assert_int_equal(own.used, 10);
    assert_int_equal(own.count, 10);
    for (size_t i = 0; i < 10; i++)
        ws_parser_fini(&parsers[i]);
    assert_int_equal(own.count, 0);
    ws_room_fini(&own);
}

static int end_room(void **state) {
    (void)state;
    ws_room_fini(&room);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_of_the_rfc_pass),
        cmocka_unit_test(frames_of_every_length_form_pass),
        cmocka_unit_test(lengths_that_are_not_shortest_are_refused),
        cmocka_unit_test(masking_goes_by_side),
        cmocka_unit_test(reserved_bits_and_opcodes_are_refused),
        cmocka_unit_test(control_frames_are_whole_and_short),
        cmocka_unit_test(messages_come_one_after_the_other),
        cmocka_unit_test(sizes_count_over_the_frames_of_a_message),
        cmocka_unit_test(text_is_utf8_over_frames),
        cmocka_unit_test(closes_say_what_they_may),
        cmocka_unit_test(nothing_of_a_frame_passes_before_it_is_judged),
        cmocka_unit_test(a_frame_that_was_cut_is_known),
        cmocka_unit_test(the_start_of_a_control_frame_is_kept),
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(idle_parsers_share_states),
    };
    return cmocka_run_group_tests(tests, NULL, end_room);
}
