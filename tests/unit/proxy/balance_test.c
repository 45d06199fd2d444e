#include "proxy/balance.h"

#include "unit/proxy/balance_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A policy that answers as told, and shows what it was asked. */
static uint32_t asked;
static uint32_t scripted_pick(struct balance *balance, const struct balance_pick *pick) {
    asked++;
    for (uint32_t i = balance->count; i > 0; i--) {
        if (balance_eligible(balance, pick, i - 1)) return i - 1;
    }
    return BALANCE_NONE;
}
static const struct balance_ops scripted = {.name = "scripted", .pick = scripted_pick};

static void backups_are_not_asked_while_a_server_answers(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(2);
    fixture->servers[1].backup = true;
    fixture_start(fixture, &scripted);
    asked = 0;
    assert_int_equal(fixture_pick(fixture, 0), 0);
    assert_int_equal(asked, 1);
    fixture->servers[0].available = false;
    assert_int_equal(fixture_pick(fixture, 0), 1);
    assert_int_equal(asked, 3);
    fixture_free(fixture);
}

static void a_pick_can_be_asked_again_after_backups(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(2);
    fixture->servers[1].backup = true;
    fixture_start(fixture, &scripted);
    fixture->servers[0].available = false;
    struct balance_pick pick = {0};
    assert_int_equal(balance_pick(&fixture->balance, &pick), 1);
    fixture->servers[0].available = true;
    assert_int_equal(balance_pick(&fixture->balance, &pick), 0);
    fixture_free(fixture);
}

static void tried_servers_have_a_limit(void **state) {
    (void)state;
    struct balance_pick pick = {0};
    for (uint32_t i = 0; i < BALANCE_TRIED_MAX; i++) {
        assert_true(balance_mark_tried(&pick, i));
    }
    assert_false(balance_mark_tried(&pick, 99));
    assert_int_equal(pick.tried_count, BALANCE_TRIED_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backups_are_not_asked_while_a_server_answers),
        cmocka_unit_test(a_pick_can_be_asked_again_after_backups),
        cmocka_unit_test(tried_servers_have_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
