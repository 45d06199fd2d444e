#include "proto/h2_head.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define FIELDS_MAX 8
#define HEAD_SIZE_MAX 256
#define TARGET_SIZE_MAX 32

struct row {
    const char *name;
    const char *value;
};

static struct arena_pool pool;
static struct arena arena;
static struct h2_head *head;
static const struct h2_head_limits limits = {HEAD_SIZE_MAX, FIELDS_MAX, TARGET_SIZE_MAX};

static int set_up(void **state) {
    (void)state;
    assert_int_equal(arena_pool_init(&pool, 3968, 4, 65536, 4), 0);
    arena_init(&arena, &pool);
    head = malloc(h2_head_memory(&limits));
    return head ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    arena_reset(&arena);
    arena_pool_fini(&pool);
    free(head);
    return 0;
}

/* Each name and value in memory of its own that is gone after the call: the head copies. */
static void add(const char *name, const char *value) {
    char *name_copy = strdup(name);
    char *value_copy = strdup(value);
    h2_head_add(head, bytes_of(name_copy), bytes_of(value_copy), false);
    free(name_copy);
    free(value_copy);
}

static enum reason read_rows(enum h2_head_kind kind, const struct row *rows, bool end) {
    h2_head_init(head, kind, &limits);
    for (; rows->name; rows++)
        add(rows->name, rows->value);
    return h2_head_finish(head, end);
}

static void assert_text(struct bytes got, const char *wanted) {
    if (!bytes_equal(got, bytes_of(wanted))) {
        fail_msg("\"%.*s\" instead of \"%s\"", BYTES_FMT(got), wanted);
    }
}

#define GET                                                                                        \
    {":method", "GET"}, {":scheme", "https"}, { ":authority", "a:81" }

static struct http_message *accept_request(const struct row *rows, bool end) {
    assert_int_equal(read_rows(H2_REQUEST, rows, end), REASON_NONE);
    struct http_message *message = h2_head_request(head, BYTES("http"), &arena);
    assert_non_null(message);
    memset(head->text, 'X', HEAD_SIZE_MAX); /* nothing of the message lies there */
    return message;
}

static void a_request_is_taken_apart(void **state) {
    (void)state;
    static const struct row rows[] = {GET,           {":path", "/a/b?c=d?e"},    {"accept", "x"},
                                      {"empty", ""}, {"expect", "100-Continue"}, {NULL, NULL}};
    struct http_message *message = accept_request(rows, false);
    assert_int_equal(message->method, HTTP_GET);
    assert_text(message->method_text, "GET");
    assert_text(message->scheme, "http"); /* the connection's */
    assert_text(message->authority, "a:81");
    assert_text(message->path, "/a/b");
    assert_text(message->query, "c=d?e");
    assert_int_equal(message->fields.count, 3);
    assert_text(message->fields.items[0].name, "accept");
    assert_int_equal(message->fields.items[2].id, HTTP_FIELD_EXPECT);
    assert_true(message->expect_continue && message->is_h2);
}

static void crumbs_are_joined_where_the_first_stood(void **state) {
    (void)state;
    static const struct row rows[] = {GET,         {":path", "/"}, {"x", "1"},      {"cookie", "a"},
                                      {"y", "2"},  {"cookie", ""}, {"cookie", "c"}, {"z", "3"},
                                      {NULL, NULL}};
    struct http_message *message = accept_request(rows, true);
    assert_int_equal(message->fields.count, 4);
    assert_text(message->fields.items[1].name, "cookie");
    assert_text(message->fields.items[1].value, "a; ; c");
    assert_text(message->fields.items[3].value, "3");
}

static void connects_are_told_as_http1_would(void **state) {
    (void)state;
    static const struct row plain[] = {
        {":method", "CONNECT"}, {":authority", "[::1]:443"}, {NULL, NULL}};
    struct http_message *message = accept_request(plain, false);
    assert_int_equal(message->method, HTTP_CONNECT);
    assert_text(message->path, "");
    assert_int_equal(message->upgrade.len, 0);
    static const struct row extended[] = {{":method", "CONNECT"}, {":protocol", "websocket"},
                                          {":scheme", "http"},    {":path", "/x?"},
                                          {":authority", "a"},    {NULL, NULL}};
    message = accept_request(extended, false);
    assert_int_equal(message->method, HTTP_GET);
    assert_text(message->upgrade, "websocket");
    assert_text(message->path, "/x");
    assert_non_null(message->query.ptr);
}

