#include "base/reason.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "unit/base/death.h"

/* VOCABULARY of the access log: the outcome words there are. */
static bool is_outcome(const char *word) {
    static const char *const outcomes[] = {
        "ok",
        "client_abort",
        "denied",
        "shed",
        "rate_limited",
        "queue_timeout",
        "internal",
        "proto_error",
        "upstream_connect_failed",
        "upstream_timeout",
        "upstream_reset",
    };
    for (size_t i = 0; i < sizeof outcomes / sizeof outcomes[0]; i++) {
        if (strcmp(word, outcomes[i]) == 0) return true;
    }
    return false;
}

/* RFC 9209 section 2.3: the error types of the registry. */
static bool is_proxy_error(const char *token) {
    static const char *const tokens[] = {
        "dns_timeout",
        "dns_error",
        "destination_not_found",
        "destination_unavailable",
        "destination_ip_prohibited",
        "destination_ip_unroutable",
        "connection_refused",
        "connection_terminated",
        "connection_timeout",
        "connection_read_timeout",
        "connection_write_timeout",
        "connection_limit_reached",
        "tls_protocol_error",
        "tls_certificate_error",
        "tls_alert_received",
        "http_request_error",
        "http_request_denied",
        "http_response_incomplete",
        "http_response_header_section_size",
        "http_response_header_size",
        "http_response_body_size",
        "http_response_trailer_section_size",
        "http_response_trailer_size",
        "http_response_transfer_coding",
        "http_response_content_coding",
        "http_response_timeout",
        "http_upgrade_failed",
        "http_protocol_error",
        "proxy_internal_response",
        "proxy_internal_error",
        "proxy_configuration_error",
        "proxy_loop_detected",
    };
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        if (strcmp(token, tokens[i]) == 0) return true;
    }
    return false;
}

static void names_are_lower_case(void **state) {
    (void)state;
    assert_string_equal(reason_entry(REASON_NONE)->name, "none");
    assert_string_equal(reason_entry(REASON_BAD_HOST)->name, "bad_host");
    assert_string_equal(reason_entry(REASON_DRAIN_CUT)->name, "drain_cut");
    for (unsigned i = 0; i < REASON_COUNT; i++) {
        const char *name = reason_entry(i)->name;
        assert_true(strlen(name) > 0);
        for (; *name != '\0'; name++)
            assert_true(islower((unsigned char)*name) || isdigit((unsigned char)*name) ||
                        *name == '_');
    }
}

static void names_differ(void **state) {
    (void)state;
    for (unsigned i = 0; i < REASON_COUNT; i++) {
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(reason_entry(i)->name, reason_entry(j)->name);
    }
}

static void rows_hold_what_is_sent_and_logged(void **state) {
    (void)state;
    const struct reason_entry *entry = reason_entry(REASON_BAD_HOST);
    assert_int_equal(entry->status, 400);
    assert_string_equal(entry->outcome, "proto_error");
    assert_string_equal(entry->proxy_error, "http_request_error");
    assert_string_equal(entry->text, "Host is missing, repeated or invalid");
}

static void every_row_is_well_formed(void **state) {
    (void)state;
    for (unsigned i = 0; i < REASON_COUNT; i++) {
        const struct reason_entry *entry = reason_entry(i);
        if (!is_outcome(entry->outcome)) fail_msg("%s: %s", entry->name, entry->outcome);
        bool known = entry->proxy_error[0] == '\0' || is_proxy_error(entry->proxy_error);
        if (!known) fail_msg("%s: %s", entry->name, entry->proxy_error);
        if (entry->status != 0) {
            assert_in_range(entry->status, 400, 599);
            assert_string_not_equal(entry->proxy_error, "");
        }
        assert_true(strlen(entry->text) > 0);
        /* It goes into a quoted string of Proxy-Status as it stands (RFC 8941 section 3.3.3). */
        for (const char *c = entry->text; *c != '\0'; c++)
            assert_true(isprint((unsigned char)*c) && *c != '"' && *c != '\\');
    }
}

static void ask_for_no_reason(void) { (void)reason_entry(REASON_COUNT); }

static void a_number_that_is_no_reason_is_caught(void **state) {
    (void)state;
    assert_true(death_by_abort(ask_for_no_reason, NULL, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_lower_case),
        cmocka_unit_test(names_differ),
        cmocka_unit_test(rows_hold_what_is_sent_and_logged),
        cmocka_unit_test(every_row_is_well_formed),
        cmocka_unit_test(a_number_that_is_no_reason_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
