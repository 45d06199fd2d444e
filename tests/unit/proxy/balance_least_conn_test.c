#include "proxy/balance.h"

#include "unit/proxy/balance_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void the_least_loaded_wins(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(3);
    fixture_start(fixture, &balance_least_conn);
    fixture->servers[0].in_flight = 3;
    fixture->servers[1].in_flight = 1;
    fixture->servers[2].in_flight = 2;
    assert_int_equal(fixture_pick(fixture, 0), 1);
    assert_int_equal(fixture_pick(fixture, 0), 1);
    fixture_free(fixture);
}

static void load_is_per_weight(void **state) {
    (void)state;
    const uint32_t weights[] = {10, 1};
    struct fixture *fixture = fixture_new_weighted(weights, 2);
    fixture_start(fixture, &balance_least_conn);
    fixture->servers[0].in_flight = 9;
    fixture->servers[1].in_flight = 1;
    assert_int_equal(fixture_pick(fixture, 0), 0);
    fixture->servers[0].in_flight = 11;
    assert_int_equal(fixture_pick(fixture, 0), 1);
    fixture_free(fixture);
}

static void ties_go_round(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(4);
    fixture_start(fixture, &balance_least_conn);
    fixture->servers[1].in_flight = 5;
    const uint32_t expected[] = {0, 2, 3, 0, 2, 3};
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(fixture_pick(fixture, 0), expected[i]);
    }
    for (uint32_t i = 0; i < 4; i++) {
        fixture->servers[i].in_flight = 5;
    }
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(fixture_pick(fixture, 0), i % 4);
    }
    fixture_free(fixture);
}

static void requests_that_stay_spread_by_weight(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(1000);
    for (uint32_t i = 0; i < 1000; i++) {
        fixture->servers[i].weight = 1 + i % 2;
    }
    fixture_start(fixture, &balance_least_conn);
    for (uint32_t i = 0; i < 15000; i++) {
        fixture->servers[fixture_pick(fixture, 0)].in_flight++;
    }
    for (uint32_t i = 0; i < 1000; i++) {
        assert_in_range(fixture->servers[i].in_flight, i % 2 == 0 ? 9 : 19, i % 2 == 0 ? 11 : 21);
    }
    fixture_free(fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        EVERY_POLICY(&balance_least_conn),
        cmocka_unit_test(the_least_loaded_wins),
        cmocka_unit_test(load_is_per_weight),
        cmocka_unit_test(ties_go_round),
        cmocka_unit_test(requests_that_stay_spread_by_weight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
