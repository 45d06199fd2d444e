#include "proto/tls_context.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/tls_tickets.h"
#include "unit/proto/tls_ends.h"
#include "unit/proto/tls_fixture.h"

static const struct made *ca, *first, *wild, *exact, *rsa, *both;
static struct tls_tickets tickets;

static int set_up(void **state) {
    (void)state;
    ca = make_certificate(&(struct wish){.subject = "ca", .is_ca = true});
    first = make_certificate(
        &(struct wish){.subject = "first", .names = "DNS:first.example", .issuer = ca});
    wild = make_certificate(
        &(struct wish){.subject = "wild", .names = "DNS:*.b.example", .issuer = ca});
    exact = make_certificate(
        &(struct wish){.subject = "exact", .names = "DNS:X.B.example,IP:127.0.0.1", .issuer = ca});
    rsa = make_certificate(
        &(struct wish){.subject = "rsa", .names = "DNS:two.example", .issuer = ca, .is_rsa = true});
    both = make_certificate(
        &(struct wish){.subject = "both", .names = "DNS:two.example", .issuer = ca});
    return tls_tickets_init(&tickets, 60) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    fixture_end();
    return 0;
}

static struct tls_context *server_of(const struct tls_context_options *options) {
    struct tls_fault fault;
    struct tls_context *context = tls_context_new_server(options, &fault);
    if (!context) fail_msg("%s", fault.text);
    return context;
}

/* The usual one: all certificates, tickets. */
static struct tls_context_options usual(void) {
    static struct tls_identity identities[5];
    const struct made *const all[] = {first, wild, exact, rsa, both};
    for (size_t i = 0; i < 5; i++)
        identities[i] = identity_of(all[i]);
    return (struct tls_context_options){.identities = identities,
                                        .identity_count = 5,
                                        .min_version = 2,
                                        .tickets = &tickets,
                                        .scope = BYTES("site")};
}

/* A client of the test's own, that believes everybody. */
static SSL_CTX *any_client(void) {
    SSL_CTX *client = SSL_CTX_new(TLS_client_method());
    assert_non_null(client);
    return client;
}

/* Who is shown to a client that asks for `name`; NULL: the handshake failed. */
static const char *shown_to(const struct tls_context *server, const char *name,
                            const char *algorithms) {
    SSL_CTX *client = any_client();
    struct ends ends = ends_new(client, tls_context_ssl(server));
    if (name) assert_int_equal(SSL_set_tlsext_host_name(ends.client, name), 1);
    if (algorithms) assert_int_equal(SSL_set1_sigalgs_list(ends.client, algorithms), 1);
    const char *shown = ends_shake(&ends) ? ends_shown(&ends) : NULL;
    ends_free(&ends);
    SSL_CTX_free(client);
    return shown;
}

static void the_name_chooses_exact_then_wildcard_then_the_first(void **state) {
    (void)state;
    struct tls_context_options options = usual();
    struct tls_context *server = server_of(&options);
    assert_string_equal(shown_to(server, "first.example", NULL), "first");
    assert_string_equal(shown_to(server, "x.b.example", NULL), "exact");
    assert_string_equal(shown_to(server, "X.b.EXAMPLE", NULL), "exact");
    assert_string_equal(shown_to(server, "y.b.example", NULL), "wild");
    assert_string_equal(shown_to(server, "y.y.b.example", NULL), "first");
    assert_string_equal(shown_to(server, "b.example", NULL), "first");
    assert_string_equal(shown_to(server, ".b.example", NULL), "first");
    assert_string_equal(shown_to(server, "unknown.example", NULL), "first");
    assert_string_equal(shown_to(server, NULL, NULL), "first");
    tls_context_free(server);
}

