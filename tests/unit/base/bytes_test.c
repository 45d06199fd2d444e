#include "base/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

static void assert_bytes(struct bytes b, const char *expected) {
    assert_int_equal(b.len, strlen(expected));
    if (b.len != 0) assert_memory_equal(b.ptr, expected, b.len);
}

static void equality_minds_case_or_not(void **state) {
    (void)state;
    assert_true(bytes_equal(BYTES("Host"), bytes_of("Host")));
    assert_false(bytes_equal(BYTES("Host"), BYTES("host")));
    assert_false(bytes_equal(BYTES("Host"), BYTES("Hos")));
    assert_true(bytes_equal_nocase(BYTES("Host"), BYTES("hOST")));
    assert_false(bytes_equal_nocase(BYTES("Host"), BYTES("Hosd")));
    assert_true(bytes_equal(BYTES("a\0b"), BYTES("a\0b")));
    assert_false(bytes_equal(BYTES("a\0b"), BYTES("a\0c")));
}

static void none_equals_empty(void **state) {
    (void)state;
    assert_true(bytes_equal(BYTES_NONE, BYTES("")));
    assert_true(bytes_equal_nocase(BYTES_NONE, BYTES_NONE));
    assert_true(bytes_equal(bytes_of(NULL), BYTES_NONE));
    assert_null(bytes_of(NULL).ptr);
}

static void only_letters_have_a_case(void **state) {
    (void)state;
    for (int a = 0; a < 256; a++) {
        for (int b = 0; b < 256; b++) {
            char x = (char)a;
            char y = (char)b;
            bool letter = (a >= 'A' && a <= 'Z') || (a >= 'a' && a <= 'z');
            bool expected = a == b || (letter && (a ^ b) == 0x20);
            if (bytes_equal_nocase(bytes_make(&x, 1), bytes_make(&y, 1)) != expected)
                fail_msg("%d and %d", a, b);
        }
    }
}

static void prefixes_and_suffixes(void **state) {
    (void)state;
    assert_true(bytes_starts_with(BYTES("/v1/x"), BYTES("/v1")));
    assert_true(bytes_starts_with(BYTES("/v1"), BYTES("/v1")));
    assert_true(bytes_starts_with(BYTES_NONE, BYTES_NONE));
    assert_false(bytes_starts_with(BYTES("/v"), BYTES("/v1")));
    assert_false(bytes_starts_with(BYTES("/V1"), BYTES("/v1")));
    assert_true(bytes_ends_with_nocase(BYTES("api.EXAMPLE.com"), BYTES(".example.COM")));
    assert_true(bytes_ends_with_nocase(BYTES("x"), BYTES_NONE));
    assert_true(bytes_ends_with_nocase(BYTES_NONE, BYTES_NONE));
    assert_false(bytes_ends_with_nocase(BYTES("com"), BYTES(".com")));
}

static void trim_takes_blanks_at_both_ends_only(void **state) {
    (void)state;
    assert_bytes(bytes_trim(BYTES(" \t a b\t ")), "a b");
    assert_bytes(bytes_trim(BYTES(" \t ")), "");
    assert_bytes(bytes_trim(BYTES("\r\n")), "\r\n");
    assert_bytes(bytes_trim(BYTES_NONE), "");
}

static void slices_are_clamped(void **state) {
    (void)state;
    assert_bytes(bytes_slice(BYTES("hello"), 1, 3), "ell");
    assert_bytes(bytes_slice(BYTES("hello"), 1, SIZE_MAX), "ello");
    assert_bytes(bytes_slice(BYTES("hello"), 5, 1), "");
    assert_bytes(bytes_slice(BYTES("hello"), SIZE_MAX, SIZE_MAX), "");
    assert_bytes(bytes_slice(BYTES_NONE, 3, 3), "");
}

static void find_gives_the_first_or_the_length(void **state) {
    (void)state;
    assert_int_equal(bytes_find(BYTES("a:b:c"), ':'), 1);
    assert_int_equal(bytes_find(BYTES("abc"), ':'), 3);
    assert_int_equal(bytes_find(BYTES("a\0b"), '\0'), 1);
    assert_int_equal(bytes_find(BYTES_NONE, 'a'), 0);
}

static void n_separators_split_into_one_more_item(void **state) {
    (void)state;
    struct bytes rest = BYTES(" a ,, \tb,c d,");
    struct bytes item;
    const char *expected[] = {"a", "", "b", "c d", ""};
    for (size_t i = 0; i < 5; i++) {
        assert_true(bytes_split(&rest, ',', &item));
        assert_bytes(item, expected[i]);
    }
    assert_false(bytes_split(&rest, ',', &item));
    assert_false(bytes_split(&rest, ',', &item));

    rest = BYTES("");
    assert_true(bytes_split(&rest, ',', &item));
    assert_bytes(item, "");
    assert_false(bytes_split(&rest, ',', &item));
    rest = BYTES_NONE;
    assert_false(bytes_split(&rest, ',', &item));
}

