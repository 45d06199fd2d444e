#include "proto/grpc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void content_types_of_calls(void **state) {
    (void)state;
    const struct bytes calls[] = {
        BYTES("application/grpc"),           BYTES("application/grpc+proto"),
        BYTES("application/grpc;v=1"),       BYTES("application/grpc ; v=1"),
        BYTES("Application/GRPC+json; a=b"), BYTES("application/grpc+"),
    };
    const struct bytes others[] = {
        BYTES(""),
        BYTES("application/grp"),
        BYTES("application/grpc-web"),
        BYTES("application/grpc-web+proto"),
        BYTES("application/grpcs"),
        BYTES("application/json"),
        BYTES(" application/grpc"),
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        assert_true(grpc_is_content_type(calls[i]));
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_false(grpc_is_content_type(others[i]));
}

static struct http_message message_of(struct arena *arena, struct bytes content_type) {
    struct http_message message = {.method = HTTP_POST, .version_minor = 1};
    assert_true(http_fields_init(&message.fields, arena, 1));
    assert_true(http_fields_add(&message.fields, arena, BYTES("Content-Type"), content_type));
    return message;
}

static void a_call_is_a_post_over_a_version_with_trailers(void **state) {
    struct arena *arena = *state;
    struct http_message request = message_of(arena, BYTES("application/grpc"));
    assert_true(grpc_is_request(&request));
    request.method = HTTP_GET;
    assert_false(grpc_is_request(&request));
    request.method = HTTP_POST;
    request.version_minor = 0;
    assert_false(grpc_is_request(&request));
    request = message_of(arena, BYTES("text/plain"));
    assert_false(grpc_is_request(&request));
    request.fields.count = 0;
    assert_false(grpc_is_request(&request));
}

static void an_answer_that_can_end_in_a_status(void **state) {
    struct arena *arena = *state;
    struct http_message answer = message_of(arena, BYTES("application/grpc+proto"));
    answer.status = 200;
    answer.body_length = HTTP_LENGTH_UNKNOWN;
    assert_true(grpc_is_answer(&answer));
    answer.body_length = 5; /* trailers would come before its end */
    assert_false(grpc_is_answer(&answer));
    answer.body_length = HTTP_LENGTH_UNKNOWN;
    answer.status = 503;
    assert_false(grpc_is_answer(&answer));
    answer = message_of(arena, BYTES("text/html"));
    answer.status = 200;
    answer.body_length = HTTP_LENGTH_UNKNOWN;
    assert_false(grpc_is_answer(&answer));
}

static void timeouts(void **state) {
    (void)state;
    const struct {
        struct bytes text;
        uint64_t ms;
    } rows[] = {
        {BYTES("1H"), 3600000},
        {BYTES("2M"), 120000},
        {BYTES("3S"), 3000},
        {BYTES("4m"), 4},
        {BYTES("5000u"), 5},
        {BYTES("5001u"), 6},
        {BYTES("1u"), 1},
        {BYTES("1n"), 1},
        {BYTES("1000000n"), 1},
        {BYTES("1000001n"), 2},
        {BYTES("99999999n"), 100},
        {BYTES("0m"), 0},
        {BYTES("0n"), 0},
        {BYTES("00000001S"), 1000},
        {BYTES("99999999m"), 99999999},
        {BYTES("99999999H"), UINT64_C(359999996400000)},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t ms = UINT64_MAX;
        assert_true(grpc_timeout_parse(rows[i].text, &ms));
        assert_true(ms == rows[i].ms);
    }
}

static void what_is_no_timeout(void **state) {
    (void)state;
    const struct bytes rows[] = {
        BYTES(""),    BYTES("S"),    BYTES("1"),          BYTES("1s"),  BYTES("1h"),
        BYTES("-1S"), BYTES("+1S"),  BYTES("100000000m"), BYTES("1 S"), BYTES(" 1S"),
        BYTES("1S "), BYTES("1.5S"), BYTES("0x1S"),       BYTES("1SS"), BYTES("1\0"),
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t ms = 77;
        assert_false(grpc_timeout_parse(rows[i], &ms));
        assert_int_equal(ms, 77);
    }
}

static void timeouts_are_written_in_ms(void **state) {
    (void)state;
    const uint64_t rows[] = {0, 1, 999, 1000, 99999999};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char memory[GRPC_TIMEOUT_SIZE];
        struct writer text = writer_make(memory, sizeof memory);
        uint64_t ms;
        assert_true(grpc_timeout_write(rows[i], &text));
        assert_false(text.full);
        assert_true(grpc_timeout_parse(writer_bytes(&text), &ms));
        assert_int_equal(ms, rows[i]);
    }
    struct writer none = writer_make(NULL, 0);
    assert_false(grpc_timeout_write(100000000, &none));
}

