/* actors.c: what clients and servers have in common: their pace, and how clients end. */
#include "sim/actors.h"

#define STEP_MAX 65536 /* bytes at once */

struct world world;

uint32_t actor_step(void) {
    bool tls = world.tls_clients || world.tls_servers || world.tls_raw_clients;
    /* Where bytes take long, what TLS adds to each step may not be most of it. */
    uint32_t least = sim_has(FAULT_SLOW_NETWORK) ? (tls ? 100 : 1) : 200;
    return (uint32_t)(least + sim_skewed(STEP_MAX - least));
}

uint64_t actor_pace(uint32_t one, uint32_t other) {
    uint64_t step = one < other ? one : other;
    uint64_t a_byte_ns = sim_has(FAULT_SLOW_NETWORK) ? 200000 : 3000;
    uint64_t most_ns = step * a_byte_ns < 20 * SIM_MS ? step * a_byte_ns : 20 * SIM_MS;
    return most_ns < 20000 ? 0 : sim_between(20000, most_ns);
}

enum leaving client_pick_leaving(void) {
    if (sim_has(FAULT_CLIENT_BAD) && sim_one_in(4)) return SENDS_NONSENSE;
    if (sim_has(FAULT_CLIENT_STOPS) && sim_one_in(4))
        return sim_one_in(2) ? STOPS_WRITING : STOPS_READING;
    if (sim_has(FAULT_CLIENT_LEAVES) && sim_one_in(4))
        return sim_one_in(2) ? LEAVES_CLOSING : LEAVES_RESETTING;
    return sim_one_in(5) ? LEAVES_HALF : LEAVES_WELL;
}
