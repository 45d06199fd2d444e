#include "unit/proto/tls_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#define MADE_MAX 32
#define BYTES_MAX 16

static struct made mades[MADE_MAX];
static uint32_t made_count;
static char *kept[BYTES_MAX];
static uint32_t kept_count;

static struct bytes take_bytes(BIO *bio) {
    char *data = NULL;
    long size = BIO_get_mem_data(bio, &data);
    assert_true(size > 0 && size < FIXTURE_PEM_MAX);
    char *copy = malloc((size_t)size);
    assert_non_null(copy);
    memcpy(copy, data, (size_t)size);
    BIO_free(bio);
    return bytes_make(copy, (size_t)size);
}

static struct bytes keep(struct bytes bytes) {
    assert_true(kept_count < BYTES_MAX);
    kept[kept_count++] = (char *)(uintptr_t)bytes.ptr;
    return bytes;
}

static void add_extension(X509 *certificate, const struct made *issuer, int id, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer ? issuer->certificate : certificate, certificate, NULL, NULL,
                   0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, id, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

const struct made *make_certificate(const struct wish *wish) {
    static long serial = 100;
    assert_true(made_count < MADE_MAX);
    struct made *made = &mades[made_count++];
    made->key = wish->is_rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    X509 *certificate = made->certificate = X509_new();
    assert_non_null(made->key);
    assert_non_null(certificate);
    assert_int_equal(X509_set_version(certificate, X509_VERSION_3), 1);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(certificate), -3600));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(certificate),
                                    wish->until_s != 0 ? wish->until_s : 86400));
    assert_int_equal(X509_set_pubkey(certificate, made->key), 1);
    X509_NAME *name = X509_get_subject_name(certificate);
    assert_int_equal(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                                (const unsigned char *)wish->subject, -1, -1, 0),
                     1);
    const struct made *issuer = wish->issuer ? wish->issuer : made;
    assert_int_equal(X509_set_issuer_name(certificate, X509_get_subject_name(issuer->certificate)),
                     1);
    if (wish->names) add_extension(certificate, wish->issuer, NID_subject_alt_name, wish->names);
    if (wish->is_ca)
        add_extension(certificate, wish->issuer, NID_basic_constraints, "critical,CA:TRUE");
    assert_true(X509_sign(certificate, issuer->key, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_X509(bio, certificate), 1);
    made->certificate_pem = take_bytes(bio);
    bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PrivateKey(bio, made->key, NULL, NULL, 0, NULL, NULL), 1);
    made->key_pem = take_bytes(bio);
    return made;
}

struct bytes make_crl(const struct made *issuer, const struct made *revoked) {
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, -60);
    ASN1_TIME *later = X509_gmtime_adj(NULL, 86400);
    assert_int_equal(X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer->certificate)), 1);
    assert_int_equal(X509_CRL_set1_lastUpdate(crl, now), 1);
    assert_int_equal(X509_CRL_set1_nextUpdate(crl, later), 1);
    if (revoked) {
        X509_REVOKED *row = X509_REVOKED_new();
        assert_int_equal(
            X509_REVOKED_set_serialNumber(row, X509_get_serialNumber(revoked->certificate)), 1);
        assert_int_equal(X509_REVOKED_set_revocationDate(row, now), 1);
        assert_int_equal(X509_CRL_add0_revoked(crl, row), 1);
    }
    assert_true(X509_CRL_sign(crl, issuer->key, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_X509_CRL(bio, crl), 1);
    X509_CRL_free(crl);
    ASN1_TIME_free(now);
    ASN1_TIME_free(later);
    return keep(take_bytes(bio));
}