static void strict_sni_refuses_what_no_certificate_has(void **state) {
    (void)state;
    struct tls_context_options options = usual();
    options.strict_sni = true;
    struct tls_context *server = server_of(&options);
    assert_string_equal(shown_to(server, "y.b.example", NULL), "wild");
    assert_null(shown_to(server, "unknown.example", NULL));
    assert_string_equal(ends_alert(), "unrecognized name");
    assert_null(shown_to(server, NULL, NULL));
    assert_string_equal(ends_alert(), "unrecognized name");
    tls_context_free(server);
}

static void a_name_with_two_kinds_of_keys_serves_both_kinds_of_clients(void **state) {
    (void)state;
    struct tls_context_options options = usual();
    struct tls_context *server = server_of(&options);
    assert_string_equal(shown_to(server, "two.example", "ECDSA+SHA256"), "both");
    assert_string_equal(shown_to(server, "two.example", "RSA-PSS+SHA256"), "rsa");
    assert_string_equal(shown_to(server, "two.example", "ECDSA+SHA256:RSA-PSS+SHA256"), "both");
    tls_context_free(server);
    /* The first certificate's other half serves those without a name as well. */
    struct tls_identity two[] = {identity_of(rsa), identity_of(both)};
    options.identities = two;
    options.identity_count = 2;
    server = server_of(&options);
    assert_string_equal(shown_to(server, NULL, "ECDSA+SHA256"), "both");
    assert_string_equal(shown_to(server, NULL, "RSA-PSS+SHA256"), "rsa");
    tls_context_free(server);
}

static void of_two_certificates_of_a_kind_the_first_answers(void **state) {
    (void)state;
    const struct made *again = make_certificate(
        &(struct wish){.subject = "again", .names = "DNS:first.example,DNS:more.example"});
    struct tls_identity two[] = {identity_of(first), identity_of(again)};
    struct tls_context_options options = usual();
    options.identities = two;
    options.identity_count = 2;
    struct tls_context *server = server_of(&options);
    assert_string_equal(shown_to(server, "first.example", NULL), "first");
    assert_string_equal(shown_to(server, "more.example", NULL), "again");
    tls_context_free(server);
}

static void a_certificate_without_names_is_known_by_its_common_name(void **state) {
    (void)state;
    const struct made *old = make_certificate(&(struct wish){.subject = "old.example"});
    const struct made *new =
        make_certificate(&(struct wish){.subject = "new.example", .names = "DNS:other.example"});
    struct tls_identity all[] = {identity_of(first), identity_of(old), identity_of(new)};
    struct tls_context_options options = usual();
    options.identities = all;
    options.identity_count = 3;
    struct tls_context *server = server_of(&options);
    assert_string_equal(shown_to(server, "old.example", NULL), "old.example");
    assert_string_equal(shown_to(server, "new.example", NULL), "first");
    tls_context_free(server);
}

static bool agrees(const struct tls_context *server, int client_max, const char *alpn,
                   const char *wanted) {
    SSL_CTX *client = any_client();
    assert_int_equal(SSL_CTX_set_max_proto_version(client, client_max), 1);
    struct ends ends = ends_new(client, tls_context_ssl(server));
    if (alpn)
        assert_int_equal(
            SSL_set_alpn_protos(ends.client, (const unsigned char *)alpn, (unsigned)strlen(alpn)),
            0);
    bool done = ends_shake(&ends);
    const unsigned char *chosen = NULL;
    unsigned int size = 0;
    SSL_get0_alpn_selected(ends.client, &chosen, &size);
    bool is_wanted =
        !wanted || bytes_equal(bytes_make((const char *)chosen, size), bytes_of(wanted));
    ends_free(&ends);
    SSL_CTX_free(client);
    return done && is_wanted;
}

