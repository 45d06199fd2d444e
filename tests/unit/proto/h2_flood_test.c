#include "proto/h2_flood.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void one_more_than_the_limit_is_too_many(void **state) {
    (void)state;
    struct h2_flood_limits limits = {.max = {[H2_FLOOD_PING] = 3}};
    struct h2_flood flood = {0};
    for (int i = 0; i < 3; i++)
        assert_false(h2_flood_note(&flood, &limits, H2_FLOOD_PING, 100));
    for (int i = 0; i < 100; i++)
        assert_false(h2_flood_note(&flood, &limits, H2_FLOOD_SETTINGS, 100)); /* no limit */
    assert_true(h2_flood_note(&flood, &limits, H2_FLOOD_PING, 100));
}

static void each_window_begins_anew(void **state) {
    (void)state;
    struct h2_flood_limits limits = {.max = {[H2_FLOOD_PING] = 3}};
    struct h2_flood flood = {.window_ms = 1000};
    for (int i = 0; i < 3; i++)
        assert_false(h2_flood_note(&flood, &limits, H2_FLOOD_PING, 1000 + H2_FLOOD_WINDOW_MS - 1));
    assert_false(h2_flood_note(&flood, &limits, H2_FLOOD_PING, 1000 + H2_FLOOD_WINDOW_MS));
    assert_int_equal(flood.count[H2_FLOOD_PING], 1);
}

static void what_was_asked_for_is_free(void **state) {
    (void)state;
    struct h2_flood_limits limits = {.max = {[H2_FLOOD_WINDOW_UPDATE] = 2}};
    struct h2_flood flood = {0};
    for (int i = 0; i < 20; i++) {
        assert_false(h2_flood_note(&flood, &limits, H2_FLOOD_WINDOW_UPDATE, 1));
        h2_flood_allow(&flood, H2_FLOOD_WINDOW_UPDATE, 4);
    }
    assert_int_equal(flood.count[H2_FLOOD_WINDOW_UPDATE], 0);
}

static void what_is_free_may_come_later(void **state) {
    (void)state;
    struct h2_flood_limits limits = {.max = {[H2_FLOOD_WINDOW_UPDATE] = 2}};
    struct h2_flood flood = {0};
    uint64_t now_ms = 1;
    assert_false(h2_flood_note(&flood, &limits, H2_FLOOD_WINDOW_UPDATE, now_ms));
    h2_flood_save(&flood, H2_FLOOD_WINDOW_UPDATE, 4); /* one for what has come, three to come */
    now_ms += H2_FLOOD_WINDOW_MS;
    for (int i = 0; i < 3 + 2; i++)
        assert_false(h2_flood_note(&flood, &limits, H2_FLOOD_WINDOW_UPDATE, now_ms));
    assert_true(h2_flood_note(&flood, &limits, H2_FLOOD_WINDOW_UPDATE, now_ms));
}

static void no_more_is_saved_than_its_limit(void **state) {
    (void)state;
    struct h2_flood flood = {0};
    for (int i = 0; i < 3; i++)
        h2_flood_save(&flood, H2_FLOOD_WINDOW_UPDATE, H2_FLOOD_SAVED_MAX / 2 + 1);
    assert_int_equal(flood.saved[H2_FLOOD_WINDOW_UPDATE], H2_FLOOD_SAVED_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_more_than_the_limit_is_too_many),
        cmocka_unit_test(each_window_begins_anew),
        cmocka_unit_test(what_was_asked_for_is_free),
        cmocka_unit_test(what_is_free_may_come_later),
        cmocka_unit_test(no_more_is_saved_than_its_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
