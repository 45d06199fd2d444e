/* world.h: workers that count without running: what /metrics reads, made by hand. */
#ifndef WEIR_TESTS_UNIT_CONTROL_WORLD_H
#define WEIR_TESTS_UNIT_CONTROL_WORLD_H

#include "control/admin.h"

#define WORLD_WORKERS 2

/* Two workers (global.workers = 2); only the first has the admin's listener. */
struct world {
    struct config *config;
    struct worker *workers[WORLD_WORKERS];
    struct tls_store tls; /* of one section "site" with one certificate "site.pem", until 2000000000
                           */
    struct admin admin;
};

/* The configuration of all these tests: listeners web and admin, routes api and old, an upstream
 * app. Pools are empty and have room for 8 objects each. */
struct world *world_new(void);
void world_free(struct world *world);

#endif
