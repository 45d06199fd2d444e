#include "unit/proto/h1_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

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

static void accept_request(struct bytes head) { h1_fixture_accept(&fixture, H1_REQUEST, head); }

static void assert_text(struct bytes got, const char *wanted) {
    if (!bytes_equal(got, bytes_of(wanted))) {
        fail_msg("\"%.*s\" instead of \"%s\"", BYTES_FMT(got), wanted);
    }
}

static void a_request_is_taken_apart(void **state) {
    (void)state;
    accept_request(
        BYTES("PROPFIND /a/b?c=d?e HTTP/1.1\r\nHost: h.example:81\r\nAccept:  x\ty \t\r\n"
              "Empty:\r\nExpect: 100-Continue\r\n\r\nbody"));
    const struct http_message *message = &fixture.message;
    assert_int_equal(message->method, HTTP_OTHER);
    assert_text(message->method_text, "PROPFIND");
    assert_text(message->scheme, "http");
    assert_text(message->authority, "h.example:81");
    assert_text(message->path, "/a/b");
    assert_text(message->query, "c=d?e");
    assert_int_equal(message->status, 0);
    assert_int_equal(message->version_minor, 1);
    assert_int_equal(message->body_length, 0);
    assert_true(message->expect_continue);
    assert_int_equal(message->fields.count, 3);
    assert_text(h1_fixture_field(&fixture, "accept"), "x\ty");
    assert_text(h1_fixture_field(&fixture, "expect"), "100-Continue");
    assert_int_equal(h1_fixture_field(&fixture, "empty").len, 0);
}

