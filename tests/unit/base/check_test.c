#include "base/check.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "unit/base/death.h"

static int evaluations;

static void fail_a_check(void) { CHECK(evaluations == 12345); }

static void fail_with_a_long_expression(void) {
    char text[2000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    check_failed(text, "file.c", 1);
}

static void true_passes_and_is_evaluated_once(void **state) {
    (void)state;
    evaluations = 0;
    CHECK(++evaluations == 1);
    assert_int_equal(evaluations, 1);
}

static void false_names_expression_and_place_and_aborts(void **state) {
    (void)state;
    char said[4096];
    assert_true(death_by_abort(fail_a_check, said, sizeof said));
    assert_non_null(strstr(said, "CHECK(evaluations == 12345) failed at "));
    assert_non_null(strstr(said, "base/check_test.c:"));
}

static void a_backtrace_follows_the_first_line(void **state) {
    (void)state;
    char said[4096];
    assert_true(death_by_abort(fail_a_check, said, sizeof said));
    const char *frames = strchr(said, '\n');
    assert_non_null(frames);
    assert_non_null(strstr(frames, "check_test"));
}

static void a_long_expression_is_cut_to_one_line(void **state) {
    (void)state;
    char said[4096];
    assert_true(death_by_abort(fail_with_a_long_expression, said, sizeof said));
    assert_int_equal(strcspn(said, "\n"), 511);
}

static void fail_behind_a_queued_line(void) {
    (void)log_start(); /* without it the line is written at once */
    log_info("what came before");
    CHECK(evaluations == 12345);
}

static void lines_of_the_log_come_before_it(void **state) {
    (void)state;
    char said[4096];
    assert_true(death_by_abort(fail_behind_a_queued_line, said, sizeof said));
    const char *line = strstr(said, "what came before\n");
    assert_non_null(line);
    assert_non_null(strstr(line, "CHECK(evaluations == 12345)"));
}

/* Nobody reads its log, and it is full. */
static void fail_where_nobody_reads(void) {
    int ends[2];
    char much[65536] = {0};
    bool is_full = pipe(ends) == 0 && write(ends[1], much, sizeof much) == sizeof much;
    if (is_full && dup2(ends[1], STDERR_FILENO) >= 0) fail_behind_a_queued_line();
}

static void it_aborts_where_nobody_reads_the_log(void **state) {
    (void)state;
    char said[4096];
    assert_true(death_by_abort(fail_where_nobody_reads, said, sizeof said));
    assert_string_equal(said, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(true_passes_and_is_evaluated_once),
        cmocka_unit_test(false_names_expression_and_place_and_aborts),
        cmocka_unit_test(a_backtrace_follows_the_first_line),
        cmocka_unit_test(a_long_expression_is_cut_to_one_line),
        cmocka_unit_test(lines_of_the_log_come_before_it),
        cmocka_unit_test(it_aborts_where_nobody_reads_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
