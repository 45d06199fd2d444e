#include "proto/tls_identity.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>

#define NAME_SIZE_MAX 253 /* RFC 1035 section 2.3.4, as text */
/* Of all authorities that clients are told, each with its length: 2^16-1 in TLS 1.2 (RFC 5246
 * section 7.4.4); in TLS 1.3 other extensions share them (RFC 8446 section 4.3.2). */
#define AUTHORITIES_SIZE_MAX 65000

bool tls_fault_set(struct tls_fault *fault, enum tls_part part, const char *format, ...) {
    fault->part = part;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(fault->text, sizeof fault->text, format, arguments); /* cut is fine */
    va_end(arguments);
    ERR_clear_error();
    return false;
}

bool tls_fault_of_library(struct tls_fault *fault, enum tls_part part, const char *what) {
    const char *why = ERR_reason_error_string(ERR_peek_last_error());
    return tls_fault_set(fault, part, "%s: %s", what, why ? why : "no reason is given");
}

static BIO *read_from(struct bytes bytes) {
    /* An empty one would be a BIO that says "try again" instead of its end. */
    if (bytes.len == 0 || bytes.len > INT_MAX) return BIO_new_mem_buf("\n", 1);
    return BIO_new_mem_buf(bytes.ptr, (int)bytes.len);
}

/* Whether the last read ended as every file of PEM blocks ends. */
static bool at_the_end(void) {
    unsigned long error = ERR_peek_last_error();
    bool is_end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
    if (is_end) ERR_clear_error();
    return is_end;
}

static bool read_certificates(struct tls_pair *pair, struct bytes pem, struct tls_fault *fault) {
    BIO *bio = read_from(pem);
    pair->chain = sk_X509_new_null();
    if (!bio || !pair->chain) {
        BIO_free(bio);
        return tls_fault_set(fault, TLS_PART_NONE, "out of memory");
    }
    pair->certificate = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
    const char *what = pair->certificate ? "a certificate behind the first one cannot be read"
                                         : "no certificate can be read";
    for (X509 *next; pair->certificate && (next = PEM_read_bio_X509(bio, NULL, NULL, NULL));) {
        if (sk_X509_push(pair->chain, next) == 0) X509_free(next);
    }
    BIO_free(bio);
    if (pair->certificate && at_the_end()) return true;
    if (at_the_end())
        return tls_fault_set(fault, TLS_PART_CERTIFICATE, "there is no PEM certificate in it");
    return tls_fault_of_library(fault, TLS_PART_CERTIFICATE, what);
}

static int refuse_password(char *memory, int size, int is_writing, void *used) {
    (void)memory;
    (void)size;
    (void)is_writing; /* nobody is there to ask */
    *(bool *)used = true;
    return -1;
}

static bool read_kind(struct tls_pair *pair) {
    static const struct {
        int id;
        enum tls_key_kind kind;
    } rows[] = {
        {EVP_PKEY_RSA, TLS_KEY_RSA},     {EVP_PKEY_RSA_PSS, TLS_KEY_RSA_PSS},
        {EVP_PKEY_EC, TLS_KEY_EC},       {EVP_PKEY_ED25519, TLS_KEY_ED25519},
        {EVP_PKEY_ED448, TLS_KEY_ED448},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].id != EVP_PKEY_get_base_id(pair->key)) continue;
        pair->kind = rows[i].kind;
        return true;
    }
    return false;
}

/* Those that signatures of TLS are made with (RFC 8446 section 4.2.3, RFC 8734). Parameters without
 * the name of a curve are OpenSSL's to judge. */
static bool is_curve_of_tls(const char *name) {
    static const char *const names[] = {"prime256v1", "secp384r1", "secp521r1"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) return true;
    }
    return strncmp(name, "brainpool", strlen("brainpool")) == 0;
}

static bool check_curve(const struct tls_pair *pair, struct tls_fault *fault) {
    char name[64];
    if (pair->kind != TLS_KEY_EC) return true;
    if (EVP_PKEY_get_group_name(pair->key, name, sizeof name, NULL) != 1) return true;
    return is_curve_of_tls(name) ||
           tls_fault_set(fault, TLS_PART_KEY, "its curve, %s, is not for TLS", name);
}

