#include "config/config.h"

#include "config/check.h"
#include "config/faults.h"
#include "config/ini.h"
#include "config/memory.h"
#include "config/regex.h"

#include <stdlib.h>

/* What config_load really returns a part of. */
struct snapshot {
    struct config config; /* first: config_free gets its address */
    struct memory memory;
};

struct config *config_load(const char *file, struct config_errors *errors) {
    struct memory memory = {NULL};
    struct snapshot *snapshot = memory_alloc(&memory, 1, sizeof *snapshot);
    struct memory reading = {NULL};
    struct faults faults = {.memory = &reading};
    struct ini_file ini;
    snapshot->config.file = memory_string(&memory, bytes_of(file));
    ini_read(file, &reading, &faults, &ini);
    struct check check = {&memory, &faults, &ini, &snapshot->config};
    /* Without a file there is nothing to find missing in it. */
    bool could_read = ini.section_count != 0 || faults.count == 0;
    if (could_read) check_file(&check);
    faults_render(&faults, file, errors);
    memory_fini(&reading);
    snapshot->memory = memory;
    if (could_read) return &snapshot->config;
    config_free(&snapshot->config);
    return NULL;
}

static void edits_fini(struct config_edits *edits) {
    for (uint32_t i = 0; i < edits->count; i++)
        template_fini(&edits->items[i].value);
}

void config_free(struct config *config) {
    if (!config) return;
    for (uint32_t i = 0; i < config->route_count; i++) {
        struct config_route *route = &config->routes[i];
        for (uint32_t j = 0; j < route->path_count; j++)
            regex_free(route->paths[j].regex);
        template_fini(&route->action.text);
        edits_fini(&route->request_edits);
        edits_fini(&route->response_edits);
    }
    for (uint32_t i = 0; i < config->service_count; i++)
        edits_fini(&config->services[i].headers);
    /* The snapshot lies in its own memory. */
    struct memory memory = ((struct snapshot *)(void *)config)->memory;
    memory_fini(&memory);
}

void config_errors_fini(struct config_errors *errors) {
    free(errors->text);
    *errors = (struct config_errors){NULL, 0};
}
