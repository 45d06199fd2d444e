#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

/* Other values here would move every client of maglev and source_ip to another server. */
static void results_are_pinned(void **state) {
    (void)state;
    assert_true(hash_bytes(BYTES(""), 0) == 0x76dd27bcefd6910b);
    assert_true(hash_bytes(BYTES("a"), 0) == 0x183a15782cc2735e);
    assert_true(hash_bytes(BYTES("10.0.0.1:8080"), 1) == 0xe37c6e9067e18a64);
    assert_true(hash_u64(1) == 0x5692161d100b05e5);
}

static void length_seed_and_place_count(void **state) {
    (void)state;
    assert_true(hash_bytes(BYTES_NONE, 5) == hash_bytes(BYTES(""), 5));
    assert_true(hash_bytes(BYTES("a"), 0) != hash_bytes(BYTES("a\0"), 0));
    assert_true(hash_bytes(BYTES("12345678"), 0) != hash_bytes(BYTES("12345678\0"), 0));
    assert_true(hash_bytes(BYTES("a"), 0) != hash_bytes(BYTES("a"), 1));
    assert_true(hash_bytes(BYTES("1234567812345679"), 0) !=
                hash_bytes(BYTES("1234567912345678"), 0));
}

static void the_place_in_memory_does_not_count(void **state) {
    (void)state;
    for (size_t len = 0; len < 40; len++) {
        uint64_t expected = 0;
        for (size_t shift = 0; shift < 8; shift++) {
            /* An allocation that ends with the bytes: AddressSanitizer sees a read behind them. */
            char *memory = malloc(shift + len + 1);
            assert_non_null(memory);
            for (size_t i = 0; i < len; i++)
                memory[shift + 1 + i] = (char)(i * 7);
            uint64_t value = hash_bytes(bytes_make(memory + shift + 1, len), 9);
            if (shift == 0) expected = value;
            assert_true(value == expected);
            free(memory);
        }
    }
}

/* Flips each input bit of many inputs: each output bit should flip about half of the time. */
static void every_input_bit_reaches_every_output_bit(void **state) {
    (void)state;
    enum { ROUNDS = 2000, LEN = 13 };
    for (unsigned bit = 0; bit < LEN * 8; bit++) {
        int flips[64] = {0};
        for (uint64_t round = 0; round < ROUNDS; round++) {
            unsigned char text[LEN] = {0};
            memcpy(text, &round, sizeof round);
            uint64_t before = hash_bytes(bytes_make((char *)text, LEN), 0);
            text[bit / 8] ^= (unsigned char)(1 << bit % 8);
            uint64_t changed = before ^ hash_bytes(bytes_make((char *)text, LEN), 0);
            for (unsigned out = 0; out < 64; out++)
                flips[out] += (int)(changed >> out & 1);
        }
        /* 1000 with a standard deviation of 22; there are 6,656 samples. */
        for (unsigned out = 0; out < 64; out++)
            assert_in_range(flips[out], 860, 1140);
    }
}

static void similar_keys_spread_evenly(void **state) {
    (void)state;
    enum { KEYS = 65536, BUCKETS = 64 };
    int low[BUCKETS] = {0};
    int high[BUCKETS] = {0};
    for (int i = 0; i < KEYS; i++) {
        char text[32];
        int len = snprintf(text, sizeof text, "10.0.%d.%d", i / 256, i % 256);
        uint64_t value = hash_bytes(bytes_make(text, (size_t)len), 0);
        low[value % BUCKETS]++;
        high[value >> 58]++;
    }
    /* 1024 with a standard deviation of 32. */
    for (int i = 0; i < BUCKETS; i++) {
        assert_in_range(low[i], 1024 - 160, 1024 + 160);
        assert_in_range(high[i], 1024 - 160, 1024 + 160);
    }
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void a_million_short_keys_do_not_collide(void **state) {
    (void)state;
    enum { KEYS = 1000000 };
    uint64_t *values = malloc(KEYS * sizeof *values);
    assert_non_null(values);
    for (uint32_t i = 0; i < KEYS; i++)
        values[i] = hash_bytes(bytes_make((const char *)&i, sizeof i), 0);
    qsort(values, KEYS, sizeof *values, compare);
    for (int i = 1; i < KEYS; i++)
        assert_true(values[i - 1] != values[i]);
    free(values);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_pinned),
        cmocka_unit_test(length_seed_and_place_count),
        cmocka_unit_test(the_place_in_memory_does_not_count),
        cmocka_unit_test(every_input_bit_reaches_every_output_bit),
        cmocka_unit_test(similar_keys_spread_evenly),
        cmocka_unit_test(a_million_short_keys_do_not_collide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
