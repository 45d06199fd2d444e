/* rand.h: a fast, seedable generator for load balancing (xoshiro256**). Not for secrets.
 *
 * One per worker. The same seed gives the same numbers on every machine, so tests and simulations
 * repeat. Not thread-safe.
 */
#ifndef WEIR_BASE_RAND_H
#define WEIR_BASE_RAND_H

#include <stdint.h>

struct rand_state {
    uint64_t word[4]; /* never all 0 */
};

/* Any seed will do, 0 too. */
void rand_seed(struct rand_state *state, uint64_t seed);
uint64_t rand_next(struct rand_state *state);
/* Uniform in [0, bound); CHECKs bound > 0. */
uint32_t rand_below(struct rand_state *state, uint32_t bound);

#endif