static void numbers_are_digits_that_fit(void **state) {
    (void)state;
    uint64_t value = 7;
    assert_true(bytes_to_u64(BYTES("0"), &value));
    assert_int_equal(value, 0);
    assert_true(bytes_to_u64(BYTES("00042"), &value));
    assert_int_equal(value, 42);
    assert_true(bytes_to_u64(BYTES("18446744073709551615"), &value));
    assert_true(value == UINT64_MAX);

    const char *bad[] = {"",
                         "+5",
                         "-5",
                         " 5",
                         "5 ",
                         "0x5",
                         "5,",
                         "5.0",
                         "/",
                         ":",
                         "\xb2",
                         "18446744073709551616",
                         "99999999999999999999",
                         "184467440737095516150"};
    value = 7;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (bytes_to_u64(bytes_of(bad[i]), &value)) fail_msg("\"%s\"", bad[i]);
        assert_int_equal(value, 7);
    }
}

static void a_writer_fills_to_the_last_byte(void **state) {
    (void)state;
    char memory[8];
    struct writer w = writer_make(memory, sizeof memory);
    writer_put(&w, BYTES("abcd"));
    writer_u64(&w, 123);
    writer_char(&w, '!');
    assert_false(w.full);
    assert_bytes(writer_bytes(&w), "abcd123!");
    writer_put(&w, BYTES_NONE);
    assert_false(w.full);
    writer_char(&w, '?');
    assert_true(w.full);
    assert_bytes(writer_bytes(&w), "abcd123!");
}

static void a_full_writer_stays_at_its_last_whole_put(void **state) {
    (void)state;
    char memory[8];
    struct writer w = writer_make(memory, sizeof memory);
    writer_put(&w, BYTES("abc"));
    writer_put(&w, BYTES("123456"));
    assert_true(w.full);
    writer_char(&w, 'x');
    writer_u64(&w, 1);
    writer_print(&w, "y");
    assert_bytes(writer_bytes(&w), "abc");
}

static void writer_numbers(void **state) {
    (void)state;
    char memory[128];
    struct writer w = writer_make(memory, sizeof memory);
    writer_u64(&w, 0);
    writer_char(&w, ' ');
    writer_u64(&w, UINT64_MAX);
    writer_char(&w, ' ');
    writer_hex(&w, 0);
    writer_char(&w, ' ');
    writer_hex(&w, 0x1a0f);
    writer_char(&w, ' ');
    writer_hex(&w, UINT64_MAX);
    assert_bytes(writer_bytes(&w), "0 18446744073709551615 0 1a0f ffffffffffffffff");
}

static void print_needs_a_byte_for_its_nul(void **state) {
    (void)state;
    /* The heap, so that AddressSanitizer sees a byte too many. */
    char *memory = malloc(6);
    assert_non_null(memory);
    struct writer w = writer_make(memory, 6);
    writer_print(&w, "%s", "");
    writer_print(&w, "%d-%d", 12, 34);
    assert_false(w.full);
    assert_bytes(writer_bytes(&w), "12-34");
    writer_print(&w, "%d", 5);
    assert_true(w.full);
    assert_bytes(writer_bytes(&w), "12-34");
    free(memory);
}

static void a_writer_without_memory_takes_nothing(void **state) {
    (void)state;
    struct writer w = writer_make(NULL, 0);
    writer_put(&w, BYTES_NONE);
    writer_print(&w, "%s", "");
    assert_false(w.full);
    writer_print(&w, "x");
    assert_true(w.full);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equality_minds_case_or_not),
        cmocka_unit_test(none_equals_empty),
        cmocka_unit_test(only_letters_have_a_case),
        cmocka_unit_test(prefixes_and_suffixes),
        cmocka_unit_test(trim_takes_blanks_at_both_ends_only),
        cmocka_unit_test(slices_are_clamped),
        cmocka_unit_test(find_gives_the_first_or_the_length),
        cmocka_unit_test(n_separators_split_into_one_more_item),
        cmocka_unit_test(numbers_are_digits_that_fit),
        cmocka_unit_test(a_writer_fills_to_the_last_byte),
        cmocka_unit_test(a_full_writer_stays_at_its_last_whole_put),
        cmocka_unit_test(writer_numbers),
        cmocka_unit_test(print_needs_a_byte_for_its_nul),
        cmocka_unit_test(a_writer_without_memory_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
