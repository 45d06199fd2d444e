#include "base/cidr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void what_is_written_was_read(void **state) {
    (void)state;
    static const struct {
        const char *text;
        const char *written;
    } rows[] = {
        {"10.0.0.0/8", "10.0.0.0/8"},
        {"0.0.0.0/0", "0.0.0.0/0"},
        {"192.0.2.1", "192.0.2.1/32"},
        {"::/0", "::/0"},
        {"2001:DB8::/32", "2001:db8::/32"},
        {"::1", "::1/128"},
        {"::ffff:10.0.0.0/104", "10.0.0.0/8"},
        {"::ffff:0:0/95", "::ffff:0.0.0.0/95"},
        {"unix:", "unix:"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct cidr cidr;
        char memory[64];
        struct writer text = writer_make(memory, sizeof memory);
        assert_true(cidr_parse(bytes_of(rows[i].text), &cidr));
        cidr_write(&cidr, &text);
        assert_int_equal(text.len, strlen(rows[i].written));
        assert_memory_equal(text.ptr, rows[i].written, text.len);
    }
}

static void what_is_no_network_is_not_read(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",           "10.0.0.0/33", "10.0.0.0/",    "10.0.0.0/+8", "10.0.0.0/8/8", "10.0.0",
        "10.0.0.256", "010.0.0.1",   "::/129",       "[::1]",       "fe80::1%lo",   "localhost",
        "unix",       "unix:/a",     "0.0.0.0/0x20", "/8",
    };
    struct cidr cidr;
    for (size_t i = 0; i < COUNT(texts); i++)
        assert_false(cidr_parse(bytes_of(texts[i]), &cidr));
    assert_false(cidr_parse(bytes_make("10.0.0.1\0x", 10), &cidr));
}

static void bits_behind_the_prefix_are_found_and_cleared(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool had_more;
    } rows[] = {
        {"10.0.0.0/8", false},    {"10.0.0.1/8", true},    {"10.0.0.128/25", false},
        {"10.0.0.192/25", true},  {"10.0.0.1/32", false},  {"1.0.0.0/0", true},
        {"2001:db8::/32", false}, {"2001:db9::/31", true}, {"unix:", false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct cidr cidr;
        assert_true(cidr_parse(bytes_of(rows[i].text), &cidr));
        assert_int_equal(cidr_trim(&cidr), rows[i].had_more);
        assert_false(cidr_trim(&cidr));
    }
}

static bool is_in(const char *network, const char *address) {
    struct cidr cidr;
    assert_true(cidr_parse(bytes_of(network), &cidr));
    struct cidr_list list = {&cidr, 1};
    bool by_text = cidr_list_has_text(&list, bytes_of(address));
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    const struct sockaddr local = {.sa_family = AF_UNIX};
    const struct sockaddr *binary = (const struct sockaddr *)&v4;
    if (strcmp(address, "unix") == 0) {
        binary = &local;
    } else if (inet_pton(AF_INET, address, &v4.sin_addr) != 1) {
        assert_int_equal(inet_pton(AF_INET6, address, &v6.sin6_addr), 1);
        binary = (const struct sockaddr *)&v6;
    }
    assert_int_equal(cidr_list_has(&list, binary), by_text);
    return by_text;
}

static void members_share_the_prefix(void **state) {
    (void)state;
    assert_true(is_in("10.0.0.0/8", "10.255.255.255"));
    assert_false(is_in("10.0.0.0/8", "11.0.0.0"));
    assert_true(is_in("192.0.2.128/25", "192.0.2.128"));
    assert_false(is_in("192.0.2.128/25", "192.0.2.127"));
    assert_true(is_in("192.0.2.1", "192.0.2.1"));
    assert_false(is_in("192.0.2.1", "192.0.2.0"));
    assert_true(is_in("0.0.0.0/0", "255.255.255.255"));
    assert_true(is_in("2001:db8::/33", "2001:db8:7fff::1"));
    assert_false(is_in("2001:db8::/33", "2001:db8:8000::1"));
    assert_true(is_in("::/0", "2001:db8::1"));
    assert_true(is_in("::1", "::1"));
    assert_true(is_in("unix:", "unix"));
}

static void families_are_apart_but_for_mapped_addresses(void **state) {
    (void)state;
    assert_false(is_in("0.0.0.0/0", "::1"));
    assert_false(is_in("::/0", "192.0.2.1"));
    assert_true(is_in("192.0.2.0/24", "::ffff:192.0.2.1"));
    assert_false(is_in("::/0", "::ffff:192.0.2.1"));
    assert_false(is_in("0.0.0.0/0", "unix"));
    assert_false(is_in("::/0", "unix"));
    assert_false(is_in("unix:", "0.0.0.0"));
}

static void of_a_list_one_is_enough(void **state) {
    (void)state;
    struct cidr items[2];
    struct cidr_list list = {items, 2};
    assert_true(cidr_parse(BYTES("10.0.0.0/8"), &items[0]));
    assert_true(cidr_parse(BYTES("::1"), &items[1]));
    assert_true(cidr_list_has_text(&list, BYTES("10.1.1.1")));
    assert_true(cidr_list_has_text(&list, BYTES("::1")));
    assert_false(cidr_list_has_text(&list, BYTES("::2")));
    assert_false(cidr_list_has_text(&list, BYTES("unknown")));
    assert_false(cidr_list_has_text(&list, BYTES("10.1.1.1/8")));
    assert_false(cidr_list_has_text(&list, BYTES("")));
    list.count = 0;
    assert_false(cidr_list_has_text(&list, BYTES("10.1.1.1")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_was_read),
        cmocka_unit_test(what_is_no_network_is_not_read),
        cmocka_unit_test(bits_behind_the_prefix_are_found_and_cleared),
        cmocka_unit_test(members_share_the_prefix),
        cmocka_unit_test(families_are_apart_but_for_mapped_addresses),
        cmocka_unit_test(of_a_list_one_is_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
