/* tls_context.h: how one side speaks TLS: its certificates, versions and ciphers, and who is
 * believed. Built from bytes (PEM, DER) by any one thread, then used by one worker; unchanging.
 *
 * In server role (a listener) it is a tree of SSL_CTX: one for each set of certificates that share
 * a name, at most one of each kind of key (an RSA and an ECDSA certificate for the same name: the
 * client's signature algorithms decide). The name a client asks for (SNI, RFC 6066 section 3)
 * chooses: an exact name, else a wildcard ("*.x" for one label before x, RFC 9525 section 6.3),
 * else the first certificate, or with strict_sni an unrecognized_name alert. In client role (an
 * upstream) it is one SSL_CTX, and each connection says which server it wants
 * (tls_context_expect).
 *
 * Connections keep it alive: it is freed with the last SSL that was made from it, after
 * tls_context_free. Files, watching and swapping are control's.
 */
#ifndef WEIR_PROTO_TLS_CONTEXT_H
#define WEIR_PROTO_TLS_CONTEXT_H

#include "base/bytes.h"

#include <openssl/types.h>

struct tls_tickets;

/* A certificate with its key. */
struct tls_identity {
    struct bytes certificate; /* PEM: the certificate first, then its intermediates */
    struct bytes key;         /* PEM; may be the same bytes */
    struct bytes staple;      /* OCSP response, DER; empty: none */
};

enum tls_client_auth { TLS_CLIENT_AUTH_OFF, TLS_CLIENT_AUTH_OPTIONAL, TLS_CLIENT_AUTH_REQUIRE };

/* What is viewed need not outlive the call. */
struct tls_context_options {
    const struct tls_identity *identities; /* server role: one at least; client role: one or none */
    uint32_t identity_count;
    uint8_t min_version; /* minor: 2 or 3 */
    /* As OpenSSL writes them; NULL: its own defaults. */
    const char *ciphers;
    const char *ciphersuites;
    const char *groups;
    struct bytes alpn; /* RFC 7301 section 3.1, the preferred one first; empty: none */
    struct bytes ca;   /* PEM: who may have signed the other side's certificate */
    struct bytes crl;  /* PEM: of every CA; empty: revocation is not asked for */
    /* Where handshakes find what they need (tls_library.h); outlives context and connections. NULL:
     * in the process's. */
    OSSL_LIB_CTX *library;
    /* Server role. */
    enum tls_client_auth client_auth;
    bool strict_sni;
    struct tls_tickets *tickets; /* outlives the context and its connections; NULL: none */
    struct bytes scope; /* sessions are resumed only in contexts of the same scope, ca and crl */
    /* Client role. */
    bool verify;
};

/* What an error is about, for whoever knows the file and the line. */
enum tls_part {
    TLS_PART_CERTIFICATE,
    TLS_PART_KEY,
    TLS_PART_STAPLE,
    TLS_PART_CIPHERS,
    TLS_PART_CIPHERSUITES,
    TLS_PART_GROUPS,
    TLS_PART_CA,
    TLS_PART_CRL,
    TLS_PART_NONE /* none of them: no memory */
};

struct tls_fault {
    enum tls_part part;
    uint32_t index; /* of the identity */
    char text[256]; /* what is wrong, a clause */
};

struct tls_context;

/* NULL and *fault. */
struct tls_context *tls_context_new_server(const struct tls_context_options *options,
                                           struct tls_fault *fault);
struct tls_context *tls_context_new_client(const struct tls_context_options *options,
                                           struct tls_fault *fault);
/* Gives up the creator's hold; harmless with NULL. */
void tls_context_free(struct tls_context *context);

/* To make connections from: SSL_new takes a reference. */
SSL_CTX *tls_context_ssl(const struct tls_context *context);
/* As in its options. */
OSSL_LIB_CTX *tls_context_library(const struct tls_context *context);
/* Client role, before the handshake: asks `ssl` for that server (SNI, for a name; NULL asks
 * for none), and wants its certificate to have the name or address. False: no memory. */
bool tls_context_expect(const struct tls_context *context, SSL *ssl, const char *name);

/* Of a certificate: UNIX times. CHECKs the index. */
struct tls_validity {
    int64_t not_before;
    int64_t not_after;
    int64_t staple_until; /* the response's nextUpdate; 0: no staple, or it does not say */
    bool staple_strays;   /* the response is about another certificate: it is not sent */
};
struct tls_validity tls_context_validity(const struct tls_context *context, uint32_t index);
/* Server role: the first certificate of those that may be shown to who asks for `host` (NULL: for
 * none); false: strict_sni refuses. */
bool tls_context_pick(const struct tls_context *context, const char *host, uint32_t *index);

#endif
