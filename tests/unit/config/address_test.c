#include "config/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>

static struct config_address resolve(struct memory *memory, const char *text) {
    struct config_address address;
    char error[256] = "";
    struct writer why = writer_make(error, sizeof error - 1);
    if (!address_resolve(bytes_of(text), memory, &address, &why)) fail_msg("%s", error);
    assert_string_equal(address.text, text);
    return address;
}

static void assert_refused(const char *text, const char *expected) {
    struct memory memory = {NULL};
    struct config_address address = {.size = 77};
    char error[256] = "";
    struct writer why = writer_make(error, sizeof error - 1);
    if (address_resolve(bytes_of(text), &memory, &address, &why)) fail_msg("\"%s\" is taken", text);
    assert_string_equal(error, expected);
    assert_int_equal(address.size, 77);
    memory_fini(&memory);
}

static void ipv4_and_ipv6_are_taken_with_a_port(void **state) {
    (void)state;
    struct memory memory = {NULL};
    struct config_address address = resolve(&memory, "10.1.2.3:8080");
    struct sockaddr_in in;
    memcpy(&in, &address.storage, sizeof in);
    assert_int_equal(in.sin_family, AF_INET);
    assert_int_equal(ntohs(in.sin_port), 8080);
    assert_int_equal(ntohl(in.sin_addr.s_addr), 0x0a010203);
    assert_int_equal(address.size, sizeof in);
    address = resolve(&memory, "[::1]:65535");
    struct sockaddr_in6 in6;
    memcpy(&in6, &address.storage, sizeof in6);
    assert_int_equal(in6.sin6_family, AF_INET6);
    assert_int_equal(ntohs(in6.sin6_port), 65535);
    assert_true(IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr));
    memory_fini(&memory);
}

static void unix_paths_are_absolute_and_fit(void **state) {
    (void)state;
    struct memory memory = {NULL};
    struct config_address address = resolve(&memory, "unix:/run/x:1");
    struct sockaddr_un local;
    memcpy(&local, &address.storage, sizeof local);
    assert_int_equal(local.sun_family, AF_UNIX);
    assert_string_equal(local.sun_path, "/run/x:1");
    memory_fini(&memory);
    assert_refused("unix:x", "\"unix:x\" needs an absolute path");
    assert_refused("unix:", "\"unix:\" needs an absolute path");
    char text[200] = "unix:/";
    memset(text + 6, 'a', 107);
    assert_refused(text,
                   "the path of \"unix:/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                   "aaaaaaaaaaaaaaaa\" is longer than the 107 bytes of unix(7)");
    text[5 + 107] = '\0';
    (void)resolve(&memory, text);
    memory_fini(&memory);
}

static void what_is_no_address_is_refused_with_a_hint(void **state) {
    (void)state;
    const char *any = " names no address: 0.0.0.0:PORT is all of IPv4, [::]:PORT all of IPv6";
    char expected[200];
    struct writer w = writer_make(expected, sizeof expected);
    writer_print(&w, "\"*:80\"%s", any);
    assert_refused("*:80", expected);
    w.len = 0;
    writer_print(&w, "\":80\"%s", any);
    assert_refused(":80", expected);
    assert_refused("10.0.0.1", "\"10.0.0.1\" has no port (ADDRESS:PORT)");
    assert_refused("[::1]", "\"[::1]\" has no port (ADDRESS:PORT)");
    assert_refused("", "\"\" has no port (ADDRESS:PORT)");
    assert_refused("https://a.example:443",
                   "\"https://a.example:443\" is a URL: ADDRESS:PORT here, "
                   "and tls = NAME or on for https");
    assert_refused("::1:80", "\"::1:80\": an IPv6 address stands in brackets, as in [::1]:8080");
    assert_refused("10.0.0.1:0", "\"0\" is no port, it must be 1 to 65535");
    assert_refused("10.0.0.1:65536", "\"65536\" is no port, it must be 1 to 65535");
    assert_refused("10.0.0.1:http", "\"http\" is no port, it must be 1 to 65535");
    assert_refused("10.0.0.1:", "\"\" is no port, it must be 1 to 65535");
    assert_refused("10.0.0.256:80", "\"10.0.0.256:80\" cannot be resolved: not an IPv4 address");
    assert_refused("10.0.0.01:80", "\"10.0.0.01:80\" cannot be resolved: not an IPv4 address");
    assert_refused("10.1:80", "\"10.1:80\" cannot be resolved: not an IPv4 address");
    assert_refused("80:80", "\"80:80\" cannot be resolved: not an IPv4 address");
    assert_refused("[::g]:80", "\"[::g]:80\" cannot be resolved: Name or service not known");
    assert_refused("[]:80", "\"[]:80\" cannot be resolved: Name or service not known");
}

static void equal_is_by_number_not_by_text(void **state) {
    (void)state;
    struct memory memory = {NULL};
    struct config_address a = resolve(&memory, "[::1]:80");
    struct config_address b = resolve(&memory, "[0:0::1]:80");
    struct config_address c = resolve(&memory, "[::1]:81");
    assert_true(address_equal(&a, &b));
    assert_false(address_equal(&a, &c));
    memory_fini(&memory);
}

static void all_addresses_cover_each_of_their_port_and_family(void **state) {
    (void)state;
    struct memory memory = {NULL};
    struct config_address all = resolve(&memory, "0.0.0.0:80");
    struct config_address all6 = resolve(&memory, "[::]:80");
    struct config_address one = resolve(&memory, "127.0.0.1:80");
    struct config_address one6 = resolve(&memory, "[::1]:80");
    struct config_address other = resolve(&memory, "127.0.0.1:81");
    struct config_address path = resolve(&memory, "unix:/a");
    assert_true(address_covers(&all, &one) && address_covers(&all6, &one6));
    assert_false(address_covers(&one, &all) || address_covers(&all, &all));
    assert_false(address_covers(&all, &other) || address_covers(&all, &one6));
    assert_false(address_covers(&all, &all6) || address_covers(&all6, &one));
    assert_false(address_covers(&path, &one) || address_covers(&all, &path));
    memory_fini(&memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ipv4_and_ipv6_are_taken_with_a_port),
        cmocka_unit_test(unix_paths_are_absolute_and_fit),
        cmocka_unit_test(what_is_no_address_is_refused_with_a_hint),
        cmocka_unit_test(equal_is_by_number_not_by_text),
        cmocka_unit_test(all_addresses_cover_each_of_their_port_and_family),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
