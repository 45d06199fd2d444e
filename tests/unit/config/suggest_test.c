#include "config/suggest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static size_t distance(const char *a, const char *b) {
    return suggest_distance(bytes_of(a), bytes_of(b));
}

static void a_slip_of_one_kind_is_one_apart(void **state) {
    (void)state;
    assert_int_equal(distance("bind", "bind"), 0);
    assert_int_equal(distance("bind", "bnd"), 1);
    assert_int_equal(distance("bind", "biind"), 1);
    assert_int_equal(distance("bind", "bond"), 1);
    assert_int_equal(distance("bind", "bnid"), 1);
    assert_int_equal(distance("", "abc"), 3);
    assert_int_equal(distance("abc", ""), 3);
    assert_int_equal(distance("kitten", "sitting"), 3);
}

static void very_long_words_are_far_from_all(void **state) {
    (void)state;
    char word[100];
    memset(word, 'a', sizeof word);
    assert_int_equal(suggest_distance(bytes_make(word, 64), bytes_make(word, 64)), 0);
    assert_true(suggest_distance(bytes_make(word, 65), bytes_make(word, 65)) == SIZE_MAX);
}

static void assert_best(const char *word, const char *expected) {
    struct suggest suggest;
    suggest_init(&suggest, bytes_of(word));
    const char *candidates[] = {"first", "round_robin", "random", "p2c", "a"};
    for (size_t i = 0; i < sizeof candidates / sizeof candidates[0]; i++) {
        suggest_offer(&suggest, bytes_of(candidates[i]));
    }
    assert_true(bytes_equal(suggest.best, bytes_of(expected)));
}

static void the_nearest_wins_if_it_is_near(void **state) {
    (void)state;
    assert_best("roundrobin", "round_robin");
    assert_best("ramdon", "random");
    assert_best("fisrt", "first");
    assert_best("p2d", "p2c");
    assert_best("nonsense", NULL);
    assert_best("x", NULL);
    assert_best("", NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slip_of_one_kind_is_one_apart),
        cmocka_unit_test(very_long_words_are_far_from_all),
        cmocka_unit_test(the_nearest_wins_if_it_is_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
