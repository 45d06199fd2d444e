#include "proto/tls_identity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <openssl/err.h>

#include "unit/proto/tls_fixture.h"

static const struct made *ca, *first, *exact, *rsa;
static struct tls_identity one;
static struct tls_context_options usual;

static int set_up(void **state) {
    (void)state;
    ca = make_certificate(&(struct wish){.subject = "ca", .is_ca = true});
    first = make_certificate(
        &(struct wish){.subject = "first", .names = "DNS:first.example", .issuer = ca});
    exact = make_certificate(
        &(struct wish){.subject = "exact", .names = "DNS:x.b.example", .issuer = ca});
    rsa = make_certificate(
        &(struct wish){.subject = "rsa", .names = "DNS:two.example", .issuer = ca, .is_rsa = true});
    one = identity_of(first);
    usual = (struct tls_context_options){
        .identities = &one, .identity_count = 1, .min_version = 2, .scope = BYTES("site")};
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    fixture_end();
    return 0;
}

static void assert_fault(const struct tls_context_options *options, enum tls_part part,
                         uint32_t index, const char *text) {
    struct tls_fault fault;
    assert_null(tls_context_new_server(options, &fault));
    assert_string_equal(fault.text, text);
    assert_int_equal(fault.part, part);
    if (part <= TLS_PART_STAPLE) assert_int_equal(fault.index, index);
    assert_int_equal(ERR_peek_error(), 0);
}

static void what_cannot_be_used_is_named(void **state) {
    (void)state;
    struct tls_identity two[] = {identity_of(first), identity_of(exact)};
    struct tls_context_options options = usual;
    options.identities = two;
    options.identity_count = 2;
    two[1].key = first->key_pem;
    assert_fault(&options, TLS_PART_KEY, 1, "the key is not that of the certificate");
    two[1].key = rsa->key_pem;
    assert_fault(&options, TLS_PART_KEY, 1, "the key is not that of the certificate");
    two[1].key = first->certificate_pem;
    assert_fault(&options, TLS_PART_KEY, 1, "there is no PEM private key in it, or a bad one");
    two[1].key = BYTES_NONE;
    assert_fault(&options, TLS_PART_KEY, 1, "there is no PEM private key in it, or a bad one");
    two[1].key = make_encrypted_key(exact);
    assert_fault(&options, TLS_PART_KEY, 1, "the key is encrypted; it must be in clear");
    two[1] = identity_of(exact);
    two[1].certificate = exact->key_pem;
    assert_fault(&options, TLS_PART_CERTIFICATE, 1, "there is no PEM certificate in it");
    two[1].certificate = BYTES_NONE;
    assert_fault(&options, TLS_PART_CERTIFICATE, 1, "there is no PEM certificate in it");
    two[1].certificate = bytes_slice(exact->certificate_pem, 0, exact->certificate_pem.len / 2);
    struct tls_fault fault;
    assert_null(tls_context_new_server(&options, &fault));
    assert_int_equal(fault.part, TLS_PART_CERTIFICATE);
    struct bytes whole = exact->certificate_pem;
    char chain[2 * FIXTURE_PEM_MAX];
    memcpy(chain, whole.ptr, whole.len);
    memcpy(chain + whole.len, whole.ptr, whole.len / 2);
    two[1].certificate = bytes_make(chain, whole.len + whole.len / 2);
    assert_fault(&options, TLS_PART_CERTIFICATE, 1,
                 "a certificate behind the first one cannot be read: bad end line");
    two[1] = identity_of(exact);
    two[1].staple = BYTES("nonsense");
    assert_fault(&options, TLS_PART_STAPLE, 1, "it is not an OCSP response (DER)");
}

static void a_response_about_another_certificate_is_not_kept(void **state) {
    (void)state;
    struct tls_identity two[] = {identity_of(first), identity_of(exact)};
    struct tls_context_options options = usual;
    options.identities = two;
    options.identity_count = 2;
    two[0].staple = two[1].staple = make_staple(ca, first, 3600);
    struct tls_fault fault;
    struct tls_context *context = tls_context_new_server(&options, &fault);
    assert_non_null(context);
    assert_false(tls_context_validity(context, 0).staple_strays);
    assert_true(tls_context_validity(context, 0).staple_until != 0);
    assert_true(tls_context_validity(context, 1).staple_strays);
    assert_true(tls_context_validity(context, 1).staple_until == 0);
    tls_context_free(context);
}

