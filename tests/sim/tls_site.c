/* tls_site.c: the certificate of a simulated site, OpenSSL's contexts of its clients and servers,
 * and where OpenSSL has its randomness from. */
#define OPENSSL_SUPPRESS_DEPRECATED /* RAND_METHOD: what replaces it is a provider */
#include "base/check.h"
#include "base/rand.h"
#include "sim/sim.h"
#include "sim/tls_end.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SESSIONS_MAX 8
/* A connection has one of two versions, and this is the older one's part. */
#define TLS_12_ONE_IN 3

static struct rand_state random_state;
static X509 *certificate;
static EVP_PKEY *key;
static char certificate_path[32], key_path[32];
static SSL_CTX *client_context, *server_context;
static SSL_SESSION *sessions[SESSIONS_MAX];
static uint32_t session_count;

static int draw(unsigned char *bytes, int size) {
    for (int i = 0; i < size; i++)
        bytes[i] = (unsigned char)(rand_next(&random_state) >> 56);
    return 1;
}

static int draw_status(void) { return 1; }

static const RAND_METHOD drawn = {.bytes = draw, .pseudorand = draw, .status = draw_status};

static void add_extension(int nid, const char *value) {
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    CHECK(extension && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

/* Signed by itself, and good on any day. */
static void make_certificate(void) {
    key = EVP_EC_gen("P-256");
    certificate = X509_new();
    CHECK(key && certificate);
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    ASN1_TIME_set_string(X509_getm_notBefore(certificate), "20000101000000Z");
    ASN1_TIME_set_string(X509_getm_notAfter(certificate), "99991231235959Z");
    X509_set_pubkey(certificate, key);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"sim", -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    add_extension(NID_basic_constraints, "CA:TRUE");
    add_extension(NID_subject_alt_name, "DNS:sim,IP:127.0.0.1");
    CHECK(X509_sign(certificate, key, EVP_sha256()) > 0);
}

/* A file without a name in any folder: it is gone with the process. */
static FILE *open_file(char *path, size_t size) {
    int fd = memfd_create("weir-sim", 0);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    CHECK(file);
    snprintf(path, size, "/proc/self/fd/%d", fd);
    return file;
}

static void write_files(void) {
    FILE *file = open_file(certificate_path, sizeof certificate_path);
    CHECK(PEM_write_X509(file, certificate) == 1 && fflush(file) == 0);
    file = open_file(key_path, sizeof key_path);
    CHECK(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1 && fflush(file) == 0);
}

static int on_session(SSL *ssl, SSL_SESSION *session) {
    (void)ssl;
    if (session_count == SESSIONS_MAX) return 0;
    sessions[session_count++] = session;
    return 1; /* the reference is taken */
}

static int on_alpn(SSL *ssl, const unsigned char **chosen, unsigned char *size,
                   const unsigned char *offered, unsigned offered_size, void *user) {
    (void)user;
    const char *wanted = SSL_get_app_data(ssl);
    if (!wanted) return SSL_TLSEXT_ERR_NOACK;
    for (unsigned at = 0; at < offered_size; at += 1u + offered[at]) {
        if (offered[at] != strlen(wanted) || memcmp(offered + at + 1, wanted, offered[at]) != 0)
            continue;
        *chosen = offered + at + 1;
        *size = offered[at];
        return SSL_TLSEXT_ERR_OK;
    }
    sim_fail(INVARIANT_BYTES, "a server is not asked for %s", wanted);
}

static void make_contexts(void) {
    server_context = SSL_CTX_new(TLS_server_method());
    client_context = SSL_CTX_new(TLS_client_method());
    CHECK(server_context && client_context);
    SSL_CTX_set_session_cache_mode(server_context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(server_context, on_alpn, NULL);
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(client_context), certificate) == 1);
    SSL_CTX_set_verify(client_context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(client_context,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client_context, on_session);
    for (int i = 0; i < 2; i++) {
        SSL_CTX *context = i == 0 ? server_context : client_context;
        CHECK(SSL_CTX_use_certificate(context, certificate) == 1);
        CHECK(SSL_CTX_use_PrivateKey(context, key) == 1);
        SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION);
    }
}

void tls_site_begin(uint64_t seed) {
    if (!certificate) {
        sim_seed(&random_state, 1);
        CHECK(RAND_set_rand_method(&drawn) == 1);
        make_certificate();
        write_files();
        make_contexts();
    }
    sim_seed(&random_state, seed);
}

void tls_site_end(void) {
    while (session_count != 0)
        SSL_SESSION_free(sessions[--session_count]);
}

const char *tls_site_certificate(void) { return certificate_path; }
const char *tls_site_key(void) { return key_path; }

static void resume(SSL *ssl) {
    if (session_count == 0 || sim_one_in(2)) return;
    SSL_SESSION *session = sessions[--session_count];
    CHECK(SSL_set_session(ssl, session) == 1);
    SSL_SESSION_free(session);
}

SSL *tls_site_new(bool is_server, const char *alpn) {
    SSL *ssl = SSL_new(is_server ? server_context : client_context);
    CHECK(ssl);
    if (sim_one_in(TLS_12_ONE_IN)) CHECK(SSL_set_max_proto_version(ssl, TLS1_2_VERSION) == 1);
    if (is_server) {
        SSL_set_accept_state(ssl);
        SSL_set_app_data(ssl, (void *)(uintptr_t)alpn);
        return ssl;
    }
    unsigned char list[32] = {0};
    if (alpn) {
        list[0] = (unsigned char)strlen(alpn);
        memcpy(list + 1, alpn, list[0]);
        CHECK(SSL_set_alpn_protos(ssl, list, list[0] + 1u) == 0);
    }
    SSL_set_connect_state(ssl);
    CHECK(SSL_set_tlsext_host_name(ssl, "sim") == 1 && SSL_set1_host(ssl, "sim") == 1);
    if (!alpn || strcmp(alpn, "h2") != 0) resume(ssl);
    return ssl;
}
