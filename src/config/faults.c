#include "config/faults.h"

#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* A terminal reads these lines, and values in them come from a file somebody else may have written.
 */
static void make_printable(char *text) {
    for (; *text != '\0'; text++) {
        if (*text < ' ' || *text > '~') *text = '?';
    }
}

void faults_add(struct faults *faults, struct fault_place place, const char *format, ...) {
    char text[FAULT_SIZE_MAX];
    int start = 0;
    if (place.section && place.key) {
        start = snprintf(text, sizeof text, "%s.%s: ", place.section, place.key);
    } else if (place.section) {
        start = snprintf(text, sizeof text, "%s: ", place.section);
    } else {
        text[0] = '\0';
    }
    /* Section titles and keys come from tables and lines that are far shorter than this. */
    CHECK(start >= 0 && (size_t)start < sizeof text);
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text + start, sizeof text - (size_t)start, format, arguments); /* cut is fine */
    va_end(arguments);
    make_printable(text);
    faults->items = memory_grow(faults->memory, faults->items, faults->count, sizeof(struct fault));
    faults->items[faults->count] =
        (struct fault){place.line, faults->count, memory_string(faults->memory, bytes_of(text))};
    faults->count++;
}

static int compare(const void *a, const void *b) {
    const struct fault *left = a;
    const struct fault *right = b;
    if (left->line != right->line) return left->line < right->line ? -1 : 1;
    return left->order < right->order ? -1 : 1;
}

void faults_render(struct faults *faults, const char *file, struct config_errors *errors) {
    *errors = (struct config_errors){NULL, 0};
    if (faults->count == 0) return;
    qsort(faults->items, faults->count, sizeof(struct fault), compare);
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    CHECK(stream != NULL); /* no memory left at start-up: as in memory.h */
    for (uint32_t i = 0; i < faults->count; i++) {
        const struct fault *fault = &faults->items[i];
        if (fault->line == 0) {
            (void)fprintf(stream, "%s: %s\n", file, fault->text);
        } else {
            (void)fprintf(stream, "%s:%u: %s\n", file, fault->line, fault->text);
        }
    }
    CHECK(fclose(stream) == 0);
    *errors = (struct config_errors){text, faults->count};
}
