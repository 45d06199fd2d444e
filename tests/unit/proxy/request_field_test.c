#include "proxy/request_field.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void names_have_no_case_and_the_first_wins(void **state) {
    (void)state;
    struct http_field items[] = {
        {.name = BYTES("X-One"), .value = BYTES("1")},
        {.name = BYTES("x-one"), .value = BYTES("2")},
        {.name = BYTES("X-Empty"), .value = BYTES_NONE},
    };
    struct http_message request = {.fields = {.items = items, .count = 3}};
    assert_true(bytes_equal(request_field(&request, BYTES("X-ONE")), BYTES("1")));
    assert_non_null(request_field(&request, BYTES("x-empty")).ptr);
    assert_null(request_field(&request, BYTES("x-on")).ptr);
}

static void host_is_the_authority(void **state) {
    (void)state;
    struct http_message request = {.authority = BYTES("Example.com:80")};
    assert_true(bytes_equal(request_field(&request, BYTES("HOST")), BYTES("Example.com:80")));
    request.authority = BYTES("");
    assert_null(request_field(&request, BYTES("Host")).ptr);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_have_no_case_and_the_first_wins),
        cmocka_unit_test(host_is_the_authority),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