static void older_versions_are_refused(void **state) {
    (void)state;
    struct tls_context_options options = usual();
    struct tls_context *server = server_of(&options);
    assert_true(agrees(server, TLS1_3_VERSION, NULL, NULL));
    assert_true(agrees(server, TLS1_2_VERSION, NULL, NULL));
    tls_context_free(server);
    options.min_version = 3;
    server = server_of(&options);
    assert_true(agrees(server, TLS1_3_VERSION, NULL, NULL));
    assert_false(agrees(server, TLS1_2_VERSION, NULL, NULL));
    assert_string_equal(ends_alert(), "protocol version");
    tls_context_free(server);
}

static void the_server_prefers_among_protocols(void **state) {
    (void)state;
    struct tls_context_options options = usual();
    options.alpn = BYTES("\x02h2\x08http/1.1");
    struct tls_context *server = server_of(&options);
    assert_true(agrees(server, TLS1_3_VERSION, "\x08http/1.1\x02h2", "h2"));
    assert_true(agrees(server, TLS1_2_VERSION, "\x08http/1.1\x02h3", "http/1.1"));
    assert_true(agrees(server, TLS1_3_VERSION, NULL, ""));
    assert_false(agrees(server, TLS1_3_VERSION, "\x02h3\x08http/1.0", NULL));
    assert_string_equal(ends_alert(), "no application protocol");
    tls_context_free(server);
}

/* Resumption: a session of one handshake, offered in another. */

static SSL_SESSION *session_of(const struct tls_context *server, int version) {
    SSL_CTX *client = any_client();
    assert_int_equal(SSL_CTX_set_max_proto_version(client, version), 1);
    struct ends ends = ends_new(client, tls_context_ssl(server));
    assert_true(ends_shake(&ends));
    SSL_SESSION *session = SSL_get1_session(ends.client);
    ends_free(&ends);
    SSL_CTX_free(client);
    return session;
}

static bool resumes_once(const struct tls_context *server, SSL_SESSION *session, int version,
                         bool *has_new) {
    SSL_CTX *client = any_client();
    assert_int_equal(SSL_CTX_set_max_proto_version(client, version), 1);
    struct ends ends = ends_new(client, tls_context_ssl(server));
    assert_int_equal(SSL_set_session(ends.client, session), 1);
    assert_true(ends_shake(&ends));
    bool resumed = SSL_session_reused(ends.client) == 1;
    assert_int_equal(resumed, SSL_session_reused(ends.server) == 1);
    const unsigned char *before = NULL;
    const unsigned char *after = NULL;
    size_t before_size = 0;
    size_t after_size = 0;
    SSL_SESSION_get0_ticket(session, &before, &before_size);
    SSL_SESSION_get0_ticket(SSL_get0_session(ends.client), &after, &after_size);
    *has_new =
        after_size != before_size || (after_size != 0 && memcmp(before, after, after_size) != 0);
    ends_free(&ends);
    SSL_CTX_free(client);
    return resumed;
}

static void sessions_resume_on_other_workers_until_their_key_is_gone(void **state) {
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < 2; i++) {
        struct tls_context_options options = usual();
        struct tls_context *one = server_of(&options);
        struct tls_context *other = server_of(&options);
        SSL_SESSION *session = session_of(one, versions[i]);
        bool has_new = false;
        assert_true(resumes_once(other, session, versions[i], &has_new));
        /* A client of TLS 1.3 uses a ticket once. */
        assert_int_equal(has_new, versions[i] == TLS1_3_VERSION);
        assert_true(tls_tickets_rotate(&tickets));
        assert_true(resumes_once(other, session, versions[i], &has_new));
        assert_true(has_new); /* made by the key of now */
        assert_true(tls_tickets_rotate(&tickets));
        assert_false(resumes_once(other, session, versions[i], &has_new));
        SSL_SESSION_free(session);
        tls_context_free(one);
        tls_context_free(other);
    }
}

