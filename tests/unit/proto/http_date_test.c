#include "proto/http_date.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

static void expect_date(int64_t second, const char *expected) {
    char text[HTTP_DATE_SIZE];
    http_date_format(second, text);
    assert_memory_equal(text, expected, HTTP_DATE_SIZE);
}

static void dates_read_as_in_the_rfc(void **state) {
    (void)state;
    expect_date(784111777, "Sun, 06 Nov 1994 08:49:37 GMT");
    expect_date(0, "Thu, 01 Jan 1970 00:00:00 GMT");
    expect_date(951782399, "Mon, 28 Feb 2000 23:59:59 GMT");
    expect_date(951782400, "Tue, 29 Feb 2000 00:00:00 GMT");
    expect_date(253402300799, "Fri, 31 Dec 9999 23:59:59 GMT");
}

/* time(2) is some milliseconds behind the clock that is asked for the date. */
static time_t time_now(void) {
    struct timespec now;
    assert_int_equal(clock_gettime(CLOCK_REALTIME, &now), 0);
    return now.tv_sec;
}

static void the_present_is_made_again_only_after_its_second(void **state) {
    (void)state;
    struct http_date date = {0};
    time_t before = time_now();
    struct bytes first = http_date_now(&date, 5000);
    char earliest[HTTP_DATE_SIZE];
    char latest[HTTP_DATE_SIZE];
    http_date_format(before, earliest);
    http_date_format(time_now(), latest);
    assert_int_equal(first.len, HTTP_DATE_SIZE);
    assert_true(memcmp(first.ptr, earliest, HTTP_DATE_SIZE) == 0 ||
                memcmp(first.ptr, latest, HTTP_DATE_SIZE) == 0);
    assert_true(date.made_ms > 4000 && date.made_ms <= 5000);
    uint64_t made_ms = date.made_ms;
    date.text[0] = '?'; /* shows whether the text is made anew */
    assert_int_equal(http_date_now(&date, made_ms + 999).ptr[0], '?');
    assert_int_not_equal(http_date_now(&date, made_ms + 1000).ptr[0], '?');
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dates_read_as_in_the_rfc),
        cmocka_unit_test(the_present_is_made_again_only_after_its_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
