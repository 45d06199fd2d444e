#include "proxy/balance_draw.h"

/* The client's address (proxy/hash_key gives its hash) modulo the weights. A server that comes or
 * goes in the file moves most clients; one that is only out moves its own: maglev is the policy for
 * files that change. */
static uint32_t source_ip_pick(struct balance *balance, const struct balance_pick *pick) {
    return balance_draw_hashed(balance, pick);
}

const struct balance_ops balance_source_ip = {
    .name = "source_ip",
    .uses_hash = true,
    .init = balance_draw_init,
    .fini = balance_draw_fini,
    .pick = source_ip_pick,
};
