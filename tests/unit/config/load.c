#include "unit/config/load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* "F" for the file's real name, which differs from run to run. */
static char *rename_file(const char *text, const char *file) {
    char *renamed = calloc(1, strlen(text) + 1);
    assert_non_null(renamed);
    char *end = renamed;
    while (*text != '\0') {
        size_t size = strlen(file);
        if (strncmp(text, file, size) == 0) {
            *end++ = 'F';
            text += size;
        } else {
            *end++ = *text++;
        }
    }
    return renamed;
}

struct config *load_bytes(const char *text, size_t size, struct config_errors *errors) {
    int fd = memfd_create("weir.ini", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, size), size);
    char file[64];
    (void)snprintf(file, sizeof file, "/proc/self/fd/%d", fd);
    struct config *config = config_load(file, errors);
    assert_int_equal(close(fd), 0);
    if (errors->count != 0) {
        config_free(config);
        config = NULL;
    }
    assert_true((config != NULL) == (errors->count == 0));
    assert_true((errors->text != NULL) == (errors->count != 0));
    if (errors->text) {
        char *renamed = rename_file(errors->text, file);
        free(errors->text);
        errors->text = renamed;
    }
    return config;
}

struct config *load_good(const char *text) {
    struct config_errors errors;
    struct config *config = load_bytes(text, strlen(text), &errors);
    if (!config) fail_msg("unexpected errors:\n%s", errors.text);
    return config;
}

void assert_errors(const char *text, const char *expected) {
    struct config_errors errors;
    struct config *config = load_bytes(text, strlen(text), &errors);
    if (config) fail_msg("no errors in:\n%s", text);
    char lines[16384] = "";
    size_t size = 0;
    uint32_t count = 0;
    for (const char *line = errors.text; *line != '\0'; count++) {
        const char *end = strchr(line, '\n');
        assert_non_null(end);
        assert_memory_equal(line, "F:", 2);
        size_t length = (size_t)(end - line) - 1; /* without "F:", with the line end */
        assert_true(size + length < sizeof lines);
        memcpy(lines + size, line + 2, length);
        size += length;
        line = end + 1;
    }
    if (strcmp(lines, expected) != 0) {
        fail_msg("of:\n%s\nexpected:\n%s\nfound:\n%s", text, expected, lines);
    }
    assert_int_equal(count, errors.count);
    config_errors_fini(&errors);
}