static bool read_key(struct tls_pair *pair, struct bytes pem, struct tls_fault *fault) {
    bool is_encrypted = false;
    BIO *bio = read_from(pem);
    if (bio) {
        pair->key = PEM_read_bio_PrivateKey_ex(bio, NULL, refuse_password, &is_encrypted,
                                               pair->library, NULL);
    }
    BIO_free(bio);
    if (is_encrypted)
        return tls_fault_set(fault, TLS_PART_KEY, "the key is encrypted; it must be in clear");
    if (!pair->key)
        return tls_fault_set(fault, TLS_PART_KEY,
                             "there is no PEM private key in it, or a bad one");
    if (X509_check_private_key(pair->certificate, pair->key) != 1)
        return tls_fault_set(fault, TLS_PART_KEY, "the key is not that of the certificate");
    if (!read_kind(pair))
        return tls_fault_set(fault, TLS_PART_KEY, "keys of this kind are not for TLS");
    if (!check_curve(pair, fault)) return false;
    ERR_clear_error(); /* decoders that were tried before the right one */
    return true;
}

int64_t tls_time(const ASN1_TIME *time) {
    struct tm broken;
    if (!time || ASN1_TIME_to_tm(time, &broken) != 1) return 0;
    return (int64_t)timegm(&broken);
}

/* Whether the response speaks of this certificate, and until when. */
static bool read_response(struct tls_pair *pair, OCSP_BASICRESP *basic) {
    const ASN1_INTEGER *serial = X509_get0_serialNumber(pair->certificate);
    for (int i = 0; i < OCSP_resp_count(basic); i++) {
        OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
        /* The function wants what it does not change, without saying so. */
        OCSP_CERTID *id = (OCSP_CERTID *)(uintptr_t)OCSP_SINGLERESP_get0_id(single);
        ASN1_INTEGER *other = NULL;
        ASN1_GENERALIZEDTIME *until = NULL;
        if (OCSP_id_get0_info(NULL, NULL, NULL, &other, id) != 1) continue;
        if (ASN1_INTEGER_cmp(serial, other) != 0) continue;
        (void)OCSP_single_get0_status(single, NULL, NULL, NULL, &until); /* also of revoked ones */
        pair->staple_until = tls_time(until);
        return true;
    }
    return false;
}

static bool read_staple(struct tls_pair *pair, struct bytes der, struct tls_fault *fault) {
    if (der.len == 0) return true;
    const unsigned char *at = (const unsigned char *)der.ptr;
    OCSP_RESPONSE *response =
        der.len > LONG_MAX ? NULL : d2i_OCSP_RESPONSE(NULL, &at, (long)der.len);
    OCSP_BASICRESP *basic = NULL;
    bool is_good = false;
    if (!response) {
        (void)tls_fault_set(fault, TLS_PART_STAPLE, "it is not an OCSP response (DER)");
    } else if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL) {
        (void)tls_fault_set(fault, TLS_PART_STAPLE, "the response is an error: %s",
                            OCSP_response_status_str(OCSP_response_status(response)));
    } else if (!(basic = OCSP_response_get1_basic(response))) {
        (void)tls_fault_of_library(fault, TLS_PART_STAPLE, "the response cannot be read");
    } else {
        pair->staple_strays = !read_response(pair, basic);
        is_good = true;
    }
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    if (!is_good || pair->staple_strays) return is_good;
    pair->staple = OPENSSL_memdup(der.ptr, der.len);
    pair->staple_size = der.len;
    return pair->staple || tls_fault_set(fault, TLS_PART_NONE, "out of memory");
}

bool tls_pair_read(struct tls_pair *pair, const struct tls_identity *identity,
                   struct tls_fault *fault) {
    return read_certificates(pair, identity->certificate, fault) &&
           read_key(pair, identity->key, fault) && read_staple(pair, identity->staple, fault);
}

void tls_pair_fini(struct tls_pair *pair) {
    X509_free(pair->certificate);
    sk_X509_pop_free(pair->chain, X509_free);
    EVP_PKEY_free(pair->key);
    OPENSSL_free(pair->staple);
    *pair = (struct tls_pair){0};
}

static bool tell_name(const ASN1_STRING *text, bool (*found)(void *used, struct bytes name),
                      void *used) {
    char lower[NAME_SIZE_MAX];
    int length = ASN1_STRING_length(text);
    const unsigned char *bytes = ASN1_STRING_get0_data(text);
    if (length <= 0 || length > NAME_SIZE_MAX) return true; /* no host has such a name */
    for (int i = 0; i < length; i++) {
        char c = (char)bytes[i];
        lower[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    return found(used, bytes_make(lower, (size_t)length));
}

bool tls_pair_names(const struct tls_pair *pair, bool (*found)(void *used, struct bytes name),
                    void *used) {
    GENERAL_NAMES *names = X509_get_ext_d2i(pair->certificate, NID_subject_alt_name, NULL, NULL);
    bool has_dns = false;
    bool goes_on = true;
    for (int i = 0; goes_on && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_DNS) continue;
        has_dns = true;
        goes_on = tell_name(name->d.dNSName, found, used);
    }
    GENERAL_NAMES_free(names);
    if (has_dns) return goes_on;
    const X509_NAME *subject = X509_get_subject_name(pair->certificate);
    for (int i = -1; goes_on && (i = X509_NAME_get_index_by_NID(subject, NID_commonName, i)) >= 0;)
        goes_on = tell_name(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, i)), found, used);
    return goes_on;
}