static void sessions_stay_within_their_scope(void **state) {
    (void)state;
    struct tls_context_options options = usual();
    struct tls_context *one = server_of(&options);
    options.scope = BYTES("other");
    struct tls_context *other = server_of(&options);
    SSL_SESSION *session = session_of(one, TLS1_3_VERSION);
    bool has_new;
    assert_false(resumes_once(other, session, TLS1_3_VERSION, &has_new));
    SSL_SESSION_free(session);
    session = session_of(one, TLS1_2_VERSION);
    assert_false(resumes_once(other, session, TLS1_2_VERSION, &has_new));
    SSL_SESSION_free(session);
    tls_context_free(one);
    tls_context_free(other);
}

static void sessions_stay_within_the_rules_for_certificates_of_clients(void **state) {
    (void)state;
    struct tls_context_options options = usual();
    options.ca = ca->certificate_pem;
    options.client_auth = TLS_CLIENT_AUTH_OPTIONAL;
    struct tls_context *one = server_of(&options);
    struct tls_context *same = server_of(&options);
    options.client_auth = TLS_CLIENT_AUTH_OFF;
    struct tls_context *other = server_of(&options);
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < 2; i++) {
        SSL_SESSION *session = session_of(one, versions[i]);
        bool has_new;
        assert_true(resumes_once(same, session, versions[i], &has_new));
        assert_false(resumes_once(other, session, versions[i], &has_new));
        SSL_SESSION_free(session);
    }
    tls_context_free(one);
    tls_context_free(same);
    tls_context_free(other);
}

/* Another worker may have seen the rotation first. */
static void a_ticket_of_the_next_key_is_known_already(void **state) {
    (void)state;
    struct tls_tickets now;
    assert_true(tls_tickets_init(&now, 60));
    struct tls_tickets then = now;
    assert_true(tls_tickets_rotate(&then));
    const struct tls_ticket_key *next = tls_tickets_current(&then);
    const struct tls_ticket_key *found = tls_tickets_find(&now, next->name);
    assert_non_null(found);
    assert_memory_equal(found, next, sizeof *next);
    assert_true(tls_tickets_rotate(&then));
    assert_null(tls_tickets_find(&now, tls_tickets_current(&then)->name));
    tls_tickets_fini(&now);
    tls_tickets_fini(&then);
}

static void without_tickets_nothing_is_resumed(void **state) {
    (void)state;
    struct tls_context_options options = usual();
    options.tickets = NULL;
    struct tls_context *server = server_of(&options);
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < 2; i++) {
        SSL_SESSION *session = session_of(server, versions[i]);
        bool has_new;
        assert_false(SSL_SESSION_has_ticket(session));
        assert_false(resumes_once(server, session, versions[i], &has_new));
        SSL_SESSION_free(session);
    }
    tls_context_free(server);
}

/* Clients with certificates. */

static bool lets_in(const struct tls_context_options *options, const struct made *with) {
    struct tls_context *server = server_of(options);
    SSL_CTX *client = any_client();
    if (with) {
        assert_int_equal(SSL_CTX_use_certificate(client, with->certificate), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(client, with->key), 1);
    }
    struct ends ends = ends_new(client, tls_context_ssl(server));
    assert_int_equal(SSL_set_tlsext_host_name(ends.client, "y.b.example"), 1); /* another leaf */
    bool done = ends_shake(&ends);
    if (done) assert_int_equal(SSL_get0_peer_certificate(ends.server) != NULL, with != NULL);
    ends_free(&ends);
    SSL_CTX_free(client);
    tls_context_free(server);
    return done;
}

