/* tls_identity.h: what tls_context reads from bytes: certificates with their keys and OCSP
 * responses, lists of certificates, lists of revocations. Start and swap only, never the data path.
 *
 * Every function that can fail fills *fault: an error of the input, in words for the operator.
 */
#ifndef WEIR_PROTO_TLS_IDENTITY_H
#define WEIR_PROTO_TLS_IDENTITY_H

#include "proto/tls_context.h"

#include <openssl/x509.h>
#include <stdbool.h>
#include <time.h>

/* Kinds of keys: of each a client may be offered another certificate for the same name. */
enum tls_key_kind {
    TLS_KEY_RSA,
    TLS_KEY_RSA_PSS,
    TLS_KEY_EC,
    TLS_KEY_ED25519,
    TLS_KEY_ED448,
    TLS_KEY_KIND_COUNT
};

struct tls_pair {
    OSSL_LIB_CTX *library; /* where the key is used */
    X509 *certificate;
    STACK_OF(X509) * chain; /* the intermediates */
    EVP_PKEY *key;
    enum tls_key_kind kind;
    unsigned char *staple; /* NULL: none */
    size_t staple_size;
    int64_t staple_until; /* UNIX time; 0: none, or for ever */
    bool staple_strays;   /* it was about another certificate, and is not kept */
};

/* The last error of OpenSSL in `fault`, after "`what`: "; and clears its queue. Returns false. */
bool tls_fault_of_library(struct tls_fault *fault, enum tls_part part, const char *what);
/* Returns false. */
bool tls_fault_set(struct tls_fault *fault, enum tls_part part, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What it holds after a failure is freed by tls_pair_fini, as after success. `pair` is zeroed but
 * for its library. */
bool tls_pair_read(struct tls_pair *pair, const struct tls_identity *identity,
                   struct tls_fault *fault);
void tls_pair_fini(struct tls_pair *pair);

/* Calls `found` with each name the certificate is for (lower case, maybe "*.x"), `used` as given.
 * Common names count only without any DNS name (RFC 9525 section 6.2). False as soon as `found`
 * says so. */
bool tls_pair_names(const struct tls_pair *pair, bool (*found)(void *used, struct bytes name),
                    void *used);

/* A store of all certificates and revocations; `names` gets the subjects when it is not NULL (the
 * caller frees it). NULL and *fault. */
X509_STORE *tls_store_read(struct bytes ca, struct bytes crl, STACK_OF(X509_NAME) * *names,
                           struct tls_fault *fault);

/* Whether a chain can end in one of them: one is signed by itself, or says that it is trusted
 * (openssl-x509(1), -addtrust). */
bool tls_authorities_have_root(struct bytes ca);
/* When the first of the lists in it runs out, UNIX time; 0: none does, or there is none. */
int64_t tls_revocations_until(struct bytes crl);
/* The same of the certificates in `ca`. */
int64_t tls_authorities_until(struct bytes ca);

int64_t tls_time(const ASN1_TIME *time);

#endif
