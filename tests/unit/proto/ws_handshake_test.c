#include "proto/ws_handshake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void the_example_of_the_rfc_is_accepted(void **state) {
    (void)state;
    char accept[WS_ACCEPT_SIZE];
    ws_accept_of("dGhlIHNhbXBsZSBub25jZQ==", accept);
    assert_memory_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", WS_ACCEPT_SIZE);
}

static void keys_are_valid_and_differ(void **state) {
    (void)state;
    char one[WS_KEY_SIZE], other[WS_KEY_SIZE];
    assert_true(ws_key_make(one));
    assert_true(ws_key_make(other));
    assert_true(ws_key_valid(bytes_make(one, sizeof one)));
    assert_memory_not_equal(one, other, WS_KEY_SIZE);
}

static void bad_keys_are_known(void **state) {
    (void)state;
    assert_true(ws_key_valid(BYTES("dGhlIHNhbXBsZSBub25jZQ==")));
    assert_false(ws_key_valid(BYTES_NONE));
    assert_false(ws_key_valid(BYTES("dGhlIHNhbXBsZSBub25jZQ=")));
    assert_false(ws_key_valid(BYTES("dGhlIHNhbXBsZSBub25jZQ===")));
    assert_false(ws_key_valid(BYTES("dGhlIHNhbXBsZSBub25jZQAA")));
    assert_false(ws_key_valid(BYTES("dGhlIHNhbXBsZS\"ub25jZQ==")));
    assert_false(ws_key_valid(BYTES("dGhlIHNhbXBsZSBub25jZ===")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_of_the_rfc_is_accepted),
        cmocka_unit_test(keys_are_valid_and_differ),
        cmocka_unit_test(bad_keys_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
