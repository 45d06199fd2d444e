#include "config/value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_reads(bool (*read)(struct bytes, uint64_t *), const char *text,
                         uint64_t expected) {
    uint64_t value = ~expected;
    if (!read(bytes_of(text), &value)) fail_msg("\"%s\" is refused", text);
    assert_int_equal(value, expected);
}

static void assert_refuses(bool (*read)(struct bytes, uint64_t *), const char *text) {
    uint64_t value = 0;
    if (read(bytes_of(text), &value)) fail_msg("\"%s\" is taken", text);
}

static void durations_need_a_unit(void **state) {
    (void)state;
    assert_reads(value_duration, "500ms", 500);
    assert_reads(value_duration, "0s", 0);
    assert_reads(value_duration, "10s", 10000);
    assert_reads(value_duration, "5m", 300000);
    assert_reads(value_duration, "1h", 3600000);
    const char *bad[] = {"",
                         "10",
                         "s",
                         "1.5s",
                         "-1s",
                         "+1s",
                         "1 s",
                         "1m30s",
                         "1d",
                         "1S",
                         "1us",
                         "0x1s",
                         "18446744073709551615h"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_refuses(value_duration, bad[i]);
}

static void sizes_are_powers_of_1024(void **state) {
    (void)state;
    assert_reads(value_size, "0", 0);
    assert_reads(value_size, "16k", 16384);
    assert_reads(value_size, "10m", 10485760);
    assert_reads(value_size, "2g", 2147483648);
    const char *bad[] = {"", "k", "16kb", "16K", "1 k", "-1", "1.5m", "18446744073709551615k"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_refuses(value_size, bad[i]);
}

static void rates_may_say_for_each_second(void **state) {
    (void)state;
    assert_reads(value_rate, "500", 500);
    assert_reads(value_rate, "100/s", 100);
    assert_reads(value_rate, "10k/s", 10240);
    const char *bad[] = {"", "/s", "100/m", "100/", "100/s/s"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_refuses(value_rate, bad[i]);
}

static void switches_are_on_or_off(void **state) {
    (void)state;
    assert_reads(value_switch, "on", 1);
    assert_reads(value_switch, "off", 0);
    const char *bad[] = {"", "yes", "true", "1", "ON", "onn"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_refuses(value_switch, bad[i]);
}

static void lists_split_at_blanks_and_commas(void **state) {
    (void)state;
    struct bytes rest = BYTES(" a,b  ,, c\td ");
    struct bytes item;
    const char *expected[] = {"a", "b", "c", "d"};
    for (size_t i = 0; i < 4; i++) {
        assert_true(value_next(&rest, &item));
        assert_true(bytes_equal(item, bytes_of(expected[i])));
    }
    assert_false(value_next(&rest, &item));
    rest = BYTES("a,b c");
    assert_true(value_word(&rest, &item));
    assert_true(bytes_equal(item, BYTES("a,b")));
    rest = BYTES_NONE;
    assert_false(value_next(&rest, &item));
}

static void fields_split_at_the_first_colon(void **state) {
    (void)state;
    struct bytes name;
    struct bytes value;
    assert_true(value_field(BYTES("X-A : b:c "), &name, &value));
    assert_true(bytes_equal(name, BYTES("X-A")));
    assert_true(bytes_equal(value, BYTES("b:c")));
    assert_true(value_field(BYTES("X-A:"), &name, &value));
    assert_int_equal(value.len, 0);
    assert_false(value_field(BYTES("X-A b"), &name, &value));
}

static void assert_kind(bool (*is)(struct bytes), const char *const *good, const char *const *bad) {
    for (; *good; good++) {
        if (!is(bytes_of(*good))) fail_msg("\"%s\" is refused", *good);
    }
    for (; *bad; bad++) {
        if (is(bytes_of(*bad))) fail_msg("\"%s\" is taken", *bad);
    }
    assert_false(is(BYTES_NONE));
}

static void texts_are_what_they_claim(void **state) {
    (void)state;
    assert_kind(value_is_name, (const char *[]){"a", "A_b-c.9", NULL},
                (const char *[]){"", "a b", "a/b", "\xc3\xa4", "a\"", NULL});
    assert_kind(value_is_token, (const char *[]){"X-A", "a!#$%&'*+-.^_`|~9", NULL},
                (const char *[]){"", "a:", "a b", "(a)", "\xc3\xa4", NULL});
    assert_false(value_is_token(BYTES("a\0b")));
    assert_kind(
        value_is_host_pattern,
        (const char *[]){"a.example", "*.a.example", "localhost", "10.0.0.1", "[::1]", NULL},
        (const char *[]){"", "*", "*.", "a.*.b", "a:80", "[::1]:80", ".a", "a..b", "[x]", "a/b",
                         NULL});
    assert_kind(value_is_path, (const char *[]){"/", "/a,b/%20", NULL},
                (const char *[]){"", "a", "/a b", "/a?b", "/a#b", "/a\x7f", NULL});
    assert_kind(
        value_is_media_range, (const char *[]){"application/json", "image/*", NULL},
        (const char *[]){"", "*/*", "text", "text/", "/x", "text/ht*", "a/b;c", "a/b/c", NULL});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_need_a_unit),
        cmocka_unit_test(sizes_are_powers_of_1024),
        cmocka_unit_test(rates_may_say_for_each_second),
        cmocka_unit_test(switches_are_on_or_off),
        cmocka_unit_test(lists_split_at_blanks_and_commas),
        cmocka_unit_test(fields_split_at_the_first_colon),
        cmocka_unit_test(texts_are_what_they_claim),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
