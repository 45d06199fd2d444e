#include "proxy/balance.h"

#include <errno.h>
#include <stdlib.h>

/* The fewest requests in flight per weight. Each search starts behind the server picked last, and
 * the first of equals wins: ties go round. It asks every server until it finds an idle one: with
 * hundreds of busy servers p2c costs less and is nearly as even. */
static int least_conn_init(struct balance *balance) {
    balance->state = calloc(1, sizeof(uint32_t)); /* where the next search starts */
    return balance->state ? 0 : -ENOMEM;
}

static void least_conn_fini(struct balance *balance) { free(balance->state); }

/* The least loaded of [from, to) that is less loaded than server `best`, or `best`. */
static uint32_t search(const struct balance *balance, const struct balance_pick *pick,
                       uint32_t from, uint32_t to, uint32_t best) {
    const struct balance_server *servers = balance->servers;
    uint64_t best_load = best == BALANCE_NONE ? UINT64_MAX : servers[best].in_flight;
    uint64_t best_weight = best == BALANCE_NONE ? 1 : servers[best].weight;
    for (uint32_t i = from; i < to && best_load != 0; i++) {
        bool less = best == BALANCE_NONE ||
                    servers[i].in_flight * best_weight < best_load * servers[i].weight;
        if (!less || !balance_eligible(balance, pick, i)) continue;
        best = i;
        best_load = servers[i].in_flight;
        best_weight = servers[i].weight;
    }
    return best;
}

static uint32_t least_conn_pick(struct balance *balance, const struct balance_pick *pick) {
    uint32_t *next = balance->state;
    uint32_t best = search(balance, pick, *next, balance->count, BALANCE_NONE);
    best = search(balance, pick, 0, *next, best);
    if (best != BALANCE_NONE) *next = best + 1 == balance->count ? 0 : best + 1;
    return best;
}

const struct balance_ops balance_least_conn = {
    .name = "least_conn",
    .init = least_conn_init,
    .fini = least_conn_fini,
    .pick = least_conn_pick,
};
