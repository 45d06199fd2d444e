#include "proto/h1_write.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct http_field field_items[] = {
    {{"Accept", 6}, {"*/*", 3}, HTTP_FIELD_OTHER, false},
    {{"X-Long", 6}, {"0123456789abcdefghijklmnopqrstuvwxyz", 36}, HTTP_FIELD_OTHER, false},
    {{"TE", 2}, {"trailers", 8}, HTTP_FIELD_TE, false},
};

static struct http_message a_request(void) {
    return (struct http_message){.method = HTTP_GET,
                                 .method_text = BYTES("GET"),
                                 .authority = BYTES("a.example"),
                                 .path = BYTES("/p")};
}

static struct http_message a_response(uint16_t status) {
    return (struct http_message){.status = status};
}

/* Writes into all sizes of memory: too little must be told, and nothing be written past the end. */
static void check_written(const struct http_message *message, const struct h1_framing *framing,
                          const char *wanted) {
    char memory[512];
    size_t needed = strlen(wanted);
    assert_true(h1_head_size_max(message) >= needed);
    for (size_t size = 0; size <= needed; size++) {
        memset(memory, '#', sizeof(memory));
        struct writer w = writer_make(memory, size);
        if (message->status == 0) {
            h1_write_request(&w, message, framing);
        } else {
            h1_write_response(&w, message, framing);
        }
        assert_int_equal(w.full, size < needed);
        for (size_t i = w.len; i < sizeof(memory); i++)
            assert_int_equal(memory[i], '#');
        if (w.full) continue;
        if (!bytes_equal(writer_bytes(&w), bytes_of(wanted))) {
            fail_msg("written: %.*s", BYTES_FMT(writer_bytes(&w)));
        }
    }
}

static void a_request_begins_with_its_host(void **state) {
    (void)state;
    struct http_message message = a_request();
    message.fields = (struct http_fields){.items = field_items, .count = 2};
    const struct h1_framing framing = {.keep_alive = true};
    check_written(&message, &framing,
                  "GET /p HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n"
                  "X-Long: 0123456789abcdefghijklmnopqrstuvwxyz\r\n\r\n");
}

