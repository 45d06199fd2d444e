#include "base/hash.h"

#include <endian.h>

/* Odd, with bits in no pattern, so that multiplying is a bijection that mixes upward. */
#define PRIME_A 0x9e3779b97f4a7c15
#define PRIME_B 0xd6e8feb86659fd93

/* Shift-xor takes high bits down, multiplication takes low bits up. The constants are variant 13 of
 * D. Stafford's "Better Bit Mixing": each input bit flips each output bit with a chance near one
 * half. */
uint64_t hash_u64(uint64_t value) {
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
    value = (value ^ value >> 27) * 0x94d049bb133111eb;
    return value ^ value >> 31;
}

/* One step is a bijection of `state` for each word and of `word` for each state: inputs of one
 * length that differ in a single word never collide. */
static uint64_t absorb(uint64_t state, uint64_t word) {
    state = (state ^ word * PRIME_A) * PRIME_B;
    return state ^ state >> 32;
}

uint64_t hash_bytes(struct bytes b, uint64_t seed) {
    /* The length goes in first, so zero padding of the last word is no collision. */
    uint64_t state = absorb(hash_u64(seed + PRIME_A), b.len);
    uint64_t word;
    while (b.len >= sizeof word) {
        memcpy(&word, b.ptr, sizeof word);
        state = absorb(state, le64toh(word));
        b.ptr += sizeof word;
        b.len -= sizeof word;
    }
    if (b.len != 0) {
        word = 0;
        memcpy(&word, b.ptr, b.len);
        state = absorb(state, le64toh(word));
    }
    return hash_u64(state);
}
