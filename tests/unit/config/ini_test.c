#include "config/ini.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "unit/config/load.h"

/* A whole good configuration; tests add lines to its end, which belong to [service one]. Eight
 * lines. */
#define GOOD                                                                                       \
    "[listener web]\n"                                                                             \
    "bind = 127.0.0.1:8080\n"                                                                      \
    "service = one\n"                                                                              \
    "\n"                                                                                           \
    "[service one]\n"                                                                              \
    "type = respond\n"                                                                             \
    "; nothing\n"                                                                                  \
    "\n"

static void assert_body(const char *line, const char *expected) {
    char text[1024];
    (void)snprintf(text, sizeof text, "%s%s", GOOD, line);
    struct config *config = load_good(text);
    assert_string_equal(config->services[0].body, expected);
    assert_int_equal(config->services[0].body_size, strlen(expected));
    config_free(config);
}

static void comments_begin_behind_a_blank_outside_quotes(void **state) {
    (void)state;
    assert_body("body = a;b#c\n", "a;b#c");
    assert_body("body = a ; b\n", "a");
    assert_body("body = a\t# b\n", "a");
    assert_body("body = a \"b ; c\" d ; e\n", "a \"b ; c\" d");
    assert_body("body = \"a ; b # c\" ; d\n", "a ; b # c");
    assert_body("  # body = a\n; body = b\nbody = c\n", "c");
}

static void quotes_keep_a_value_whole(void **state) {
    (void)state;
    assert_body("body = \"  a  \"\n", "  a  ");
    assert_body("body = \"\"\n", "");
    assert_body("body = {\"a\": 1}\n", "{\"a\": 1}");
    assert_body("body=a=b:c\n", "a=b:c");
}

static void lines_may_end_and_begin_as_they_like(void **state) {
    (void)state;
    assert_body("  body\t=\t a \r\n", "a");
    assert_body("body = a", "a");
    struct config *config = load_good("\xef\xbb\xbf" GOOD);
    config_free(config);
    config = load_good("[ listener   web ] ; x\nbind = [::1]:1\nservice = s\n"
                       "[service s]\ntype = respond\n");
    assert_string_equal(config->listeners[0].name, "web");
    config_free(config);
}

static void an_indented_line_is_a_line_of_its_own(void **state) {
    (void)state;
    assert_errors(GOOD "body = a\n  b\n",
                  "10: service one: expected \"key = value\" or \"[section]\"\n");
    assert_errors(GOOD "body = a\n  bdoy = b\n",
                  "10: service one.bdoy: unknown key (did you mean \"body\"?)\n");
}

static void what_is_no_pair_is_an_error(void **state) {
    (void)state;
    const char *expected = "9: service one: expected \"key = value\" or \"[section]\"\n";
    assert_errors(GOOD "body\n", expected);
    assert_errors(GOOD "body: a\n", expected);
    assert_errors(GOOD "body: a = b\n", expected);
    assert_errors(GOOD "= a\n", expected);
    assert_errors("bind = 1\n" GOOD, "1: bind: stands before the first [section]\n");
}

static void quotes_must_close_and_end_the_value(void **state) {
    (void)state;
    assert_errors(GOOD "body = \"a\n", "9: service one: a double quote is never closed\n");
    assert_errors(GOOD "body = a\" ; b\n", "9: service one: a double quote is never closed\n");
    assert_errors(GOOD "body = \"a\" b\n",
                  "9: service one.body: text after the closing double quote\n");
}

static void an_empty_value_is_an_error(void **state) {
    (void)state;
    const char *expected = "9: service one.body: the value is empty\n";
    assert_errors(GOOD "body =\n", expected);
    assert_errors(GOOD "body = ; a\n", expected);
    assert_errors(GOOD "header = \"\"\n", "9: service one.header: the value is empty\n");
    assert_errors(GOOD "[route a]\nrespond = 404\nmethod = , ,\n",
                  "11: route a.method: the value is empty\n");
    assert_errors(GOOD "status =\n", "9: service one.status: the value is empty\n");
}

