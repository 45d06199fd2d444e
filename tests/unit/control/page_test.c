#include "control/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void an_empty_page_holds_nothing(void **state) {
    (void)state;
    struct page page = {0};
    page_text(&page, "");
    assert_null(page.ptr);
    assert_int_equal(page_bytes(&page).len, 0);
    page_fini(&page);
    page_fini(&page);
}

static void numbers_are_written_in_full(void **state) {
    (void)state;
    struct page page = {0};
    page_u64(&page, UINT64_MAX);
    page_text(&page, " ");
    page_double(&page, 0.1);
    page_text(&page, " ");
    page_double(&page, 1763718000.123);
    assert_true(bytes_equal(page_bytes(&page), BYTES("18446744073709551615 0.1 1763718000.123")));
    page_fini(&page);
}

static void what_was_written_stays_when_it_grows(void **state) {
    (void)state;
    struct page page = {0};
    for (uint64_t i = 0; i < 100000; i++)
        page_u64(&page, 1000000 + i);
    assert_false(page.failed);
    assert_int_equal(page.len, 700000);
    for (size_t i = 0; i < 100000; i++) {
        uint64_t value;
        assert_true(bytes_to_u64(bytes_slice(page_bytes(&page), i * 7, 7), &value));
        assert_int_equal(value, 1000000 + i);
    }
    page_fini(&page);
}

static void a_page_that_failed_takes_nothing_more(void **state) {
    (void)state;
    struct page page = {0};
    page_text(&page, "kept");
    page.failed = true;
    page_text(&page, "lost");
    assert_true(bytes_equal(page_bytes(&page), BYTES("kept")));
    page_fini(&page);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_page_holds_nothing),
        cmocka_unit_test(numbers_are_written_in_full),
        cmocka_unit_test(what_was_written_stays_when_it_grows),
        cmocka_unit_test(a_page_that_failed_takes_nothing_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
