/* tls_fixture.h: certificates made on the spot, and handshakes of two ends in memory. */
#ifndef WEIR_TESTS_UNIT_PROTO_TLS_FIXTURE_H
#define WEIR_TESTS_UNIT_PROTO_TLS_FIXTURE_H

#include "proto/tls_context.h"

#include <openssl/ssl.h>
#include <openssl/x509.h>

#define FIXTURE_PEM_MAX 8192

/* A certificate and its key, as PEM and as objects. */
struct made {
    X509 *certificate;
    EVP_PKEY *key;
    struct bytes certificate_pem;
    struct bytes key_pem;
};

struct wish {
    const char *names;         /* "DNS:a.example,DNS:*.b.example", "IP:127.0.0.1"; NULL: no SAN */
    const char *subject;       /* common name */
    const struct made *issuer; /* NULL: self-signed */
    bool is_rsa;               /* else P-256 */
    bool is_ca;
    long until_s; /* from now; 0: a day */
};

/* Never fails; all of it is freed by fixture_end. */
const struct made *make_certificate(const struct wish *wish);
/* PEM: of that issuer; `revoked` may be NULL. */
struct bytes make_crl(const struct made *issuer, const struct made *revoked);
/* DER: says good of `about`, until so many seconds from now. */
struct bytes make_staple(const struct made *issuer, const struct made *about, long until_s);
struct bytes make_encrypted_key(const struct made *made);
struct tls_identity identity_of(const struct made *made);
void fixture_end(void);

/* One handshake of a client and a server that are connected in memory. */
struct ends {
    SSL *client;
    SSL *server;
};
struct ends ends_new(SSL_CTX *client, SSL_CTX *server);
/* Until both are done or one gives up; true: both are done, and what follows (tickets) has come. */
bool ends_shake(struct ends *ends);
/* The alert the server sent, as its description ("unrecognized name"); NULL: none. */
const char *ends_alert(void);
void ends_free(struct ends *ends);
/* Whose certificate the server showed: its common name. */
const char *ends_shown(const struct ends *ends);

#endif
