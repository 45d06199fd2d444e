#include "net/pp.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define BOTH (PP_V1 | PP_V2)

/* 203.0.113.9:4711 to 198.51.100.1:443, and the like in IPv6. */
#define BLOCK_V4 "\xcb\x00\x71\x09\xc6\x33\x64\x01\x12\x67\x01\xbb"
#define BLOCK_V6                                                                                   \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"         \
    "\x12\x67\x01\xbb"
#define TOLD_V4 "203.0.113.9 4711 198.51.100.1 443"
#define TOLD_V6 "2001:db8::7 4711 2001:db8::1 443"
#define TOLD_LONG                                                                                  \
    "2001:db8:1111:2222:3333:4444:5555:6666 65535 2001:db8:1111:2222:3333:4444:5555:7777 65534"

/* A result as text: "203.0.113.9 4711 198.51.100.1 443 +SIZE", "own +SIZE", "more" or a reason. */
static void describe(enum pp_result result, const struct pp_header *header, char *memory,
                     size_t size) {
    struct writer text = writer_make(memory, size);
    if (result == PP_MORE) {
        writer_print(&text, "more");
    } else if (result == PP_BAD) {
        writer_print(&text, "%s", reason_entry(header->reason)->name);
    } else if (!header->has_ends) {
        writer_print(&text, "own +%u", header->size);
    } else {
        addr_host(&header->ends.source.any, &text);
        writer_print(&text, " %u ", addr_port(&header->ends.source.any));
        addr_host(&header->ends.destination.any, &text);
        writer_print(&text, " %u +%u", addr_port(&header->ends.destination.any), header->size);
    }
    assert_false(text.full);
    memory[text.len] = '\0';
}

/* Whole, byte by byte, and in two pieces anywhere: always `expected`, and the same rest. */
static void assert_read(struct bytes input, unsigned versions, const char *expected) {
    char got[256];
    for (size_t first = 0; first <= input.len; first++) {
        /* 0: byte by byte. */
        struct pp_reader *reader = malloc(sizeof *reader);
        assert_non_null(reader);
        reader->len = 0;
        struct pp_header header;
        enum pp_result result = PP_MORE;
        size_t at = 0;
        struct bytes piece = BYTES_NONE;
        while (result == PP_MORE && at < input.len) {
            size_t len = first == 0 ? 1 : (at == 0 ? first : input.len - at);
            piece = bytes_slice(input, at, len);
            at += len;
            result = pp_read(reader, versions, &piece, &header);
        }
        describe(result, &header, got, sizeof got);
        assert_string_equal(got, expected);
        if (result == PP_DONE) assert_ptr_equal(piece.ptr, input.ptr + header.size);
        free(reader);
    }
}

/* A version 2 header, into static memory. */
static struct bytes v2(unsigned command, unsigned family, struct bytes block) {
    static char memory[4096];
    struct writer text = writer_make(memory, sizeof memory);
    writer_put(&text, BYTES(SIGNATURE));
    writer_char(&text, (char)command);
    writer_char(&text, (char)family);
    writer_char(&text, (char)(block.len >> 8));
    writer_char(&text, (char)block.len);
    writer_put(&text, block);
    assert_false(text.full);
    return writer_bytes(&text);
}

