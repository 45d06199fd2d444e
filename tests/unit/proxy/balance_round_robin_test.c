#include "proxy/balance.h"

#include "unit/proxy/balance_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_sequence(struct fixture *fixture, const char *expected) {
    for (const char *c = expected; *c; c++) {
        assert_int_equal('a' + (int)fixture_pick(fixture, 0), *c);
    }
}

static void weights_5_1_1_give_a_smooth_sequence(void **state) {
    (void)state;
    const uint32_t weights[] = {5, 1, 1};
    struct fixture *fixture = fixture_new_weighted(weights, 3);
    fixture_start(fixture, &balance_round_robin);
    assert_sequence(fixture, "aabacaaaabacaa");
    fixture_free(fixture);
}

static void equal_weights_rotate_in_file_order(void **state) {
    (void)state;
    const uint32_t weights[] = {7, 7, 7};
    struct fixture *fixture = fixture_new_weighted(weights, 3);
    fixture_start(fixture, &balance_round_robin);
    assert_sequence(fixture, "abcabca");
    fixture->servers[1].available = false;
    assert_sequence(fixture, "cacac");
    fixture->servers[1].available = true;
    assert_sequence(fixture, "abcab");
    fixture_free(fixture);
}

static void backups_rotate_by_weights_of_their_own(void **state) {
    (void)state;
    const uint32_t weights[] = {1, 1, 2, 1};
    struct fixture *fixture = fixture_new_weighted(weights, 4);
    fixture->servers[2].backup = fixture->servers[3].backup = true;
    fixture_start(fixture, &balance_round_robin);
    assert_sequence(fixture, "abab");
    fixture->servers[0].available = fixture->servers[1].available = false;
    assert_sequence(fixture, "cdccdc");
    fixture_free(fixture);
}

static void a_server_that_comes_back_gets_no_burst(void **state) {
    (void)state;
    const uint32_t weights[] = {2, 1, 1};
    struct fixture *fixture = fixture_new_weighted(weights, 3);
    fixture_start(fixture, &balance_round_robin);
    fixture->servers[0].available = false;
    uint32_t counts[3] = {0};
    fixture_pick_many(fixture, 1000, counts);
    assert_int_equal(counts[1], 500);
    fixture->servers[0].available = true;
    uint32_t after[3] = {0};
    fixture_pick_many(fixture, 8, after);
    assert_in_range(after[0], 3, 5);
    fixture_free(fixture);
}

static void shares_of_1000_servers_are_exact(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(1000);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        fixture->servers[i].weight = 1 + i % 4;
        sum += fixture->servers[i].weight;
    }
    fixture_start(fixture, &balance_round_robin);
    uint32_t counts[1000] = {0};
    fixture_pick_many(fixture, sum, counts);
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(counts[i], fixture->servers[i].weight);
    }
    fixture_free(fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        EVERY_POLICY(&balance_round_robin),
        cmocka_unit_test(weights_5_1_1_give_a_smooth_sequence),
        cmocka_unit_test(equal_weights_rotate_in_file_order),
        cmocka_unit_test(backups_rotate_by_weights_of_their_own),
        cmocka_unit_test(a_server_that_comes_back_gets_no_burst),
        cmocka_unit_test(shares_of_1000_servers_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
