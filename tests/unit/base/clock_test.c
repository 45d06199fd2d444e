#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <time.h>

static void it_is_the_monotonic_clock_and_never_goes_back(void **state) {
    (void)state;
    uint64_t last = clock_now_ns();
    for (int i = 0; i < 10000; i++) {
        uint64_t now = clock_now_ns();
        assert_true(now >= last);
        last = now;
    }
    struct timespec theirs;
    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &theirs), 0);
    uint64_t theirs_ns = (uint64_t)theirs.tv_sec * 1000000000 + (uint64_t)theirs.tv_nsec;
    assert_true(theirs_ns >= last);
    assert_true(clock_now_ns() >= theirs_ns);
}

static void milliseconds_are_rounded_down(void **state) {
    (void)state;
    assert_int_equal(clock_ms(0), 0);
    assert_int_equal(clock_ms(999999), 0);
    assert_int_equal(clock_ms(1000000), 1);
    assert_int_equal(clock_ms(123456789012), 123456);
}

static void expect_date(time_t second) {
    struct clock_date date = clock_date_of(second);
    struct tm libc;
    assert_non_null(gmtime_r(&second, &libc));
    assert_int_equal(date.year, libc.tm_year + 1900);
    assert_int_equal(date.month, libc.tm_mon + 1);
    assert_int_equal(date.day, libc.tm_mday);
    assert_int_equal(date.weekday, libc.tm_wday);
    assert_int_equal(date.hour, libc.tm_hour);
    assert_int_equal(date.minute, libc.tm_min);
    assert_int_equal(date.second, libc.tm_sec);
}

/* Both ends of each day of more than 400 years, and of the last ones. */
static void dates_are_those_of_libc(void **state) {
    (void)state;
    for (time_t day = 0; day < 150000; day++) {
        expect_date(day * 86400);
        expect_date(day * 86400 + 86399);
    }
    for (time_t second = 253402300799; second > 253000000000; second -= 40009)
        expect_date(second);
    assert_int_equal(clock_date_of(253402300799).year, 9999);
}

static void what_lies_before_1970_is_its_beginning(void **state) {
    (void)state;
    struct clock_date date = clock_date_of(-1);
    assert_int_equal(date.year, 1970);
    assert_int_equal(date.day, 1);
    assert_int_equal(date.second, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_the_monotonic_clock_and_never_goes_back),
        cmocka_unit_test(milliseconds_are_rounded_down),
        cmocka_unit_test(dates_are_those_of_libc),
        cmocka_unit_test(what_lies_before_1970_is_its_beginning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
