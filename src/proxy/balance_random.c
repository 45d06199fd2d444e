#include "proxy/balance_draw.h"

static uint32_t random_pick(struct balance *balance, const struct balance_pick *pick) {
    return balance_draw(balance, pick, BALANCE_NONE);
}

const struct balance_ops balance_random = {
    .name = "random",
    .init = balance_draw_init,
    .fini = balance_draw_fini,
    .pick = random_pick,
};
