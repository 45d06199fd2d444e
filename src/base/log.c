#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LEVELS (LOG_ERROR + 1)

static const char *const words[LEVELS] = {"debug", "info", "warn", "error"};

/* Set by the main thread, read by all: relaxed is enough for a filter. */
static enum log_level lowest = LOG_INFO;

void log_set_level(enum log_level level) { __atomic_store_n(&lowest, level, __ATOMIC_RELAXED); }

bool log_level_parse(const char *word, enum log_level *level) {
    if (!word) return false;
    for (int i = 0; i < LEVELS; i++) {
        if (strcmp(word, words[i]) != 0) continue;
        *level = (enum log_level)i;
        return true;
    }
    return false;
}

static size_t put_start(char *line, size_t size, enum log_level level) {
    struct timespec now = {0};
    struct tm utc = {0};
    /* A line with a wrong time is better than no line: the results are not looked at. */
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    size_t len = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &utc);
    int more =
        snprintf(line + len, size - len, ".%03dZ %s ", (int)(now.tv_nsec / 1000000), words[level]);
    return len + (more > 0 ? (size_t)more : 0);
}

void log_line(enum log_level level, const char *format, ...) {
    if (level < __atomic_load_n(&lowest, __ATOMIC_RELAXED)) return;
    int saved_errno = errno;
    char line[LOG_LINE_SIZE];
    size_t start = put_start(line, sizeof line, level);

    errno = saved_errno; /* for %m */
    va_list arguments;
    va_start(arguments, format);
    int text_len = vsnprintf(line + start, sizeof line - start, format, arguments);
    va_end(arguments);

    size_t len = start + (text_len > 0 ? (size_t)text_len : 0);
    if (len > sizeof line - 1) len = sizeof line - 1; /* the NUL's place is for the line's end */
    for (size_t i = start; i < len; i++) {
        unsigned char c = (unsigned char)line[i];
        if (c < ' ' || c == 0x7f) line[i] = '?';
    }
    line[len++] = '\n';
    /* Nobody is left to be told that stderr cannot be written. */
    while (write(STDERR_FILENO, line, len) < 0 && errno == EINTR)
        continue;
    errno = saved_errno;
}
