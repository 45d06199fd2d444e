#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit/base/death.h"

static struct rand_state random_state;

/* From the recurrence worked by hand for the state 1 2 3 4: 2 * 5 = 10, 10 << 7 = 1280, * 9 =
 * 11520; then word 1 becomes 2 ^ (3 ^ 1) = 0. */
static void the_first_numbers_follow_the_recurrence(void **state) {
    (void)state;
    struct rand_state known = {{1, 2, 3, 4}};
    assert_true(rand_next(&known) == 11520);
    assert_true(rand_next(&known) == 0);
}

static void one_seed_one_sequence(void **state) {
    (void)state;
    struct rand_state a;
    struct rand_state b;
    struct rand_state c;
    rand_seed(&a, 42);
    rand_seed(&b, 42);
    rand_seed(&c, 43);
    int equal = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t value = rand_next(&a);
        assert_true(value == rand_next(&b));
        equal += value == rand_next(&c);
    }
    assert_int_equal(equal, 0);
}

static void any_seed_gives_a_live_state(void **state) {
    (void)state;
    const uint64_t seeds[] = {0, 1, UINT64_MAX, -(uint64_t)0x9e3779b97f4a7c15};
    for (int i = 0; i < 4; i++) {
        rand_seed(&random_state, seeds[i]);
        uint64_t bits = 0;
        for (int n = 0; n < 64; n++)
            bits |= rand_next(&random_state);
        assert_true(bits == UINT64_MAX);
    }
}

static void below_is_in_range_and_even(void **state) {
    (void)state;
    rand_seed(&random_state, 3);
    enum { BOUND = 7, DRAWS = 70000 };
    int seen[BOUND] = {0};
    for (int i = 0; i < DRAWS; i++) {
        uint32_t value = rand_below(&random_state, BOUND);
        assert_true(value < BOUND);
        seen[value]++;
    }
    /* 10,000 each; six standard deviations are 556. */
    for (int i = 0; i < BOUND; i++)
        assert_in_range(seen[i], DRAWS / BOUND - 556, DRAWS / BOUND + 556);
}

/* With a bound of 3 * 2^30 a plain modulo or product would give the values of one third twice. */
static void a_large_bound_has_no_bias(void **state) {
    (void)state;
    rand_seed(&random_state, 4);
    const uint32_t third = (uint32_t)1 << 30;
    int seen[3] = {0};
    int residues[3] = {0};
    for (int i = 0; i < 30000; i++) {
        uint32_t value = rand_below(&random_state, 3 * third);
        assert_true(value < 3 * third);
        seen[value / third]++;
        residues[value % 3]++;
    }
    for (int i = 0; i < 3; i++) {
        assert_in_range(seen[i], 9500, 10500);
        assert_in_range(residues[i], 9500, 10500);
    }
}

static void bounds_at_the_edges(void **state) {
    (void)state;
    rand_seed(&random_state, 5);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(rand_below(&random_state, 1), 0);
        assert_true(rand_below(&random_state, UINT32_MAX) < UINT32_MAX);
    }
}

static void draw_below_zero(void) { (void)rand_below(&random_state, 0); }

static void a_bound_of_zero_is_caught(void **state) {
    (void)state;
    assert_true(death_by_abort(draw_below_zero, NULL, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_numbers_follow_the_recurrence),
        cmocka_unit_test(one_seed_one_sequence),
        cmocka_unit_test(any_seed_gives_a_live_state),
        cmocka_unit_test(below_is_in_range_and_even),
        cmocka_unit_test(a_large_bound_has_no_bias),
        cmocka_unit_test(bounds_at_the_edges),
        cmocka_unit_test(a_bound_of_zero_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
