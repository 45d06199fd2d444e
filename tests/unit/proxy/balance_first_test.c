#include "proxy/balance.h"

#include "unit/proxy/balance_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void the_first_in_file_order_takes_all(void **state) {
    (void)state;
    struct fixture *fixture = fixture_new(3);
    fixture_start(fixture, &balance_first);
    fixture->servers[0].in_flight = 1000;
    assert_int_equal(fixture_pick(fixture, 0), 0);
    assert_int_equal(fixture_pick(fixture, 0), 0);
    fixture->servers[0].available = false;
    assert_int_equal(fixture_pick(fixture, 0), 1);
    fixture->servers[0].available = true;
    assert_int_equal(fixture_pick(fixture, 0), 0);
    fixture_free(fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        EVERY_POLICY(&balance_first),
        cmocka_unit_test(the_first_in_file_order_takes_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
