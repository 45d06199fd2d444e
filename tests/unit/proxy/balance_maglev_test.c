#include "proxy/balance.h"

#include "base/hash.h"
#include "unit/proxy/balance_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#define KEYS 100000

static uint32_t before[KEYS];

static void keys_share_evenly(void **state) {
    (void)state;
    const uint32_t sizes[] = {2, 3, 10, 40, 41};
    for (uint32_t n = 0; n < 5; n++) {
        struct fixture *fixture = fixture_new(sizes[n]);
        fixture_start(fixture, &balance_maglev);
        uint32_t counts[41] = {0};
        fixture_pick_many(fixture, KEYS, counts);
        for (uint32_t i = 0; i < sizes[n]; i++) {
            assert_near(counts[i], (double)KEYS / sizes[n], 10);
        }
        fixture_free(fixture);
    }
}

static void keys_share_by_weight(void **state) {
    (void)state;
    const uint32_t weights[] = {100, 50, 1, 49};
    struct fixture *fixture = fixture_new_weighted(weights, 4);
    fixture_start(fixture, &balance_maglev);
    uint32_t counts[4] = {0};
    fixture_pick_many(fixture, KEYS, counts);
    for (uint32_t i = 0; i < 4; i++) {
        assert_near(counts[i], (double)KEYS * weights[i] / 200, weights[i] == 1 ? 20 : 3);
    }
    fixture_free(fixture);
}

static void every_one_of_1000_servers_has_its_share(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(1000);
    fixture_start(fixture, &balance_maglev);
    uint32_t counts[1000] = {0};
    for (uint64_t slot = 0; slot < 65537; slot++) {
        counts[fixture_pick(fixture, slot)]++;
    }
    for (uint32_t i = 0; i < 1000; i++) {
        assert_in_range(counts[i], 65, 66);
    }
    fixture_free(fixture);
}

static void keys_are_stable_across_workers(void **state) {
    (void)state;
    struct fixture *one = fixture_new(7);
    struct fixture *two = fixture_new(7);
    fixture_start(one, &balance_maglev);
    fixture_start(two, &balance_maglev);
    rand_seed(&two->balance.random, 7);
    for (uint64_t i = 0; i < 10000; i++) {
        assert_int_equal(fixture_pick(one, hash_u64(i)), fixture_pick(two, hash_u64(i)));
    }
    fixture_free(one);
    fixture_free(two);
}

static void only_keys_of_a_server_that_is_out_move_and_they_spread(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(10);
    fixture_start(fixture, &balance_maglev);
    fixture_pick_each(fixture, before, KEYS);
    fixture_lose_server_3(fixture, before, KEYS, 40);
    fixture->servers[3].available = true;
    for (uint32_t i = 0; i < KEYS; i++) {
        assert_int_equal(fixture_pick(fixture, hash_u64(i)), before[i]);
    }
    fixture_free(fixture);
}

static void few_keys_move_when_a_server_leaves_the_file(void **state) {
    (void)state;
    struct fixture *ten = fixture_new(10);
    fixture_start(ten, &balance_maglev);
    fixture_pick_each(ten, before, KEYS);
    struct fixture *nine = fixture_new(9);
    for (uint32_t i = 3; i < 9; i++) {
        memcpy(nine->texts[i], ten->texts[i + 1], sizeof(nine->texts[i]));
    }
    fixture_start(nine, &balance_maglev);
    uint32_t moved = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        uint32_t after = fixture_pick(nine, hash_u64(i));
        if (before[i] != 3 && strcmp(ten->names[before[i]], nine->names[after]) != 0) moved++;
    }
    assert_true(moved < KEYS / 20);
    fixture_free(ten);
    fixture_free(nine);
}

static void the_order_of_the_file_moves_few_keys(void **state) {
    (void)state;
    struct fixture *forward = fixture_new(10);
    fixture_start(forward, &balance_maglev);
    fixture_pick_each(forward, before, KEYS);
    struct fixture *backward = fixture_new(10);
    for (uint32_t i = 0; i < 10; i++) {
        memcpy(backward->texts[i], forward->texts[9 - i], sizeof(backward->texts[i]));
    }
    fixture_start(backward, &balance_maglev);
    uint32_t moved = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        if (9 - fixture_pick(backward, hash_u64(i)) != before[i]) moved++;
    }
    assert_true(moved < KEYS / 4);
    fixture_free(forward);
    fixture_free(backward);
}

static void two_servers_of_one_name_share(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(2);
    fixture->names[1] = fixture->names[0];
    fixture_start(fixture, &balance_maglev);
    uint32_t counts[2] = {0};
    fixture_pick_many(fixture, KEYS, counts);
    assert_near(counts[0], KEYS / 2.0, 5);
    fixture_free(fixture);
}

static void keys_share_evenly_while_most_servers_are_out(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(1000);
    fixture_start(fixture, &balance_maglev);
    for (uint32_t i = 5; i < 1000; i++) {
        fixture->servers[i].available = false;
    }
    uint32_t counts[1000] = {0};
    fixture_pick_many(fixture, 10000, counts);
    for (uint32_t i = 0; i < 5; i++) {
        assert_near(counts[i], 2000, 10);
    }
    fixture_free(fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        EVERY_POLICY(&balance_maglev),
        cmocka_unit_test(keys_share_evenly),
        cmocka_unit_test(keys_share_by_weight),
        cmocka_unit_test(every_one_of_1000_servers_has_its_share),
        cmocka_unit_test(keys_are_stable_across_workers),
        cmocka_unit_test(only_keys_of_a_server_that_is_out_move_and_they_spread),
        cmocka_unit_test(few_keys_move_when_a_server_leaves_the_file),
        cmocka_unit_test(the_order_of_the_file_moves_few_keys),
        cmocka_unit_test(two_servers_of_one_name_share),
        cmocka_unit_test(keys_share_evenly_while_most_servers_are_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