static void bad_words_and_lists_are_named(void **state) {
    (void)state;
    struct tls_context_options options = usual;
    options.ciphers = "NO-SUCH";
    assert_fault(&options, TLS_PART_CIPHERS, 0, "NO-SUCH: no cipher match");
    options = usual;
    options.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GMC-SHA384";
    assert_fault(&options, TLS_PART_CIPHERS, 0, "ECDHE-ECDSA-AES256-GMC-SHA384: no cipher match");
    options.ciphers = "TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256";
    assert_fault(&options, TLS_PART_CIPHERS, 0, "TLS_AES_128_GCM_SHA256: no cipher match");
    options = usual;
    options.ciphersuites = "NO-SUCH";
    assert_fault(&options, TLS_PART_CIPHERSUITES, 0, "NO-SUCH: no cipher match");
    options.ciphersuites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GMC_SHA384";
    assert_fault(&options, TLS_PART_CIPHERSUITES, 0, "TLS_AES_256_GMC_SHA384: no cipher match");
    options.ciphersuites = "TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384";
    assert_fault(&options, TLS_PART_CIPHERSUITES, 0,
                 "TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384: no cipher match");
    options = usual;
    options.groups = "X25519:no-such";
    assert_fault(&options, TLS_PART_GROUPS, 0,
                 "\"X25519:no-such\" has a group that OpenSSL does not know, or one twice");
    options = usual;
    options.client_auth = TLS_CLIENT_AUTH_REQUIRE;
    options.ca = first->key_pem;
    assert_fault(&options, TLS_PART_CA, 0, "there is no PEM certificate in it");
    options.ca = ca->certificate_pem;
    options.crl = ca->certificate_pem;
    assert_fault(&options, TLS_PART_CRL, 0, "there is no PEM revocation list in it");
}

static void words_of_openssl_that_take_away_are_taken(void **state) {
    (void)state;
    static const char *const lists[] = {"HIGH:!aNULL:!MD5:!NO-SUCH", "ECDHE+AESGCM:@STRENGTH",
                                        "DEFAULT:-RC4:+SHA1:@SECLEVEL=1",
                                        "ECDHE-ECDSA-AES128-GCM-SHA256,:ECDHE+CHACHA20"};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        struct tls_context_options options = usual;
        struct tls_fault fault;
        options.ciphers = lists[i];
        struct tls_context *context = tls_context_new_server(&options, &fault);
        assert_non_null(context);
        tls_context_free(context);
    }
}

static void certificate_and_key_may_be_in_one_file(void **state) {
    (void)state;
    char text[FIXTURE_PEM_MAX];
    struct writer w = writer_make(text, sizeof text);
    writer_put(&w, exact->key_pem);
    writer_put(&w, exact->certificate_pem);
    writer_put(&w, ca->certificate_pem);
    struct tls_identity whole = {writer_bytes(&w), writer_bytes(&w), BYTES_NONE};
    struct tls_context_options options = usual;
    options.identities = &whole;
    struct tls_fault fault;
    struct tls_context *server = tls_context_new_server(&options, &fault);
    assert_non_null(server);
    assert_int_equal(
        X509_cmp(SSL_CTX_get0_certificate(tls_context_ssl(server)), exact->certificate), 0);
    STACK_OF(X509) *chain = NULL;
    assert_int_equal(SSL_CTX_get0_chain_certs(tls_context_ssl(server), &chain), 1);
    assert_int_equal(sk_X509_num(chain), 1);
    assert_int_equal(X509_cmp(sk_X509_value(chain, 0), ca->certificate), 0);
    tls_context_free(server);
}

/* Clients are told whom they may be certified by, in one vector of 2^16-1 bytes (RFC 5246 section
 * 7.4.4): with more no handshake would come to its end. */
static void authorities_must_fit_what_clients_are_told(void **state) {
    (void)state;
    struct bytes pem = ca->certificate_pem;
    size_t name_size = 2 + (size_t)i2d_X509_NAME(X509_get_subject_name(ca->certificate), NULL);
    size_t count = 65000 / name_size;
    char *many = malloc((count + 1) * pem.len);
    assert_non_null(many);
    for (size_t i = 0; i <= count; i++)
        memcpy(many + i * pem.len, pem.ptr, pem.len);
    struct tls_context_options options = usual;
    options.client_auth = TLS_CLIENT_AUTH_OPTIONAL;
    options.ca = bytes_make(many, (count + 1) * pem.len);
    assert_fault(&options, TLS_PART_CA, 0,
                 "its certificates have names of over 65000 bytes, too many to tell clients");
    options.ca.len -= pem.len;
    struct tls_fault fault;
    struct tls_context *server = tls_context_new_server(&options, &fault);
    assert_non_null(server);
    struct tls_context_options of_client = {.min_version = 2, .ca = pem};
    struct tls_context *client = tls_context_new_client(&of_client, &fault);
    assert_non_null(client);
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct ends ends = ends_new(tls_context_ssl(client), tls_context_ssl(server));
        assert_int_equal(SSL_set_max_proto_version(ends.client, version), 1);
        assert_true(ends_shake(&ends));
        ends_free(&ends);
    }
    tls_context_free(client);
    tls_context_free(server);
    free(many);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_used_is_named),
        cmocka_unit_test(a_response_about_another_certificate_is_not_kept),
        cmocka_unit_test(bad_words_and_lists_are_named),
        cmocka_unit_test(words_of_openssl_that_take_away_are_taken),
        cmocka_unit_test(certificate_and_key_may_be_in_one_file),
        cmocka_unit_test(authorities_must_fit_what_clients_are_told),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
