#include "proxy/balance_draw.h"

/* The better of two random choices: nearly as even as least_conn, without looking at every server,
 * and workers that do not know of each other's requests do not all run to the same one. */
static uint32_t p2c_pick(struct balance *balance, const struct balance_pick *pick) {
    uint32_t first = balance_draw(balance, pick, BALANCE_NONE);
    if (first == BALANCE_NONE) return BALANCE_NONE;
    uint32_t second = balance_draw(balance, pick, first);
    if (second == BALANCE_NONE) return first;
    const struct balance_server *a = &balance->servers[first];
    const struct balance_server *b = &balance->servers[second];
    /* Equals: the first, which has been drawn by weight alone. */
    bool second_wins = (uint64_t)b->in_flight * a->weight < (uint64_t)a->in_flight * b->weight;
    return second_wins ? second : first;
}

const struct balance_ops balance_p2c = {
    .name = "p2c",
    .init = balance_draw_init,
    .fini = balance_draw_fini,
    .pick = p2c_pick,
};
