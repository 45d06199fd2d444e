#include "proto/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const char *const known_names[HTTP_FIELD_COUNT] = {
    [HTTP_FIELD_ACCEPT_ENCODING] = "Accept-Encoding",
    [HTTP_FIELD_CACHE_CONTROL] = "Cache-Control",
    [HTTP_FIELD_CONNECTION] = "Connection",
    [HTTP_FIELD_CONTENT_ENCODING] = "Content-Encoding",
    [HTTP_FIELD_CONTENT_LENGTH] = "Content-Length",
    [HTTP_FIELD_CONTENT_TYPE] = "Content-Type",
    [HTTP_FIELD_COOKIE] = "Cookie",
    [HTTP_FIELD_DATE] = "Date",
    [HTTP_FIELD_EXPECT] = "Expect",
    [HTTP_FIELD_FORWARDED] = "Forwarded",
    [HTTP_FIELD_HOST] = "Host",
    [HTTP_FIELD_KEEP_ALIVE] = "Keep-Alive",
    [HTTP_FIELD_LOCATION] = "Location",
    [HTTP_FIELD_PROXY_AUTHORIZATION] = "Proxy-Authorization",
    [HTTP_FIELD_PROXY_CONNECTION] = "Proxy-Connection",
    [HTTP_FIELD_RETRY_AFTER] = "Retry-After",
    [HTTP_FIELD_SERVER] = "Server",
    [HTTP_FIELD_SET_COOKIE] = "Set-Cookie",
    [HTTP_FIELD_TE] = "TE",
    [HTTP_FIELD_TRAILER] = "Trailer",
    [HTTP_FIELD_TRANSFER_ENCODING] = "Transfer-Encoding",
    [HTTP_FIELD_UPGRADE] = "Upgrade",
    [HTTP_FIELD_USER_AGENT] = "User-Agent",
    [HTTP_FIELD_VIA] = "Via",
    [HTTP_FIELD_X_FORWARDED_FOR] = "X-Forwarded-For",
    [HTTP_FIELD_X_FORWARDED_HOST] = "X-Forwarded-Host",
    [HTTP_FIELD_X_FORWARDED_PROTO] = "X-Forwarded-Proto",
    [HTTP_FIELD_X_REQUEST_ID] = "X-Request-Id",
};

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }
static char upper(char c) { return c >= 'a' && c <= 'z' ? (char)(c - 32) : c; }

static void methods_are_case_sensitive_tokens(void **state) {
    (void)state;
    for (int i = 0; i < HTTP_OTHER; i++) {
        struct bytes text = http_method_text((enum http_method)i);
        assert_int_equal(http_method_of(text), i);
    }
    const struct bytes others[] = {BYTES("get"),     BYTES("GOT"),      BYTES("PUS"),
                                   BYTES("POSX"),    BYTES("PRI"),      BYTES("PROPFIND"),
                                   BYTES("CONNECX"), BYTES("OPTIONS1"), BYTES("")};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_int_equal(http_method_of(others[i]), HTTP_OTHER);
    }
}

static void idempotent_methods_are_those_of_rfc_9110(void **state) {
    (void)state;
    assert_true(http_method_is_idempotent(HTTP_GET));
    assert_true(http_method_is_idempotent(HTTP_PUT));
    assert_true(http_method_is_idempotent(HTTP_DELETE));
    assert_false(http_method_is_idempotent(HTTP_POST));
    assert_false(http_method_is_idempotent(HTTP_PATCH));
    assert_false(http_method_is_idempotent(HTTP_CONNECT));
    assert_false(http_method_is_idempotent(HTTP_OTHER));
}

static void every_known_field_is_found_in_any_case(void **state) {
    (void)state;
    for (int id = 1; id < HTTP_FIELD_COUNT; id++) {
        struct bytes name = bytes_of(known_names[id]);
        char changed[32];
        assert_int_equal(http_field_id_of(name), id);
        for (size_t i = 0; i < name.len; i++)
            changed[i] = lower(name.ptr[i]);
        assert_int_equal(http_field_id_of(bytes_make(changed, name.len)), id);
        for (size_t i = 0; i < name.len; i++)
            changed[i] = upper(name.ptr[i]);
        assert_int_equal(http_field_id_of(bytes_make(changed, name.len)), id);
    }
}

/* The comparison folds case with bit masks: no other byte may be folded with it. */
static void no_other_byte_at_any_place_of_a_known_name_is_taken_for_it(void **state) {
    (void)state;
    for (uint32_t id = 1; id < HTTP_FIELD_COUNT; id++) {
        struct bytes name = bytes_of(known_names[id]);
        char changed[32];
        for (size_t i = 0; i < name.len; i++) {
            memcpy(changed, name.ptr, name.len);
            for (int c = 0; c < 256; c++) {
                changed[i] = (char)c;
                bool same = lower((char)c) == lower(name.ptr[i]);
                assert_int_equal(http_field_id_of(bytes_make(changed, name.len)) == id, same);
            }
        }
    }
}

