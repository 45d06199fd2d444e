#include "proto/h1_body.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

/* Reads `input` in parts of `part_size`; what is left of it when the reader ended stays in *rest.
 */
static enum h1_body_event read_parts(struct h1_body *body, struct bytes input, size_t part_size,
                                     struct writer *text, struct bytes *rest) {
    enum h1_body_event event = H1_BODY_MORE;
    while (event == H1_BODY_MORE) {
        struct bytes part = bytes_slice(input, 0, part_size);
        char *copy = malloc(part.len);
        if (part.len != 0) memcpy(copy, part.ptr, part.len);
        struct bytes left = bytes_make(copy, part.len);
        struct bytes data;
        while ((event = h1_body_read(body, &left, &data)) == H1_BODY_DATA) {
            assert_true(data.len != 0);
            writer_put(text, data);
        }
        free(copy);
        input = bytes_slice(input, part.len - left.len, input.len);
        if (part.len == 0) break;
    }
    *rest = input;
    return event;
}

struct outcome {
    enum h1_body_event event;
    const char *text;
    const char *rest;
};

static void check_body(enum h1_body_kind kind, uint64_t length, struct bytes input,
                       struct outcome wanted) {
    for (size_t part_size = 1; part_size <= input.len + 1; part_size++) {
        char memory[1024];
        struct writer text = writer_make(memory, sizeof(memory));
        struct h1_body body;
        struct bytes rest;
        h1_body_init(&body, kind, length);
        enum h1_body_event event = read_parts(&body, input, part_size, &text, &rest);
        if (event != wanted.event) {
            fail_msg("event %d in parts of %zu: %.*s", (int)event, part_size, BYTES_FMT(input));
        }
        if (event == H1_BODY_BAD) continue;
        assert_true(bytes_equal(writer_bytes(&text), bytes_of(wanted.text)));
        assert_true(bytes_equal(rest, bytes_of(wanted.rest)));
        assert_int_equal(body.read, text.len);
    }
}

static void check_chunked(struct bytes input, struct outcome wanted) {
    check_body(H1_BODY_CHUNKED, 0, input, wanted);
}

static void a_body_of_known_length_ends_where_it_ends(void **state) {
    (void)state;
    check_body(H1_BODY_LENGTH, 5, BYTES("helloGET"), (struct outcome){H1_BODY_END, "hello", "GET"});
    check_body(H1_BODY_LENGTH, 5, BYTES("hello"), (struct outcome){H1_BODY_END, "hello", ""});
    check_body(H1_BODY_LENGTH, 5, BYTES("hell"), (struct outcome){H1_BODY_MORE, "hell", ""});
    check_body(H1_BODY_LENGTH, 0, BYTES("GET"), (struct outcome){H1_BODY_END, "", "GET"});
    check_body(H1_BODY_NONE, 0, BYTES("GET"), (struct outcome){H1_BODY_END, "", "GET"});
}

static void a_body_until_close_never_ends_by_itself(void **state) {
    (void)state;
    check_body(H1_BODY_UNTIL_CLOSE, 0, BYTES("all of it"),
               (struct outcome){H1_BODY_MORE, "all of it", ""});
}

static void chunks_are_joined_and_trailers_are_left(void **state) {
    (void)state;
    check_chunked(BYTES("5\r\nhello\r\n0\r\n\r\n"),
                  (struct outcome){H1_BODY_TRAILERS, "hello", "\r\n"});
    check_chunked(BYTES("3\r\nabc\r\n0A\r\n0123456789\r\n00\r\nX: y\r\n\r\n"),
                  (struct outcome){H1_BODY_TRAILERS, "abc0123456789", "X: y\r\n\r\n"});
    check_chunked(BYTES("2\r\n\r\n\r\n0\r\n"), (struct outcome){H1_BODY_TRAILERS, "\r\n", ""});
    check_chunked(BYTES("5\r\nhel"), (struct outcome){H1_BODY_MORE, "hel", ""});
    check_chunked(BYTES(""), (struct outcome){H1_BODY_MORE, "", ""});
}

static void chunk_extensions_are_skipped(void **state) {
    (void)state;
    check_chunked(BYTES("1;a\r\nx\r\n1 \t; b=\"c;d\" ;e\r\ny\r\n0;z=\xff\r\n"),
                  (struct outcome){H1_BODY_TRAILERS, "xy", ""});
}

