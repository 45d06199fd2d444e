#include "config/keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

static bool is_numeric(const struct key *key) {
    return key->kind != KIND_TEXT && key->kind != KIND_LIST;
}

static void every_default_is_a_value_of_its_key(void **state) {
    (void)state;
    for (unsigned i = 0; i < KEY_COUNT; i++) {
        const struct key *key = key_at((enum key_id)i);
        if (!is_numeric(key) || key->id == KEY_TYPE) continue; /* type has none: it must be said */
        uint64_t number;
        char text[256];
        struct writer why = writer_make(text, sizeof text);
        if (!key_number(key, bytes_of(key->fallback), &number, &why)) {
            fail_msg("%s: %.*s", key->name, BYTES_FMT(writer_bytes(&why)));
        }
    }
}

static void no_section_has_two_keys_of_a_name(void **state) {
    (void)state;
    for (unsigned i = 0; i < KEY_COUNT; i++) {
        for (unsigned j = 0; j < i; j++) {
            const struct key *a = key_at((enum key_id)i);
            const struct key *b = key_at((enum key_id)j);
            assert_true(strcmp(a->name, b->name) != 0 || (a->places & b->places) == 0);
        }
    }
}

static void no_key_is_both_known_and_later(void **state) {
    (void)state;
    for (unsigned i = 0; i < KEY_COUNT; i++) {
        const struct key *key = key_at((enum key_id)i);
        for (unsigned kind = 0; kind < SECTION_COUNT; kind++) {
            if (!(key->places & 1u << kind)) continue;
            assert_false(key_is_later((enum section_kind)kind, bytes_of(key->name)));
            assert_ptr_equal(key_find((enum section_kind)kind, bytes_of(key->name)), key);
        }
    }
}

static char *read_file(const char *path) {
    FILE *stream = fopen(path, "re");
    if (!stream) return NULL;
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, stream) > 0);
    assert_int_equal(fclose(stream), 0);
    return text;
}

/* Its rows are "| `key` | where | value | default | meaning |", one for each row of defaults.def,
 * in that order. */
static void the_reference_has_every_key_as_the_table_has_it(void **state) {
    (void)state;
    char *text = read_file("etc/README.md");
    if (!text) skip(); /* not run from the top of the tree */
    const char *at = text;
    for (unsigned i = 0; i < KEY_COUNT; i++) {
        const struct key *key = key_at((enum key_id)i);
        char start[128];
        char fallback[128] = "| - |";
        char meaning[256];
        (void)snprintf(start, sizeof start, "\n| `%s` |", key->name);
        if (key->fallback[0] != '\0') {
            (void)snprintf(fallback, sizeof fallback, "| `%s` |", key->fallback);
        }
        at = strstr(at, start);
        if (!at) fail_msg("etc/README.md lacks %s, or has it in another place", key->name);
        at++;
        const char *end = strchr(at, '\n');
        const char *found = strstr(at, fallback);
        if (!found || found > end) fail_msg("%s: the default is not %s", key->name, fallback);
        (void)snprintf(meaning, sizeof meaning, "| %s |\n", key->help);
        found = strstr(at, meaning);
        if (!found || found > end) fail_msg("%s: the meaning is not \"%s\"", key->name, key->help);
    }
    free(text);
}

static void assert_refused(enum key_id id, const char *text, const char *expected) {
    uint64_t number = 77;
    char memory[256] = "";
    struct writer why = writer_make(memory, sizeof memory - 1);
    assert_false(key_number(key_at(id), bytes_of(text), &number, &why));
    assert_string_equal(memory, expected);
    assert_int_equal(number, 77);
}

static void ranges_read_as_in_a_file(void **state) {
    (void)state;
    assert_refused(KEY_MAX_HEADER_SIZE, "1m", "\"1m\" is out of range, it must be 1k to 64k");
    assert_refused(KEY_TIMEOUT_REQUEST, "0s", "\"0s\" is out of range, it must be 1ms to 720h");
    assert_refused(KEY_MAX_HEADERS, "1001", "\"1001\" is out of range, it must be 1 to 1000");
    assert_refused(KEY_MIN_READ_RATE, "2048g",
                   "\"2048g\" is out of range, it must be 0 to 1024g/s");
}

static void numbers_say_what_they_should_be(void **state) {
    (void)state;
    assert_refused(KEY_MAX_CONNECTIONS, "many", "\"many\" is not a whole number");
    assert_refused(KEY_TIMEOUT_REQUEST, "10",
                   "\"10\" is not a duration with a unit (500ms 10s 5m 1h)");
    assert_refused(KEY_MAX_BODY_SIZE, "10MB", "\"10MB\" is not a size (bytes, or with k, m or g)");
    assert_refused(KEY_MIN_READ_RATE, "fast",
                   "\"fast\" is not a rate (bytes for each second, as in 500 or 10k/s)");
    assert_refused(KEY_NODELAY, "yes", "\"yes\" is not on or off");
    assert_refused(KEY_BALANCE, "lest_conn",
                   "\"lest_conn\" is none of round_robin least_conn p2c random maglev source_ip "
                   "first (did you mean \"least_conn\"?)");
    assert_refused(KEY_BALANCE, "ewma", "\"ewma\" is not supported by this version");
}

static void a_message_repeats_only_the_start_of_a_long_value(void **state) {
    (void)state;
    char text[1000];
    memset(text, '7', sizeof text);
    uint64_t number;
    char memory[512] = "";
    struct writer why = writer_make(memory, sizeof memory - 1);
    assert_false(key_number(key_at(KEY_BACKLOG), bytes_make(text, sizeof text), &number, &why));
    assert_non_null(strstr(memory, "77777\" is not a whole number"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_default_is_a_value_of_its_key),
        cmocka_unit_test(no_section_has_two_keys_of_a_name),
        cmocka_unit_test(no_key_is_both_known_and_later),
        cmocka_unit_test(the_reference_has_every_key_as_the_table_has_it),
        cmocka_unit_test(ranges_read_as_in_a_file),
        cmocka_unit_test(numbers_say_what_they_should_be),
        cmocka_unit_test(a_message_repeats_only_the_start_of_a_long_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
