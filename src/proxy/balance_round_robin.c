#include "proxy/balance.h"

#include <errno.h>
#include <stdlib.h>

/* Smooth weighted round robin: every eligible server earns its weight, the richest takes the
 * request and pays what all have earned. Weights 5, 1, 1 give a a b a c a a: heavy servers do not
 * get bursts.
 *
 * With equal weights that is plain rotation, which needs no pass over all servers. Otherwise a pick
 * costs about 3 ns a server. */
struct round_robin {
    struct {
        bool is_equal;
        uint32_t next;
    } tiers[2]; /* servers, backups */
};

static int round_robin_init(struct balance *balance) {
    struct round_robin *state = calloc(1, sizeof(*state));
    if (!state) return -ENOMEM;
    for (int backup = 0; backup < 2; backup++) {
        uint32_t weight = 0; /* none seen yet */
        state->tiers[backup].is_equal = true;
        for (uint32_t i = 0; i < balance->count; i++) {
            const struct balance_server *server = &balance->servers[i];
            if (server->backup != (backup == 1)) continue;
            if (weight != 0 && server->weight != weight) state->tiers[backup].is_equal = false;
            weight = server->weight;
        }
    }
    balance->state = state;
    return 0;
}

static void round_robin_fini(struct balance *balance) { free(balance->state); }

static uint32_t pick_rotating(const struct balance *balance, const struct balance_pick *pick,
                              uint32_t *next) {
    uint32_t index = *next;
    for (uint32_t i = 0; i < balance->count; i++) {
        uint32_t following = index + 1 == balance->count ? 0 : index + 1;
        if (balance_eligible(balance, pick, index)) {
            *next = following;
            return index;
        }
        index = following;
    }
    return BALANCE_NONE;
}

static uint32_t pick_smooth(const struct balance *balance, const struct balance_pick *pick) {
    uint32_t best = BALANCE_NONE;
    int64_t earned = 0;
    for (uint32_t i = 0; i < balance->count; i++) {
        if (!balance_eligible(balance, pick, i)) continue;
        struct balance_server *server = &balance->servers[i];
        server->current += server->weight;
        earned += server->weight;
        if (best == BALANCE_NONE || server->current > balance->servers[best].current) best = i;
    }
    if (best != BALANCE_NONE) balance->servers[best].current -= earned;
    return best;
}

static uint32_t round_robin_pick(struct balance *balance, const struct balance_pick *pick) {
    struct round_robin *state = balance->state;
    int tier = pick->backups ? 1 : 0;
    if (!state->tiers[tier].is_equal) return pick_smooth(balance, pick);
    return pick_rotating(balance, pick, &state->tiers[tier].next);
}

const struct balance_ops balance_round_robin = {
    .name = "round_robin",
    .init = round_robin_init,
    .fini = round_robin_fini,
    .pick = round_robin_pick,
};
