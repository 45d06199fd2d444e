#include "proxy/balance.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"

int balance_init(struct balance *balance, const struct balance_ops *ops,
                 struct balance_server *servers, const char *const *names, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        CHECK(servers[i].weight >= 1);
        servers[i].current = 0;
    }
    *balance = (struct balance){.ops = ops, .servers = servers, .count = count, .names = names};
    /* Workers start within the same microseconds: the address tells their balancers apart. */
    rand_seed(&balance->random, hash_u64(clock_now_ns()) ^ (uint64_t)(uintptr_t)balance);
    return ops->init ? ops->init(balance) : 0;
}

void balance_fini(struct balance *balance) {
    if (balance->ops->fini && balance->state) balance->ops->fini(balance);
    balance->state = NULL;
}

uint32_t balance_pick(struct balance *balance, struct balance_pick *pick) {
    pick->backups = false;
    uint32_t index = balance->ops->pick(balance, pick);
    if (index == BALANCE_NONE) {
        pick->backups = true;
        index = balance->ops->pick(balance, pick);
    }
    CHECK(index == BALANCE_NONE || index < balance->count);
    CHECK(index == BALANCE_NONE || balance_eligible(balance, pick, index));
    return index;
}

bool balance_mark_tried(struct balance_pick *pick, uint32_t index) {
    if (pick->tried_count == BALANCE_TRIED_MAX) return false;
    pick->tried[pick->tried_count++] = index;
    return true;
}
