#include "unit/proto/h1_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

void h1_fixture_init(struct h1_fixture *fixture) {
    memset(fixture, 0, sizeof(*fixture));
    fixture->limits = (struct h1_limits){16384, FIXTURE_FIELDS_MAX, 8192};
    assert_int_equal(arena_pool_init(&fixture->pool, 2048, 4, 32768, 4), 0);
    arena_init(&fixture->arena, &fixture->pool);
}

void h1_fixture_fini(struct h1_fixture *fixture) {
    arena_reset(&fixture->arena);
    arena_pool_fini(&fixture->pool);
}

/* The sanitizers see a read past the end. */
static enum h1_result parse_copy(struct h1_parser *parser, struct bytes head) {
    char *copy = malloc(head.len);
    assert_true(copy != NULL || head.len == 0);
    if (head.len != 0) memcpy(copy, head.ptr, head.len);
    enum h1_result result = h1_parse(parser, bytes_make(copy, head.len));
    free(copy);
    return result;
}

enum h1_result h1_fixture_parse(struct h1_fixture *fixture, enum h1_kind kind, struct bytes head) {
    struct h1_span spans[FIXTURE_FIELDS_MAX];
    struct h1_parser slow;
    h1_parser_init(&slow, kind, fixture->request_method, &fixture->limits, spans);
    enum h1_result slow_result = H1_MORE;
    for (size_t len = 0; len <= head.len && slow_result == H1_MORE; len++) {
        slow_result = parse_copy(&slow, bytes_make(head.ptr, len));
    }
    h1_parser_init(&fixture->parser, kind, fixture->request_method, &fixture->limits,
                   fixture->spans);
    enum h1_result result = parse_copy(&fixture->parser, head);
    assert_int_equal(result, slow_result);
    assert_int_equal(fixture->parser.reason, slow.reason);
    assert_int_equal(fixture->parser.method, slow.method);
    assert_int_equal(fixture->parser.head_size, slow.head_size);
    return result;
}

void h1_fixture_accept(struct h1_fixture *fixture, enum h1_kind kind, struct bytes head) {
    enum h1_result result = h1_fixture_parse(fixture, kind, head);
    if (result != H1_DONE) {
        fail_msg("not accepted (%s): %.*s", reason_entry(fixture->parser.reason)->name,
                 BYTES_FMT(head));
    }
    assert_true(
        h1_message(&fixture->parser, head, BYTES("http"), &fixture->arena, &fixture->message));
}

void h1_fixture_refuse(struct h1_fixture *fixture, enum h1_kind kind, struct bytes head,
                       enum reason reason) {
    enum h1_result result = h1_fixture_parse(fixture, kind, head);
    if (result != H1_BAD || fixture->parser.reason != reason) {
        fail_msg("result %d, %s instead of %s: %.*s", (int)result,
                 reason_entry(fixture->parser.reason)->name, reason_entry(reason)->name,
                 BYTES_FMT(head));
    }
}

struct bytes h1_fixture_field(const struct h1_fixture *fixture, const char *name) {
    const struct http_field *field =
        http_fields_find_name(&fixture->message.fields, bytes_of(name));
    return field != NULL ? field->value : BYTES_NONE;
}
