#include "config/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "unit/config/load.h"

/* What is in them, if they are there at all, is not config's to know. */
#define FILE_A "/proc/self/status"
#define FILE_B "/proc/self/maps"

#define GOOD                                                                                       \
    "[listener web]\n"                                                                             \
    "bind = 127.0.0.1:8443\n"                                                                      \
    "upstream = app\n"                                                                             \
    "tls = site\n"                                                                                 \
    "[upstream app]\n"                                                                             \
    "server = localhost:9000\n"                                                                    \
    "[tls site]\n"                                                                                 \
    "certificate = " FILE_A "\n"

static const struct config *load(const char *lines) {
    static struct config *config;
    config_free(config);
    config = NULL;
    if (!lines) return NULL;
    char text[2048];
    (void)snprintf(text, sizeof text, "%s%s", GOOD, lines);
    config = load_good(text);
    return config;
}

/* `lines` begin in line 9, in [tls site]. */
static void assert_bad(const char *lines, const char *expected) {
    char text[2048];
    (void)snprintf(text, sizeof text, "%s%s", GOOD, lines);
    assert_errors(text, expected);
}

static void the_least_has_sane_defaults(void **state) {
    (void)state;
    const struct config *config = load("");
    assert_int_equal(config->tls_count, 1);
    const struct config_tls *tls = &config->tls[0];
    assert_ptr_equal(config->listeners[0].tls, tls);
    assert_string_equal(tls->name, "site");
    assert_int_equal(tls->certificate_count, 1);
    assert_string_equal(tls->certificates[0].file.text, FILE_A);
    assert_int_equal(tls->certificates[0].file.line, 8);
    assert_string_equal(tls->certificates[0].key.text, FILE_A);
    assert_null(tls->certificates[0].ocsp_staple.text);
    assert_int_equal(tls->min_version, 2);
    assert_true(tls->session_tickets);
    assert_false(tls->strict_sni);
    assert_int_equal(tls->client_auth, CONFIG_CLIENT_AUTH_OFF);
    assert_int_equal(tls->ticket_rotation_ms, 12 * 3600 * 1000);
    assert_int_equal(tls->watch_ms, 5000);
    assert_null(tls->ca.text);
    assert_null(tls->crl.text);
    assert_true(bytes_equal(config->listeners[0].alpn, BYTES("\x02h2\x08http/1.1")));
    assert_false(config->upstreams[0].tls.on);
}

static void certificates_keys_and_staples_are_paired_in_order(void **state) {
    (void)state;
    const struct config *config = load("certificate = " FILE_B "\nkey = " FILE_B ", " FILE_A "\n"
                                       "ocsp_staple = off " FILE_B "\nmin_version = 1.3\n"
                                       "client_auth = optional\nca = " FILE_A "\n"
                                       "crl = " FILE_B "\n");
    const struct config_tls *tls = &config->tls[0];
    assert_int_equal(tls->certificate_count, 2);
    assert_string_equal(tls->certificates[0].file.text, FILE_A);
    assert_string_equal(tls->certificates[0].key.text, FILE_B);
    assert_null(tls->certificates[0].ocsp_staple.text);
    assert_string_equal(tls->certificates[1].file.text, FILE_B);
    assert_int_equal(tls->certificates[1].file.line, 9);
    assert_string_equal(tls->certificates[1].key.text, FILE_A);
    assert_int_equal(tls->certificates[1].key.line, 10);
    assert_string_equal(tls->certificates[1].ocsp_staple.text, FILE_B);
    assert_int_equal(tls->min_version, 3);
    assert_int_equal(tls->client_auth, CONFIG_CLIENT_AUTH_OPTIONAL);
    assert_string_equal(tls->ca.text, FILE_A);
    assert_string_equal(tls->crl.text, FILE_B);
    assert_int_equal(tls->crl.line, 15);
}

static void a_server_is_known_by_the_host_of_its_line(void **state) {
    (void)state;
    const struct config *config =
        load("[upstream a]\nserver = localhost:1\nserver = [::1]:2\nserver = 127.0.0.1:3\n"
             "tls = on\n[upstream b]\nserver = localhost:1\nserver = unix:/x\ntls = on\n"
             "server_name = x.example\nca = " FILE_A "\ncertificate = " FILE_B "\n"
             "[upstream c]\nserver = unix:/x\ntls = on\nverify = off\n"
             "[upstream d]\nserver = unix:/x\ntls = on\nserver_name = x.example.\n"
             "[upstream e]\nserver = unix:/x\ntls = on\nserver_name = [::1]\n");
    const struct config_upstream *upstreams = config->upstreams;
    assert_true(upstreams[1].tls.on && upstreams[1].tls.verify);
    assert_null(upstreams[1].tls.ca.text);
    assert_string_equal(upstreams[1].servers[0].tls_name, "localhost");
    assert_string_equal(upstreams[1].servers[1].tls_name, "::1");
    assert_string_equal(upstreams[1].servers[2].tls_name, "127.0.0.1");
    assert_string_equal(upstreams[2].servers[0].tls_name, "x.example");
    assert_string_equal(upstreams[2].servers[1].tls_name, "x.example");
    assert_string_equal(upstreams[2].tls.certificate.key.text, FILE_B);
    assert_null(upstreams[3].servers[0].tls_name);
    assert_false(upstreams[3].tls.verify);
    assert_string_equal(upstreams[4].servers[0].tls_name, "x.example");
    assert_string_equal(upstreams[5].servers[0].tls_name, "::1");
}

