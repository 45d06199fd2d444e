#include "config/template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

/* "L:text" for literals, "H:name" for headers, the number of the variable otherwise; joined by "|".
 */
static void assert_parts(const char *text, const char *expected) {
    struct template template;
    char error[256];
    if (template_parse(&template, bytes_of(text), error, sizeof error) != 0) fail_msg("%s", error);
    char found[512];
    struct writer w = writer_make(found, sizeof found - 1);
    for (uint32_t i = 0; i < template.count; i++) {
        const struct template_part *part = &template.parts[i];
        if (i != 0) writer_char(&w, '|');
        if (part->variable == TEMPLATE_LITERAL) {
            writer_print(&w, "L:%.*s", BYTES_FMT(part->text));
        } else if (part->variable == TEMPLATE_HEADER) {
            writer_print(&w, "H:%.*s", BYTES_FMT(part->text));
        } else {
            writer_print(&w, "%d", (int)part->variable);
        }
    }
    found[w.len] = '\0';
    assert_string_equal(found, expected);
    template_fini(&template);
    assert_null(template.parts);
}

static void assert_bad(const char *text, const char *expected) {
    struct template template = {NULL, 7};
    char error[256];
    assert_int_equal(template_parse(&template, bytes_of(text), error, sizeof error), -EINVAL);
    assert_string_equal(error, expected);
    assert_int_equal(template.count, 7); /* untouched */
}

static void literals_and_variables_alternate(void **state) {
    (void)state;
    assert_parts("", "");
    assert_parts("plain", "L:plain");
    assert_parts("$host", "3");
    assert_parts("https://$host$uri", "L:https://|3|9");
    assert_parts("$client_ip:$client_port!", "1|L::|2|L:!");
}

static void braces_end_a_name(void **state) {
    (void)state;
    assert_parts("${host}name", "3|L:name");
    assert_parts("a${path}b${query}", "L:a|7|L:b|8");
}

static void two_dollars_are_one(void **state) {
    (void)state;
    assert_parts("$$", "L:$");
    assert_parts("a$$b", "L:a|L:$|L:b");
    assert_parts("$$$status", "L:$|19");
}

static void header_names_get_their_dashes(void **state) {
    (void)state;
    assert_parts("$header_X_Real_IP", "H:X-Real-IP");
    assert_parts("${header_a}_", "H:a|L:_");
}

static void every_variable_has_its_word(void **state) {
    (void)state;
    assert_parts("$client_ip$client_port$host$authority$method$scheme$path$query$uri$listener"
                 "$route$upstream$server$tls_version$tls_cipher$tls_sni$tls_client_subject"
                 "$tls_client_verify$status$request_id",
                 "1|2|3|4|5|6|7|8|9|10|11|12|13|14|15|16|17|18|19|21");
}

static void unknown_names_are_errors_with_a_suggestion(void **state) {
    (void)state;
    assert_bad("$hots", "unknown variable \"$hots\" (did you mean \"$host\"?)");
    assert_bad("x ${nonsense} y", "unknown variable \"$nonsense\"");
    assert_bad("$header_", "unknown variable \"$header_\"");
    const char *bare = "\"$\" without the name of a variable (\"$$\" is a dollar sign)";
    assert_bad("a$", bare);
    assert_bad("$ 5", bare);
    assert_bad("${}", bare);
    assert_bad("${host", bare);
    assert_bad("${ho st}", bare);
}

static void an_error_stays_within_its_memory(void **state) {
    (void)state;
    struct template template;
    char name[200];
    memset(name, 'a', sizeof name);
    name[0] = '$';
    char error[4] = {'x', 'x', 'x', 'x'};
    assert_int_equal(template_parse(&template, bytes_make(name, sizeof name), error, 3), -EINVAL);
    assert_int_equal(error[3], 'x');
    assert_int_equal(error[2], '\0');
    assert_int_equal(template_parse(&template, bytes_make(name, sizeof name), NULL, 0), -EINVAL);
}

static void a_literal_keeps_its_dollars(void **state) {
    (void)state;
    struct template template;
    assert_int_equal(template_literal(&template, BYTES("a$host")), 0);
    assert_int_equal(template.count, 1);
    assert_int_equal(template.parts[0].variable, TEMPLATE_LITERAL);
    assert_true(bytes_equal(template.parts[0].text, BYTES("a$host")));
    template_fini(&template);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(literals_and_variables_alternate),
        cmocka_unit_test(braces_end_a_name),
        cmocka_unit_test(two_dollars_are_one),
        cmocka_unit_test(header_names_get_their_dashes),
        cmocka_unit_test(every_variable_has_its_word),
        cmocka_unit_test(unknown_names_are_errors_with_a_suggestion),
        cmocka_unit_test(an_error_stays_within_its_memory),
        cmocka_unit_test(a_literal_keeps_its_dollars),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