static void sections_must_be_known_named_and_unique(void **state) {
    (void)state;
    assert_errors(GOOD "[upstrem a]\nanything = x\n",
                  "9: upstrem a: unknown section (did you mean \"upstream\"?)\n");
    assert_errors(GOOD "[]\n", "9: : unknown section\n");
    assert_errors(GOOD "[Service a]\n",
                  "9: Service a: unknown section (did you mean \"service\"?)\n");
    assert_errors(GOOD "[healthcheck a]\nkey = a\n",
                  "9: healthcheck a: not supported by this version\n");
    assert_errors(GOOD "[log access]\n", "9: log access: not supported by this version\n");
    assert_errors(GOOD "[global x]\n", "9: global x: this section takes no name\n");
    assert_errors(GOOD "[route]\n", "9: route: a name is missing, as in [route NAME]\n");
    assert_errors(GOOD "[service a b]\n",
                  "9: service a b: the name may have letters, digits, \"_\", "
                  "\".\" and \"-\" only\n");
    assert_errors(GOOD "[service one]\ntype = respond\n",
                  "9: service one: duplicate section, the first is in line 5\n");
    assert_errors(GOOD "[service two\n", "9: \"]\" is missing at the end of the section's name\n");
    assert_errors(GOOD "[service two] x\ntype = respond\n", "9: service two: text after \"]\"\n");
}

static void section_names_end_at_49_bytes(void **state) {
    (void)state;
    const char *name = "12345678901234567890123456789012345678901";
    char text[512];
    (void)snprintf(text, sizeof text, "%s[service %s]\ntype = respond\n", GOOD, name);
    struct config *config = load_good(text); /* 8 + 41 */
    assert_string_equal(config->services[1].name, name);
    config_free(config);
    (void)snprintf(text, sizeof text, "%s[service %s2]\n", GOOD, name);
    char expected[256];
    (void)snprintf(expected, sizeof expected,
                   "9: service %s: the section's name is longer than 49 bytes\n", name);
    assert_errors(text, expected);
}

static void long_lines_are_errors_and_never_cut(void **state) {
    (void)state;
    char text[9000] = GOOD "body = ";
    size_t start = strlen(text);
    size_t fits = INI_LINE_SIZE_MAX - strlen("body = ");
    memset(text + start, 'a', fits);
    struct config *config = load_good(text);
    assert_int_equal(config->services[0].body_size, fits);
    config_free(config);
    text[start + fits] = 'a';
    assert_errors(text, "9: service one: the line is longer than 8192 bytes\n");
}

static void control_bytes_are_errors(void **state) {
    (void)state;
    const char *expected = "9: service one: the line has a control byte\n";
    assert_errors(GOOD "body = a\x01\n", expected);
    assert_errors(GOOD "body = a\rb\n", expected);
    assert_errors(GOOD "body = a\x7f\n", expected);
    struct config_errors errors;
    const char text[] = GOOD "body = a\0b\n";
    assert_null(load_bytes(text, sizeof text - 1, &errors));
    assert_string_equal(errors.text, "F:9: service one: the line has a control byte\n");
    config_errors_fini(&errors);
    assert_body("body = a\tb\xc3\xa4\n", "a\tb\xc3\xa4");
}

static void messages_are_printable(void **state) {
    (void)state;
    assert_errors(GOOD "b\xc3\xa4 = a\n", "9: service one.b??: unknown key\n");
}

static void a_file_that_cannot_be_read_is_one_error(void **state) {
    (void)state;
    struct config_errors errors;
    assert_null(config_load("/nonexistent/weir.ini", &errors));
    assert_string_equal(errors.text,
                        "/nonexistent/weir.ini: cannot read: No such file or directory\n");
    config_errors_fini(&errors);
    assert_null(config_load("/proc", &errors));
    assert_string_equal(errors.text, "/proc: cannot read: Is a directory\n");
    config_errors_fini(&errors);
    assert_null(errors.text);
}

static void an_empty_file_lacks_a_listener(void **state) {
    (void)state;
    struct config_errors errors;
    assert_null(load_bytes("", 0, &errors));
    assert_string_equal(errors.text, "F: there is no [listener NAME] section\n");
    config_errors_fini(&errors);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comments_begin_behind_a_blank_outside_quotes),
        cmocka_unit_test(quotes_keep_a_value_whole),
        cmocka_unit_test(lines_may_end_and_begin_as_they_like),
        cmocka_unit_test(an_indented_line_is_a_line_of_its_own),
        cmocka_unit_test(what_is_no_pair_is_an_error),
        cmocka_unit_test(quotes_must_close_and_end_the_value),
        cmocka_unit_test(an_empty_value_is_an_error),
        cmocka_unit_test(sections_must_be_known_named_and_unique),
        cmocka_unit_test(section_names_end_at_49_bytes),
        cmocka_unit_test(long_lines_are_errors_and_never_cut),
        cmocka_unit_test(control_bytes_are_errors),
        cmocka_unit_test(messages_are_printable),
        cmocka_unit_test(a_file_that_cannot_be_read_is_one_error),
        cmocka_unit_test(an_empty_file_lacks_a_listener),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
