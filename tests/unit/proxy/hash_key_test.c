#include "proxy/hash_key.h"

#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct bytes address = {"192.0.2.7", 9};

static uint64_t hash_of(struct bytes text) { return hash_bytes(text, 0); }

/* The hash for a request with path /a and up to two fields. */
static uint64_t hash_with(const struct config_upstream *upstream, struct bytes name,
                          struct bytes first, struct bytes second) {
    struct http_field items[] = {
        {.name = BYTES("Accept"), .value = BYTES("u=wrong"), .id = HTTP_FIELD_OTHER},
        {.name = name, .value = first, .id = http_field_id_of(name)},
        {.name = name, .value = second, .id = http_field_id_of(name)},
    };
    struct http_message request = {
        .path = BYTES("/a"),
        .authority = BYTES("h:80"),
        .fields = {.items = items,
                   .count = second.ptr  ? 3
                            : first.ptr ? 2
                                        : 1},
    };
    return hash_key(upstream, &request, address);
}

static const struct config_upstream by_ip = {.balance = CONFIG_BALANCE_MAGLEV,
                                             .hash_key = CONFIG_HASH_CLIENT_IP};
static const struct config_upstream by_path = {.balance = CONFIG_BALANCE_MAGLEV,
                                               .hash_key = CONFIG_HASH_PATH};
static const struct config_upstream by_header = {.balance = CONFIG_BALANCE_MAGLEV,
                                                 .hash_key = CONFIG_HASH_HEADER,
                                                 .hash_name = (char[]){"X-User"}};
static const struct config_upstream by_cookie = {
    .balance = CONFIG_BALANCE_MAGLEV, .hash_key = CONFIG_HASH_COOKIE, .hash_name = (char[]){"u"}};

static uint64_t hash_of_cookie(struct bytes value) {
    return hash_with(&by_cookie, BYTES("Cookie"), value, BYTES_NONE);
}

static void the_address_or_the_path_is_the_key(void **state) {
    (void)state;
    assert_int_equal(hash_with(&by_ip, BYTES("X"), BYTES_NONE, BYTES_NONE), hash_of(address));
    assert_int_equal(hash_with(&by_path, BYTES("X"), BYTES_NONE, BYTES_NONE), hash_of(BYTES("/a")));
}

static void source_ip_takes_the_address_whatever_hash_key_says(void **state) {
    (void)state;
    struct config_upstream upstream = by_path;
    upstream.balance = CONFIG_BALANCE_SOURCE_IP;
    assert_int_equal(hash_with(&upstream, BYTES("X"), BYTES_NONE, BYTES_NONE), hash_of(address));
}

static void a_header_is_found_without_case(void **state) {
    (void)state;
    assert_int_equal(hash_with(&by_header, BYTES("x-uSER"), BYTES("ann"), BYTES("bob")),
                     hash_of(BYTES("ann")));
}

static void host_is_a_header_too(void **state) {
    (void)state;
    struct config_upstream upstream = by_header;
    upstream.hash_name = (char[]){"host"};
    assert_int_equal(hash_with(&upstream, BYTES("X"), BYTES_NONE, BYTES_NONE),
                     hash_of(BYTES("h:80")));
}

static void a_request_without_the_key_goes_by_address(void **state) {
    (void)state;
    uint64_t expected = hash_of(address);
    assert_int_equal(hash_with(&by_header, BYTES("Y-User"), BYTES("a"), BYTES_NONE), expected);
    assert_int_equal(hash_with(&by_header, BYTES("X-User"), BYTES(""), BYTES_NONE), expected);
    assert_int_equal(hash_of_cookie(BYTES_NONE), expected);
    assert_int_equal(hash_of_cookie(BYTES("")), expected);
    assert_int_equal(hash_of_cookie(BYTES("u")), expected);
    assert_int_equal(hash_of_cookie(BYTES("u=")), expected);
    assert_int_equal(hash_of_cookie(BYTES("uu=1; xu=2; U=3; =4")), expected);
}

static void a_cookie_is_found_among_others(void **state) {
    (void)state;
    uint64_t expected = hash_of(BYTES("ann=1"));
    assert_int_equal(hash_of_cookie(BYTES("u=ann=1")), expected);
    assert_int_equal(hash_of_cookie(BYTES("a=b; u=ann=1; u=bob")), expected);
    assert_int_equal(hash_of_cookie(BYTES(";;u=ann=1;")), expected);
    assert_int_equal(hash_with(&by_cookie, BYTES("cookie"), BYTES("a=b"), BYTES("u=ann=1")),
                     expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_address_or_the_path_is_the_key),
        cmocka_unit_test(source_ip_takes_the_address_whatever_hash_key_says),
        cmocka_unit_test(a_header_is_found_without_case),
        cmocka_unit_test(host_is_a_header_too),
        cmocka_unit_test(a_request_without_the_key_goes_by_address),
        cmocka_unit_test(a_cookie_is_found_among_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
