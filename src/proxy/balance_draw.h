/* balance_draw.h: a server by weight, for the policies that draw (random, p2c) or hash (source_ip,
 * maglev).
 *
 * A number in [0, sum of weights) names a server; a table of running sums finds it in O(log n). A
 * server that is not eligible is answered with another number. That gives each eligible server its
 * share of the rest, and a key moves only when its own server is out. After DRAWS_MAX misses most
 * servers are out, and one pass over all of them decides. Of the balance_*.c files only.
 */
#ifndef WEIR_PROXY_BALANCE_DRAW_H
#define WEIR_PROXY_BALANCE_DRAW_H

#include "proxy/balance.h"

/* init and fini of struct balance_ops: balance->state is the table. */
int balance_draw_init(struct balance *balance);
void balance_draw_fini(struct balance *balance);
/* At random, but never `except` (BALANCE_NONE: any). BALANCE_NONE when there is none. */
uint32_t balance_draw(struct balance *balance, const struct balance_pick *pick, uint32_t except);
/* By pick->hash: the same server for the same hash and the same eligible servers, in every worker.
 */
uint32_t balance_draw_hashed(const struct balance *balance, const struct balance_pick *pick);
/* One pass, without the table: `number` modulo the weights of the eligible servers but `except`. */
uint32_t balance_draw_scan(const struct balance *balance, const struct balance_pick *pick,
                           uint32_t except, uint64_t number);

#endif
