#include "proxy/balance_draw.h"

#include "base/check.h"
#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>

/* Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer",
 * section 3.4).
 *
 * Every server has its own order of all slots, from its name. In turn, each takes the first slot of
 * its order that is free, until none is; a key's slot names its server. Shares are even to one
 * slot, and a server that comes or goes in the file moves few keys of the others. The number of
 * slots is prime, so that any step visits all of them.
 *
 * A table is read at random places, so it wants to stay in cache beside everything else: 4,093
 * slots are 16 KB. They do while the lightest server still gets SLOTS_PER_SERVER_MIN slots, i.e.
 * its share is right to 1 %. The other size, 65,537 slots or 256 KB, is for all the rest, up to
 * thousands of servers. Another size would move nearly all keys, so there are two and not many. */
#define SLOTS_SMALL 4093
#define SLOTS_LARGE 65537
#define SLOTS_PER_SERVER_MIN 100
#define SLOT_FREE UINT32_MAX
/* Slots asked before one pass over the servers decides: most of them are out then. */
#define WALK_MAX 16

struct table {
    uint32_t *slots; /* NULL: no servers */
    uint32_t size;
};

struct maglev {
    struct table tiers[2]; /* servers, backups */
};

/* A server's way through the slots. */
struct turn {
    uint32_t index;
    uint32_t slot; /* the next one to try */
    uint32_t step;
    uint32_t credit; /* in weights: a slot costs weight_max */
};

static uint32_t slot_after(uint32_t slot, uint32_t step, uint32_t size) {
    slot += step;
    return slot >= size ? slot - size : slot;
}

static void take_slot(struct table *table, struct turn *turn) {
    while (table->slots[turn->slot] != SLOT_FREE) {
        turn->slot = slot_after(turn->slot, turn->step, table->size);
    }
    table->slots[turn->slot] = turn->index;
}

/* In each round the heaviest server takes one slot, the others their part of one. */
static void fill(struct table *table, const struct balance_server *servers, struct turn *turns,
                 uint32_t count, uint32_t weight_max) {
    for (uint32_t i = 0; i < table->size; i++) {
        table->slots[i] = SLOT_FREE;
    }
    uint32_t taken = 0;
    for (uint32_t i = 0; taken < table->size; i = i + 1 == count ? 0 : i + 1) {
        turns[i].credit += servers[turns[i].index].weight;
        if (turns[i].credit < weight_max) continue;
        turns[i].credit -= weight_max;
        take_slot(table, &turns[i]);
        taken++;
    }
}

static uint32_t table_size(uint64_t weight_sum, uint32_t weight_min) {
    return SLOTS_SMALL * (uint64_t)weight_min >= SLOTS_PER_SERVER_MIN * weight_sum ? SLOTS_SMALL
                                                                                   : SLOTS_LARGE;
}

static struct turn turn_make(const struct balance *balance, uint32_t index, uint32_t size) {
    struct bytes name = bytes_of(balance->names[index]);
    return (struct turn){
        .index = index,
        .slot = (uint32_t)(hash_bytes(name, 1) % size),
        .step = (uint32_t)(hash_bytes(name, 2) % (size - 1)) + 1,
    };
}

/* `turns` has room for all servers. */
static int table_init(struct table *table, const struct balance *balance, bool backups,
                      struct turn *turns) {
    uint32_t count = 0;
    uint32_t weight_min = UINT32_MAX;
    uint32_t weight_max = 0;
    uint64_t weight_sum = 0;
    for (uint32_t i = 0; i < balance->count; i++) {
        const struct balance_server *server = &balance->servers[i];
        if (server->backup != backups) continue;
        turns[count++].index = i;
        weight_sum += server->weight;
        if (server->weight < weight_min) weight_min = server->weight;
        if (server->weight > weight_max) weight_max = server->weight;
    }
    if (count == 0) return 0;
    table->size = table_size(weight_sum, weight_min);
    table->slots = malloc(table->size * sizeof(*table->slots));
    if (!table->slots) return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        turns[i] = turn_make(balance, turns[i].index, table->size);
    }
    fill(table, balance->servers, turns, count, weight_max);
    return 0;
}

static void maglev_fini(struct balance *balance) {
    struct maglev *maglev = balance->state;
    free(maglev->tiers[0].slots);
    free(maglev->tiers[1].slots);
    free(maglev);
}

static int maglev_init(struct balance *balance) {
    CHECK(balance->names != NULL);
    struct maglev *maglev = calloc(1, sizeof(*maglev));
    struct turn *turns = calloc(balance->count, sizeof(*turns));
    balance->state = maglev;
    int error = -ENOMEM;
    if (!maglev || !turns) goto cleanup;
    error = table_init(&maglev->tiers[0], balance, false, turns);
    if (error == 0) error = table_init(&maglev->tiers[1], balance, true, turns);
cleanup:
    free(turns);
    if (error != 0 && maglev) maglev_fini(balance);
    if (error != 0) balance->state = NULL;
    return error;
}

static uint32_t maglev_pick(struct balance *balance, const struct balance_pick *pick) {
    const struct maglev *maglev = balance->state;
    const struct table *table = &maglev->tiers[pick->backups ? 1 : 0];
    if (!table->slots) return BALANCE_NONE;
    uint32_t slot = (uint32_t)(pick->hash % table->size);
    for (int i = 0; i < WALK_MAX; i++) {
        uint32_t index = table->slots[slot];
        if (balance_eligible(balance, pick, index)) return index;
        slot = slot_after(slot, 1, table->size);
    }
    return balance_draw_scan(balance, pick, BALANCE_NONE, hash_u64(pick->hash));
}

const struct balance_ops balance_maglev = {
    .name = "maglev",
    .uses_hash = true,
    .init = maglev_init,
    .fini = maglev_fini,
    .pick = maglev_pick,
};
