#include "unit/proto/h1_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

static struct h1_fixture fixture;

static int set_up(void **state) {
    (void)state;
    h1_fixture_init(&fixture);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    h1_fixture_fini(&fixture);
    return 0;
}

struct refused {
    struct bytes head;
    enum reason reason;
};

static void refuse_all(const struct refused *cases, size_t count, enum h1_kind kind) {
    for (size_t i = 0; i < count; i++) {
        h1_fixture_refuse(&fixture, kind, cases[i].head, cases[i].reason);
    }
}

#define REFUSE_ALL(cases, kind) refuse_all((cases), sizeof(cases) / sizeof((cases)[0]), (kind))
/* Text that stands where a request has its line, or its fields. */
#define LINE(text) BYTES(text "\r\nHost: a\r\n\r\n")
#define FIELDS(text) BYTES("POST / HTTP/1.1\r\nHost: a\r\n" text "\r\n\r\n")

static void malformed_request_lines_are_refused(void **state) {
    (void)state;
    const struct refused cases[] = {
        {LINE("GET /"), REASON_BAD_REQUEST_LINE},
        {LINE("GET"), REASON_BAD_REQUEST_LINE},
        {LINE("GET / "), REASON_BAD_REQUEST_LINE},
        {LINE("GET HTTP/1.1"), REASON_BAD_REQUEST_LINE},
        {LINE("GET  HTTP/1.1"), REASON_BAD_REQUEST_LINE},
        {LINE("GET\t/ HTTP/1.1"), REASON_BAD_REQUEST_LINE},
        {LINE(" GET / HTTP/1.1"), REASON_BAD_REQUEST_LINE},
        {LINE("G(T / HTTP/1.1"), REASON_BAD_REQUEST_LINE},
        {LINE("GET / HTTP/1.1 "), REASON_BAD_REQUEST_LINE},
        {LINE("GET /\tHTTP/1.1"), REASON_BAD_REQUEST_LINE},
        {LINE("GET / http/1.1"), REASON_BAD_REQUEST_LINE},
        {LINE("GET / HTTP/1.10"), REASON_BAD_REQUEST_LINE},
        {LINE("GET / HTTP/11"), REASON_BAD_REQUEST_LINE},
        {LINE("GET / HTTP/a.1"), REASON_BAD_REQUEST_LINE},
        {LINE("GET / HTTP/1,1"), REASON_BAD_REQUEST_LINE},
        {LINE("GET / HTTP/1."), REASON_BAD_REQUEST_LINE},
        {LINE("GET / HTPP/1.1"), REASON_BAD_REQUEST_LINE},
        {LINE("G\0T / HTTP/1.1"), REASON_BAD_REQUEST_LINE},
        {BYTES("\x16\x03\x01"), REASON_BAD_REQUEST_LINE},
        {BYTES("\x80"), REASON_BAD_REQUEST_LINE},
        {BYTES("{"), REASON_BAD_REQUEST_LINE},
    };
    REFUSE_ALL(cases, H1_REQUEST);
}

static void versions_other_than_1_0_and_1_1_are_refused(void **state) {
    (void)state;
    const struct refused cases[] = {
        {LINE("GET / HTTP/1.2"), REASON_BAD_VERSION},
        {LINE("GET / HTTP/0.9"), REASON_BAD_VERSION},
        {LINE("GET / HTTP/2.0"), REASON_BAD_VERSION},
        {LINE("GET / HTTP/9.9"), REASON_BAD_VERSION},
        {BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), REASON_BAD_VERSION},
    };
    REFUSE_ALL(cases, H1_REQUEST);
}

