#include "proto/h2_stray.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* DATA of 3 bytes, HEADERS of 2, DATA of 300, an empty one, and the head of one of 5. */
static const char frames[] = "\0\0\3\0\0\0\0\0\1abc"
                             "\0\0\2\1\0\0\0\0\1hh"
                             "\0\1\54\0\0\0\0\0\1";
static const char rest[] = "\0\0\0\0\1\0\0\0\1"
                           "\0\0\5\0\0\0\0\0\1";

static size_t make(char *to) {
    size_t size = sizeof frames - 1;
    memcpy(to, frames, size);
    memset(to + size, 0, 300); /* what looks like frames is none */
    size += 300;
    memcpy(to + size, rest, sizeof rest - 1);
    return size + sizeof rest - 1;
}

static void data_is_counted_and_nothing_else(void **state) {
    (void)state;
    char text[400];
    struct h2_stray stray = {0};
    h2_stray_feed(&stray, bytes_make(text, make(text)));
    assert_int_equal(stray.frames, 4);
    assert_int_equal(stray.bytes, 308);
    h2_stray_told(&stray, 300);
    assert_int_equal(stray.frames, 3);
    assert_int_equal(stray.bytes, 8);
    h2_stray_feed(&stray, bytes_of("12345"));
    assert_int_equal(stray.frames, 0);
    assert_int_equal(stray.skip, 0);
}

static void it_does_not_matter_how_bytes_are_split(void **state) {
    (void)state;
    char text[400];
    size_t size = make(text);
    for (size_t piece = 1; piece < size; piece++) {
        struct h2_stray stray = {.skip = 0};
        uint32_t count = 0, bytes = 0;
        for (size_t at = 0; at < size; at += piece) {
            h2_stray_feed(&stray, bytes_slice(bytes_make(text, size), at, piece));
            count += stray.frames;
            bytes += stray.bytes;
        }
        assert_int_equal(count, 4);
        assert_int_equal(bytes, 308);
        assert_int_equal(stray.skip, 5);
    }
}

static void a_preface_is_no_frame(void **state) {
    (void)state;
    struct h2_stray stray = {.skip = 4};
    h2_stray_feed(&stray, bytes_make("\0\0\3\0\0\0\0\0\0\0\0\0\1", 13));
    assert_int_equal(stray.frames, 1);
    assert_int_equal(stray.bytes, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_is_counted_and_nothing_else),
        cmocka_unit_test(it_does_not_matter_how_bytes_are_split),
        cmocka_unit_test(a_preface_is_no_frame),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