static void clients_show_certificates_as_they_are_asked(void **state) {
    (void)state;
    const struct made *strangers_ca =
        make_certificate(&(struct wish){.subject = "stranger", .is_ca = true});
    const struct made *good = make_certificate(&(struct wish){.subject = "good", .issuer = ca});
    const struct made *stranger =
        make_certificate(&(struct wish){.subject = "bad", .issuer = strangers_ca});
    const struct made *late =
        make_certificate(&(struct wish){.subject = "late", .issuer = ca, .until_s = -60});
    struct tls_context_options options = usual();
    assert_true(lets_in(&options, NULL));
    options.ca = ca->certificate_pem;
    options.client_auth = TLS_CLIENT_AUTH_OPTIONAL;
    assert_true(lets_in(&options, NULL));
    assert_true(lets_in(&options, good));
    assert_false(lets_in(&options, stranger));
    options.client_auth = TLS_CLIENT_AUTH_REQUIRE;
    assert_false(lets_in(&options, NULL));
    assert_true(lets_in(&options, good));
    assert_false(lets_in(&options, stranger));
    assert_string_equal(ends_alert(), "unknown CA");
    assert_false(lets_in(&options, late));
    assert_string_equal(ends_alert(), "certificate expired");
    options.crl = make_crl(ca, first);
    assert_true(lets_in(&options, good));
    options.crl = make_crl(ca, good);
    assert_false(lets_in(&options, good));
    assert_string_equal(ends_alert(), "certificate revoked");
    options.crl = make_crl(strangers_ca, NULL);
    assert_false(lets_in(&options, good)); /* nobody says that it was not */
}

static void who_is_asked_for_a_certificate_is_told_the_authorities(void **state) {
    (void)state;
    struct tls_context_options options = usual();
    options.ca = ca->certificate_pem;
    options.client_auth = TLS_CLIENT_AUTH_OPTIONAL;
    struct tls_context *server = server_of(&options);
    SSL_CTX *client = any_client();
    struct ends ends = ends_new(client, tls_context_ssl(server));
    assert_true(ends_shake(&ends));
    const STACK_OF(X509_NAME) *names = SSL_get0_peer_CA_list(ends.client);
    assert_int_equal(sk_X509_NAME_num(names), 1);
    assert_int_equal(
        X509_NAME_cmp(sk_X509_NAME_value(names, 0), X509_get_subject_name(ca->certificate)), 0);
    ends_free(&ends);
    SSL_CTX_free(client);
    tls_context_free(server);
}

static void a_new_list_of_revocations_ends_what_could_be_resumed(void **state) {
    (void)state;
    struct tls_context_options options = usual();
    options.ca = ca->certificate_pem;
    options.client_auth = TLS_CLIENT_AUTH_OPTIONAL;
    options.crl = make_crl(ca, NULL);
    struct tls_context *before = server_of(&options);
    SSL_SESSION *session = session_of(before, TLS1_3_VERSION);
    bool has_new;
    assert_true(resumes_once(before, session, TLS1_3_VERSION, &has_new));
    options.crl = make_crl(ca, first);
    struct tls_context *after = server_of(&options);
    assert_false(resumes_once(after, session, TLS1_3_VERSION, &has_new));
    SSL_SESSION_free(session);
    tls_context_free(before);
    tls_context_free(after);
}

/* OCSP. */

static long staple_size(const struct tls_context_options *options, const char *name, bool asks) {
    struct tls_context *server = server_of(options);
    SSL_CTX *client = any_client();
    struct ends ends = ends_new(client, tls_context_ssl(server));
    assert_int_equal(SSL_set_tlsext_host_name(ends.client, name), 1);
    if (asks) assert_int_equal(SSL_set_tlsext_status_type(ends.client, TLSEXT_STATUSTYPE_ocsp), 1);
    assert_true(ends_shake(&ends));
    const unsigned char *staple = NULL;
    long size = SSL_get_tlsext_status_ocsp_resp(ends.client, &staple);
    ends_free(&ends);
    SSL_CTX_free(client);
    tls_context_free(server);
    return size;
}

