#include "proto/h2_write.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static nghttp2_nv items[12];
static char memory[64];
static char shown[512];
static struct http_field fields[8];

static struct h2_list list_make(void) {
    return (struct h2_list){.items = items, .max = 12, .text = writer_make(memory, sizeof memory)};
}

/* "name=value;" each. */
static const char *show(const struct h2_list *list) {
    size_t len = 0;
    shown[0] = '\0';
    for (uint32_t i = 0; i < list->count; i++) {
        const nghttp2_nv *nv = &list->items[i];
        len += (size_t)snprintf(shown + len, sizeof shown - len, "%.*s=%.*s;", (int)nv->namelen,
                                (const char *)nv->name, (int)nv->valuelen, (const char *)nv->value);
    }
    return shown;
}

static struct http_fields fields_make(const char *pairs[][2], uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        fields[i].name = bytes_of(pairs[i][0]);
        fields[i].value = bytes_of(pairs[i][1]);
        fields[i].id = http_field_id_of(fields[i].name);
    }
    return (struct http_fields){fields, count, 8};
}

static struct http_message request(enum http_method method, const char *path, const char *query) {
    return (struct http_message){.method = method,
                                 .method_text = http_method_text(method),
                                 .authority = BYTES("a"),
                                 .path = bytes_of(path),
                                 .query = bytes_of(query),
                                 .body_length = HTTP_LENGTH_UNKNOWN};
}

static const char *write_request(const struct http_message *message, bool end) {
    static struct h2_list list;
    list = list_make();
    assert_true(h2_write_request(&list, message, BYTES("http"), end));
    return show(&list);
}

static void requests(void **state) {
    (void)state;
    struct http_message message = request(HTTP_GET, "/x", NULL);
    assert_string_equal(write_request(&message, true),
                        ":method=GET;:scheme=http;:authority=a;:path=/x;");
    message = request(HTTP_GET, "/x", "");
    assert_string_equal(write_request(&message, true),
                        ":method=GET;:scheme=http;:authority=a;:path=/x?;");
    message = request(HTTP_POST, "", "q");
    assert_string_equal(write_request(&message, true),
                        ":method=POST;:scheme=http;:authority=a;:path=/?q;content-length=0;");
    message.body_length = 17;
    assert_string_equal(write_request(&message, false),
                        ":method=POST;:scheme=http;:authority=a;:path=/?q;content-length=17;");
    message = request(HTTP_CONNECT, "", NULL);
    assert_string_equal(write_request(&message, true), ":method=CONNECT;:authority=a;");
    message = request(HTTP_GET, "/w", NULL);
    message.upgrade = BYTES("websocket");
    assert_string_equal(write_request(&message, true),
                        ":method=CONNECT;:protocol=websocket;:scheme=http;:authority=a;:path=/w;");
    message.upgrade = BYTES("WebSocket"); /* as some clients of HTTP/1 say it */
    assert_string_equal(write_request(&message, true),
                        ":method=CONNECT;:protocol=websocket;:scheme=http;:authority=a;:path=/w;");
}

static void a_path_and_query_that_stand_together_are_not_copied(void **state) {
    (void)state;
    const char *target = "/some/path?and=query";
    struct http_message message = request(HTTP_GET, "", NULL);
    message.path = bytes_make(target, 10);
    message.query = bytes_make(target + 11, 9);
    struct h2_list list = list_make();
    assert_true(h2_write_request(&list, &message, BYTES("http"), true));
    assert_ptr_equal(list.items[3].value, target);
    assert_int_equal(list.items[3].valuelen, strlen(target));
}

/* nghttp2 puts into lower case only what it copies. */
static void known_names_are_in_lower_case(void **state) {
    (void)state;
    const char *pairs[][2] = {{"USER-Agent", "u"}, {"X-Mine", "m"}};
    struct http_message message = {.status = 304, .body_length = 0};
    message.fields = fields_make(pairs, 2);
    struct h2_list list = list_make();
    assert_true(h2_write_response(&list, &message));
    assert_string_equal(show(&list), ":status=304;user-agent=u;X-Mine=m;content-length=0;");
    assert_int_equal(list.items[0].flags, NGHTTP2_NV_FLAG_NO_COPY_NAME);
    assert_int_equal(list.items[1].flags, NGHTTP2_NV_FLAG_NO_COPY_NAME);
    assert_int_equal(list.items[2].flags, NGHTTP2_NV_FLAG_NONE);
}

static void fields_of_connections_are_left_out(void **state) {
    (void)state;
    const char *pairs[][2] = {{"Connection", "x"},        {"Host", "b"},   {"TE", "gzip"},
                              {"Transfer-Encoding", "x"}, {"A", "1"},      {"te", "trailers"},
                              {"Content-Length", "5"},    {"Upgrade", "y"}};
    struct http_message message = request(HTTP_GET, "/", NULL);
    message.fields = fields_make(pairs, 8);
    assert_string_equal(write_request(&message, true),
                        ":method=GET;:scheme=http;:authority=a;:path=/;A=1;te=trailers;");
}

static void answers(void **state) {
    (void)state;
    static const struct {
        uint16_t status;
        uint64_t length;
        const char *wanted;
    } rows[] = {
        {200, 5, ":status=200;content-length=5;"},
        {200, 0, ":status=200;content-length=0;"},
        {200, HTTP_LENGTH_UNKNOWN, ":status=200;"},
        {204, 0, ":status=204;"},
        {304, 7, ":status=304;content-length=7;"},
        {103, 0, ":status=103;"},
        {101, 0, ":status=200;"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct http_message message = {.status = rows[i].status, .body_length = rows[i].length};
        struct h2_list list = list_make();
        assert_true(h2_write_response(&list, &message));
        assert_string_equal(show(&list), rows[i].wanted);
    }
}

static void a_list_that_is_full_says_so(void **state) {
    (void)state;
    const char *pairs[][2] = {{"a", "1"}, {"b", "2"}, {"c", "3"}};
    struct http_message message = {.status = 200, .fields = fields_make(pairs, 3)};
    struct h2_list list = list_make();
    list.max = 4; /* no room for content-length */
    assert_false(h2_write_response(&list, &message));
    list.max = 5;
    assert_true(h2_write_response(&list, &message));
    message = request(HTTP_GET, "/0123456789012345678901234567890123456789", "0123456789012345678");
    list = list_make();
    list.text.size = 32;
    assert_false(h2_write_request(&list, &message, BYTES("http"), true));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests),
        cmocka_unit_test(a_path_and_query_that_stand_together_are_not_copied),
        cmocka_unit_test(known_names_are_in_lower_case),
        cmocka_unit_test(fields_of_connections_are_left_out),
        cmocka_unit_test(answers),
        cmocka_unit_test(a_list_that_is_full_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
