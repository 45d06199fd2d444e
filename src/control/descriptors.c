#include "control/descriptors.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

/* Standard streams, the main thread's ring, a file or two read at start or for a message, a name
 * asked for; some to spare for connections that are just closing. */
#define DESCRIPTORS_OWN 12
/* Its ring, and one to spare. */
#define DESCRIPTORS_PER_WORKER 2
/* With less there are no pipes. */
#define DESCRIPTORS_FOR_PIPES 1024

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Most connections to servers that are in use at once: one for each client, unless all servers have
 * a limit of their own, of which each worker has at least one. */
static uint64_t descriptors_upstream_max(const struct config *config) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < config->upstream_count; i++) {
        const struct config_upstream *upstream = &config->upstreams[i];
        for (uint32_t j = 0; j < upstream->server_count; j++) {
            uint64_t most = upstream->servers[j].max_connections;
            if (most == 0) return UINT64_MAX;
            sum += most > config->workers ? most : config->workers;
        }
    }
    return sum;
}

static uint64_t descriptors_idle_max(const struct config *config) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < config->upstream_count; i++)
        sum += (uint64_t)config->upstreams[i].server_count * config->upstreams[i].keepalive;
    return sum;
}

static bool descriptors_have_admin(const struct config *config) {
    for (uint32_t i = 0; i < config->listener_count; i++) {
        if (config->listeners[i].is_admin) return true;
    }
    return false;
}

/* All but the clients and their connections to servers. */
static uint64_t descriptors_fixed(const struct config *config, const struct descriptors *plan) {
    uint64_t binds = 0;
    for (uint32_t i = 0; i < config->listener_count; i++)
        binds += config->listeners[i].bind_count;
    uint64_t worker =
        DESCRIPTORS_PER_WORKER + binds + plan->refusals + plan->spare + 2 * (uint64_t)plan->pipes;
    return DESCRIPTORS_OWN + plan->admins + plan->idle + config->workers * worker;
}

static uint64_t descriptors_sum(const struct config *config, const struct descriptors *plan) {
    uint64_t upstream = least(plan->clients, descriptors_upstream_max(config));
    return descriptors_fixed(config, plan) + plan->clients + upstream;
}

struct descriptors descriptors_wanted(const struct config *config) {
    struct descriptors plan = {
        .clients = config->max_connections,
        .idle = (uint32_t)least(descriptors_idle_max(config), config->max_connections),
        .admins = descriptors_have_admin(config) ? DESCRIPTORS_ADMINS_MAX : 0,
        .refusals = DESCRIPTORS_REFUSALS_MAX,
        .spare = config->upstream_count != 0 ? DESCRIPTORS_SPARE_MAX : 0,
        .pipes = DESCRIPTORS_PIPES_MAX,
    };
    plan.sum = descriptors_sum(config, &plan);
    return plan;
}

/* Shares of a limit that is too small for all: clients and their servers get nearly all of it. */
static void descriptors_shrink(const struct config *config, uint64_t limit,
                               struct descriptors *plan) {
    /* Without one bytes are copied. */
    uint64_t pipes = limit < DESCRIPTORS_FOR_PIPES ? 0 : limit / 16 / config->workers;
    plan->pipes = (uint32_t)least(plan->pipes, pipes);
    plan->idle = (uint32_t)least(plan->idle, limit / 8);
    plan->admins = (uint32_t)least(plan->admins, limit / 16 + 1);
    plan->refusals = (uint32_t)least(plan->refusals, limit / 32 / config->workers + 1);
    /* Who finds none waits for another's end. */
    plan->spare = (uint32_t)least(plan->spare, limit / 16 / config->workers);
}

bool descriptors_plan(const struct config *config, uint64_t limit, struct descriptors *plan) {
    *plan = descriptors_wanted(config);
    if (plan->sum <= limit) return true;
    descriptors_shrink(config, limit, plan);
    uint64_t fixed = descriptors_fixed(config, plan);
    if (fixed >= limit) return false;
    uint64_t room = limit - fixed;
    uint64_t upstream = descriptors_upstream_max(config);
    uint64_t clients = least(upstream < room / 2 ? room - upstream : room / 2, plan->clients);
    /* Whole shares: the workers' are rounded up. */
    clients -= clients % config->workers;
    plan->clients = (uint32_t)clients;
    plan->sum = descriptors_sum(config, plan);
    return clients != 0;
}

static struct rlimit descriptors_now(void) {
    struct rlimit limit = {0};
    (void)getrlimit(RLIMIT_NOFILE, &limit); /* cannot fail for a valid resource */
    return limit;
}

uint64_t descriptors_raise(uint64_t wanted) {
    struct rlimit limit = descriptors_now();
    if (limit.rlim_cur >= wanted) return limit.rlim_cur;
    struct rlimit more = {wanted, limit.rlim_max > wanted ? limit.rlim_max : wanted};
    if (setrlimit(RLIMIT_NOFILE, &more) < 0) {
        more = (struct rlimit){limit.rlim_max, limit.rlim_max};
        (void)setrlimit(RLIMIT_NOFILE, &more); /* what it is now is read back */
    }
    return descriptors_now().rlim_cur;
}

bool descriptors_can_raise(uint64_t wanted) {
    struct rlimit before = descriptors_now();
    bool reached = descriptors_raise(wanted) >= wanted;
    (void)setrlimit(RLIMIT_NOFILE, &before); /* lower: always allowed */
    return reached;
}

uint64_t descriptors_file_max(void) {
    uint64_t allowed = 0;
    FILE *stream = fopen("/proc/sys/fs/file-max", "re");
    if (!stream) return 0;
    if (fscanf(stream, "%" SCNu64, &allowed) != 1) allowed = 0;
    (void)fclose(stream); /* nothing was written */
    return allowed;
}