static void lines_of_version_1_are_read(void **state) {
    (void)state;
    const struct {
        struct bytes line;
        const char *told;
    } rows[] = {
        {BYTES("PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"), TOLD_V4 " +46"},
        {BYTES("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n"),
         "0.0.0.0 0 255.255.255.255 65535 +44"},
        {BYTES("PROXY TCP6 2001:db8::7 2001:DB8::1 4711 443\r\n"), TOLD_V6 " +45"},
        {BYTES("PROXY TCP6 2001:0db8:1111:2222:3333:4444:5555:6666 "
               "2001:0db8:1111:2222:3333:4444:5555:7777 65535 65534\r\n"),
         TOLD_LONG " +104"},
        {BYTES("PROXY TCP6 ::ffff:192.0.2.1 :: 1 2\r\n"), "192.0.2.1 1 :: 2 +36"},
        {BYTES("PROXY UNKNOWN\r\n"), "own +15"},
        {BYTES("PROXY UNKNOWN \r\n"), "own +16"},
        {BYTES("PROXY UNKNOWN any \0 thing \xff\r\n"), "own +29"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_read(rows[i].line, PP_V1, rows[i].told);
        assert_read(rows[i].line, BOTH, rows[i].told);
        assert_read(rows[i].line, PP_V2, "proxy_header_version");
        assert_read(bytes_slice(rows[i].line, 0, rows[i].line.len - 1), BOTH, "more");
        char longer[256];
        memcpy(longer, rows[i].line.ptr, rows[i].line.len);
        memcpy(longer + rows[i].line.len, "GET / HTTP/1.1\r\n", 16);
        assert_read(bytes_make(longer, rows[i].line.len + 16), BOTH, rows[i].told);
    }
}

static void malformed_lines_are_refused(void **state) {
    (void)state;
    const struct bytes rows[] = {
        BYTES("X"),
        BYTES("\n"),
        BYTES("GET / HTTP/1.1\r\n\r\n"),
        BYTES("PROXYTCP4"),
        BYTES("PROXY\r\n"),
        BYTES("PROXY \r\n"),
        BYTES("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n"),
        BYTES("PROXY TCP 1.2.3.4 1.2.3.4 1 2\r\n"),
        BYTES("PROXY TCP4\r\n"),
        BYTES("PROXY TCP4 1.2.3.4\r\n"),
        BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n"),
        BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n"),
        BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n"),
        BYTES("PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n"),
        BYTES("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n"),
        BYTES("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n"),
        BYTES("PROXY TCP4 ::1 ::1 1 2\r\n"),
        BYTES("PROXY TCP6 1.2.3.4 ::1 1 2\r\n"),
        BYTES("PROXY TCP6 fe80::1%1 ::1 1 2\r\n"),
        BYTES("PROXY TCP6 [::1] ::1 1 2\r\n"),
        BYTES("PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n"),
        BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n"),
        BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 00\r\n"),
        BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n"),
        BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 0x1 2\r\n"),
        BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 99999999999999999999 2\r\n"),
        BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"),
        BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n"),
        BYTES("PROXY UNKNOWNX\r\n"),
        BYTES("PROXY UNKNOWN a\nb\r\n"),
        BYTES("PROXY UNKNOWN a\rb\r\n"),
        BYTES("PROXY unknown\r\n"),
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_read(rows[i], BOTH, "proxy_header_malformed");
}

static void a_line_ends_within_107_bytes(void **state) {
    (void)state;
    char line[200];
    for (size_t size = 100; size < 115; size++) {
        memset(line, 'x', sizeof line);
        memcpy(line, "PROXY UNKNOWN ", 14);
        memcpy(line + size - 2, "\r\n", 2);
        char told[32];
        snprintf(told, sizeof told, "own +%zu", size);
        assert_read(bytes_make(line, size), BOTH,
                    size <= PP_V1_SIZE_MAX ? told : "proxy_header_malformed");
    }
    memset(line + 14, 'x', sizeof line - 14);
    assert_read(bytes_make(line, PP_V1_SIZE_MAX - 1), BOTH, "more");
    assert_read(bytes_make(line, PP_V1_SIZE_MAX), BOTH, "proxy_header_malformed");
}

static void blocks_of_version_2_are_read(void **state) {
    (void)state;
    static const char zeros[216];
    const struct {
        unsigned command;
        unsigned family;
        struct bytes block;
        const char *told;
    } rows[] = {
        {0x21, 0x11, BYTES(BLOCK_V4), TOLD_V4 " +28"},
        {0x21, 0x21, BYTES(BLOCK_V6), TOLD_V6 " +52"},
        {0x21, 0x31, bytes_make(zeros, 216), "unix 0 unix 0 +232"},
        {0x21, 0x11, BYTES(BLOCK_V4 "\x01\0\2h2\x04\0\0\xee\0\1x"), TOLD_V4 " +40"},
        /* Of nobody: LOCAL, no family, no transport, datagrams. */
        {0x20, 0x00, BYTES(""), "own +16"},
        {0x20, 0x11, BYTES(BLOCK_V4), "own +28"},
        {0x20, 0xff, BYTES("rubbish"), "own +23"},
        {0x21, 0x00, BYTES(""), "own +16"},
        {0x21, 0x00, BYTES("rubbish"), "own +23"},
        {0x21, 0x01, BYTES("rubbish"), "own +23"},
        {0x21, 0x10, BYTES(BLOCK_V4), "own +28"},
        {0x21, 0x12, BYTES(BLOCK_V4), "own +28"},
        {0x21, 0x22, BYTES(BLOCK_V6), "own +52"},
        {0x21, 0x32, bytes_make(zeros, 216), "own +232"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct bytes header = v2(rows[i].command, rows[i].family, rows[i].block);
        assert_read(header, PP_V2, rows[i].told);
        assert_read(header, BOTH, rows[i].told);
        assert_read(header, PP_V1, "proxy_header_version");
        assert_read(bytes_slice(header, 0, header.len - 1), BOTH, "more");
        assert_read(bytes_make(header.ptr, header.len + 5), BOTH, rows[i].told);
    }
}

static void malformed_blocks_are_refused(void **state) {
    (void)state;
    static const char zeros[216];
    const struct {
        unsigned command;
        unsigned family;
        struct bytes block;
    } rows[] = {
        {0x22, 0x11, BYTES(BLOCK_V4)},
        {0x2f, 0x00, BYTES("")},
        {0x21, 0x41, BYTES(BLOCK_V4)},
        {0x21, 0x13, BYTES(BLOCK_V4)},
        {0x21, 0x03, BYTES("")},
        {0x21, 0x11, bytes_make(zeros, 11)},
        {0x21, 0x12, bytes_make(zeros, 11)},
        {0x21, 0x21, bytes_make(zeros, 35)},
        {0x21, 0x31, bytes_make(zeros, 215)},
        {0x21, 0x11, BYTES(BLOCK_V4 "\x04")},
        {0x21, 0x11, BYTES(BLOCK_V4 "\x04\0")},
        {0x21, 0x11, BYTES(BLOCK_V4 "\x04\0\1")},
        {0x21, 0x11, BYTES(BLOCK_V4 "\x04\0\1ab")},
        {0x21, 0x11, BYTES(BLOCK_V4 "\x04\xff\xff")},
        {0x21, 0x11, BYTES(BLOCK_V4 "\x03\0\3abc")},
        {0x21, 0x11, BYTES(BLOCK_V4 "\x03\0\5abcde")},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct bytes header = v2(rows[i].command, rows[i].family, rows[i].block);
        assert_read(header, BOTH, "proxy_header_malformed");
    }
    assert_read(BYTES("\r\n\r\n\0\r\nQUIT\r"), BOTH, "proxy_header_malformed");
}

static void other_versions_are_told_apart(void **state) {
    (void)state;
    assert_read(v2(0x11, 0x11, BYTES(BLOCK_V4)), BOTH, "proxy_header_version");
    assert_read(v2(0x31, 0x11, BYTES(BLOCK_V4)), PP_V2, "proxy_header_version");
    assert_read(v2(0x01, 0x00, BYTES("")), BOTH, "proxy_header_version");
}

static void a_block_has_a_largest_size(void **state) {
    (void)state;
    static char block[PP_SIZE_MAX];
    size_t most = PP_SIZE_MAX - 16;
    memcpy(block, BLOCK_V4 "\x04", 13);
    size_t noop = most - 12 - 3;
    block[13] = (char)(noop >> 8);
    block[14] = (char)noop;
    assert_read(v2(0x21, 0x11, bytes_make(block, most)), BOTH, TOLD_V4 " +1460");
    assert_read(v2(0x20, 0x00, bytes_make(block, most)), BOTH, "own +1460");
    struct bytes larger = v2(0x20, 0x00, bytes_make(block, most + 1));
    assert_read(larger, BOTH, "proxy_header_malformed");
    assert_read(bytes_slice(larger, 0, 16), BOTH, "proxy_header_malformed");
    assert_read(bytes_slice(larger, 0, 15), BOTH, "more");
}

/* Made by another implementation of CRC-32C, which gives e3069283 for "123456789". */
static void a_checksum_is_verified(void **state) {
    (void)state;
    struct bytes good = v2(0x21, 0x11,
                           BYTES(BLOCK_V4 "\x03\0\4"
                                          "\xb8\x50\x08\x02"
                                          "\x04\0\2ab"));
    assert_read(good, BOTH, TOLD_V4 " +40");
    char changed[64];
    for (size_t i = 16; i < good.len; i++) {
        memcpy(changed, good.ptr, good.len);
        changed[i] = (char)(changed[i] ^ 1);
        struct pp_header header;
        enum pp_result result = pp_parse(bytes_make(changed, good.len), BOTH, &header);
        /* Another type than 3: no checksum any more. */
        assert_int_equal(result, i == 28 ? PP_DONE : PP_BAD);
    }
    struct bytes twice = v2(0x21, 0x11,
                            BYTES(BLOCK_V4 "\x03\0\4"
                                           "\xa5\x8a\x9b\x96"
                                           "\x03\0\4\0\0\0\0"));
    assert_read(twice, BOTH, "proxy_header_malformed");
}

static union addr end_of(const char *host, uint16_t port) {
    union addr address = {.any.sa_family = AF_UNIX};
    if (strchr(host, ':')) {
        address.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
        assert_int_equal(inet_pton(AF_INET6, host, &address.v6.sin6_addr), 1);
    } else if (strcmp(host, "unix") != 0) {
        address.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
        assert_int_equal(inet_pton(AF_INET, host, &address.v4.sin_addr), 1);
    }
    return address;
}

static void assert_written(unsigned version, const struct addr_pair *ends, struct bytes expected) {
    char memory[PP_V1_SIZE_MAX];
    struct writer text = writer_make(memory, sizeof memory);
    pp_write(&text, version, ends);
    assert_false(text.full);
    assert_int_equal(text.len, expected.len);
    assert_memory_equal(text.ptr, expected.ptr, expected.len);
}

static void headers_are_written(void **state) {
    (void)state;
    struct addr_pair v4 = {end_of("203.0.113.9", 4711), end_of("198.51.100.1", 443)};
    assert_written(PP_V1, &v4, BYTES("PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"));
    assert_written(PP_V2, &v4, v2(0x21, 0x11, BYTES(BLOCK_V4)));
    struct addr_pair v6 = {end_of("2001:db8::7", 4711), end_of("2001:db8::1", 443)};
    assert_written(PP_V1, &v6, BYTES("PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n"));
    assert_written(PP_V2, &v6, v2(0x21, 0x21, BYTES(BLOCK_V6)));
    struct addr_pair mapped = {end_of("::ffff:203.0.113.9", 4711), end_of("198.51.100.1", 443)};
    assert_written(PP_V1, &mapped, BYTES("PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"));
    assert_written(PP_V2, &mapped, v2(0x21, 0x11, BYTES(BLOCK_V4)));
    struct addr_pair mixed = {end_of("203.0.113.9", 4711), end_of("2001:db8::1", 443)};
    assert_written(PP_V1, &mixed, BYTES("PROXY TCP6 ::ffff:203.0.113.9 2001:db8::1 4711 443\r\n"));
    assert_written(PP_V2, &mixed,
                   v2(0x21, 0x21,
                      BYTES("\0\0\0\0\0\0\0\0\0\0\xff\xff\xcb\0\x71\x09"
                            "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x12\x67\x01\xbb")));
}

static void of_nobody_unknown_or_local_is_written(void **state) {
    (void)state;
    struct addr_pair local = {end_of("unix", 0), end_of("unix", 0)};
    struct addr_pair half = {end_of("203.0.113.9", 1), end_of("unix", 0)};
    const struct addr_pair *rows[] = {NULL, &local, &half};
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_written(PP_V1, rows[i], BYTES("PROXY UNKNOWN\r\n"));
        assert_written(PP_V2, rows[i], v2(0x20, 0x00, BYTES("")));
    }
}

static void the_longest_line_fits(void **state) {
    (void)state;
    struct addr_pair ends = {end_of("2001:db8:1111:2222:3333:4444:5555:6666", 65535),
                             end_of("2001:db8:1111:2222:3333:4444:5555:7777", 65534)};
    char memory[PP_V1_SIZE_MAX];
    struct writer text = writer_make(memory, sizeof memory);
    pp_write(&text, PP_V1, &ends);
    assert_false(text.full);
    assert_read(writer_bytes(&text), PP_V1, TOLD_LONG " +102");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_version_1_are_read),
        cmocka_unit_test(malformed_lines_are_refused),
        cmocka_unit_test(a_line_ends_within_107_bytes),
        cmocka_unit_test(blocks_of_version_2_are_read),
        cmocka_unit_test(malformed_blocks_are_refused),
        cmocka_unit_test(other_versions_are_told_apart),
        cmocka_unit_test(a_block_has_a_largest_size),
        cmocka_unit_test(a_checksum_is_verified),
        cmocka_unit_test(headers_are_written),
        cmocka_unit_test(of_nobody_unknown_or_local_is_written),
        cmocka_unit_test(the_longest_line_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