static void an_empty_query_is_not_no_query(void **state) {
    (void)state;
    accept_request(BYTES("GET /? HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_non_null(fixture.message.query.ptr);
    assert_int_equal(fixture.message.query.len, 0);
    accept_request(BYTES("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_null(fixture.message.query.ptr);
}

static void the_authority_of_an_absolute_target_wins_over_host(void **state) {
    (void)state;
    accept_request(BYTES("GET HTTP://b:1/x?y HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_text(fixture.message.authority, "b:1");
    assert_text(fixture.message.path, "/x");
    assert_text(fixture.message.query, "y");
    assert_text(fixture.message.scheme, "http");
    accept_request(BYTES("GET https://b?y/z HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_text(fixture.message.authority, "b");
    assert_text(fixture.message.path, "/");
    assert_text(fixture.message.query, "y/z");
}

static void asterisk_and_authority_targets_are_told_apart(void **state) {
    (void)state;
    accept_request(BYTES("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_text(fixture.message.path, "*");
    accept_request(BYTES("OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_text(fixture.message.path, "*");
    assert_text(fixture.message.authority, "b");
    accept_request(BYTES("OPTIONS http://b? HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_text(fixture.message.path, "/");
    accept_request(BYTES("CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_text(fixture.message.authority, "b:443");
    assert_int_equal(fixture.message.path.len, 0);
}

static void http_1_0_needs_no_host_and_knows_no_expect_and_no_upgrade(void **state) {
    (void)state;
    accept_request(BYTES("GET / HTTP/1.0\r\nExpect: 100-continue\r\nConnection: upgrade\r\n"
                         "Upgrade: a\r\n\r\n"));
    assert_int_equal(fixture.message.authority.len, 0);
    assert_int_equal(fixture.message.version_minor, 0);
    assert_false(fixture.message.expect_continue);
    assert_int_equal(fixture.message.upgrade.len, 0);
    assert_int_equal(fixture.message.fields.count, 0);
}

static void fields_of_the_connection_are_dropped(void **state) {
    (void)state;
    accept_request(BYTES("GET / HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nKeep-Alive: 5\r\n"
                         "Connection: x-one, Keep-Alive,, TE\r\nX-ONE: 2\r\nConnection: x-two\r\n"
                         "Proxy-Connection: close\r\nX-Two: 3\r\nTE: gzip\r\nTE: Trailers\r\n"
                         "Content-Length: 4\r\nUpgrade: a\r\nX-Three: 4\r\n\r\n"));
    assert_int_equal(fixture.message.fields.count, 2);
    assert_text(h1_fixture_field(&fixture, "te"), "Trailers");
    assert_text(h1_fixture_field(&fixture, "x-three"), "4");
    assert_int_equal(fixture.message.body_length, 4);
    assert_int_equal(fixture.message.upgrade.len, 0); /* Connection does not name it */
}

static void an_upgrade_is_handed_on_when_connection_names_it_once(void **state) {
    (void)state;
    accept_request(BYTES("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
                         "Connection: keep-alive, Upgrade\r\n\r\n"));
    assert_true(fixture.parser.upgrade_named);
    assert_text(fixture.message.upgrade, "websocket");
    assert_int_equal(fixture.message.fields.count, 0);
    accept_request(BYTES("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: a\r\nUpgrade: b\r\n"
                         "Upgrade: c\r\nConnection: Upgrade\r\n\r\n"));
    assert_int_equal(fixture.message.upgrade.len, 0);
    accept_request(BYTES("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: a, b\r\n"
                         "Connection: Upgrade\r\n\r\n"));
    assert_int_equal(fixture.message.upgrade.len, 0); /* a list is not one */
    h1_fixture_accept(&fixture, H1_RESPONSE,
                      BYTES("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n"));
    assert_text(fixture.message.upgrade, "a");
    h1_fixture_accept(&fixture, H1_RESPONSE,
                      BYTES("HTTP/1.1 426 U\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n"));
    assert_int_equal(fixture.message.upgrade.len, 0);
}

static void a_response_is_taken_apart(void **state) {
    (void)state;
    h1_fixture_accept(&fixture, H1_RESPONSE,
                      BYTES("HTTP/1.0 404 Not  \xe9 Found\r\nServer: s\r\nHost: a\r\n"
                            "Content-Length: 3\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nabc"));
    assert_int_equal(fixture.message.status, 404);
    assert_text(fixture.message.reason_phrase, "Not  \xe9 Found");
    assert_int_equal(fixture.message.version_minor, 0);
    assert_int_equal(fixture.message.body_length, 3);
    assert_int_equal(fixture.message.fields.count, 3);
    assert_int_equal(fixture.message.fields.items[0].id, HTTP_FIELD_SERVER);
    assert_text(fixture.message.fields.items[2].value, "b");
}

static void the_reason_phrase_and_the_space_before_it_may_be_missing(void **state) {
    (void)state;
    h1_fixture_accept(&fixture, H1_RESPONSE, BYTES("HTTP/1.1 200 \r\n\r\n"));
    assert_int_equal(fixture.message.reason_phrase.len, 0);
    h1_fixture_accept(&fixture, H1_RESPONSE, BYTES("HTTP/1.1 200\r\n\r\n"));
    assert_int_equal(fixture.message.reason_phrase.len, 0);
    assert_non_null(fixture.message.reason_phrase.ptr);
}

static void trailers_hold_no_field_that_steers_anything(void **state) {
    (void)state;
    h1_fixture_accept(&fixture, H1_TRAILERS,
                      BYTES("X-Sum: 1\r\nHost: a\r\nContent-Length: x\r\nAuthorization: b\r\n"
                            "Transfer-Encoding: y\r\nX-Forwarded-For: c\r\nContent-Range: d\r\n"
                            "Set-Cookie: e\r\nServer-Timing: f\r\n\r\nGET"));
    assert_int_equal(fixture.message.fields.count, 2);
    assert_text(h1_fixture_field(&fixture, "x-sum"), "1");
    assert_text(h1_fixture_field(&fixture, "server-timing"), "f");
    h1_fixture_accept(&fixture, H1_TRAILERS, BYTES("\r\n"));
    assert_int_equal(fixture.message.fields.count, 0);
    assert_int_equal(fixture.parser.head_size, 2);
}

static void a_message_outlives_the_bytes_it_came_in(void **state) {
    (void)state;
    char head[] = "GET /path HTTP/1.1\r\nHost: host\r\nX: value\r\n\r\n";
    accept_request(bytes_make(head, sizeof(head) - 1));
    memset(head, '#', sizeof(head));
    assert_text(fixture.message.path, "/path");
    assert_text(fixture.message.authority, "host");
    assert_text(h1_fixture_field(&fixture, "X"), "value");
}

static void there_is_room_for_the_fields_a_proxy_adds(void **state) {
    (void)state;
    accept_request(BYTES("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_true(fixture.message.fields.capacity >= fixture.message.fields.count + 4);
}

static void an_arena_at_its_limit_is_told_and_leaves_the_message_alone(void **state) {
    (void)state;
    struct bytes head = BYTES("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    accept_request(head);
    while (arena_alloc(&fixture.arena, 16) != NULL) {
    }
    struct http_message message = {.status = 7};
    assert_false(h1_message(&fixture.parser, head, BYTES("http"), &fixture.arena, &message));
    assert_int_equal(message.status, 7);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_request_is_taken_apart),
        TEST(an_empty_query_is_not_no_query),
        TEST(the_authority_of_an_absolute_target_wins_over_host),
        TEST(asterisk_and_authority_targets_are_told_apart),
        TEST(http_1_0_needs_no_host_and_knows_no_expect_and_no_upgrade),
        TEST(fields_of_the_connection_are_dropped),
        TEST(an_upgrade_is_handed_on_when_connection_names_it_once),
        TEST(a_response_is_taken_apart),
        TEST(the_reason_phrase_and_the_space_before_it_may_be_missing),
        TEST(trailers_hold_no_field_that_steers_anything),
        TEST(a_message_outlives_the_bytes_it_came_in),
        TEST(there_is_room_for_the_fields_a_proxy_adds),
        TEST(an_arena_at_its_limit_is_told_and_leaves_the_message_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
