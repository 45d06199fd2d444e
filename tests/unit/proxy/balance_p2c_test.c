#include "proxy/balance.h"

#include "unit/proxy/balance_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void of_two_servers_the_less_loaded_wins(void **state) {
    (void)state;
    const uint32_t weights[] = {100, 1};
    struct fixture *fixture = fixture_new_weighted(weights, 2);
    fixture_start(fixture, &balance_p2c);
    fixture->servers[0].in_flight = 101;
    fixture->servers[1].in_flight = 1;
    for (uint32_t i = 0; i < 200; i++) {
        assert_int_equal(fixture_pick(fixture, 0), 1);
    }
    fixture->servers[0].in_flight = 99;
    for (uint32_t i = 0; i < 200; i++) {
        assert_int_equal(fixture_pick(fixture, 0), 0);
    }
    fixture_free(fixture);
}

static void the_most_loaded_of_many_is_never_taken(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(10);
    fixture_start(fixture, &balance_p2c);
    fixture->servers[6].in_flight = 1;
    uint32_t counts[10] = {0};
    fixture_pick_many(fixture, 2000, counts);
    assert_int_equal(counts[6], 0);
    fixture_free(fixture);
}

static void idle_servers_share_by_weight(void **state) {
    (void)state;
    const uint32_t weights[] = {6, 3, 1};
    struct fixture *fixture = fixture_new_weighted(weights, 3);
    fixture_start(fixture, &balance_p2c);
    uint32_t counts[3] = {0};
    fixture_pick_many(fixture, 100000, counts);
    for (uint32_t i = 0; i < 3; i++) {
        assert_near(counts[i], 10000.0 * weights[i], 4);
    }
    fixture_free(fixture);
}

static void requests_that_stay_spread_evenly_over_1000_servers(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(1000);
    fixture_start(fixture, &balance_p2c);
    for (uint32_t i = 0; i < 20000; i++) {
        fixture->servers[fixture_pick(fixture, 0)].in_flight++;
    }
    for (uint32_t i = 0; i < 1000; i++) {
        assert_in_range(fixture->servers[i].in_flight, 14, 24);
    }
    fixture_free(fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        EVERY_POLICY(&balance_p2c),
        cmocka_unit_test(of_two_servers_the_less_loaded_wins),
        cmocka_unit_test(the_most_loaded_of_many_is_never_taken),
        cmocka_unit_test(idle_servers_share_by_weight),
        cmocka_unit_test(requests_that_stay_spread_evenly_over_1000_servers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
