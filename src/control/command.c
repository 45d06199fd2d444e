#include "control/command.h"

#include "control/tls_check.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#define INSTALLED_FILE "/etc/weir/weir.ini"
/* build/weir and build/debug/weir are the programs of a checkout; one folder more does no harm. */
#define PARENTS_MAX 3

/* Whether `folder` (a path of `size` bytes) is the top of a checkout; then `file` is its sample's
 * path. */
static bool is_checkout(const char *folder, int size, char *file, size_t file_size) {
    int length = snprintf(file, file_size, "%.*s/Makefile", size, folder);
    if (length < 0 || (size_t)length >= file_size || access(file, R_OK) != 0) return false;
    length = snprintf(file, file_size, "%.*s/etc/weir.ini", size, folder);
    return length > 0 && (size_t)length < file_size && access(file, R_OK) == 0;
}

const char *command_default_file(void) {
    static char file[PATH_MAX];
    char program[PATH_MAX];
    ssize_t size = readlink("/proc/self/exe", program, sizeof program);
    if (size <= 0) return INSTALLED_FILE;
    for (int parents = 0; parents <= PARENTS_MAX && size > 0; parents++) {
        do
            size--;
        while (size > 0 && program[size] != '/');
        if (size > 0 && is_checkout(program, (int)size, file, sizeof file)) return file;
    }
    return INSTALLED_FILE;
}

struct config *command_load(const char *file) {
    struct config_errors errors;
    struct config *config = config_load(file, &errors);
    if (errors.text) (void)fputs(errors.text, stderr); /* nowhere to tell it */
    uint32_t count = errors.count;
    config_errors_fini(&errors);
    /* A warning may be of nothing but a key that was misspelt. */
    if (config) count += tls_check(config, count == 0, stderr);
    if (count == 0) return config;
    config_free(config);
    return NULL;
}

static const char *plural(uint32_t count) { return count == 1 ? "" : "s"; }

int command_check(const char *file) {
    struct config *config = command_load(file);
    if (!config) return 1;
    printf("%s: ok: %u listener%s, %u route%s, %u upstream%s, %u service%s, %u worker%s\n", file,
           config->listener_count, plural(config->listener_count), config->route_count,
           plural(config->route_count), config->upstream_count, plural(config->upstream_count),
           config->service_count, plural(config->service_count), config->workers,
           plural(config->workers));
    config_free(config);
    return 0;
}

int command_version(void) {
    printf("weir " WEIR_VERSION "\n");
    return 0;
}
