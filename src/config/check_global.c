#include "config/check_internal.h"
#include "config/value.h"

#include <pwd.h>
#include <sched.h>

#define WORKERS_MAX 256

/* CPUs this process may use, ascending, and how many; at least one. */
static uint32_t allowed_cpus(int *cpus) {
    cpu_set_t set;
    CPU_ZERO(&set);
    /* Fails only where the kernel knows more than CPU_SETSIZE CPUs: then the first of them will do.
     */
    if (sched_getaffinity(0, sizeof set, &set) != 0) CPU_SET(0, &set);
    uint32_t count = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET((size_t)cpu, &set)) cpus[count++] = cpu;
    }
    return count;
}

static bool is_listed(const int *cpus, uint32_t count, uint64_t cpu) {
    for (uint32_t i = 0; i < count; i++) {
        if ((uint64_t)cpus[i] == cpu) return true;
    }
    return false;
}

/* "4" or "4-7". */
static bool read_range(struct bytes item, uint64_t *first, uint64_t *last) {
    size_t dash = bytes_find(item, '-');
    if (!bytes_to_u64(bytes_slice(item, 0, dash), first)) return false;
    *last = *first;
    if (dash != item.len && !bytes_to_u64(bytes_slice(item, dash + 1, item.len), last))
        return false;
    return *first <= *last && *last < CPU_SETSIZE;
}

/* The CPUs of a list, in its order; 0 after an error. `chosen` has room for CPU_SETSIZE. */
static uint32_t read_cpus(struct check *check, const struct ini_section *section,
                          const struct ini_entry *entry, int *chosen) {
    int allowed[CPU_SETSIZE];
    uint32_t allowed_count = allowed_cpus(allowed);
    uint32_t count = 0;
    struct bytes rest = entry->value;
    struct bytes item;
    while (value_next(&rest, &item)) {
        uint64_t first;
        uint64_t last;
        if (!read_range(item, &first, &last)) {
            check_fault(check, section, entry,
                        "\"%.*s\" is not auto, off, a CPU or a range of CPUs",
                        BYTES_FMT(value_shown(item)));
            return 0;
        }
        for (uint64_t cpu = first; cpu <= last; cpu++) {
            bool is_allowed = is_listed(allowed, allowed_count, cpu);
            if (!is_allowed || is_listed(chosen, count, cpu)) {
                check_fault(check, section, entry, "CPU %u %s", (unsigned)cpu,
                            is_allowed ? "is listed twice" : "is none this process may use");
                return 0;
            }
            chosen[count++] = (int)cpu;
        }
    }
    return count;
}

static uint32_t read_workers(struct check *check, const struct ini_section *section,
                             uint32_t automatic) {
    if (automatic > WORKERS_MAX) automatic = WORKERS_MAX;
    struct bytes text = check_text(section, KEY_WORKERS);
    if (bytes_equal(text, BYTES("auto"))) return automatic;
    uint64_t workers;
    if (bytes_to_u64(text, &workers) && workers >= 1 && workers <= WORKERS_MAX) {
        return (uint32_t)workers;
    }
    check_fault(check, section, ini_find(section, KEY_WORKERS),
                "\"%.*s\" is not auto or a number from 1 to %d", BYTES_FMT(value_shown(text)),
                WORKERS_MAX);
    return automatic;
}

/* Workers and their CPUs. With a list of CPUs, workers = auto means one for each of them. */
static void check_workers(struct check *check, const struct ini_section *section) {
    struct config *config = check->config;
    int cpus[CPU_SETSIZE];
    uint32_t count = allowed_cpus(cpus);
    struct bytes affinity = check_text(section, KEY_CPU_AFFINITY);
    bool is_list = !bytes_equal(affinity, BYTES("auto")) && !bytes_equal(affinity, BYTES("off"));
    const struct ini_entry *entry = section ? ini_find(section, KEY_CPU_AFFINITY) : NULL;
    if (is_list) {
        count = read_cpus(check, section, entry, cpus);
        if (count == 0) return;
    }
    config->workers = read_workers(check, section, count);
    if (is_list && config->workers > count) {
        check_fault(check, section, entry, "%u CPUs are too few for %u workers", count,
                    config->workers);
        return;
    }
    if (bytes_equal(affinity, BYTES("off"))) return;
    config->cpus = memory_alloc(check->memory, config->workers, sizeof(int));
    for (uint32_t i = 0; i < config->workers; i++)
        config->cpus[i] = cpus[i % count];
}

static void check_user(struct check *check, const struct ini_section *section) {
    const struct ini_entry *entry = section ? ini_find(section, KEY_USER) : NULL;
    if (!entry || entry->value.len == 0) return;
    check->config->user = memory_string(check->memory, entry->value);
    if (getpwnam(check->config->user)) return;
    check_fault(check, section, entry, "there is no user \"%.*s\"",
                BYTES_FMT(value_shown(entry->value)));
}

void check_global(struct check *check) {
    const struct ini_section *section = ini_section_find(check->ini, SECTION_GLOBAL, BYTES(""));
    struct config *config = check->config;
    config->max_connections = (uint32_t)check_number(check, section, KEY_MAX_CONNECTIONS);
    config->max_handshakes = (uint32_t)check_number(check, section, KEY_MAX_HANDSHAKES);
    config->drain_timeout_ms = check_number(check, section, KEY_DRAIN_TIMEOUT);
    config->log_level = (enum log_level)check_number(check, section, KEY_LOG_LEVEL);
    check_workers(check, section);
    check_user(check, section);
}
