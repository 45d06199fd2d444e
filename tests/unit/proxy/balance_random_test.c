#include "proxy/balance.h"

#include "unit/proxy/balance_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void shares_follow_weights(void **state) {
    (void)state;
    const uint32_t weights[] = {1, 2, 3, 4};
    struct fixture *fixture = fixture_new_weighted(weights, 4);
    fixture_start(fixture, &balance_random);
    uint32_t counts[4] = {0};
    fixture_pick_many(fixture, 100000, counts);
    for (uint32_t i = 0; i < 4; i++) {
        assert_near(counts[i], 10000.0 * weights[i], 4);
    }
    fixture_free(fixture);
}

static void the_rest_share_by_weight_while_the_heaviest_is_out(void **state) {
    (void)state;
    const uint32_t weights[] = {1, 2, 1000};
    struct fixture *fixture = fixture_new_weighted(weights, 3);
    fixture_start(fixture, &balance_random);
    fixture->servers[2].available = false;
    uint32_t counts[3] = {0};
    fixture_pick_many(fixture, 30000, counts);
    assert_near(counts[0], 10000, 4);
    assert_near(counts[1], 20000, 4);
    fixture_free(fixture);
}

static void two_balancers_draw_differently(void **state) {
    (void)state;
    struct fixture *one = fixture_new(1000);
    struct fixture *two = fixture_new(1000);
    balance_init(&one->balance, &balance_random, one->servers, one->names, 1000);
    balance_init(&two->balance, &balance_random, two->servers, two->names, 1000);
    uint32_t same = 0;
    for (uint32_t i = 0; i < 100; i++) {
        if (fixture_pick(one, 0) == fixture_pick(two, 0)) same++;
    }
    assert_true(same < 20);
    fixture_free(one);
    fixture_free(two);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        EVERY_POLICY(&balance_random),
        cmocka_unit_test(shares_follow_weights),
        cmocka_unit_test(the_rest_share_by_weight_while_the_heaviest_is_out),
        cmocka_unit_test(two_balancers_draw_differently),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