static void the_response_of_the_shown_certificate_is_stapled(void **state) {
    (void)state;
    struct tls_identity two[] = {identity_of(first), identity_of(exact)};
    two[1].staple = make_staple(ca, exact, 3600);
    struct tls_context_options options = usual();
    options.identities = two;
    options.identity_count = 2;
    assert_int_equal(staple_size(&options, "x.b.example", true), (long)two[1].staple.len);
    assert_int_equal(staple_size(&options, "x.b.example", false), -1);
    assert_int_equal(staple_size(&options, "first.example", true), -1);
    two[1].staple = make_staple(ca, exact, -60);
    assert_int_equal(staple_size(&options, "x.b.example", true), -1);
    two[1].staple = make_staple(ca, first, 3600); /* of another certificate */
    assert_int_equal(staple_size(&options, "x.b.example", true), -1);
}

/* The other role. */

static bool believes(const struct tls_context_options *options, const char *name,
                     const struct made *server_made) {
    struct tls_fault fault;
    struct tls_identity one = identity_of(server_made);
    struct tls_context_options server_options = {
        .identities = &one, .identity_count = 1, .min_version = 2};
    struct tls_context *server = server_of(&server_options);
    struct tls_context *client = tls_context_new_client(options, &fault);
    if (!client) fail_msg("%s", fault.text);
    struct ends ends = ends_new(tls_context_ssl(client), tls_context_ssl(server));
    assert_true(tls_context_expect(client, ends.client, name));
    bool done = ends_shake(&ends);
    if (done && strchr(name, 'x'))
        assert_string_equal(SSL_get_servername(ends.server, TLSEXT_NAMETYPE_host_name), name);
    if (done && !strchr(name, 'x'))
        assert_null(SSL_get_servername(ends.server, TLSEXT_NAMETYPE_host_name));
    ends_free(&ends);
    tls_context_free(client);
    tls_context_free(server);
    return done;
}

static void servers_are_believed_by_authority_and_name(void **state) {
    (void)state;
    const struct made *self =
        make_certificate(&(struct wish){.subject = "self", .names = "DNS:x.b.example"});
    const struct made *part = make_certificate(
        &(struct wish){.subject = "part", .names = "DNS:x*.b.example", .issuer = ca});
    struct tls_context_options options = {
        .min_version = 2, .verify = true, .ca = ca->certificate_pem};
    assert_true(believes(&options, "x.b.example", exact));
    assert_true(believes(&options, "127.0.0.1", exact));
    assert_true(believes(&options, "x.b.example", wild));
    assert_false(believes(&options, "y.b.example", exact));
    assert_false(believes(&options, "127.0.0.2", exact));
    assert_false(believes(&options, "x.b.example", self));
    assert_false(believes(&options, "xy.b.example", part)); /* RFC 9525 section 6.3 */
    options.crl = make_crl(ca, exact);
    assert_false(believes(&options, "x.b.example", exact));
    assert_true(believes(&options, "x.b.example", wild));
    options = (struct tls_context_options){.min_version = 2};
    assert_true(believes(&options, "y.b.example", self));
}

static void a_client_shows_its_certificate_when_asked(void **state) {
    (void)state;
    struct tls_fault fault;
    struct tls_context_options options = usual();
    options.ca = ca->certificate_pem;
    options.client_auth = TLS_CLIENT_AUTH_REQUIRE;
    struct tls_context *server = server_of(&options);
    struct tls_identity own = identity_of(exact);
    struct tls_context_options client_options = {
        .identities = &own, .identity_count = 1, .min_version = 2, .alpn = BYTES("\x02h2")};
    struct tls_context *client = tls_context_new_client(&client_options, &fault);
    assert_non_null(client);
    struct ends ends = ends_new(tls_context_ssl(client), tls_context_ssl(server));
    assert_true(ends_shake(&ends));
    assert_non_null(SSL_get0_peer_certificate(ends.server));
    ends_free(&ends);
    tls_context_free(client);
    tls_context_free(server);
}

