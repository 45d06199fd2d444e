#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
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

#define WRITERS 4
#define LINES_EACH 1000
#define LAST_LINE "that was all"

/* What is read of the log of `writers` threads: each numbers its lines. */
struct reading {
    uint32_t writers;
    uint32_t next[WRITERS];
    uint64_t lines;
    uint64_t lost;
    bool in_order;
};

static void read_one(struct reading *reading, const char *line) {
    unsigned writer, number;
    unsigned long long lost;
    /* Behind its time, "2026-01-31T12:00:00.000Z ". */
    if (sscanf(line + 25, "warn %llu lines of the log were lost:", &lost) == 1) {
        reading->lost += lost;
        /* Told twice and taken back it would add up all the same. */
        if (lost > WRITERS * LINES_EACH) reading->in_order = false;
        /* The lines of one that are missing are missing here. */
        if (reading->writers == 1) reading->next[0] += (uint32_t)lost;
        return;
    }
    reading->lines++;
    bool is_whole = sscanf(line + 25, "info writer %u line %u.\n", &writer, &number) == 2 &&
                    strcmp(line + strlen(line) - 2, ".\n") == 0 && writer < WRITERS;
    if (!is_whole) {
        reading->in_order = false;
        return;
    }
    if (reading->writers == 1 ? number != reading->next[0] : number < reading->next[writer])
        reading->in_order = false;
    reading->next[writer] = number + 1;
}

static void *read_log(void *argument) {
    struct reading *reading = argument;
    for (;;) {
        struct pollfd end = {.fd = pipe_ends[0], .events = POLLIN};
        (void)poll(&end, 1, -1);
        const char *line = next_line();
        if (strstr(line, LAST_LINE)) return NULL;
        if (line[0] != '\0') read_one(reading, line);
    }
}

static void *write_numbered(void *writer) {
    for (unsigned i = 0; i < LINES_EACH; i++)
        log_info("writer %u line %u.", *(unsigned *)writer, i);
    return NULL;
}

/* The pipe takes one line; nobody reads until they are all in the queue, or lost. */
static void nobody_waits_for_who_reads_the_log(void **state) {
    (void)state;
    unsigned writer = 0;
    uint64_t before = log_dropped();
    assert_true(fcntl(pipe_ends[1], F_SETPIPE_SZ, 4096) > 0);
    assert_int_equal(log_start(), 0);
    (void)write_numbered(&writer);
    uint64_t lost = log_dropped() - before;
    assert_in_range(lost, LINES_EACH - LOG_LINES - 2, LINES_EACH - LOG_LINES);

    struct reading reading = {.writers = 1, .in_order = true};
    pthread_t reader;
    assert_int_equal(pthread_create(&reader, NULL, read_log, &reading), 0);
    log_stop();
    log_info(LAST_LINE); /* by the caller again */
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_true(reading.in_order);
    assert_int_equal(reading.lost, lost);
    assert_int_equal(reading.next[0], LINES_EACH);
}

static void queued_lines_of_threads_are_whole_and_in_order(void **state) {
    (void)state;
    unsigned numbers[WRITERS];
    pthread_t writers[WRITERS], reader;
    struct reading reading = {.writers = WRITERS, .in_order = true};
    assert_int_equal(log_start(), 0);
    assert_int_equal(pthread_create(&reader, NULL, read_log, &reading), 0);
    for (unsigned i = 0; i < WRITERS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&writers[i], NULL, write_numbered, &numbers[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_join(writers[i], NULL), 0);
    log_stop();
    log_info(LAST_LINE);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_true(reading.in_order);
    assert_int_equal(reading.lines + reading.lost, WRITERS * LINES_EACH);
}

/* In a child, whose thread stays in write(2). */
static void who_does_not_read_the_log_does_not_keep_the_end_away(void **state) {
    (void)state;
    int ends[2];
    char much[65536] = {0};
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], much, sizeof much), sizeof much);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool is_started = dup2(ends[1], STDERR_FILENO) >= 0 && log_start() == 0;
        log_info("the pipe is full");
        log_stop();
        _exit(is_started ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(ends[0]);
    close(ends[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_line_has_time_level_and_text),
        TEST(levels_below_the_set_one_are_silent),
        TEST(long_text_is_cut_to_one_line),
        TEST(text_of_a_peer_starts_no_line_and_moves_no_cursor),
        TEST(errno_is_read_and_kept),
        TEST(levels_are_parsed_exactly),
        TEST(lines_of_threads_do_not_mix),
        TEST(nobody_waits_for_who_reads_the_log),
        TEST(queued_lines_of_threads_are_whole_and_in_order),
        TEST(who_does_not_read_the_log_does_not_keep_the_end_away),
        TEST(a_closed_stderr_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