static void the_first_fault_is_the_reason(void **state) {
    (void)state;
    static const struct row rows[] = {GET,        {":path", "/"},          {"x", "a\nb"},
                                      {"Y", "1"}, {"connection", "close"}, {NULL, NULL}};
    assert_int_equal(read_rows(H2_REQUEST, rows, true), REASON_BAD_FIELD_VALUE);
}

static void a_known_name_has_no_capital_either(void **state) {
    (void)state;
    static const char *const names[] = {"User-Agent", "user-agenT", "Te", "Cookie", "Host"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct row rows[] = {GET, {":path", "/"}, {names[i], "trailers"}, {NULL, NULL}};
        assert_int_equal(read_rows(H2_REQUEST, rows, true), REASON_BAD_FIELD_NAME);
    }
}

static void an_empty_name_is_none(void **state) {
    (void)state;
    static const struct row rows[] = {GET, {":path", "/"}, {"", "v"}, {NULL, NULL}};
    assert_int_equal(read_rows(H2_REQUEST, rows, true), REASON_BAD_FIELD_NAME);
}

/* Names that differ from known ones in one bit are no known ones. */
static void every_byte_of_a_name_is_judged(void **state) {
    (void)state;
    for (int byte = 1; byte < 256; byte++) {
        char name[3] = {'x', (char)byte, '\0'};
        const struct row rows[] = {GET, {":path", "/"}, {name, "v"}, {NULL, NULL}};
        bool token = (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') ||
                     strchr("!#$%&'*+-.^_`|~", byte);
        enum reason wanted = token ? REASON_NONE : REASON_BAD_FIELD_NAME;
        assert_int_equal(read_rows(H2_REQUEST, rows, true), wanted);
    }
}

static void every_byte_of_a_value_is_judged(void **state) {
    (void)state;
    for (int byte = 1; byte < 256; byte++) {
        char value[] = {'x', (char)byte, 'x', '\0'};
        const struct row rows[] = {GET, {":path", "/"}, {"n", value}, {NULL, NULL}};
        bool valid = byte == '\t' || (byte >= ' ' && byte != 0x7f);
        enum reason wanted = valid ? REASON_NONE : REASON_BAD_FIELD_VALUE;
        assert_int_equal(read_rows(H2_REQUEST, rows, true), wanted);
        char longer[] = "0123456789abcdefghij";
        longer[byte % 20] = (char)byte;
        const struct row other[] = {GET, {":path", "/"}, {"server", longer}, {NULL, NULL}};
        bool inside = byte % 20 != 0 && byte % 20 != 19;
        if (!inside && (byte == '\t' || byte == ' ')) wanted = REASON_BAD_FIELD_VALUE;
        assert_int_equal(read_rows(H2_REQUEST, other, true), wanted);
    }
}

static void limits_hold_at_their_edge(void **state) {
    (void)state;
    for (uint32_t extra = 0; extra < 2; extra++) {
        char path[TARGET_SIZE_MAX + 2] = "/";
        memset(path + 1, 'p', TARGET_SIZE_MAX - 1 + extra);
        const struct row rows[] = {GET, {":path", path}, {NULL, NULL}};
        assert_int_equal(read_rows(H2_REQUEST, rows, true),
                         extra ? REASON_TARGET_TOO_LONG : REASON_NONE);
    }
    for (uint32_t extra = 0; extra < 2; extra++) {
        h2_head_init(head, H2_REQUEST, &limits);
        add(":method", "GET");
        add(":scheme", "http");
        add(":path", "/");
        add(":authority", "a");
        for (uint32_t i = 0; i < FIELDS_MAX + extra; i++)
            add("cookie", "a");
        assert_int_equal(h2_head_finish(head, true), extra ? REASON_TOO_MANY_FIELDS : REASON_NONE);
        assert_int_equal(head->count, FIELDS_MAX + extra);
    }
    for (uint32_t extra = 0; extra < 2; extra++) {
        /* Four pseudo-fields of 49 bytes with their lines' 4 each, and a name of 1. */
        char value[HEAD_SIZE_MAX];
        h2_head_init(head, H2_REQUEST, &limits);
        add(":method", "GET");
        add(":scheme", "http");
        add(":path", "/");
        add(":authority", "a");
        size_t left = HEAD_SIZE_MAX - (size_t)head->size - 1 - 4 + extra;
        memset(value, 'v', left);
        value[left] = '\0';
        add("x", value);
        assert_int_equal(head->size, HEAD_SIZE_MAX + extra);
        assert_int_equal(h2_head_finish(head, true), extra ? REASON_HEAD_TOO_LARGE : REASON_NONE);
    }
}

static void what_comes_after_a_fault_is_counted_and_dropped(void **state) {
    (void)state;
    h2_head_init(head, H2_REQUEST, &limits);
    add("Bad", "x");
    uint32_t kept = head->text_len;
    for (int i = 0; i < 1000; i++)
        add("x-fill", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy");
    assert_int_equal(head->text_len, kept);
    assert_int_equal(head->count, 1001);
    assert_int_equal(head->size, 8 + 1000 * 42);
}

static void answers_are_taken_apart(void **state) {
    (void)state;
    struct http_message message;
    static const struct row rows[] = {
        {":status", "200"}, {"content-length", "12"}, {"x", "1"}, {NULL, NULL}};
    assert_int_equal(read_rows(H2_RESPONSE, rows, false), REASON_NONE);
    h2_head_response(head, HTTP_GET, false, &message);
    assert_int_equal(message.status, 200);
    assert_int_equal(message.body_length, 12);
    assert_int_equal(message.fields.count, 1);
    h2_head_response(head, HTTP_HEAD, true, &message);
    assert_int_equal(message.body_length, 12);
    static const struct row open[] = {{":status", "200"}, {NULL, NULL}};
    assert_int_equal(read_rows(H2_RESPONSE, open, false), REASON_NONE);
    h2_head_response(head, HTTP_GET, false, &message);
    assert_true(message.body_length == HTTP_LENGTH_UNKNOWN);
    h2_head_response(head, HTTP_GET, true, &message);
    assert_int_equal(message.body_length, 0);
}

static void bad_answers_are_refused(void **state) {
    (void)state;
    static const struct row rows[][4] = {
        {{NULL, NULL}},
        {{":status", "20"}, {NULL, NULL}},
        {{":status", "2000"}, {NULL, NULL}},
        {{":status", "099"}, {NULL, NULL}},
        {{":status", "600"}, {NULL, NULL}},
        {{":status", "101"}, {NULL, NULL}},
        {{":status", "2x0"}, {NULL, NULL}},
        {{":status", "200"}, {":status", "200"}, {NULL, NULL}},
        {{":status", "200"}, {":path", "/"}, {NULL, NULL}},
        {{"x", "1"}, {":status", "200"}, {NULL, NULL}},
        {{":status", "200"}, {"connection", "close"}, {NULL, NULL}},
        {{":status", "200"}, {"content-length", "1"}, {"content-length", "1"}, {NULL, NULL}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_not_equal(read_rows(H2_RESPONSE, rows[i], false), REASON_NONE);
    static const struct row interim[] = {{":status", "103"}, {NULL, NULL}};
    assert_int_equal(read_rows(H2_RESPONSE, interim, false), REASON_NONE);
    assert_int_not_equal(read_rows(H2_RESPONSE, interim, true), REASON_NONE);
}

static void trailers_keep_what_they_may_hold(void **state) {
    (void)state;
    struct http_fields fields;
    static const struct row rows[] = {{"x-sum", "1"},      {"content-length", "5"}, {"host", "b"},
                                      {"set-cookie", "a"}, {"range", "x"},          {"x-end", ""},
                                      {NULL, NULL}};
    assert_int_equal(read_rows(H2_TRAILERS, rows, true), REASON_NONE);
    assert_true(h2_head_trailers(head, &arena, &fields));
    assert_int_equal(fields.count, 2);
    assert_text(fields.items[0].name, "x-sum");
    assert_text(fields.items[1].name, "x-end");
    assert_int_not_equal(read_rows(H2_TRAILERS, rows, false), REASON_NONE);
}

static void without_memory_there_is_no_message(void **state) {
    (void)state;
    static const struct row rows[] = {GET, {":path", "/"}, {NULL, NULL}};
    assert_int_equal(read_rows(H2_REQUEST, rows, true), REASON_NONE);
    while (arena_alloc(&arena, 3000))
        continue;
    while (arena_alloc(&arena, 16))
        continue;
    assert_null(h2_head_request(head, BYTES("http"), &arena));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_request_is_taken_apart),
        TEST(crumbs_are_joined_where_the_first_stood),
        TEST(connects_are_told_as_http1_would),
        TEST(the_first_fault_is_the_reason),
        TEST(a_known_name_has_no_capital_either),
        TEST(an_empty_name_is_none),
        TEST(every_byte_of_a_name_is_judged),
        TEST(every_byte_of_a_value_is_judged),
        TEST(limits_hold_at_their_edge),
        TEST(what_comes_after_a_fault_is_counted_and_dropped),
        TEST(answers_are_taken_apart),
        TEST(bad_answers_are_refused),
        TEST(trailers_keep_what_they_may_hold),
        TEST(without_memory_there_is_no_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