static void of_lower_names_no_byte_at_any_place_is_folded(void **state) {
    (void)state;
    for (uint32_t id = 1; id < HTTP_FIELD_COUNT; id++) {
        struct bytes name = http_field_name((enum http_field_id)id);
        char changed[32];
        for (size_t i = 0; i < name.len; i++) {
            memcpy(changed, name.ptr, name.len);
            for (int c = 0; c < 256; c++) {
                changed[i] = (char)c;
                bool same = (char)c == name.ptr[i];
                assert_int_equal(http_field_id_of_lower(bytes_make(changed, name.len)) == id, same);
            }
        }
    }
}

static void names_of_any_length_are_looked_up_without_reading_past_them(void **state) {
    (void)state;
    for (size_t len = 0; len < 40; len++) {
        char name[40];
        memset(name, 'x', len);
        assert_int_equal(http_field_id_of(bytes_make(name, len)), HTTP_FIELD_OTHER);
    }
    assert_int_equal(http_field_id_of(BYTES_NONE), HTTP_FIELD_OTHER);
}

static void reason_phrases_exist_for_known_statuses_only(void **state) {
    (void)state;
    assert_true(bytes_equal(http_reason_phrase(200), BYTES("OK")));
    assert_true(bytes_equal(http_reason_phrase(431), BYTES("Request Header Fields Too Large")));
    assert_true(bytes_equal(http_reason_phrase(511), BYTES("Network Authentication Required")));
    const int unknown[] = {-1, 0, 99, 104, 299, 306, 512, 599, 1000};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        assert_int_equal(http_reason_phrase(unknown[i]).len, 0);
    }
}

static void responses_without_a_body_are_those_of_rfc_9112(void **state) {
    (void)state;
    assert_true(http_response_has_no_body(HTTP_GET, 100));
    assert_true(http_response_has_no_body(HTTP_GET, 204));
    assert_true(http_response_has_no_body(HTTP_GET, 304));
    assert_true(http_response_has_no_body(HTTP_HEAD, 200));
    assert_true(http_response_has_no_body(HTTP_HEAD, 404));
    assert_true(http_response_has_no_body(HTTP_CONNECT, 200));
    assert_false(http_response_has_no_body(HTTP_CONNECT, 407));
    assert_false(http_response_has_no_body(HTTP_GET, 200));
    assert_false(http_response_has_no_body(HTTP_POST, 205));
}

static void tokens_and_values_are_judged_byte_by_byte(void **state) {
    (void)state;
    static const char separators[] = "\"(),/:;<=>?@[\\]{}";
    for (int c = 0; c < 256; c++) {
        char text[3] = {'a', (char)c, 'b'};
        bool token = c > 0x20 && c < 0x7f && strchr(separators, c) == NULL;
        bool value = c == '\t' || (c >= 0x20 && c != 0x7f);
        assert_int_equal(http_token_valid(bytes_make(text, 3)), token);
        assert_int_equal(http_field_value_valid(bytes_make(text, 3)), value);
    }
    assert_false(http_token_valid(BYTES("")));
    assert_true(http_field_value_valid(BYTES("")));
}

static void authorities_are_a_host_and_maybe_a_port(void **state) {
    (void)state;
    const struct bytes valid[] = {
        BYTES("a"),
        BYTES("a.example"),
        BYTES("a.example."),
        BYTES("a:80"),
        BYTES("a:"),
        BYTES("a:0"),
        BYTES("a:65535"),
        BYTES("a:00080"),
        BYTES("127.0.0.1"),
        BYTES("[::1]"),
        BYTES("[::1]:8080"),
        BYTES("[::ffff:1.2.3.4]"),
        BYTES("%41.b"),
        BYTES("a_b-c~d"),
        BYTES("a!$&'()*+,;="),
        BYTES("[2001:db8:1111:2222:3333:4444:5555:6666]:1"),
    };
    const struct bytes invalid[] = {
        BYTES(""),
        BYTES(":80"),
        BYTES("a:65536"),
        BYTES("a:99999999999999999999"),
        BYTES("a:8x"),
        BYTES("a:80:80"),
        BYTES("a b"),
        BYTES("a/b"),
        BYTES("u@a"),
        BYTES("u:p@a"),
        BYTES("a#"),
        BYTES("a?"),
        BYTES("[::1"),
        BYTES("::1"),
        BYTES("[]"),
        BYTES("[::1]x"),
        BYTES("[::g]"),
        BYTES("[v1.a]"),
        BYTES("[::1%25eth0]"),
        BYTES("[::1\0]"),
        BYTES("%4"),
        BYTES("%zz"),
        BYTES("a%"),
        BYTES("\xc3\xa9.example"),
        BYTES("a\0b"),
        BYTES("a\\b"),
        BYTES("<a>"),
        BYTES("a:-1"),
        BYTES("[1111:2222:3333:4444:5555:6666:7777:8888:9999:0000:1111:2222]"),
    };
    for (size_t i = 0; i < sizeof(valid) / sizeof(valid[0]); i++) {
        if (!http_authority_valid(valid[i])) fail_msg("refused: %.*s", BYTES_FMT(valid[i]));
    }
    for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++) {
        if (http_authority_valid(invalid[i])) fail_msg("accepted: %.*s", BYTES_FMT(invalid[i]));
    }
}

