#include "base/rand.h"

#include "base/check.h"
#include "base/hash.h"

static uint64_t rotate_left(uint64_t value, unsigned bits) {
    return value << bits | value >> (64 - bits);
}

void rand_seed(struct rand_state *state, uint64_t seed) {
    /* hash_u64 is a bijection and the four inputs differ, so at most one word is 0. */
    for (unsigned i = 0; i < 4; i++) {
        seed += 0x9e3779b97f4a7c15;
        state->word[i] = hash_u64(seed);
    }
}

/* xoshiro256** 1.0 by Blackman and Vigna: "Scrambled Linear Pseudorandom Number Generators",
 * section 4. */
uint64_t rand_next(struct rand_state *state) {
    uint64_t *s = state->word;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate_left(s[3], 45);
    return result;
}

/* The high half of a 32 x 32 bit product is in [0, bound). Some values would come up once more than
 * others; the products whose low half is under 2^32 mod bound are those extra ones, and are drawn
 * again. */
uint32_t rand_below(struct rand_state *state, uint32_t bound) {
    CHECK(bound > 0);
    uint32_t extra = -bound % bound;
    uint64_t product;
    do {
        product = (rand_next(state) >> 32) * bound;
    } while ((uint32_t)product < extra);
    return (uint32_t)(product >> 32);
}
