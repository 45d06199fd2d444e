#include "base/check.h"

#include "base/log.h"

#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FRAMES_MAX 48

_Noreturn void check_failed(const char *expression, const char *file, int line) {
    /* The lines before may say why. Where nobody reads them this one would wait for ever, and with
     * it the end: the core has it too. */
    if (!log_flush()) abort();
    /* The heap may be what is broken: a buffer on the stack and write(2), no stdio stream. */
    char text[512];
    int length = snprintf(text, sizeof text, "weir: bug: CHECK(%s) failed at %s:%d\n", expression,
                          file, line);
    if (length >= (int)sizeof text) {
        length = (int)sizeof text;
        text[sizeof text - 1] = '\n';
    }
    /* abort(3) follows whatever write(2) says. */
    if (length > 0 && write(STDERR_FILENO, text, (size_t)length) < 0) abort();

    void *frames[FRAMES_MAX];
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES_MAX), STDERR_FILENO);
    abort();
}
