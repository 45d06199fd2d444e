/* log.h: the process log on stderr, one line a call, from any thread.
 *
 * A line: RFC 3339 time in UTC with ms, level, text. One write(2) a line, at most LOG_LINE_SIZE
 * bytes with its end; longer text is cut. Control bytes of the text become '?', so that what a peer
 * sent (which may be in the text) can neither start a line nor move a terminal's cursor. errno is
 * left as it was. The write waits for whoever reads stderr: not for what a peer can cause at every
 * request.
 */
#ifndef WEIR_BASE_LOG_H
#define WEIR_BASE_LOG_H

#include <stdbool.h>

#define LOG_LINE_SIZE 1024

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Lines below `level` are not written. At start it is LOG_INFO. */
void log_set_level(enum log_level level);
/* "debug", "info", "warn", "error"; false (and *level untouched) on anything else, NULL too. */
bool log_level_parse(const char *word, enum log_level *level);
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)

#endif