static void statuses_of_http(void **state) {
    (void)state;
    const struct {
        int http;
        int grpc;
    } rows[] = {{400, 13}, {401, 16}, {403, 7},  {404, 12}, {405, 2}, {408, 2},
                {413, 8},  {414, 8},  {429, 14}, {431, 8},  {500, 2}, {501, 2},
                {502, 14}, {503, 14}, {504, 4},  {505, 2},  {418, 2}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(grpc_status_of_http(rows[i].http), rows[i].grpc);
}

static void statuses_of_resets(void **state) {
    (void)state;
    const int rows[] = {13, 13, 13, 13, 13, 13, 13, 14, 1, 13, 13, 8, 7, 13, 13};
    for (uint32_t code = 0; code < sizeof rows / sizeof rows[0]; code++)
        assert_int_equal(grpc_status_of_reset(code), rows[code]);
}

static void messages_are_percent_encoded(void **state) {
    (void)state;
    const struct {
        struct bytes plain;
        const char *encoded;
    } rows[] = {
        {BYTES("no server could be connected"), "no server could be connected"},
        {BYTES("100%"), "100%25"},
        {BYTES("a\nb\x7f\x1f"), "a%0Ab%7F%1F"},
        {BYTES("\xc3\xa9\xff ~!"), "%C3%A9%FF ~!"},
        {BYTES(""), ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char memory[64];
        struct writer text = writer_make(memory, sizeof memory);
        grpc_put_message(&text, rows[i].plain);
        assert_false(text.full);
        assert_true(bytes_equal(writer_bytes(&text), bytes_of(rows[i].encoded)));
    }
}

static void assert_field(const struct http_fields *fields, const char *name, const char *value) {
    const struct http_field *field = http_fields_find_name(fields, bytes_of(name));
    assert_non_null(field);
    assert_true(bytes_equal(field->value, bytes_of(value)));
}

static void an_error_is_a_head_alone(void **state) {
    struct http_message answer;
    assert_true(grpc_error_answer(REASON_CONNECT_FAILED, *state, &answer));
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.body_length, 0);
    assert_field(&answer.fields, "content-type", "application/grpc");
    assert_field(&answer.fields, "grpc-status", "14");
    assert_field(&answer.fields, "grpc-message", "no server could be connected");
    assert_field(&answer.fields, "proxy-status",
                 "weir; error=connection_refused; details=\"connect_failed\"");
}

/* The text of a row must fit, and its number be one that is known. */
static void every_reason_with_a_status_can_be_told(void **state) {
    struct arena *arena = *state;
    uint32_t told = 0;
    for (int i = 0; i < REASON_COUNT; i++) {
        enum reason reason = (enum reason)i;
        struct http_fields trailers;
        if (reason_entry(reason)->status == 0) continue;
        assert_true(http_fields_init(&trailers, arena, 2));
        assert_true(grpc_put_status(grpc_status_of(reason), reason, arena, &trailers));
        assert_int_equal(trailers.count, 2);
        uint64_t number;
        assert_true(bytes_to_u64(trailers.items[0].value, &number));
        assert_int_equal(number, grpc_status_of_http(reason_entry(reason)->status));
        assert_true(http_field_value_valid(trailers.items[1].value));
        arena_reset(arena);
        told++;
    }
    assert_true(told > 20);
}

static void no_memory_is_said(void **state) {
    struct arena *arena = *state;
    struct http_message answer;
    while (arena_alloc(arena, 64))
        continue;
    assert_false(grpc_error_answer(REASON_CONNECT_FAILED, arena, &answer));
}

static struct arena_pool pool;
static struct arena arena_of_test;

static int set_up(void **state) {
    arena_init(&arena_of_test, &pool);
    *state = &arena_of_test;
    return 0;
}

static int tear_down(void **state) {
    arena_reset(*state);
    return 0;
}

static int make_pool(void **state) {
    (void)state;
    return arena_pool_init(&pool, 2048, 4, 8192, 4);
}

static int drop_pool(void **state) {
    (void)state;
    arena_pool_fini(&pool);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_types_of_calls),
        cmocka_unit_test_setup_teardown(a_call_is_a_post_over_a_version_with_trailers, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_answer_that_can_end_in_a_status, set_up, tear_down),
        cmocka_unit_test(timeouts),
        cmocka_unit_test(what_is_no_timeout),
        cmocka_unit_test(timeouts_are_written_in_ms),
        cmocka_unit_test(statuses_of_http),
        cmocka_unit_test(statuses_of_resets),
        cmocka_unit_test(messages_are_percent_encoded),
        cmocka_unit_test_setup_teardown(an_error_is_a_head_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_reason_with_a_status_can_be_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_memory_is_said, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, make_pool, drop_pool);
}
