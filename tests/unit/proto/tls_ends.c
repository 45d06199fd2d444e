#include "unit/proto/tls_ends.h"

#include "base/check.h"

#include <linux/tls.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

const struct tls_ends_suite tls_ends_suites[] = {
    {TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256", TLS_CIPHER_AES_GCM_128},
    {TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384", TLS_CIPHER_AES_GCM_256},
    {TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305", TLS_CIPHER_CHACHA20_POLY1305},
    {TLS1_3_VERSION, "TLS_AES_128_GCM_SHA256", TLS_CIPHER_AES_GCM_128},
    {TLS1_3_VERSION, "TLS_AES_256_GCM_SHA384", TLS_CIPHER_AES_GCM_256},
    {TLS1_3_VERSION, "TLS_CHACHA20_POLY1305_SHA256", TLS_CIPHER_CHACHA20_POLY1305},
};

static bool put(struct tls *tls, struct bytes bytes) {
    struct tls_end *end = (struct tls_end *)(void *)tls;
    if (end->puts_left == 0) return false;
    end->puts_left--;
    CHECK(end->sent_size + bytes.len <= TLS_ENDS_WIRE_MAX);
    memcpy(end->sent + end->sent_size, bytes.ptr, bytes.len);
    end->sent_size += bytes.len;
    return true;
}

static void on_session(struct tls *tls, SSL_SESSION *session) {
    struct tls_end *end = (struct tls_end *)(void *)tls;
    SSL_SESSION_free(end->session);
    CHECK(SSL_SESSION_up_ref(session) == 1);
    end->session = session;
}

static void on_alert(struct tls *tls, struct bytes bytes) {
    struct tls_end *end = (struct tls_end *)(void *)tls;
    CHECK(bytes.len == sizeof end->alert);
    memcpy(end->alert, bytes.ptr, bytes.len);
    end->alerts++;
}

static const struct tls_events events = {.put = put, .on_session = on_session, .alert = on_alert};

void tls_ends_certify(SSL_CTX *context, const char *name) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    CHECK(key && certificate);
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
    X509_set_pubkey(certificate, key);
    X509_NAME *subject = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(certificate, subject);
    X509_EXTENSION *constraint = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "CA:TRUE");
    X509_add_ext(certificate, constraint, -1);
    X509_EXTENSION_free(constraint);
    CHECK(X509_sign(certificate, key, EVP_sha256()) > 0);
    CHECK(SSL_CTX_use_certificate(context, certificate) == 1);
    CHECK(SSL_CTX_use_PrivateKey(context, key) == 1);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static SSL_CTX *make_context(const SSL_METHOD *method, int version) {
    SSL_CTX *context = SSL_CTX_new(method);
    CHECK(context);
    if (version != 0) {
        SSL_CTX_set_min_proto_version(context, version);
        SSL_CTX_set_max_proto_version(context, version);
    }
    return context;
}

void tls_ends_init(struct tls_ends *pair, int version) {
    *pair = (struct tls_ends){.server_context = make_context(TLS_server_method(), version),
                              .client_context = make_context(TLS_client_method(), version)};
    tls_ends_certify(pair->server_context, "weir.test");
    SSL_CTX_set_session_id_context(pair->server_context, (const unsigned char *)"test", 4);
    X509_STORE *store = SSL_CTX_get_cert_store(pair->client_context);
    X509_STORE_add_cert(store, SSL_CTX_get0_certificate(pair->server_context));
    SSL_CTX_set_verify(pair->client_context, SSL_VERIFY_PEER, NULL);
    tls_keep_sessions(pair->client_context);
    tls_ends_begin(pair);
}

static void begin(struct tls_end *end, SSL_CTX *context, bool is_server) {
    CHECK(tls_init(&end->tls, context, is_server, &events));
    end->sent = malloc(TLS_ENDS_WIRE_MAX);
    end->sent_size = 0;
    end->puts_left = SIZE_MAX;
}

void tls_ends_begin(struct tls_ends *pair) {
    begin(&pair->server, pair->server_context, true);
    begin(&pair->client, pair->client_context, false);
    SSL_set_tlsext_host_name(pair->client.tls.ssl, "weir.test");
    SSL_set1_host(pair->client.tls.ssl, "weir.test");
}

void tls_ends_open(struct tls_ends *pair, const struct tls_ends_suite *suite, bool keep) {
    tls_ends_init(pair, suite->version);
    SSL *client = pair->client.tls.ssl;
    bool is_13 = suite->version == TLS1_3_VERSION;
    CHECK((is_13 ? SSL_set_ciphersuites(client, suite->name)
                 : SSL_set_cipher_list(client, suite->name)) == 1);
    if (keep) tls_keep_keys(&pair->server.tls);
    tls_ends_shake(pair, SIZE_MAX);
    CHECK(pair->client.tls.is_open && pair->server.tls.is_open);
    CHECK(strcmp(SSL_get_cipher_name(client), suite->name) == 0);
}

static void end_one(struct tls_end *end) {
    tls_fini(&end->tls);
    free(end->sent);
    end->sent = NULL;
}

void tls_ends_end(struct tls_ends *pair) {
    end_one(&pair->server);
    end_one(&pair->client);
}

void tls_ends_fini(struct tls_ends *pair) {
    tls_ends_end(pair);
    SSL_SESSION_free(pair->client.session);
    SSL_CTX_free(pair->server_context);
    SSL_CTX_free(pair->client_context);
    CHECK(ERR_peek_error() == 0);
}

static void step(struct tls_end *end, struct bytes wire, size_t piece) {
    do {
        struct bytes part = bytes_slice(wire, 0, piece);
        wire = bytes_slice(wire, part.len, wire.len);
        if (end->tls.is_open || end->tls.failure != REASON_NONE) return;
        tls_give(&end->tls, part);
        (void)tls_handshake(&end->tls); /* the test looks at what it has become */
    } while (wire.len != 0);
}

void tls_ends_shake(struct tls_ends *pair, size_t piece) {
    char *wire = malloc(TLS_ENDS_WIRE_MAX);
    step(&pair->client, BYTES_NONE, 1);
    for (int turn = 0; turn < 10; turn++) {
        struct tls_end *from = turn % 2 == 0 ? &pair->client : &pair->server;
        struct tls_end *to = turn % 2 == 0 ? &pair->server : &pair->client;
        if (from->sent_size == 0 || to->tls.is_open) continue;
        size_t size = from->sent_size;
        memcpy(wire, from->sent, size);
        from->sent_size = 0;
        step(to, bytes_make(wire, size), piece);
    }
    free(wire);
}

struct bytes tls_ends_take(struct tls_end *from) {
    struct bytes wire = bytes_make(from->sent, from->sent_size);
    from->sent_size = 0;
    return wire;
}

enum tls_result tls_ends_read(struct tls_end *end, struct bytes wire, size_t piece,
                              struct writer *to) {
    enum tls_result result = TLS_MORE;
    char plain[TLS_RECORD_MAX];
    do {
        struct bytes part = bytes_slice(wire, 0, piece);
        wire = bytes_slice(wire, part.len, wire.len);
        tls_give(&end->tls, part);
        for (result = TLS_DONE; result == TLS_DONE;) {
            size_t len = 0;
            result = tls_read(&end->tls, plain, sizeof plain, &len);
            if (result == TLS_DONE) writer_put(to, bytes_make(plain, len));
        }
    } while (wire.len != 0 && result == TLS_MORE);
    return result;
}