/* Nothing of what was agreed on changes later. */
static void a_server_that_wants_to_negotiate_again_is_told_no(void **state) {
    (void)state;
    struct tls_context_options options = {.min_version = 2};
    struct tls_fault fault;
    struct tls_context *client = tls_context_new_client(&options, &fault);
    assert_non_null(client);
    SSL_CTX *server = SSL_CTX_new(TLS_server_method());
    assert_non_null(server);
    assert_int_equal(SSL_CTX_set_max_proto_version(server, TLS1_2_VERSION), 1);
    tls_ends_certify(server, "a.example");
    struct ends ends = ends_new(tls_context_ssl(client), server);
    assert_true(ends_shake(&ends));
    assert_int_equal(SSL_renegotiate(ends.server), 1);
    assert_int_equal(SSL_do_handshake(ends.server), 1); /* asks */
    char byte;
    assert_int_equal(SSL_read(ends.client, &byte, 1), -1);
    assert_true(SSL_is_init_finished(ends.client));
    (void)SSL_read(ends.server, &byte, 1); /* the answer, that OpenSSL's server does not take */
    assert_string_equal(ends_alert(), "handshake failure");
    ends_free(&ends);
    tls_context_free(client);
    SSL_CTX_free(server);
}

static void connections_outlive_the_hold_of_who_made_the_context(void **state) {
    (void)state;
    struct tls_context_options options = usual();
    struct tls_context *server = server_of(&options);
    SSL_CTX *client = any_client();
    struct ends ends = ends_new(client, tls_context_ssl(server));
    tls_context_free(server);
    assert_int_equal(SSL_set_tlsext_host_name(ends.client, "x.b.example"), 1);
    assert_true(ends_shake(&ends));
    assert_string_equal(ends_shown(&ends), "exact");
    ends_free(&ends);
    SSL_CTX_free(client);
}

static void it_tells_until_when_certificates_are_valid(void **state) {
    (void)state;
    struct tls_identity one = identity_of(exact);
    one.staple = make_staple(ca, exact, 3600);
    struct tls_context_options options = usual();
    options.identities = &one;
    options.identity_count = 1;
    struct tls_context *server = server_of(&options);
    struct tls_validity validity = tls_context_validity(server, 0);
    assert_int_equal(validity.not_after - validity.not_before, 86400 + 3600);
    int64_t left = validity.not_after - validity.staple_until;
    assert_true(left > 86400 - 3600 - 60 && left <= 86400 - 3600);
    tls_context_free(server);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_name_chooses_exact_then_wildcard_then_the_first),
        cmocka_unit_test(strict_sni_refuses_what_no_certificate_has),
        cmocka_unit_test(a_name_with_two_kinds_of_keys_serves_both_kinds_of_clients),
        cmocka_unit_test(of_two_certificates_of_a_kind_the_first_answers),
        cmocka_unit_test(a_certificate_without_names_is_known_by_its_common_name),
        cmocka_unit_test(older_versions_are_refused),
        cmocka_unit_test(the_server_prefers_among_protocols),
        cmocka_unit_test(sessions_resume_on_other_workers_until_their_key_is_gone),
        cmocka_unit_test(sessions_stay_within_their_scope),
        cmocka_unit_test(sessions_stay_within_the_rules_for_certificates_of_clients),
        cmocka_unit_test(a_ticket_of_the_next_key_is_known_already),
        cmocka_unit_test(without_tickets_nothing_is_resumed),
        cmocka_unit_test(clients_show_certificates_as_they_are_asked),
        cmocka_unit_test(who_is_asked_for_a_certificate_is_told_the_authorities),
        cmocka_unit_test(a_new_list_of_revocations_ends_what_could_be_resumed),
        cmocka_unit_test(the_response_of_the_shown_certificate_is_stapled),
        cmocka_unit_test(servers_are_believed_by_authority_and_name),
        cmocka_unit_test(a_client_shows_its_certificate_when_asked),
        cmocka_unit_test(a_server_that_wants_to_negotiate_again_is_told_no),
        cmocka_unit_test(connections_outlive_the_hold_of_who_made_the_context),
        cmocka_unit_test(it_tells_until_when_certificates_are_valid),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
