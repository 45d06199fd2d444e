#include "net/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/un.h>

#include <cmocka.h>

static void assert_host(const struct sockaddr_storage *address, const char *expected) {
    char memory[ADDR_TEXT_MAX];
    struct writer text = writer_make(memory, sizeof memory);
    addr_host((const struct sockaddr *)address, &text);
    assert_false(text.full);
    assert_true(bytes_equal(writer_bytes(&text), bytes_of(expected)));
}

static struct sockaddr_storage v4(const char *text, uint16_t port) {
    struct sockaddr_storage storage = {0};
    struct sockaddr_in *address = (void *)&storage;
    address->sin_family = AF_INET;
    address->sin_port = htons(port);
    assert_int_equal(inet_pton(AF_INET, text, &address->sin_addr), 1);
    return storage;
}

static struct sockaddr_storage v6(const char *text, uint16_t port) {
    struct sockaddr_storage storage = {0};
    struct sockaddr_in6 *address = (void *)&storage;
    address->sin6_family = AF_INET6;
    address->sin6_port = htons(port);
    assert_int_equal(inet_pton(AF_INET6, text, &address->sin6_addr), 1);
    return storage;
}

static void ipv4_is_four_numbers(void **state) {
    (void)state;
    static const char *const hosts[] = {"0.0.0.0", "127.0.0.1", "255.255.255.255", "10.20.3.100"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct sockaddr_storage address = v4(hosts[i], 8080);
        assert_host(&address, hosts[i]);
        assert_int_equal(addr_port((const struct sockaddr *)&address), 8080);
    }
}

static void ipv6_has_no_brackets(void **state) {
    (void)state;
    static const char *const hosts[] = {"::", "::1", "2001:db8::1",
                                        "fe80:1234:5678:9abc:def0:1234:5678:9abc"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct sockaddr_storage address = v6(hosts[i], 65535);
        assert_host(&address, hosts[i]);
        assert_int_equal(addr_port((const struct sockaddr *)&address), 65535);
    }
}

static void mapped_ipv4_is_shown_as_ipv4(void **state) {
    (void)state;
    struct sockaddr_storage address = v6("::ffff:192.0.2.7", 1);
    assert_host(&address, "192.0.2.7");
}

static void a_unix_socket_has_neither_host_nor_port(void **state) {
    (void)state;
    struct sockaddr_storage address = {.ss_family = AF_UNIX};
    assert_host(&address, "unix");
    assert_int_equal(addr_port((const struct sockaddr *)&address), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ipv4_is_four_numbers),
        cmocka_unit_test(ipv6_has_no_brackets),
        cmocka_unit_test(mapped_ipv4_is_shown_as_ipv4),
        cmocka_unit_test(a_unix_socket_has_neither_host_nor_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
