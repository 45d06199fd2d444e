#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int pipe_ends[2];
static int real_stderr;

/* A packet pipe: one read(2) gives what one write(2) put in. */
static int set_up(void **state) {
    (void)state;
    real_stderr = dup(STDERR_FILENO);
    if (real_stderr < 0 || pipe2(pipe_ends, O_DIRECT | O_NONBLOCK) != 0) return -1;
    return dup2(pipe_ends[1], STDERR_FILENO) < 0 ? -1 : 0;
}

static int tear_down(void **state) {
    (void)state;
    log_set_level(LOG_INFO);
    (void)dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return 0;
}

/* The next line as written by one write(2), or "" when there is none. */
static const char *next_line(void) {
    static char line[4 * LOG_LINE_SIZE];
    ssize_t len = read(pipe_ends[0], line, sizeof line - 1);
    line[len < 0 ? 0 : len] = '\0';
    return line;
}

static bool matches(const char *text, const char *pattern) {
    regex_t compiled;
    if (regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB) != 0) return false;
    bool found = regexec(&compiled, text, 0, NULL, 0) == 0;
    regfree(&compiled);
    return found;
}

static void a_line_has_time_level_and_text(void **state) {
    (void)state;
    log_info("listening on %s:%d", "127.0.0.1", 8080);
    const char *line = next_line();
    assert_true(matches(line, "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]"
                              "\\.[0-9]{3}Z info listening on 127\\.0\\.0\\.1:8080\n$"));
    log_error("x");
    assert_true(matches(next_line(), "Z error x\n$"));
}

static void levels_below_the_set_one_are_silent(void **state) {
    (void)state;
    log_debug("a");
    assert_string_equal(next_line(), "");
    log_set_level(LOG_DEBUG);
    log_debug("b");
    assert_true(matches(next_line(), "Z debug b\n$"));
    log_set_level(LOG_ERROR);
    log_warn("c");
    assert_string_equal(next_line(), "");
    log_error("d");
    assert_true(matches(next_line(), "Z error d\n$"));
}

static void long_text_is_cut_to_one_line(void **state) {
    (void)state;
    char text[3000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    log_info("%s", text);
    const char *line = next_line();
    assert_int_equal(strlen(line), LOG_LINE_SIZE);
    assert_int_equal(line[LOG_LINE_SIZE - 1], '\n');
    assert_int_equal(line[LOG_LINE_SIZE - 2], 'x');
    assert_string_equal(next_line(), "");
}

static void text_of_a_peer_starts_no_line_and_moves_no_cursor(void **state) {
    (void)state;
    log_info("host %s", "a\r\nb\x1b[2J\x7f\tc\xc3\xa9");
    assert_true(matches(next_line(), "Z info host a\\?\\?b\\?\\[2J\\?\\?c\xc3\xa9\n$"));
}

static void errno_is_read_and_kept(void **state) {
    (void)state;
    errno = ENOENT;
    log_info("open: %m");
    assert_int_equal(errno, ENOENT);
    assert_true(matches(next_line(), "open: No such file or directory\n$"));
}

static void a_closed_stderr_is_survived(void **state) {
    (void)state;
    close(STDERR_FILENO);
    errno = 0;
    log_error("nobody hears");
    assert_int_equal(errno, 0);
}

static void levels_are_parsed_exactly(void **state) {
    (void)state;
    enum log_level level = LOG_WARN;
    assert_true(log_level_parse("debug", &level) && level == LOG_DEBUG);
    assert_true(log_level_parse("info", &level) && level == LOG_INFO);
    assert_true(log_level_parse("error", &level) && level == LOG_ERROR);
    assert_true(log_level_parse("warn", &level) && level == LOG_WARN);
    const char *bad[] = {"", "Info", "warning", "info ", "4"};
    for (int i = 0; i < 5; i++)
        assert_false(log_level_parse(bad[i], &level));
    assert_false(log_level_parse(NULL, &level));
    assert_int_equal(level, LOG_WARN);
}

static void *write_lines(void *word) {
    for (int i = 0; i < 5; i++)
        log_info("%s", (const char *)word);
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state) {
    (void)state;
    char words[2][500];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        memset(words[i], 'a' + i, sizeof words[i]);
        words[i][sizeof words[i] - 1] = '\0';
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, words[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 10; i++)
        assert_true(matches(next_line(), "Z info (a+|b+)\n$"));
    assert_string_equal(next_line(), "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_line_has_time_level_and_text),
        TEST(levels_below_the_set_one_are_silent),
        TEST(long_text_is_cut_to_one_line),
        TEST(text_of_a_peer_starts_no_line_and_moves_no_cursor),
        TEST(errno_is_read_and_kept),
        TEST(a_closed_stderr_is_survived),
        TEST(levels_are_parsed_exactly),
        TEST(lines_of_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
