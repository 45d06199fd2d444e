/* log.h: the process log on stderr, one line a call, from any thread.
 *
 * A line: RFC 3339 time in UTC with ms, level, text. At most LOG_LINE_SIZE bytes with its end;
 * longer text is cut. Control bytes of the text become '?', so that what a peer sent (which may be
 * in the text) can neither start a line nor move a terminal's cursor. errno is left as it was.
 *
 * Until log_start, and after log_stop, the caller writes the line itself and waits for whoever
 * reads stderr. Between them nobody waits: a line is put in a queue of LOG_LINES, and a thread
 * writes them, whole and in that order. What finds the queue full, or cannot be written, is lost;
 * it is counted, and how many they were is said where they are missing.
 */
#ifndef WEIR_BASE_LOG_H
#define WEIR_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#define LOG_LINE_SIZE 1024
#define LOG_LINES 256

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Lines below `level` are not written. At start it is LOG_INFO. */
void log_set_level(enum log_level level);
/* "debug", "info", "warn", "error"; false (and *level untouched) on anything else, NULL too. */
bool log_level_parse(const char *word, enum log_level *level);

/* Main thread, with the signals blocked that are not for the log's thread. 0 or -errno. */
int log_start(void);
/* Waits until what is queued now has been written. false: for LOG_PATIENCE_S whoever reads stderr
 * took none of it. Any thread. */
bool log_flush(void);
/* The same, and ends the thread; lines that other threads have meanwhile are lost. Harmless without
 * log_start. */
void log_stop(void);
#define LOG_PATIENCE_S 1

/* Lines lost so far. */
uint64_t log_dropped(void);

extern enum log_level log_lowest; /* for log_is_on alone */
/* Whether lines of `level` are written: for what is costly to put together. */
static inline bool log_is_on(enum log_level level) {
    return level >= __atomic_load_n(&log_lowest, __ATOMIC_RELAXED);
}
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The arguments are not looked at when nobody wants the line. */
#define log_debug(...)                                                                             \
    do {                                                                                           \
        if (__builtin_expect(log_is_on(LOG_DEBUG), 0)) log_line(LOG_DEBUG, __VA_ARGS__);           \
    } while (0)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)

#endif