struct bytes make_staple(const struct made *issuer, const struct made *about, long until_s) {
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    OCSP_CERTID *id = OCSP_cert_to_id(EVP_sha1(), about->certificate, issuer->certificate);
    ASN1_TIME *from = X509_gmtime_adj(NULL, -7200);
    ASN1_TIME *until = X509_gmtime_adj(NULL, until_s);
    assert_non_null(
        OCSP_basic_add1_status(basic, id, V_OCSP_CERTSTATUS_GOOD, 0, NULL, from, until));
    assert_int_equal(
        OCSP_basic_sign(basic, issuer->certificate, issuer->key, EVP_sha256(), NULL, 0), 1);
    OCSP_RESPONSE *response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(i2d_OCSP_RESPONSE_bio(bio, response), 1);
    OCSP_RESPONSE_free(response);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(id);
    ASN1_TIME_free(from);
    ASN1_TIME_free(until);
    return keep(take_bytes(bio));
}

struct bytes make_encrypted_key(const struct made *made) {
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PrivateKey(bio, made->key, EVP_aes_128_cbc(),
                                              (const unsigned char *)"secret", 6, NULL, NULL),
                     1);
    return keep(take_bytes(bio));
}

struct tls_identity identity_of(const struct made *made) {
    return (struct tls_identity){made->certificate_pem, made->key_pem, BYTES_NONE};
}

void fixture_end(void) {
    for (uint32_t i = 0; i < made_count; i++) {
        X509_free(mades[i].certificate);
        EVP_PKEY_free(mades[i].key);
        free((void *)(uintptr_t)mades[i].certificate_pem.ptr);
        free((void *)(uintptr_t)mades[i].key_pem.ptr);
    }
    for (uint32_t i = 0; i < kept_count; i++)
        free(kept[i]);
    made_count = kept_count = 0;
}

static const char *alert;

static void on_alert(const SSL *ssl, int where, int value) {
    if (!SSL_is_server(ssl) || where != SSL_CB_WRITE_ALERT) return;
    if (strcmp(SSL_alert_desc_string_long(value), "close notify") == 0) return;
    alert = SSL_alert_desc_string_long(value);
}

struct ends ends_new(SSL_CTX *client, SSL_CTX *server) {
    struct ends ends = {SSL_new(client), SSL_new(server)};
    BIO *left = NULL;
    BIO *right = NULL;
    assert_true(ends.client && ends.server);
    assert_int_equal(BIO_new_bio_pair(&left, 131072, &right, 131072), 1);
    SSL_set_bio(ends.client, left, left);
    SSL_set_bio(ends.server, right, right);
    SSL_set_connect_state(ends.client);
    SSL_set_accept_state(ends.server);
    SSL_set_info_callback(ends.server, on_alert);
    alert = NULL;
    return ends;
}

bool ends_shake(struct ends *ends) {
    char byte;
    for (int i = 0; i < 10; i++) {
        int client = SSL_do_handshake(ends->client);
        int client_error = SSL_get_error(ends->client, client);
        int server = SSL_do_handshake(ends->server);
        int server_error = SSL_get_error(ends->server, server);
        if (client == 1 && server == 1) break;
        if (client_error != SSL_ERROR_NONE && client_error != SSL_ERROR_WANT_READ) return false;
        if (server_error != SSL_ERROR_NONE && server_error != SSL_ERROR_WANT_READ) return false;
    }
    /* Tickets of TLS 1.3 come behind the handshake, and so does an alert about the client. */
    int got = SSL_read(ends->client, &byte, 1);
    return SSL_is_init_finished(ends->client) && SSL_is_init_finished(ends->server) &&
           SSL_get_error(ends->client, got) == SSL_ERROR_WANT_READ;
}

const char *ends_alert(void) { return alert; }

void ends_free(struct ends *ends) {
    (void)SSL_shutdown(ends->client); /* else its session would not be good for another time */
    (void)SSL_shutdown(ends->server);
    SSL_free(ends->client);
    SSL_free(ends->server);
    ERR_clear_error();
}

const char *ends_shown(const struct ends *ends) {
    static char name[64];
    const X509 *certificate = SSL_get0_peer_certificate(ends->client);
    if (!certificate) return "none";
    assert_true(X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name,
                                          sizeof name) > 0);
    return name;
}
