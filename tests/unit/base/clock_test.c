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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_the_monotonic_clock_and_never_goes_back),
        cmocka_unit_test(milliseconds_are_rounded_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