static void invalid_targets_are_refused(void **state) {
    (void)state;
    const struct refused cases[] = {
        {LINE("GET /a b HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET /a  HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET  / HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET /a#b HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET /0123456789abcdef#b HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET /\xc3\xa9 HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET /\x7f HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET /\x01 HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET /a\tb HTTP/1.1"), REASON_BAD_TARGET},
        {BYTES("GET /\0"), REASON_BAD_TARGET},
        {LINE("GET a HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET a:80 HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET ?a HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET * HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("OPTIONS ** HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET ftp://a/ HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET http:/a HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET http:// HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET http:///a HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET http://u@a/ HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("GET http://a:x/ HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("CONNECT / HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("CONNECT a HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("CONNECT a: HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("CONNECT [::1] HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("CONNECT a:443/ HTTP/1.1"), REASON_BAD_TARGET},
        {LINE("CONNECT http://a:443 HTTP/1.1"), REASON_BAD_TARGET},
    };
    REFUSE_ALL(cases, H1_REQUEST);
}

static void lines_end_in_crlf_exactly(void **state) {
    (void)state;
    const struct refused cases[] = {
        {BYTES("GET / HTTP/1.1\nHost: a\n\n"), REASON_BAD_LINE_END},
        {BYTES("GET / HTTP/1.1\rHost: a\r\n\r\n"), REASON_BAD_LINE_END},
        {BYTES("GET / HTTP/1.1\r\r\n"), REASON_BAD_LINE_END},
        {BYTES("\nGET / HTTP/1.1\r\n"), REASON_BAD_LINE_END},
        {BYTES("\rGET / HTTP/1.1\r\n"), REASON_BAD_LINE_END},
        {BYTES("GET / HTTP/1.1\r\n\nHost: a\r\n\r\n"), REASON_BAD_LINE_END},
        {FIELDS("X: a\nb: c"), REASON_BAD_LINE_END},
        {FIELDS("X: a\rb: c"), REASON_BAD_LINE_END},
        {FIELDS("X: a\r"), REASON_BAD_LINE_END},
        {FIELDS("X: a\r\n\r"), REASON_BAD_LINE_END},
        {FIELDS("X\n: a"), REASON_BAD_LINE_END},
    };
    REFUSE_ALL(cases, H1_REQUEST);
}

static void malformed_fields_are_refused(void **state) {
    (void)state;
    const struct refused cases[] = {
        {FIELDS("X : a"), REASON_BAD_FIELD_NAME},
        {FIELDS("X\t: a"), REASON_BAD_FIELD_NAME},
        {FIELDS("Host : a"), REASON_BAD_FIELD_NAME},
        {FIELDS("Transfer-Encoding : chunked"), REASON_BAD_FIELD_NAME},
        {FIELDS(": a"), REASON_BAD_FIELD_NAME},
        {FIELDS("X"), REASON_BAD_FIELD_NAME},
        {FIELDS("X Y: a"), REASON_BAD_FIELD_NAME},
        {FIELDS("X(: a"), REASON_BAD_FIELD_NAME},
        {FIELDS("X\"Y\": a"), REASON_BAD_FIELD_NAME},
        {FIELDS("\xc3\xa9: a"), REASON_BAD_FIELD_NAME},
        {FIELDS("X\0: a"), REASON_BAD_FIELD_NAME},
        {FIELDS("\x0bX: a"), REASON_BAD_FIELD_NAME},
        {FIELDS("X: a\0b"), REASON_BAD_FIELD_VALUE},
        {FIELDS("X: a\x01"), REASON_BAD_FIELD_VALUE},
        {FIELDS("X: a\x7f"), REASON_BAD_FIELD_VALUE},
        {FIELDS("X: \x0b"), REASON_BAD_FIELD_VALUE},
        {FIELDS("X: 0123456789abcdef0123456789abcdef\x1f"), REASON_BAD_FIELD_VALUE},
        {FIELDS("Transfer-Encoding: \x0b"
                "chunked"),
         REASON_BAD_FIELD_VALUE},
        {FIELDS("X: a\r\n b"), REASON_BAD_FOLD},
        {FIELDS("X: a\r\n\tb"), REASON_BAD_FOLD},
        {FIELDS("X: a\r\n "), REASON_BAD_FOLD},
        {BYTES("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), REASON_BAD_FOLD},
    };
    REFUSE_ALL(cases, H1_REQUEST);
}

static void a_request_has_one_valid_host(void **state) {
    (void)state;
    const struct refused cases[] = {
        {BYTES("GET / HTTP/1.1\r\n\r\n"), REASON_BAD_HOST},
        {BYTES("GET http://a/ HTTP/1.1\r\n\r\n"), REASON_BAD_HOST},
        {BYTES("GET / HTTP/1.1\r\nHost:\r\n\r\n"), REASON_BAD_HOST},
        {BYTES("GET / HTTP/1.0\r\nHost: \r\n\r\n"), REASON_BAD_HOST},
        {BYTES("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), REASON_BAD_HOST},
        {BYTES("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n"), REASON_BAD_HOST},
        {BYTES("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), REASON_BAD_HOST},
        {BYTES("GET / HTTP/1.1\r\nHost: a,b/c\r\n\r\n"), REASON_BAD_HOST},
        {BYTES("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"), REASON_BAD_HOST},
        {BYTES("GET / HTTP/1.1\r\nHost: http://a\r\n\r\n"), REASON_BAD_HOST},
        {BYTES("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n"), REASON_BAD_HOST},
        {BYTES("GET http://a/ HTTP/1.1\r\nHost: a/b\r\n\r\n"), REASON_BAD_HOST},
    };
    REFUSE_ALL(cases, H1_REQUEST);
}

static void framing_that_two_readers_could_read_apart_is_refused(void **state) {
    (void)state;
    const struct refused cases[] = {
        {FIELDS("Content-Length: +5"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length: -5"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length: 0x5"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length: 5,5"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length: 5, 5"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length: 5 5"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length: 5;"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length: 1e1"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length: \xb2"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length:"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length: 9223372036854775808"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length: 18446744073709551615"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length: 18446744073709551621"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length: 5\r\nContent-Length: 6"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Content-Length: 5\r\nContent-Length: 5"), REASON_BAD_CONTENT_LENGTH},
        {FIELDS("Transfer-Encoding: gzip"), REASON_UNKNOWN_CODING},
        {FIELDS("Transfer-Encoding: gzip, chunked"), REASON_UNKNOWN_CODING},
        {FIELDS("Transfer-Encoding: deflate;q=1, chunked"), REASON_UNKNOWN_CODING},
        {FIELDS("Transfer-Encoding: compress\r\nTransfer-Encoding: chunked"),
         REASON_UNKNOWN_CODING},
        {FIELDS("Transfer-Encoding: identity"), REASON_UNKNOWN_CODING},
        {FIELDS("Transfer-Encoding: xchunked"), REASON_UNKNOWN_CODING},
        {FIELDS("Transfer-Encoding:"), REASON_BAD_TRANSFER_ENCODING},
        {FIELDS("Transfer-Encoding: ,"), REASON_BAD_TRANSFER_ENCODING},
        {FIELDS("Transfer-Encoding: ,chunked"), REASON_BAD_TRANSFER_ENCODING},
        {FIELDS("Transfer-Encoding: chunked,"), REASON_BAD_TRANSFER_ENCODING},
        {FIELDS("Transfer-Encoding: chunked, gzip"), REASON_BAD_TRANSFER_ENCODING},
        {FIELDS("Transfer-Encoding: chunked, identity"), REASON_BAD_TRANSFER_ENCODING},
        {FIELDS("Transfer-Encoding: chunked, chunked"), REASON_BAD_TRANSFER_ENCODING},
        {FIELDS("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
         REASON_BAD_TRANSFER_ENCODING},
        {FIELDS("Transfer-Encoding: chunked;a=b"), REASON_BAD_TRANSFER_ENCODING},
        {FIELDS("Transfer-Encoding: \"chunked\""), REASON_BAD_TRANSFER_ENCODING},
        {FIELDS("Transfer-Encoding: chun ked"), REASON_BAD_TRANSFER_ENCODING},
        {FIELDS("Transfer-Encoding: chunked chunked"), REASON_BAD_TRANSFER_ENCODING},
        {BYTES("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
         REASON_BAD_TRANSFER_ENCODING},
        {FIELDS("Content-Length: 5\r\nTransfer-Encoding: chunked"), REASON_BAD_FRAMING},
        {FIELDS("Transfer-Encoding: chunked\r\nContent-Length: 5"), REASON_BAD_FRAMING},
        {FIELDS("Transfer-Encoding: chunked\r\nContent-Length: 0"), REASON_BAD_FRAMING},
    };
    REFUSE_ALL(cases, H1_REQUEST);
}

static void all_faults_of_responses_are_one_reason(void **state) {
    (void)state;
    const struct refused cases[] = {
        {BYTES("\r\nHTTP/1.1 200 OK\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("X"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 200 OK\n\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 20\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 2000 OK\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 20x OK\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 099 Low\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 600 High\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1  200 OK\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1\t200 OK\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 200\tOK\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 200 O\0K\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/2.0 200 OK\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 200 OK\r\nX : a\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"),
         REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 100 C\r\nContent-Length: 1\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 103 E\r\nTransfer-Encoding: chunked\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 101 S\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.1 101 S\r\nUpgrade: a\r\n\r\n"), REASON_BAD_RESPONSE},
        {BYTES("HTTP/1.0 101 S\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n"), REASON_BAD_RESPONSE},
    };
    REFUSE_ALL(cases, H1_RESPONSE);
    fixture.limits.head_size_max = 20;
    h1_fixture_refuse(&fixture, H1_RESPONSE, BYTES("HTTP/1.1 200 OK\r\nX: y\r\n\r\n"),
                      REASON_BAD_RESPONSE);
}

static void faults_of_trailers_have_the_reasons_of_requests(void **state) {
    (void)state;
    const struct refused cases[] = {
        {BYTES(" X: a\r\n\r\n"), REASON_BAD_FOLD},
        {BYTES("X : a\r\n\r\n"), REASON_BAD_FIELD_NAME},
        {BYTES("X: \0\r\n\r\n"), REASON_BAD_FIELD_VALUE},
        {BYTES("X: a\n\n"), REASON_BAD_LINE_END},
        {BYTES("GET / HTTP/1.1\r\n\r\n"), REASON_BAD_FIELD_NAME},
    };
    REFUSE_ALL(cases, H1_TRAILERS);
    fixture.limits.fields_max = 1;
    h1_fixture_refuse(&fixture, H1_TRAILERS, BYTES("X: a\r\nY: b\r\n\r\n"), REASON_TOO_MANY_FIELDS);
}

/* "GET /aaa... HTTP/1.1" with a target of `target_size` bytes, and the rest of a head. */
static struct bytes long_request(char *memory, size_t size, uint32_t target_size) {
    struct writer w = writer_make(memory, size);
    writer_put(&w, BYTES("GET /"));
    for (uint32_t i = 1; i < target_size; i++)
        writer_char(&w, 'a');
    writer_put(&w, BYTES(" HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_false(w.full);
    return writer_bytes(&w);
}

static void a_target_may_have_target_size_max_bytes(void **state) {
    (void)state;
    char memory[1024];
    fixture.limits.target_size_max = 100;
    h1_fixture_accept(&fixture, H1_REQUEST, long_request(memory, sizeof(memory), 100));
    assert_int_equal(fixture.message.path.len, 100);
    h1_fixture_refuse(&fixture, H1_REQUEST, long_request(memory, sizeof(memory), 101),
                      REASON_TARGET_TOO_LONG);
    h1_fixture_refuse(&fixture, H1_REQUEST, long_request(memory, sizeof(memory), 600),
                      REASON_TARGET_TOO_LONG);
    /* No line end yet, and none that could still come in time. */
    struct bytes begun = long_request(memory, sizeof(memory), 600);
    begun.len = 100 + 64 + 2;
    h1_fixture_refuse(&fixture, H1_REQUEST, begun, REASON_TARGET_TOO_LONG);
    begun.len--;
    assert_int_equal(h1_fixture_parse(&fixture, H1_REQUEST, begun), H1_MORE);
}

static void a_head_may_have_head_size_max_bytes(void **state) {
    (void)state;
    struct bytes head = BYTES("GET / HTTP/1.1\r\nHost: a\r\nX: 0123456789\r\n\r\nbody");
    fixture.limits.head_size_max = (uint32_t)head.len - 4;
    h1_fixture_accept(&fixture, H1_REQUEST, head);
    assert_int_equal(fixture.parser.head_size, head.len - 4);
    for (uint32_t size = 1; size < head.len - 4; size++) {
        fixture.limits.head_size_max = size;
        h1_fixture_refuse(&fixture, H1_REQUEST, head, REASON_HEAD_TOO_LARGE);
    }
}

static void a_head_may_have_fields_max_fields(void **state) {
    (void)state;
    struct bytes head = BYTES("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 2\r\n\r\n");
    fixture.limits.fields_max = 3;
    h1_fixture_accept(&fixture, H1_REQUEST, head);
    fixture.limits.fields_max = 2;
    h1_fixture_refuse(&fixture, H1_REQUEST, head, REASON_TOO_MANY_FIELDS);
    h1_fixture_refuse(&fixture, H1_REQUEST,
                      BYTES("GET / HTTP/1.1\r\nHost: a\r\nConnection: b, c, d\r\n\r\n"),
                      REASON_TOO_MANY_FIELDS);
}

static void the_fault_of_the_earlier_line_is_named(void **state) {
    (void)state;
    const struct refused cases[] = {
        {BYTES("GET / HTTP/3.0\r\nX : a\r\n\r\n"), REASON_BAD_VERSION},
        {BYTES("GET / HTTP/1.1\r\nX : a\r\nContent-Length: x\r\n\r\n"), REASON_BAD_FIELD_NAME},
        {BYTES("GET / HTTP/1.1\r\nContent-Length: x\r\nX : a\r\n\r\n"), REASON_BAD_CONTENT_LENGTH},
    };
    REFUSE_ALL(cases, H1_REQUEST);
}

static void empty_lines_before_a_request_are_skipped(void **state) {
    (void)state;
    struct bytes head = BYTES("\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    h1_fixture_accept(&fixture, H1_REQUEST, head);
    assert_int_equal(fixture.parser.head_size, head.len);
    assert_true(bytes_equal(fixture.message.method_text, BYTES("GET")));
    assert_true(bytes_equal(fixture.message.path, BYTES("/x")));
}

static void nothing_is_decided_before_there_is_input(void **state) {
    (void)state;
    assert_int_equal(h1_fixture_parse(&fixture, H1_REQUEST, BYTES_NONE), H1_MORE);
    assert_int_equal(h1_fixture_parse(&fixture, H1_RESPONSE, BYTES_NONE), H1_MORE);
    assert_int_equal(h1_fixture_parse(&fixture, H1_TRAILERS, BYTES_NONE), H1_MORE);
}

static void the_framing_of_requests_follows_the_fields(void **state) {
    (void)state;
    h1_fixture_accept(&fixture, H1_REQUEST, FIELDS("X: y"));
    assert_int_equal(fixture.parser.body_kind, H1_BODY_NONE);
    h1_fixture_accept(&fixture, H1_REQUEST, FIELDS("Content-Length: 0"));
    assert_int_equal(fixture.parser.body_kind, H1_BODY_NONE);
    h1_fixture_accept(&fixture, H1_REQUEST, FIELDS("content-length:\t0012 "));
    assert_int_equal(fixture.parser.body_kind, H1_BODY_LENGTH);
    assert_int_equal(fixture.parser.body_length, 12);
    h1_fixture_accept(&fixture, H1_REQUEST, FIELDS("Content-Length: 9223372036854775807"));
    assert_int_equal(fixture.parser.body_length, INT64_MAX);
    h1_fixture_accept(&fixture, H1_REQUEST, FIELDS("Transfer-Encoding: Chunked"));
    assert_int_equal(fixture.parser.body_kind, H1_BODY_CHUNKED);
}

struct framed {
    struct bytes head;
    enum http_method method;
    enum h1_body_kind kind;
    bool keep_alive;
    uint64_t message_length;
};

static void the_framing_of_responses_follows_status_method_and_fields(void **state) {
    (void)state;
    const uint64_t unknown = HTTP_LENGTH_UNKNOWN;
    const struct framed cases[] = {
        {BYTES("HTTP/1.1 200 OK\r\n\r\n"), HTTP_GET, H1_BODY_UNTIL_CLOSE, false, unknown},
        {BYTES("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), HTTP_GET, H1_BODY_LENGTH, true, 5},
        {BYTES("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), HTTP_GET, H1_BODY_NONE, true, 0},
        {BYTES("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), HTTP_GET, H1_BODY_CHUNKED,
         true, unknown},
        {BYTES("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), HTTP_HEAD, H1_BODY_NONE, true, 5},
        {BYTES("HTTP/1.1 200 OK\r\n\r\n"), HTTP_HEAD, H1_BODY_NONE, true, unknown},
        {BYTES("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), HTTP_HEAD, H1_BODY_NONE,
         true, unknown},
        {BYTES("HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n"), HTTP_GET, H1_BODY_NONE, true, 5},
        {BYTES("HTTP/1.1 304 N\r\n\r\n"), HTTP_GET, H1_BODY_NONE, true, unknown},
        {BYTES("HTTP/1.1 204 N\r\n\r\n"), HTTP_GET, H1_BODY_NONE, true, 0},
        {BYTES("HTTP/1.1 204 N\r\nContent-Length: 0\r\n\r\n"), HTTP_GET, H1_BODY_NONE, true, 0},
        {BYTES("HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n"), HTTP_GET, H1_BODY_NONE, false, 0},
        {BYTES("HTTP/1.1 100 C\r\n\r\n"), HTTP_POST, H1_BODY_NONE, true, 0},
        {BYTES("HTTP/1.1 200 C\r\n\r\n"), HTTP_CONNECT, H1_BODY_NONE, true, unknown},
        {BYTES("HTTP/1.1 200 C\r\nContent-Length: 5\r\n\r\n"), HTTP_CONNECT, H1_BODY_NONE, true,
         unknown},
        {BYTES("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n"), HTTP_GET, H1_BODY_LENGTH, false, 5},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fixture.request_method = cases[i].method;
        h1_fixture_accept(&fixture, H1_RESPONSE, cases[i].head);
        assert_int_equal(fixture.parser.body_kind, cases[i].kind);
        assert_int_equal(fixture.parser.keep_alive, cases[i].keep_alive);
        assert_int_equal(fixture.message.body_length, cases[i].message_length);
    }
}

static void connections_stay_open_as_the_version_and_connection_say(void **state) {
    (void)state;
    h1_fixture_accept(&fixture, H1_REQUEST, FIELDS("X: y"));
    assert_true(fixture.parser.keep_alive);
    h1_fixture_accept(&fixture, H1_REQUEST, FIELDS("Connection: a, , CLOSE"));
    assert_false(fixture.parser.keep_alive);
    h1_fixture_accept(&fixture, H1_REQUEST, FIELDS("Connection: keep-alive\r\nConnection: close"));
    assert_false(fixture.parser.keep_alive);
    h1_fixture_accept(&fixture, H1_REQUEST, BYTES("GET / HTTP/1.0\r\n\r\n"));
    assert_false(fixture.parser.keep_alive);
    h1_fixture_accept(&fixture, H1_REQUEST,
                      BYTES("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
    assert_true(fixture.parser.keep_alive);
    h1_fixture_accept(&fixture, H1_REQUEST, FIELDS("Connection: closed"));
    assert_true(fixture.parser.keep_alive);
}

static void long_lines_are_scanned_the_same_at_every_alignment(void **state) {
    (void)state;
    char memory[512];
    for (uint32_t pad = 0; pad < 40; pad++) {
        struct writer w = writer_make(memory, sizeof(memory));
        writer_put(&w, BYTES("GET / HTTP/1.1\r\nHost: a\r\nX: "));
        for (uint32_t i = 0; i < pad; i++)
            writer_char(&w, 'v');
        size_t bad_at = w.len;
        writer_put(&w, BYTES("z\r\n\r\n"));
        h1_fixture_accept(&fixture, H1_REQUEST, writer_bytes(&w));
        memory[bad_at] = '\x01';
        h1_fixture_refuse(&fixture, H1_REQUEST, writer_bytes(&w), REASON_BAD_FIELD_VALUE);
        memory[bad_at] = '\t';
        h1_fixture_accept(&fixture, H1_REQUEST, writer_bytes(&w));
        memory[bad_at] = '\xff';
        h1_fixture_accept(&fixture, H1_REQUEST, writer_bytes(&w));
    }
}

/* How a refusal is written depends on it. */
static void the_method_of_what_is_refused_is_known_where_it_could_be_read(void **state) {
    (void)state;
    static const struct {
        const char *head;
        enum http_method method;
    } cases[] = {
        {"HEAD / HTTP/1.1\r\n\r\n", HTTP_HEAD},
        {"HEAD / HTTP/1.1\r\nHost: a\r\nA B: c\r\n\r\n", HTTP_HEAD},
        {"HEAD / HTTP/1.7\r\n\r\n", HTTP_HEAD},
        {"HEAD / HTTP\r\n\r\n", HTTP_HEAD},
        {"HEAD /a b HTTP/1.1\r\n\r\n", HTTP_HEAD},
        {"HEAD /\x01", HTTP_HEAD},
        {"HEAD \x01", HTTP_HEAD},
        {"\r\nHEAD /\n", HTTP_HEAD},
        {"POST /\n", HTTP_POST},
        {"BREW /\n", HTTP_OTHER},
        {"HEAD\x01", HTTP_GET},
        {"HEAD\t/ HTTP/1.1\r\n", HTTP_GET},
        {" HEAD / HTTP/1.1\r\n", HTTP_GET},
        {"HEAD\r\n", HTTP_GET},
        {"{", HTTP_GET},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(h1_fixture_parse(&fixture, H1_REQUEST, bytes_of(cases[i].head)), H1_BAD);
        assert_int_equal(fixture.parser.method, cases[i].method);
    }
    fixture.limits.target_size_max = 10;
    char text[200] = "HEAD /";
    memset(text + 6, 'x', sizeof text - 7);
    h1_fixture_refuse(&fixture, H1_REQUEST, bytes_of(text), REASON_TARGET_TOO_LONG);
    assert_int_equal(fixture.parser.method, HTTP_HEAD);
    memset(text, 'X', 6);
    h1_fixture_refuse(&fixture, H1_REQUEST, bytes_of(text), REASON_TARGET_TOO_LONG);
    assert_int_equal(fixture.parser.method, HTTP_GET);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(malformed_request_lines_are_refused),
        TEST(versions_other_than_1_0_and_1_1_are_refused),
        TEST(invalid_targets_are_refused),
        TEST(lines_end_in_crlf_exactly),
        TEST(malformed_fields_are_refused),
        TEST(a_request_has_one_valid_host),
        TEST(framing_that_two_readers_could_read_apart_is_refused),
        TEST(all_faults_of_responses_are_one_reason),
        TEST(faults_of_trailers_have_the_reasons_of_requests),
        TEST(a_target_may_have_target_size_max_bytes),
        TEST(a_head_may_have_head_size_max_bytes),
        TEST(a_head_may_have_fields_max_fields),
        TEST(the_fault_of_the_earlier_line_is_named),
        TEST(empty_lines_before_a_request_are_skipped),
        TEST(nothing_is_decided_before_there_is_input),
        TEST(the_framing_of_requests_follows_the_fields),
        TEST(the_framing_of_responses_follows_status_method_and_fields),
        TEST(connections_stay_open_as_the_version_and_connection_say),
        TEST(the_method_of_what_is_refused_is_known_where_it_could_be_read),
        TEST(long_lines_are_scanned_the_same_at_every_alignment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
