#include "proxy/balance.h"

/* File order: a server gets requests only while those before it are full or out. */
static uint32_t first_pick(struct balance *balance, const struct balance_pick *pick) {
    for (uint32_t i = 0; i < balance->count; i++) {
        if (balance_eligible(balance, pick, i)) return i;
    }
    return BALANCE_NONE;
}

const struct balance_ops balance_first = {.name = "first", .pick = first_pick};
