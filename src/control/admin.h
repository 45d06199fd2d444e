/* admin.h: the service behind the admin's listener: /metrics, /healthz, /readyz.
 *
 * It runs on worker 0 and reads all workers' counters with relaxed loads.
 *
 *   GET /         the list of these
 *   GET /metrics  Prometheus text format 0.0.4
 *   GET /healthz  200 "ok" as long as the process answers
 *   GET /readyz   200 "ready"; 503 "starting" until all workers run, "draining" once one has begun
 * to
 */
#ifndef WEIR_CONTROL_ADMIN_H
#define WEIR_CONTROL_ADMIN_H

#include "control/worker.h"

struct admin {
    struct service service;
    const struct config *config;
    struct worker *const *workers; /* config->workers of them */
    const struct tls_store *tls;
    uint64_t start_time_ms; /* UNIX time */
    uint64_t start_ns;      /* CLOCK_MONOTONIC */
};

/* `config`, `workers` and `tls` (filled later, before the first thread starts) outlive it. */
void admin_init(struct admin *admin, const struct config *config, struct worker *const *workers,
                const struct tls_store *tls);

#endif
