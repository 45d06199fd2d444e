#include "proto/sni.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A ClientHello being written. */
struct hello {
    char bytes[2048];
    size_t size;
};

static void put(struct hello *hello, const void *bytes, size_t size) {
    assert_true(hello->size + size <= sizeof hello->bytes);
    if (size != 0) memcpy(hello->bytes + hello->size, bytes, size);
    hello->size += size;
}

static void put_number(struct hello *hello, int size, size_t value) {
    for (int i = size - 1; i >= 0; i--) {
        char byte = (char)(value >> (8 * i) & 0xff);
        put(hello, &byte, 1);
    }
}

static void put_server_name(struct hello *hello, const char *name) {
    size_t size = strlen(name);
    put_number(hello, 2, 0); /* the extension server_name */
    put_number(hello, 2, size + 5);
    put_number(hello, 2, size + 3);
    put_number(hello, 1, 0); /* host_name */
    put_number(hello, 2, size);
    put(hello, name, size);
}

/* The handshake message, with these extensions; NULL: without any field for them. */
static struct hello message_of(const struct hello *extensions) {
    struct hello hello = {.size = 0};
    size_t size = 2 + 32 + 1 + 4 + 2 + 2 + 1 + 1 + (extensions ? 2 + extensions->size : 0);
    char zeros[32] = {0};
    put_number(&hello, 1, 1); /* client_hello */
    put_number(&hello, 3, size);
    put_number(&hello, 2, 0x0303);
    put(&hello, zeros, sizeof zeros);
    put_number(&hello, 1, 4);
    put(&hello, "sess", 4);
    put_number(&hello, 2, 2);
    put_number(&hello, 2, 0x1301);
    put_number(&hello, 1, 1);
    put_number(&hello, 1, 0);
    if (!extensions) return hello;
    put_number(&hello, 2, extensions->size);
    put(&hello, extensions->bytes, extensions->size);
    return hello;
}

/* In records of at most `record` bytes. */
static struct hello records_of(const struct hello *message, size_t record) {
    struct hello whole = {.size = 0};
    for (size_t at = 0; at < message->size; at += record) {
        size_t part = message->size - at < record ? message->size - at : record;
        put_number(&whole, 3, 0x160301);
        put_number(&whole, 2, part);
        put(&whole, message->bytes + at, part);
    }
    return whole;
}

static struct hello hello_of(const char *name) {
    struct hello extensions = {.size = 0};
    put_number(&extensions, 2, 0x2b); /* another one before it */
    put_number(&extensions, 2, 3);
    put(&extensions, "\x02\x03\x04", 3);
    if (name) put_server_name(&extensions, name);
    struct hello message = message_of(&extensions);
    return records_of(&message, 16384);
}

static enum sni_result find(const struct hello *hello, size_t size, struct bytes *name) {
    static char memory[SNI_SIZE_MAX];
    return sni_find(bytes_make(hello->bytes, size), memory, name);
}

static void assert_name(const struct hello *hello, const char *wanted) {
    struct bytes name = BYTES_NONE;
    assert_int_equal(find(hello, hello->size, &name), SNI_NAME);
    assert_true(bytes_equal(name, bytes_of(wanted)));
}

static void assert_result(const struct hello *hello, enum sni_result wanted) {
    struct bytes name = BYTES_NONE;
    assert_int_equal(find(hello, hello->size, &name), wanted);
    assert_null(name.ptr);
}

static void the_name_is_found(void **state) {
    (void)state;
    struct hello hello = hello_of("a.example");
    assert_name(&hello, "a.example");
    hello = hello_of("A-1_b.Example.");
    assert_name(&hello, "A-1_b.Example");
    put(&hello, "what follows", 12);
    assert_name(&hello, "A-1_b.Example");
}

static void every_part_of_it_wants_more(void **state) {
    (void)state;
    struct hello hello = hello_of("a.example");
    for (size_t i = 0; i < hello.size; i++) {
        struct bytes name = BYTES_NONE;
        assert_int_equal(find(&hello, i, &name), SNI_MORE);
        assert_null(name.ptr);
    }
}

static void it_may_lie_in_many_records(void **state) {
    (void)state;
    struct hello extensions = {.size = 0};
    put_server_name(&extensions, "a.example");
    struct hello message = message_of(&extensions);
    static const size_t sizes[] = {1, 3, 7, 50};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct hello hello = records_of(&message, sizes[i]);
        assert_name(&hello, "a.example");
    }
}

static void a_hello_without_a_name_is_none(void **state) {
    (void)state;
    struct hello hello = hello_of(NULL);
    assert_result(&hello, SNI_NONE);
    struct hello message = message_of(NULL);
    hello = records_of(&message, 16384);
    assert_result(&hello, SNI_NONE);
}

static void names_of_other_bytes_are_bad(void **state) {
    (void)state;
    static const char *const names[] = {"", "a b", "a\nb", "a/b", "a:1", "\xc3\xa4.example"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct hello hello = hello_of(names[i]);
        assert_result(&hello, SNI_BAD);
    }
    char name[SNI_SIZE_MAX + 2];
    memset(name, 'a', sizeof name);
    name[SNI_SIZE_MAX] = '\0';
    struct hello hello = hello_of(name);
    assert_name(&hello, name);
    name[SNI_SIZE_MAX] = 'a';
    name[SNI_SIZE_MAX + 1] = '\0';
    hello = hello_of(name);
    assert_result(&hello, SNI_BAD);
}

static void what_is_no_hello_is_bad_at_once(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } rows[] = {
        {"GET / HTTP/1.1\r\n", 1},                            /* the first byte says so */
        {"\x16\x02", 2},                                      /* SSL 2 */
        {"\x15\x03\x01", 3},                                  /* an alert */
        {"\x16\x03\x01\x00\x00", 5},                          /* an empty record */
        {"\x16\x03\x01\x40\x01", 5},                          /* one that is too long */
        {"\x16\x03\x01\x00\x05\x02\x00\x00", 8},              /* a ServerHello */
        {"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\x03", 11}, /* one too short to be any */
        {"\x16\x03\x01\x00\x01\x01\x17\x03\x01", 9},          /* another record inside it */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bytes name = BYTES_NONE;
        char memory[SNI_SIZE_MAX];
        assert_int_equal(sni_find(bytes_make(rows[i].bytes, rows[i].size), memory, &name), SNI_BAD);
    }
}

static void lengths_that_do_not_fit_are_bad(void **state) {
    (void)state;
    struct hello good = hello_of("a.example");
    size_t list = good.size - strlen("a.example") - 5; /* where the list's length stands */
    struct hello hello = good;
    hello.bytes[list + 4] = 100; /* the name's length: longer than the message */
    assert_result(&hello, SNI_BAD);
    hello = good;
    hello.bytes[list + 2] = 1; /* another type of name */
    assert_result(&hello, SNI_BAD);
    hello = good;
    hello.bytes[5 + 4 + 2 + 32] = 33; /* a longer session id shifts all that follows */
    struct bytes name = BYTES_NONE;
    assert_int_not_equal(find(&hello, hello.size, &name), SNI_NAME);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_name_is_found),
        cmocka_unit_test(every_part_of_it_wants_more),
        cmocka_unit_test(it_may_lie_in_many_records),
        cmocka_unit_test(a_hello_without_a_name_is_none),
        cmocka_unit_test(names_of_other_bytes_are_bad),
        cmocka_unit_test(what_is_no_hello_is_bad_at_once),
        cmocka_unit_test(lengths_that_do_not_fit_are_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