/* With more no handshake would come to its end. */
static bool check_authorities(const STACK_OF(X509_NAME) * names, struct tls_fault *fault) {
    size_t size = 0;
    for (int i = 0; i < sk_X509_NAME_num(names); i++)
        size += 2 + (size_t)i2d_X509_NAME(sk_X509_NAME_value(names, i), NULL);
    return size <= AUTHORITIES_SIZE_MAX ||
           tls_fault_set(fault, TLS_PART_CA,
                         "its certificates have names of over %d bytes, too many to tell clients",
                         AUTHORITIES_SIZE_MAX);
}

static bool add_authorities(X509_STORE *store, struct bytes pem, STACK_OF(X509_NAME) * names,
                            struct tls_fault *fault) {
    uint32_t count = 0;
    bool is_good = true;
    BIO *bio = read_from(pem);
    for (X509 *next; is_good && (next = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL)); count++) {
        X509_NAME *name = names ? X509_NAME_dup(X509_get_subject_name(next)) : NULL;
        is_good = X509_STORE_add_cert(store, next) == 1;
        if (name && sk_X509_NAME_push(names, name) == 0) X509_NAME_free(name);
        X509_free(next);
    }
    BIO_free(bio);
    if (is_good && at_the_end() && count != 0) return true;
    if (count == 0 && ERR_peek_last_error() == 0)
        return tls_fault_set(fault, TLS_PART_CA, "there is no PEM certificate in it");
    return tls_fault_of_library(fault, TLS_PART_CA, "a certificate in it cannot be read");
}

static bool add_revocations(X509_STORE *store, struct bytes pem, struct tls_fault *fault) {
    uint32_t count = 0;
    bool is_good = true;
    BIO *bio = read_from(pem);
    for (X509_CRL *next; is_good && (next = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL));
         count++) {
        is_good = X509_STORE_add_crl(store, next) == 1;
        X509_CRL_free(next);
    }
    BIO_free(bio);
    if (is_good && at_the_end() && count != 0) {
        (void)X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
        return true;
    }
    if (count == 0 && ERR_peek_last_error() == 0)
        return tls_fault_set(fault, TLS_PART_CRL, "there is no PEM revocation list in it");
    return tls_fault_of_library(fault, TLS_PART_CRL, "a revocation list in it cannot be read");
}

bool tls_authorities_have_root(struct bytes ca) {
    bool has_root = false;
    BIO *bio = read_from(ca);
    for (X509 *next; !has_root && (next = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL));) {
        has_root = X509_trusted(next) ||
                   X509_NAME_cmp(X509_get_subject_name(next), X509_get_issuer_name(next)) == 0;
        X509_free(next);
    }
    BIO_free(bio);
    ERR_clear_error(); /* its end is one */
    return has_root;
}

int64_t tls_revocations_until(struct bytes crl) {
    int64_t until = 0;
    BIO *bio = read_from(crl);
    for (X509_CRL *next; (next = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL));) {
        int64_t of_this = tls_time(X509_CRL_get0_nextUpdate(next));
        if (of_this != 0 && (until == 0 || of_this < until)) until = of_this;
        X509_CRL_free(next);
    }
    BIO_free(bio);
    ERR_clear_error(); /* its end is one */
    return until;
}

int64_t tls_authorities_until(struct bytes ca) {
    int64_t until = 0;
    BIO *bio = read_from(ca);
    for (X509 *next; (next = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL));) {
        int64_t of_this = tls_time(X509_get0_notAfter(next));
        if (until == 0 || of_this < until) until = of_this;
        X509_free(next);
    }
    BIO_free(bio);
    ERR_clear_error(); /* its end is one */
    return until;
}

X509_STORE *tls_store_read(struct bytes ca, struct bytes crl, STACK_OF(X509_NAME) * *names,
                           struct tls_fault *fault) {
    X509_STORE *store = X509_STORE_new();
    if (names) *names = sk_X509_NAME_new_null();
    if (!store || (names && !*names)) {
        (void)tls_fault_set(fault, TLS_PART_NONE, "out of memory");
    } else if (add_authorities(store, ca, names ? *names : NULL, fault) &&
               (!names || check_authorities(*names, fault)) &&
               (crl.len == 0 || add_revocations(store, crl, fault))) {
        return store;
    }
    X509_STORE_free(store);
    if (names) sk_X509_NAME_pop_free(*names, X509_NAME_free);
    return NULL;
}