static void targets_are_in_the_form_of_their_method(void **state) {
    (void)state;
    const struct h1_framing framing = {.keep_alive = true};
    struct http_message message = a_request();
    message.query = BYTES("q=1");
    check_written(&message, &framing, "GET /p?q=1 HTTP/1.1\r\nHost: a.example\r\n\r\n");
    message.query = BYTES("");
    check_written(&message, &framing, "GET /p? HTTP/1.1\r\nHost: a.example\r\n\r\n");
    message = a_request();
    message.method = HTTP_OPTIONS;
    message.method_text = BYTES("OPTIONS");
    message.path = BYTES("*");
    check_written(&message, &framing, "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n");
    message.path = BYTES("");
    check_written(&message, &framing, "OPTIONS / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    message.method = HTTP_CONNECT;
    message.method_text = BYTES("CONNECT");
    message.authority = BYTES("b:443");
    check_written(&message, &framing, "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n");
}

static void requests_are_framed(void **state) {
    (void)state;
    struct http_message message = a_request();
    struct h1_framing framing = {.keep_alive = true, .body_kind = H1_BODY_CHUNKED};
    check_written(&message, &framing,
                  "GET /p HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n");
    framing.body_kind = H1_BODY_LENGTH;
    framing.body_length = 9223372036854775807;
    check_written(
        &message, &framing,
        "GET /p HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9223372036854775807\r\n\r\n");
}

static void a_method_that_expects_content_says_that_there_is_none(void **state) {
    (void)state;
    struct http_message message = a_request();
    const struct h1_framing framing = {.keep_alive = true};
    message.method = HTTP_POST;
    message.method_text = BYTES("POST");
    check_written(&message, &framing,
                  "POST /p HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n");
}

static void connection_says_one_thing_and_names_te(void **state) {
    (void)state;
    struct http_message message = a_request();
    struct h1_framing framing = {.keep_alive = false};
    check_written(&message, &framing,
                  "GET /p HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    framing = (struct h1_framing){.keep_alive = true, .say_keep_alive = true};
    check_written(&message, &framing,
                  "GET /p HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n");
    framing = (struct h1_framing){.upgrade = true};
    message.upgrade = BYTES("websocket");
    message.fields = (struct http_fields){.items = &field_items[2], .count = 1};
    check_written(&message, &framing,
                  "GET /p HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\n"
                  "Connection: upgrade, te\r\nUpgrade: websocket\r\n\r\n");
    framing = (struct h1_framing){.keep_alive = true};
    check_written(&message, &framing,
                  "GET /p HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nConnection: te\r\n\r\n");
}

static void a_response_has_the_phrase_it_came_with_or_the_usual_one(void **state) {
    (void)state;
    struct http_message message = a_response(404);
    const struct h1_framing framing = {.keep_alive = true};
    check_written(&message, &framing, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    message.reason_phrase = BYTES("");
    check_written(&message, &framing, "HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n");
    message.reason_phrase = BYTES("Gone fishing");
    check_written(&message, &framing, "HTTP/1.1 404 Gone fishing\r\nContent-Length: 0\r\n\r\n");
    message = a_response(431);
    check_written(&message, &framing,
                  "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n\r\n");
}

struct framed {
    uint16_t status;
    struct h1_framing framing;
    const char *wanted;
};

static void responses_are_framed_as_their_status_allows(void **state) {
    (void)state;
    const uint64_t unknown = HTTP_LENGTH_UNKNOWN;
    const struct framed cases[] = {
        {200,
         {.keep_alive = true, .body_kind = H1_BODY_LENGTH, .body_length = 12},
         "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n"},
        {200,
         {.keep_alive = true, .body_kind = H1_BODY_CHUNKED},
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {200,
         {.body_kind = H1_BODY_UNTIL_CLOSE, .body_length = unknown},
         "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"},
        {200, {.keep_alive = true}, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
        {200,
         {.keep_alive = true, .length_is_known = true, .body_length = 7},
         "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"},
        {200, {.keep_alive = true, .body_length = unknown}, "HTTP/1.1 200 OK\r\n\r\n"},
        {200,
         {.keep_alive = true, .length_is_known = true, .body_length = unknown},
         "HTTP/1.1 200 OK\r\n\r\n"},
        {304, {.keep_alive = true}, "HTTP/1.1 304 Not Modified\r\n\r\n"},
        {304,
         {.keep_alive = true, .length_is_known = true, .body_length = 7},
         "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"},
        {204, {.keep_alive = true}, "HTTP/1.1 204 No Content\r\n\r\n"},
        {204,
         {.length_is_known = true, .body_length = 7},
         "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"},
        {100, {.keep_alive = false}, "HTTP/1.1 100 Continue\r\n\r\n"},
        {103, {.keep_alive = true, .say_keep_alive = true}, "HTTP/1.1 103 Early Hints\r\n\r\n"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct http_message message = a_response(cases[i].status);
        check_written(&message, &cases[i].framing, cases[i].wanted);
    }
}

static void switching_protocols_names_the_protocol(void **state) {
    (void)state;
    struct http_message message = a_response(101);
    message.upgrade = BYTES("websocket");
    const struct h1_framing framing = {.upgrade = true};
    check_written(&message, &framing,
                  "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                  "Upgrade: websocket\r\n\r\n");
}

static void pieces_of_every_length_are_copied_whole(void **state) {
    (void)state;
    char text[201];
    char wanted[512];
    const struct h1_framing framing = {.keep_alive = true, .body_length = HTTP_LENGTH_UNKNOWN};
    for (size_t len = 0; len < sizeof(text); len++) {
        for (size_t i = 0; i < len; i++)
            text[i] = (char)('!' + i % 90);
        struct http_message message = a_response(200);
        message.reason_phrase = bytes_make(text, len);
        struct writer w = writer_make(wanted, sizeof(wanted) - 1);
        writer_put(&w, BYTES("HTTP/1.1 200 "));
        writer_put(&w, message.reason_phrase);
        writer_put(&w, BYTES("\r\n\r\n"));
        wanted[w.len] = '\0';
        check_written(&message, &framing, wanted);
    }
}

static void chunk_heads_are_hexadecimal(void **state) {
    (void)state;
    char memory[H1_CHUNK_HEAD_MAX];
    struct writer w = writer_make(memory, sizeof(memory));
    h1_write_chunk_head(&w, 0x1a);
    assert_true(bytes_equal(writer_bytes(&w), BYTES("1a\r\n")));
    w = writer_make(memory, sizeof(memory));
    h1_write_chunk_head(&w, UINT64_MAX);
    assert_false(w.full);
    assert_int_equal(w.len, H1_CHUNK_HEAD_MAX);
}

static void the_last_chunk_carries_the_trailers(void **state) {
    (void)state;
    char memory[64];
    struct writer w = writer_make(memory, sizeof(memory));
    h1_write_last_chunk(&w, NULL);
    assert_true(bytes_equal(writer_bytes(&w), BYTES("0\r\n\r\n")));
    const struct http_fields trailers = {.items = field_items, .count = 1};
    w = writer_make(memory, sizeof(memory));
    h1_write_last_chunk(&w, &trailers);
    assert_true(bytes_equal(writer_bytes(&w), BYTES("0\r\nAccept: */*\r\n\r\n")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_begins_with_its_host),
        cmocka_unit_test(targets_are_in_the_form_of_their_method),
        cmocka_unit_test(requests_are_framed),
        cmocka_unit_test(a_method_that_expects_content_says_that_there_is_none),
        cmocka_unit_test(connection_says_one_thing_and_names_te),
        cmocka_unit_test(a_response_has_the_phrase_it_came_with_or_the_usual_one),
        cmocka_unit_test(responses_are_framed_as_their_status_allows),
        cmocka_unit_test(switching_protocols_names_the_protocol),
        cmocka_unit_test(pieces_of_every_length_are_copied_whole),
        cmocka_unit_test(chunk_heads_are_hexadecimal),
        cmocka_unit_test(the_last_chunk_carries_the_trailers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