static void malformed_chunks_are_refused(void **state) {
    (void)state;
    const struct bytes cases[] = {
        BYTES("\r\n"),
        BYTES("x\r\n"),
        BYTES("-1\r\n"),
        BYTES("+1\r\n"),
        BYTES("0x1\r\n"),
        BYTES(" 1\r\n"),
        BYTES(";a\r\n"),
        BYTES("1 \r\nx\r\n"),
        BYTES("1 2\r\nx\r\n"),
        BYTES("1\nx\r\n"),
        BYTES("1\rx\r\n"),
        BYTES("1\r\nxx\r\n"),
        BYTES("1\r\nx\n"),
        BYTES("1\r\nx\rx"),
        BYTES("1\r\nx0\r\n"),
        BYTES("1;a\nb\r\nx"),
        BYTES("1;a\rb\r\nx"),
        BYTES("1;\0\r\nx"),
        BYTES("1;\x7f\r\nx"),
        BYTES("g\r\n"),
        BYTES("1,\r\n"),
        BYTES("8000000000000000\r\n"),
        BYTES("10000000000000000\r\n"),
        BYTES("ffffffffffffffff\r\n"),
        BYTES("fffffffffffffffffffff\r\n"),
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        check_chunked(cases[i], (struct outcome){H1_BODY_BAD, "", ""});
    }
}

static void a_reader_that_refused_goes_on_refusing(void **state) {
    (void)state;
    struct h1_body body;
    struct bytes input = BYTES("x\r\n");
    struct bytes data;
    h1_body_init(&body, H1_BODY_CHUNKED, 0);
    assert_int_equal(h1_body_read(&body, &input, &data), H1_BODY_BAD);
    input = BYTES("5\r\nhello\r\n");
    assert_int_equal(h1_body_read(&body, &input, &data), H1_BODY_BAD);
}

static void the_largest_chunk_is_taken(void **state) {
    (void)state;
    check_chunked(BYTES("7fffffffffffffff\r\nabc"), (struct outcome){H1_BODY_MORE, "abc", ""});
}

/* "1;aaa...\r\n" of `size` bytes. */
static struct bytes chunk_line(char *memory, size_t size) {
    memset(memory, 'a', size);
    memcpy(memory, "1;", 2);
    memcpy(memory + size - 2, "\r\n", 2);
    return bytes_make(memory, size);
}

static void a_chunk_line_is_bounded(void **state) {
    (void)state;
    char memory[300];
    check_chunked(chunk_line(memory, 256), (struct outcome){H1_BODY_MORE, "", ""});
    check_chunked(chunk_line(memory, 257), (struct outcome){H1_BODY_BAD, "", ""});
    memset(memory, '0', sizeof(memory));
    check_chunked(bytes_make(memory, sizeof(memory)), (struct outcome){H1_BODY_BAD, "", ""});
}

static void the_bound_is_of_each_chunk_line(void **state) {
    (void)state;
    static char memory[64 * 1024];
    static char text_memory[64 * 1024];
    struct writer w = writer_make(memory, sizeof(memory));
    for (int i = 0; i < 2000; i++)
        writer_put(&w, BYTES("4;extension\r\nabcd\r\n"));
    writer_put(&w, BYTES("0\r\n"));
    assert_false(w.full);
    struct h1_body body;
    struct bytes rest;
    struct writer text = writer_make(text_memory, sizeof(text_memory));
    h1_body_init(&body, H1_BODY_CHUNKED, 0);
    assert_int_equal(read_parts(&body, writer_bytes(&w), 7, &text, &rest), H1_BODY_TRAILERS);
    assert_int_equal(body.read, 8000);
}

static void what_is_left_is_known_for_lengths_only(void **state) {
    (void)state;
    struct h1_body body;
    struct bytes input = BYTES("hel");
    struct bytes data;
    h1_body_init(&body, H1_BODY_LENGTH, 5);
    assert_int_equal(h1_body_left(&body), 5);
    assert_int_equal(h1_body_read(&body, &input, &data), H1_BODY_DATA);
    assert_int_equal(h1_body_left(&body), 2);
    h1_body_init(&body, H1_BODY_UNTIL_CLOSE, 0);
    assert_true(h1_body_left(&body) == HTTP_LENGTH_UNKNOWN);
    h1_body_init(&body, H1_BODY_NONE, 0);
    assert_int_equal(h1_body_left(&body), 0);
    h1_body_init(&body, H1_BODY_CHUNKED, 0);
    assert_true(h1_body_left(&body) == HTTP_LENGTH_UNKNOWN);
    input = BYTES("0\r\n");
    assert_int_equal(h1_body_read(&body, &input, &data), H1_BODY_TRAILERS);
    assert_int_equal(h1_body_left(&body), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_of_known_length_ends_where_it_ends),
        cmocka_unit_test(a_body_until_close_never_ends_by_itself),
        cmocka_unit_test(chunks_are_joined_and_trailers_are_left),
        cmocka_unit_test(chunk_extensions_are_skipped),
        cmocka_unit_test(malformed_chunks_are_refused),
        cmocka_unit_test(a_reader_that_refused_goes_on_refusing),
        cmocka_unit_test(the_largest_chunk_is_taken),
        cmocka_unit_test(a_chunk_line_is_bounded),
        cmocka_unit_test(the_bound_is_of_each_chunk_line),
        cmocka_unit_test(what_is_left_is_known_for_lengths_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