static void the_host_of_an_authority_has_no_port_and_no_trailing_dot(void **state) {
    (void)state;
    assert_true(bytes_equal(http_authority_host(BYTES("a.example:80")), BYTES("a.example")));
    assert_true(bytes_equal(http_authority_host(BYTES("a.example.")), BYTES("a.example")));
    assert_true(bytes_equal(http_authority_host(BYTES("a.:1")), BYTES("a")));
    assert_true(bytes_equal(http_authority_host(BYTES("[::1]:80")), BYTES("[::1]")));
    assert_true(bytes_equal(http_authority_host(BYTES("[::1]")), BYTES("[::1]")));
    assert_int_equal(http_authority_host(BYTES_NONE).len, 0);
}

static struct arena_pool pool;
static struct arena arena;

static int set_up(void **state) {
    (void)state;
    arena_init(&arena, &pool);
    return arena_pool_init(&pool, 1024, 2, 4096, 2);
}

static int tear_down(void **state) {
    (void)state;
    arena_reset(&arena);
    arena_pool_fini(&pool);
    return 0;
}

static void fields_grow_past_their_first_capacity(void **state) {
    (void)state;
    struct http_fields fields;
    assert_true(http_fields_init(&fields, &arena, 1));
    for (int i = 0; i < 20; i++) {
        assert_true(http_fields_add(&fields, &arena, BYTES("X-A"), BYTES("1")));
    }
    assert_true(http_fields_add(&fields, &arena, BYTES("VIA"), BYTES("1.1 weir")));
    assert_int_equal(fields.count, 21);
    assert_int_equal(fields.items[20].id, HTTP_FIELD_VIA);
    assert_ptr_equal(http_fields_find(&fields, HTTP_FIELD_VIA), &fields.items[20]);
    assert_ptr_equal(http_fields_find_name(&fields, BYTES("x-a")), &fields.items[0]);
    assert_null(http_fields_find(&fields, HTTP_FIELD_HOST));
    assert_null(http_fields_find_name(&fields, BYTES("x-b")));
}

static void a_table_may_begin_empty(void **state) {
    (void)state;
    struct http_fields fields = {0};
    assert_true(http_fields_add(&fields, &arena, BYTES("A"), BYTES("")));
    assert_int_equal(fields.count, 1);
}

static void adding_fails_at_the_limit_of_the_arena_and_changes_nothing(void **state) {
    (void)state;
    struct http_fields fields = {0};
    while (http_fields_add(&fields, &arena, BYTES("A"), BYTES("b"))) {
        assert_true(fields.count < 10000);
    }
    assert_int_equal(fields.count, fields.capacity);
    assert_true(bytes_equal(fields.items[fields.count - 1].value, BYTES("b")));
    assert_false(http_fields_init(&fields, &arena, 1000));
}

static void removing_takes_all_of_a_name_and_keeps_the_order(void **state) {
    (void)state;
    struct http_fields fields = {0};
    const struct bytes names[] = {BYTES("A"), BYTES("Set-Cookie"), BYTES("B"), BYTES("set-cookie"),
                                  BYTES("C")};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_true(http_fields_add(&fields, &arena, names[i], BYTES("v")));
    }
    assert_int_equal(http_fields_remove(&fields, BYTES("SET-COOKIE")), 2);
    assert_int_equal(http_fields_remove(&fields, BYTES("SET-COOKIE")), 0);
    assert_int_equal(fields.count, 3);
    assert_true(bytes_equal(fields.items[1].name, BYTES("B")));
    assert_true(bytes_equal(fields.items[2].name, BYTES("C")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods_are_case_sensitive_tokens),
        cmocka_unit_test(idempotent_methods_are_those_of_rfc_9110),
        cmocka_unit_test(every_known_field_is_found_in_any_case),
        cmocka_unit_test(no_other_byte_at_any_place_of_a_known_name_is_taken_for_it),
        cmocka_unit_test(of_lower_names_no_byte_at_any_place_is_folded),
        cmocka_unit_test(names_of_any_length_are_looked_up_without_reading_past_them),
        cmocka_unit_test(reason_phrases_exist_for_known_statuses_only),
        cmocka_unit_test(responses_without_a_body_are_those_of_rfc_9112),
        cmocka_unit_test(tokens_and_values_are_judged_byte_by_byte),
        cmocka_unit_test(authorities_are_a_host_and_maybe_a_port),
        cmocka_unit_test(the_host_of_an_authority_has_no_port_and_no_trailing_dot),
        cmocka_unit_test_setup_teardown(fields_grow_past_their_first_capacity, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_table_may_begin_empty, set_up, tear_down),
        cmocka_unit_test_setup_teardown(adding_fails_at_the_limit_of_the_arena_and_changes_nothing,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(removing_takes_all_of_a_name_and_keeps_the_order, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
