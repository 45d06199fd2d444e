#include "proxy/balance_draw.h"

#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>

/* With half of the weight out, one pick in 256 needs the pass over all. */
#define DRAWS_MAX 8

/* `upto`: weights of this server and those before it in its tier. */
struct entry {
    uint32_t index;
    uint32_t upto;
};

struct tier {
    struct entry *entries;
    uint32_t count;
    uint32_t sum;
};

struct draw {
    struct tier tiers[2]; /* servers, backups */
    struct entry entries[];
};

int balance_draw_init(struct balance *balance) {
    struct draw *draw = calloc(1, sizeof(*draw) + balance->count * sizeof(struct entry));
    if (!draw) return -ENOMEM;
    uint32_t used = 0;
    for (int backup = 0; backup < 2; backup++) {
        struct tier *tier = &draw->tiers[backup];
        tier->entries = &draw->entries[used];
        for (uint32_t i = 0; i < balance->count; i++) {
            if (balance->servers[i].backup != (backup == 1)) continue;
            tier->sum += balance->servers[i].weight;
            tier->entries[tier->count++] = (struct entry){.index = i, .upto = tier->sum};
        }
        used += tier->count;
    }
    balance->state = draw;
    return 0;
}

void balance_draw_fini(struct balance *balance) { free(balance->state); }

static const struct tier *tier_of(const struct balance *balance, const struct balance_pick *pick) {
    const struct draw *draw = balance->state;
    return &draw->tiers[pick->backups ? 1 : 0];
}

/* The first entry whose running sum is over `number`. */
static uint32_t server_at(const struct tier *tier, uint32_t number) {
    uint32_t low = 0;
    uint32_t high = tier->count - 1;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (tier->entries[middle].upto > number) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return tier->entries[low].index;
}

uint32_t balance_draw(struct balance *balance, const struct balance_pick *pick, uint32_t except) {
    const struct tier *tier = tier_of(balance, pick);
    if (tier->count == 0) return BALANCE_NONE;
    for (int i = 0; i < DRAWS_MAX; i++) {
        uint32_t index = server_at(tier, rand_below(&balance->random, tier->sum));
        if (index != except && balance_eligible(balance, pick, index)) return index;
    }
    return balance_draw_scan(balance, pick, except, rand_next(&balance->random));
}

uint32_t balance_draw_hashed(const struct balance *balance, const struct balance_pick *pick) {
    const struct tier *tier = tier_of(balance, pick);
    if (tier->count == 0) return BALANCE_NONE;
    uint64_t number = pick->hash;
    for (int i = 0; i < DRAWS_MAX; i++) {
        uint32_t index = server_at(tier, (uint32_t)(number % tier->sum));
        if (balance_eligible(balance, pick, index)) return index;
        number = hash_u64(number + 1);
    }
    return balance_draw_scan(balance, pick, BALANCE_NONE, number);
}

static bool takes_part(const struct balance *balance, const struct balance_pick *pick,
                       uint32_t except, uint32_t index) {
    return index != except && balance_eligible(balance, pick, index);
}

uint32_t balance_draw_scan(const struct balance *balance, const struct balance_pick *pick,
                           uint32_t except, uint64_t number) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < balance->count; i++) {
        if (takes_part(balance, pick, except, i)) sum += balance->servers[i].weight;
    }
    if (sum == 0) return BALANCE_NONE;
    number %= sum;
    for (uint32_t i = 0; i < balance->count; i++) {
        if (!takes_part(balance, pick, except, i)) continue;
        if (number < balance->servers[i].weight) return i;
        number -= balance->servers[i].weight;
    }
    return BALANCE_NONE;
}
