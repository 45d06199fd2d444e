#include "proxy/balance.h"

#include "base/hash.h"
#include "unit/proxy/balance_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define KEYS 20000

static void one_address_stays_with_one_server(void **state) {
    (void)state;
    struct fixture *one = fixture_new(10);
    struct fixture *two = fixture_new(10);
    fixture_start(one, &balance_source_ip);
    fixture_start(two, &balance_source_ip);
    rand_seed(&two->balance.random, 7);
    for (uint64_t i = 0; i < 1000; i++) {
        uint32_t index = fixture_pick(one, hash_u64(i));
        assert_int_equal(fixture_pick(one, hash_u64(i)), index);
        assert_int_equal(fixture_pick(two, hash_u64(i)), index);
    }
    fixture_free(one);
    fixture_free(two);
}

static void addresses_share_by_weight(void **state) {
    (void)state;
    const uint32_t weights[] = {1, 2, 3, 4};
    struct fixture *fixture = fixture_new_weighted(weights, 4);
    fixture_start(fixture, &balance_source_ip);
    uint32_t counts[4] = {0};
    fixture_pick_many(fixture, 100000, counts);
    for (uint32_t i = 0; i < 4; i++) {
        assert_near(counts[i], 10000.0 * weights[i], 4);
    }
    fixture_free(fixture);
}

static void only_the_addresses_of_a_server_that_is_out_move(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(10);
    fixture_start(fixture, &balance_source_ip);
    static uint32_t before[KEYS];
    fixture_pick_each(fixture, before, KEYS);
    fixture_lose_server_3(fixture, before, KEYS, 25);
    fixture_free(fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        EVERY_POLICY(&balance_source_ip),
        cmocka_unit_test(one_address_stays_with_one_server),
        cmocka_unit_test(addresses_share_by_weight),
        cmocka_unit_test(only_the_addresses_of_a_server_that_is_out_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