static void versions_may_be_listed_in_clear(void **state) {
    (void)state;
    const struct config *config = load("[listener a]\nbind = 127.0.0.1:1\nupstream = app\n"
                                       "alpn = http/1.1\n"
                                       "[listener b]\nbind = 127.0.0.1:2\nupstream = app\n");
    assert_true(bytes_equal(config->listeners[1].alpn, BYTES("\x08http/1.1")));
    assert_int_equal(config->listeners[2].alpn.len, 0);
}

static void raw_bytes_may_be_offered_as_any_protocol(void **state) {
    (void)state;
    const struct config *config =
        load("[listener raw]\nbind = 127.0.0.1:1\nmode = tcp\nupstream = app\ntls = site\n"
             "alpn = imap\nalpn = \"two words\"\n"
             "[listener none]\nbind = 127.0.0.1:2\nmode = tcp\nupstream = app\ntls = site\n");
    assert_true(bytes_equal(config->listeners[1].alpn, BYTES("\x04imap\x09two words")));
    assert_int_equal(config->listeners[2].alpn.len, 0);
}

static void bad_sections_are_named(void **state) {
    (void)state;
    static const struct {
        const char *lines;
        const char *expected;
    } rows[] = {
        {"[tls b]\n", "9: tls b.certificate: missing (PEM files: the certificate, then its "
                      "intermediates)\n"},
        {"min_version = 1.3\nciphers = ECDHE-RSA-AES128-GCM-SHA256\n",
         "10: tls site.ciphers: has no effect with min_version = 1.3\n"},
        {"certificate = " FILE_B "\ncertificate = " FILE_A "\n",
         "10: tls site.certificate: " FILE_A " is listed twice\n"},
        {"key = " FILE_A " " FILE_B "\n", "9: tls site.key: 2 files for 1 certificates: it must "
                                          "be one for each, in the same order\n"},
        {"ocsp_staple = off off\n", "9: tls site.ocsp_staple: 2 files for 1 certificates: it must "
                                    "be one for each, in the same order\n"},
        {"min_version = 1.1\n", "9: tls site.min_version: \"1.1\" is none of 1.2 1.3 (did you "
                                "mean \"1.2\"?)\n"},
        {"client_auth = require\n",
         "9: tls site.client_auth: needs ca, the file of who may have signed them\n"},
        {"ca = " FILE_A "\ncrl = " FILE_A "\n",
         "9: tls site.ca: has no effect with client_auth = off\n"
         "10: tls site.crl: has no effect with client_auth = off\n"},
        {"session_tickets = off\nticket_rotation = 1h\n",
         "10: tls site.ticket_rotation: has no effect with session_tickets = off\n"},
        {"ticket_rotation = 200h\n", "9: tls site.ticket_rotation: \"200h\" is out of range, it "
                                     "must be 1s to 168h\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nmode = tcp\nupstream = app\nalpn = imap\n",
         "13: listener a.alpn: needs tls = NAME\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nupstream = app\nalpn = h3\n",
         "12: listener a.alpn: \"h3\" is none of h2 http/1.1\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nupstream = app\ntls = sit\n",
         "12: listener a.tls: there is no [tls sit] (did you mean \"site\"?)\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nupstream = app\ntls = site\nalpn = http/2\n",
         "13: listener a.alpn: \"http/2\" is none of h2 http/1.1\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_bad(rows[i].lines, rows[i].expected);
}

static void bad_upstreams_are_named(void **state) {
    (void)state;
    static const struct {
        const char *lines;
        const char *expected;
    } rows[] = {
        {"[listener a]\nbind = unix:/a\nupstream = app\ntls = on\n"
         "[listener b]\nbind = unix:/b\nupstream = app\ntls = off\n",
         "12: listener a.tls: needs the name of a [tls NAME] section; without the key it is in "
         "clear\n"
         "16: listener b.tls: needs the name of a [tls NAME] section; without the key it is in "
         "clear\n"},
        {"[upstream u]\nserver = localhost:1\nserver_name = a\nca = " FILE_A "\nwatch = 1s\n"
         "timeout_handshake = 1s\n",
         "11: upstream u.server_name: has no effect with tls = off\n"
         "12: upstream u.ca: has no effect with tls = off\n"
         "13: upstream u.watch: has no effect with tls = off\n"
         "14: upstream u.timeout_handshake: has no effect with tls = off\n"},
        {"[upstream u]\nserver = localhost:1\ntls = on\nverify = off\nca = " FILE_A "\n",
         "13: upstream u.ca: has no effect with verify = off\n"},
        {"[upstream u]\nserver = unix:/x\ntls = on\n",
         "11: upstream u.tls: server unix:/x has no name that its certificate could have: "
         "server_name = NAME says it\n"},
        {"[upstream u]\nserver =\nserver =\ntls = on\n",
         "10: upstream u.server: the value is empty\n"
         "11: upstream u.server: the value is empty\n"},
        {"[upstream u]\nserver = localhost:1\ntls = on\nserver_name = a:1\n",
         "12: upstream u.server_name: \"a:1\" is not a host without a port\n"},
        {"[upstream u]\nserver = localhost:1\ntls = on\nserver_name = *.a\n",
         "12: upstream u.server_name: \"*.a\" is not a host without a port\n"},
        {"[upstream u]\nserver = localhost:1\ntls = on\nkey = " FILE_A "\n",
         "12: upstream u.key: needs certificate\n"},
        {"[upstream u]\nserver = localhost:1\ntls = site\n",
         "11: upstream u.tls: \"site\" is not on or off\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_bad(rows[i].lines, rows[i].expected);
}

#define RAW "[listener raw]\nbind = 127.0.0.1:1\nmode = tcp\n"

static void routes_by_sni_are_for_bytes_that_weir_does_not_read(void **state) {
    (void)state;
    const struct config *config =
        load(RAW "[route r]\nlistener = raw\nsni = A.example, *.b.example\nupstream = app\n");
    const struct config_route *route = &config->routes[0];
    assert_int_equal(route->sni_count, 2);
    assert_true(bytes_equal(route->sni_names[0], BYTES("a.example")));
    assert_true(bytes_equal(route->sni_names[1], BYTES("*.b.example")));
    assert_bad("[route r]\nsni = a\nupstream = app\n",
               "10: route r.sni: needs listener = NAME, with mode = tcp and without tls\n");
    assert_bad("[route r]\nlistener = web\nsni = a\nupstream = app\n",
               "10: route r.listener: sni is for listeners with mode = tcp and without tls, which "
               "web is not\n");
    assert_bad(RAW "tls = site\n[route r]\nlistener = raw\nsni = a\nupstream = app\n",
               "9: listener raw: needs upstream = NAME or service = NAME, or a route by sni\n"
               "14: route r.listener: sni is for listeners with mode = tcp and without tls, which "
               "raw is not\n");
    assert_bad(RAW "[route r]\nlistener = raw\nsni = [::1]\nupstream = app\n",
               "14: route r.sni: \"[::1]\" is an address, which is never asked for by sni\n");
    assert_bad(RAW "[route r]\nlistener = raw\nsni = a\npath = /\nhost = b\nupstream = app\n",
               "15: route r.path: has no effect with sni: requests are not seen\n"
               "16: route r.host: has no effect with sni: requests are not seen\n");
    assert_bad(RAW "[route r]\nlistener = raw\nsni = a\nupstream = app\n"
                   "websocket_max_message = 1k\nwebsocket_ping = 1s\n",
               "16: route r.websocket_max_message: has no effect with sni: requests are not seen\n"
               "17: route r.websocket_ping: has no effect with sni: requests are not seen\n");
    assert_bad(RAW "[route r]\nlistener = raw\nsni = a\nrespond = 200\n",
               "15: route r.respond: has no effect with sni: requests are not seen\n");
    assert_bad(RAW "[route r]\nlistener = raw\nsni = a\nservice = one\n"
                   "[service one]\ntype = respond\n",
               "15: route r.service: one is of type respond, which needs a listener with mode = "
               "http\n");
    assert_bad(RAW "[route r]\nlistener = raw\nsni = a\nupstream = h\n[upstream h]\n"
                   "server = localhost:1\nbalance = maglev\nhash_key = path\n",
               "19: upstream h.hash_key: must be client_ip: listener raw in line 9 has mode = "
               "tcp\n");
}

static int tear_down(void **state) {
    (void)state;
    (void)load(NULL);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_has_sane_defaults),
        cmocka_unit_test(certificates_keys_and_staples_are_paired_in_order),
        cmocka_unit_test(a_server_is_known_by_the_host_of_its_line),
        cmocka_unit_test(versions_may_be_listed_in_clear),
        cmocka_unit_test(raw_bytes_may_be_offered_as_any_protocol),
        cmocka_unit_test(bad_sections_are_named),
        cmocka_unit_test(bad_upstreams_are_named),
        cmocka_unit_test(routes_by_sni_are_for_bytes_that_weir_does_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
