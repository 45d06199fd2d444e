#include "proto/tls_context.h"

#include "base/check.h"
#include "proto/tls_identity.h"
#include "proto/tls_tickets.h"
#include "proto/tls_words.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>

#define NONE UINT32_MAX

/* Certificates that answer for the same names, by kind of key: index of the pair, or NONE. */
struct tls_set {
    uint32_t pairs[TLS_KEY_KIND_COUNT];
};

struct tls_leaf {
    struct tls_set set;
    SSL_CTX *ssl;
};

/* A name of a certificate, maybe "*.x". Sorted, and each stands once when the tree is built. */
struct tls_name {
    struct bytes name; /* in memory of its own */
    uint32_t pair;
    uint32_t leaf;
};

struct tls_context {
    SSL_CTX *ssl; /* the first leaf's; its end is the context's */
    struct tls_leaf *leaves;
    uint32_t leaf_count;
    struct tls_name *names;
    uint32_t name_count;
    struct tls_pair *pairs;
    uint32_t pair_count;
    X509_STORE *store;
    STACK_OF(X509_NAME) * authorities;
    EVP_CIPHER *ticket_cipher;
    struct tls_tickets *tickets;
    OSSL_LIB_CTX *library;
    unsigned char *alpn;
    size_t alpn_size;
    bool strict_sni;
    bool verify;
    unsigned char scope[SSL_MAX_SID_CTX_LENGTH];
};

/* Where an SSL_CTX keeps its context. */
static int tls_context_slot = -1;

static void tls_context_forget(struct tls_context *context) {
    for (uint32_t i = 0; i < context->leaf_count; i++) {
        if (context->leaves[i].ssl == context->ssl) continue;
        /* The last connection gives up the first leaf before the one that a name chose. */
        (void)SSL_CTX_set_ex_data(context->leaves[i].ssl, tls_context_slot, NULL); /* there is room:
                                                                                      it was set */
        SSL_CTX_free(context->leaves[i].ssl);
    }
    for (uint32_t i = 0; i < context->name_count; i++)
        OPENSSL_free((void *)(uintptr_t)context->names[i].name.ptr);
    for (uint32_t i = 0; i < context->pair_count; i++)
        tls_pair_fini(&context->pairs[i]);
    X509_STORE_free(context->store);
    sk_X509_NAME_pop_free(context->authorities, X509_NAME_free);
    EVP_CIPHER_free(context->ticket_cipher);
    OPENSSL_free(context->alpn);
    OPENSSL_free(context->leaves);
    OPENSSL_free(context->names);
    OPENSSL_free(context->pairs);
    OPENSSL_free(context);
}

/* Of the SSL_CTX that is the last to go. */
static void tls_context_on_free(void *parent, void *found, CRYPTO_EX_DATA *all, int slot,
                                long unused, void *used) {
    (void)all;
    (void)slot;
    (void)unused;
    (void)used; /* the library's ways; what counts are the first two */
    struct tls_context *context = found;
    if (context && context->ssl == parent) tls_context_forget(context);
}

static void tls_context_take_slot(void) {
    tls_context_slot = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, tls_context_on_free);
}

static struct tls_context *tls_context_of(const SSL_CTX *ssl) {
    return SSL_CTX_get_ex_data(ssl, tls_context_slot);
}

/* Callbacks of handshakes. */

/* RFC 7301 section 3.2. */
static int tls_context_on_alpn(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_size,
                               const unsigned char *offered, unsigned int offered_size,
                               void *used) {
    (void)ssl;
    const struct tls_context *context = used;
    const unsigned char *end = context->alpn + context->alpn_size;
    for (const unsigned char *mine = context->alpn; mine < end; mine += 1 + mine[0]) {
        for (unsigned int at = 0; at < offered_size; at += 1u + offered[at]) {
            if (at + 1u + offered[at] > offered_size || offered[at] != mine[0]) continue;
            if (memcmp(offered + at + 1, mine + 1, mine[0]) != 0) continue;
            *chosen = mine + 1;
            *chosen_size = mine[0];
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int tls_name_compare(struct bytes a, struct bytes b) {
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    if (order != 0) return order;
    return a.len == b.len ? 0 : a.len < b.len ? -1 : 1;
}

static const struct tls_name *tls_context_find(const struct tls_context *context,
                                               struct bytes name) {
    uint32_t low = 0;
    uint32_t high = context->name_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = tls_name_compare(name, context->names[middle].name);
        if (order == 0) return &context->names[middle];
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

/* The certificates for a host: those of that name, else those of its wildcard. RFC 6066 section 3
 * has no dot at the end; some clients send it as it was typed. */
static const struct tls_name *tls_context_choose(const struct tls_context *context,
                                                 const char *host) {
    char lower[256];
    size_t size = strlen(host);
    if (size != 0 && host[size - 1] == '.') size--;
    if (size == 0 || size >= sizeof lower) return NULL;
    for (size_t i = 0; i < size; i++)
        lower[i] = host[i] >= 'A' && host[i] <= 'Z' ? (char)(host[i] | 0x20) : host[i];
    struct bytes name = bytes_make(lower, size);
    const struct tls_name *found = tls_context_find(context, name);
    size_t dot = bytes_find(name, '.');
    if (found || dot == size || dot == 0) return found;
    lower[dot - 1] = '*';
    return tls_context_find(context, bytes_make(lower + dot - 1, size - dot + 1));
}

/* Comes for every ClientHello, with or without a name. */
static int tls_context_on_name(SSL *ssl, int *alert, void *used) {
    const struct tls_context *context = used;
    const char *host = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const struct tls_name *found = host ? tls_context_choose(context, host) : NULL;
    if (!found) {
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return context->strict_sni ? SSL_TLSEXT_ERR_ALERT_FATAL : SSL_TLSEXT_ERR_NOACK;
    }
    SSL_CTX *leaf = context->leaves[found->leaf].ssl;
    if (leaf != SSL_get_SSL_CTX(ssl) && !SSL_set_SSL_CTX(ssl, leaf)) {
        *alert = SSL_AD_INTERNAL_ERROR; /* no memory */
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    return SSL_TLSEXT_ERR_OK;
}

/* The response for the certificate that this handshake uses; one that has run out helps nobody. */
static int tls_context_on_status(SSL *ssl, void *used) {
    const struct tls_context *context = used;
    const X509 *certificate = SSL_get_certificate(ssl);
    for (uint32_t i = 0; i < context->pair_count; i++) {
        const struct tls_pair *pair = &context->pairs[i];
        if (pair->certificate != certificate) continue;
        bool has_ended = pair->staple_until != 0 && pair->staple_until < (int64_t)time(NULL);
        unsigned char *copy = NULL;
        if (pair->staple && !has_ended) copy = OPENSSL_memdup(pair->staple, pair->staple_size);
        if (!copy) return SSL_TLSEXT_ERR_NOACK;
        (void)SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)pair->staple_size); /* takes it */
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

static bool tls_context_set_mac(EVP_MAC_CTX *mac, const struct tls_ticket_key *key) {
    char digest[] = "SHA256";
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)key->mac,
                                          sizeof key->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, parameters) == 1;
}

/* As SSL_CTX_set_tlsext_ticket_key_evp_cb(3) wants it: -1 failed, 0 unknown key, 1 known, 2 known
 * and worth a new ticket. */
static int tls_context_on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv,
                                 EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int is_making) {
    const struct tls_context *context = tls_context_of(SSL_get_SSL_CTX(ssl));
    const struct tls_ticket_key *current = tls_tickets_current(context->tickets);
    if (is_making) {
        memcpy(name, current->name, sizeof current->name);
        size_t size = (size_t)EVP_CIPHER_get_iv_length(context->ticket_cipher);
        if (RAND_bytes_ex(context->library, iv, size, 0) != 1) return -1;
        bool is_ready =
            EVP_EncryptInit_ex(cipher, context->ticket_cipher, NULL, current->cipher, iv) == 1 &&
            tls_context_set_mac(mac, current);
        return is_ready ? 1 : -1;
    }
    const struct tls_ticket_key *key = tls_tickets_find(context->tickets, name);
    if (!key) return 0;
    if (EVP_DecryptInit_ex(cipher, context->ticket_cipher, NULL, key->cipher, iv) != 1) return -1;
    if (!tls_context_set_mac(mac, key)) return -1;
    /* A TLS 1.3 client uses a ticket once (RFC 8446 appendix C.4). */
    return key != current || SSL_version(ssl) >= TLS1_3_VERSION ? 2 : 1;
}

/* Building. */

/* What both roles have in common. */
static bool tls_context_set_rules(SSL_CTX *ssl, const struct tls_context_options *options,
                                  struct tls_fault *fault) {
    int version = options->min_version == 3 ? TLS1_3_VERSION : TLS1_2_VERSION;
    (void)SSL_CTX_set_min_proto_version(ssl, version); /* one that is built in */
    (void)SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    (void)SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
    (void)SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    ERR_clear_error();
    return tls_words_set(ssl, options, fault);
}

static bool tls_context_use_pair(SSL_CTX *ssl, const struct tls_pair *pair,
                                 struct tls_fault *fault) {
    ERR_clear_error();
    if (SSL_CTX_use_certificate(ssl, pair->certificate) != 1 ||
        SSL_CTX_set1_chain(ssl, pair->chain) != 1)
        return tls_fault_of_library(fault, TLS_PART_CERTIFICATE, "it cannot be used");
    if (SSL_CTX_use_PrivateKey(ssl, pair->key) != 1)
        return tls_fault_of_library(fault, TLS_PART_KEY, "it cannot be used");
    return true;
}

static void tls_context_set_tickets(const struct tls_context *context, SSL_CTX *ssl) {
    if (!context->tickets) {
        (void)SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET);
        (void)SSL_CTX_set_num_tickets(ssl, 0); /* those of TLS 1.3 would need the cache */
        return;
    }
    (void)SSL_CTX_set_tlsext_ticket_key_evp_cb(ssl, tls_context_on_ticket);
    (void)SSL_CTX_set_generate_session_id(ssl, tls_tickets_on_number); /* cannot fail */
    (void)SSL_CTX_set_timeout(ssl, (long)context->tickets->lifetime_s);
    /* One: each costs a full handshake bytes and time, and every resumption brings a new one. */
    (void)SSL_CTX_set_num_tickets(ssl, 1);
}

static void tls_context_set_clients(struct tls_context *context, SSL_CTX *ssl,
                                    enum tls_client_auth auth) {
    if (auth == TLS_CLIENT_AUTH_OFF) return;
    int mode = SSL_VERIFY_PEER;
    if (auth == TLS_CLIENT_AUTH_REQUIRE) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_verify(ssl, mode, NULL);
    (void)SSL_CTX_set_session_ticket_cb(ssl, NULL, tls_tickets_on_opened, NULL); /* cannot fail */
    SSL_CTX_set1_cert_store(ssl, context->store);
    SSL_CTX_set_client_CA_list(ssl, SSL_dup_CA_list(context->authorities));
}

static SSL_CTX *tls_context_make_leaf(struct tls_context *context, const struct tls_set *set,
                                      const struct tls_context_options *options,
                                      struct tls_fault *fault) {
    SSL_CTX *ssl = SSL_CTX_new_ex(options->library, NULL, TLS_server_method());
    if (!ssl || SSL_CTX_set_ex_data(ssl, tls_context_slot, context) != 1) {
        (void)tls_fault_of_library(fault, TLS_PART_NONE, "no SSL_CTX can be made");
        SSL_CTX_free(ssl);
        return NULL;
    }
    bool is_good = tls_context_set_rules(ssl, options, fault);
    for (uint32_t i = 0; is_good && i < TLS_KEY_KIND_COUNT; i++) {
        if (set->pairs[i] == NONE) continue;
        fault->index = set->pairs[i];
        is_good = tls_context_use_pair(ssl, &context->pairs[set->pairs[i]], fault);
    }
    if (!is_good) {
        SSL_CTX_free(ssl);
        return NULL;
    }
    (void)SSL_CTX_set_options(ssl, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    (void)SSL_CTX_set_session_id_context(ssl, context->scope, sizeof context->scope);
    (void)SSL_CTX_set_tlsext_servername_callback(ssl, tls_context_on_name);
    (void)SSL_CTX_set_tlsext_servername_arg(ssl, context);
    (void)SSL_CTX_set_tlsext_status_cb(ssl, tls_context_on_status);
    (void)SSL_CTX_set_tlsext_status_arg(ssl, context);
    if (context->alpn_size != 0) SSL_CTX_set_alpn_select_cb(ssl, tls_context_on_alpn, context);
    tls_context_set_tickets(context, ssl);
    tls_context_set_clients(context, ssl, options->client_auth);
    return ssl;
}

/* The leaf with those certificates, made if there is none; NONE and *fault. */
static uint32_t tls_context_leaf(struct tls_context *context, const struct tls_set *set,
                                 const struct tls_context_options *options,
                                 struct tls_fault *fault) {
    for (uint32_t i = 0; i < context->leaf_count; i++) {
        if (memcmp(&context->leaves[i].set, set, sizeof *set) == 0) return i;
    }
    size_t size = (context->leaf_count + 1) * sizeof *context->leaves;
    struct tls_leaf *leaves = OPENSSL_realloc(context->leaves, size);
    if (!leaves) {
        (void)tls_fault_set(fault, TLS_PART_NONE, "out of memory");
        return NONE;
    }
    context->leaves = leaves;
    SSL_CTX *ssl = tls_context_make_leaf(context, set, options, fault);
    if (!ssl) return NONE;
    leaves[context->leaf_count] = (struct tls_leaf){*set, ssl};
    return context->leaf_count++;
}

/* By name, then by the order of the certificates. */
static int tls_name_order(const void *a, const void *b) {
    const struct tls_name *left = a;
    const struct tls_name *right = b;
    int order = tls_name_compare(left->name, right->name);
    if (order != 0) return order;
    return left->pair < right->pair ? -1 : 1;
}

struct tls_naming {
    struct tls_context *context;
    uint32_t pair;
};

static bool tls_context_add_name(void *used, struct bytes name) {
    const struct tls_naming *naming = used;
    struct tls_context *context = naming->context;
    size_t size = (context->name_count + 1) * sizeof *context->names;
    struct tls_name *names = OPENSSL_realloc(context->names, size);
    if (names) context->names = names;
    char *copy = names ? OPENSSL_memdup(name.ptr, name.len) : NULL;
    if (!copy) return false;
    names[context->name_count++] =
        (struct tls_name){.name = bytes_make(copy, name.len), .pair = naming->pair};
    return true;
}

/* The certificates of the name at `first`, the first of each kind; returns how many rows it has. */
static uint32_t tls_context_gather(const struct tls_context *context, uint32_t first,
                                   struct tls_set *set) {
    struct bytes name = context->names[first].name;
    memset(set->pairs, 0xff, sizeof set->pairs); /* NONE */
    uint32_t i = first;
    for (; i < context->name_count && bytes_equal(context->names[i].name, name); i++) {
        uint32_t pair = context->names[i].pair;
        uint32_t *place = &set->pairs[context->pairs[pair].kind];
        if (*place == NONE) *place = pair;
    }
    return i - first;
}

/* The leaf that answers who asks for no name, or none that is known: that of a name of the first
 * certificate, so that a certificate of another kind for it is offered as well. */
static bool tls_context_make_default(struct tls_context *context,
                                     const struct tls_context_options *options,
                                     struct tls_fault *fault) {
    struct tls_set set;
    memset(set.pairs, 0xff, sizeof set.pairs); /* NONE */
    set.pairs[context->pairs[0].kind] = 0;
    for (uint32_t i = 0; i < context->name_count;) {
        struct tls_set of_name;
        uint32_t rows = tls_context_gather(context, i, &of_name);
        if (context->names[i].pair == 0) {
            set = of_name;
            break;
        }
        i += rows;
    }
    if (tls_context_leaf(context, &set, options, fault) == NONE) return false;
    context->ssl = context->leaves[0].ssl;
    return true;
}

/* Leaves for all names; of each name one row stays. */
static bool tls_context_make_leaves(struct tls_context *context,
                                    const struct tls_context_options *options,
                                    struct tls_fault *fault) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < context->name_count;) {
        struct tls_set set;
        uint32_t rows = tls_context_gather(context, i, &set);
        uint32_t leaf = tls_context_leaf(context, &set, options, fault);
        for (uint32_t j = i + 1; j < i + rows; j++) {
            OPENSSL_free((void *)(uintptr_t)context->names[j].name.ptr);
            context->names[j].name = BYTES_NONE;
        }
        struct tls_name row = context->names[i];
        context->names[i].name = BYTES_NONE;
        row.leaf = leaf;
        context->names[kept++] = row;
        if (leaf == NONE) return false;
        i += rows;
    }
    context->name_count = kept;
    return true;
}

static bool tls_context_read_pairs(struct tls_context *context,
                                   const struct tls_context_options *options,
                                   struct tls_fault *fault) {
    if (options->identity_count == 0) return true;
    context->pairs = OPENSSL_zalloc(options->identity_count * sizeof *context->pairs);
    if (!context->pairs) return tls_fault_set(fault, TLS_PART_NONE, "out of memory");
    for (uint32_t i = 0; i < options->identity_count; i++) {
        context->pair_count++;
        fault->index = i;
        context->pairs[i].library = options->library;
        if (!tls_pair_read(&context->pairs[i], &options->identities[i], fault)) return false;
    }
    return true;
}

static bool tls_context_name_pairs(struct tls_context *context, struct tls_fault *fault) {
    for (uint32_t i = 0; i < context->pair_count; i++) {
        struct tls_naming naming = {context, i};
        if (!tls_pair_names(&context->pairs[i], tls_context_add_name, &naming))
            return tls_fault_set(fault, TLS_PART_NONE, "out of memory");
    }
    if (context->name_count != 0)
        qsort(context->names, context->name_count, sizeof *context->names, tls_name_order);
    return true;
}

static bool tls_context_read_alpn(struct tls_context *context, struct bytes alpn,
                                  struct tls_fault *fault) {
    if (alpn.len == 0) return true;
    context->alpn = OPENSSL_memdup(alpn.ptr, alpn.len);
    context->alpn_size = alpn.len;
    return context->alpn || tls_fault_set(fault, TLS_PART_NONE, "out of memory");
}

/* Whoever was let in by other rules must not come back by a ticket. */
static bool tls_context_set_scope(struct tls_context *context,
                                  const struct tls_context_options *options) {
    const struct bytes pieces[] = {options->scope, options->ca, options->crl};
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool is_good = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1;
    uint8_t auth = (uint8_t)options->client_auth;
    is_good = is_good && EVP_DigestUpdate(digest, &auth, sizeof auth) == 1;
    for (size_t i = 0; is_good && i < sizeof pieces / sizeof pieces[0]; i++) {
        is_good = EVP_DigestUpdate(digest, &pieces[i].len, sizeof pieces[i].len) == 1 &&
                  EVP_DigestUpdate(digest, pieces[i].ptr, pieces[i].len) == 1;
    }
    is_good = is_good && EVP_DigestFinal_ex(digest, context->scope, NULL) == 1;
    EVP_MD_CTX_free(digest);
    return is_good;
}

static struct tls_context *tls_context_begin(const struct tls_context_options *options,
                                             struct tls_fault *fault) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, tls_context_take_slot); /* cannot fail */
    *fault = (struct tls_fault){.part = TLS_PART_NONE};
    struct tls_context *context = OPENSSL_zalloc(sizeof *context);
    if (!context || tls_context_slot < 0) {
        (void)tls_fault_set(fault, TLS_PART_NONE, "out of memory");
        OPENSSL_free(context);
        return NULL;
    }
    context->strict_sni = options->strict_sni;
    context->verify = options->verify;
    context->tickets = options->tickets;
    context->library = options->library;
    if (tls_context_read_pairs(context, options, fault) &&
        tls_context_read_alpn(context, options->alpn, fault))
        return context;
    tls_context_forget(context);
    return NULL;
}

static bool tls_context_build_server(struct tls_context *context,
                                     const struct tls_context_options *options,
                                     struct tls_fault *fault) {
    if (options->client_auth != TLS_CLIENT_AUTH_OFF) {
        context->store = tls_store_read(options->ca, options->crl, &context->authorities, fault);
        if (!context->store) {
            context->authorities = NULL;
            return false;
        }
    }
    context->ticket_cipher = EVP_CIPHER_fetch(options->library, "AES-256-CBC", NULL);
    if (!context->ticket_cipher || !tls_context_set_scope(context, options))
        return tls_fault_of_library(fault, TLS_PART_NONE, "OpenSSL lacks AES or SHA-256");
    return tls_context_name_pairs(context, fault) &&
           tls_context_make_default(context, options, fault) &&
           tls_context_make_leaves(context, options, fault);
}

struct tls_context *tls_context_new_server(const struct tls_context_options *options,
                                           struct tls_fault *fault) {
    CHECK(options->identity_count != 0);
    struct tls_context *context = tls_context_begin(options, fault);
    if (!context || tls_context_build_server(context, options, fault)) return context;
    if (context->ssl) {
        SSL_CTX_free(context->ssl); /* and the context with it */
    } else {
        tls_context_forget(context);
    }
    return NULL;
}

static bool tls_context_build_client(struct tls_context *context,
                                     const struct tls_context_options *options,
                                     struct tls_fault *fault) {
    SSL_CTX *ssl = context->ssl;
    if (!tls_context_set_rules(ssl, options, fault)) return false;
    if (options->verify) {
        X509_STORE *store = tls_store_read(options->ca, options->crl, NULL, fault);
        if (!store) return false;
        SSL_CTX_set_cert_store(ssl, store); /* takes it */
        SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, NULL);
    }
    if (context->pair_count != 0 && !tls_context_use_pair(ssl, &context->pairs[0], fault))
        return false;
    /* This one function says 0 when all is well. */
    return context->alpn_size == 0 ||
           SSL_CTX_set_alpn_protos(ssl, context->alpn, (unsigned)context->alpn_size) == 0 ||
           tls_fault_of_library(fault, TLS_PART_NONE, "the names of protocols cannot be offered");
}

struct tls_context *tls_context_new_client(const struct tls_context_options *options,
                                           struct tls_fault *fault) {
    CHECK(options->identity_count <= 1);
    struct tls_context *context = tls_context_begin(options, fault);
    if (!context) return NULL;
    SSL_CTX *ssl = SSL_CTX_new_ex(options->library, NULL, TLS_client_method());
    if (!ssl || SSL_CTX_set_ex_data(ssl, tls_context_slot, context) != 1) {
        (void)tls_fault_of_library(fault, TLS_PART_NONE, "no SSL_CTX can be made");
        SSL_CTX_free(ssl);
        tls_context_forget(context);
        return NULL;
    }
    context->ssl = ssl;
    if (tls_context_build_client(context, options, fault)) return context;
    SSL_CTX_free(ssl); /* and the context with it */
    return NULL;
}

void tls_context_free(struct tls_context *context) {
    if (context) SSL_CTX_free(context->ssl);
}

SSL_CTX *tls_context_ssl(const struct tls_context *context) { return context->ssl; }

OSSL_LIB_CTX *tls_context_library(const struct tls_context *context) { return context->library; }

bool tls_context_expect(const struct tls_context *context, SSL *ssl, const char *name) {
    if (!name) return true;
    X509_VERIFY_PARAM *wanted = SSL_get0_param(ssl);
    /* RFC 6066 section 3: addresses are no names to ask for. */
    if (X509_VERIFY_PARAM_set1_ip_asc(wanted, name) == 1) return true;
    ERR_clear_error();
    if (SSL_set_tlsext_host_name(ssl, name) != 1) return false;
    if (!context->verify) return true;
    X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return X509_VERIFY_PARAM_set1_host(wanted, name, 0) == 1;
}

struct tls_validity tls_context_validity(const struct tls_context *context, uint32_t index) {
    CHECK(index < context->pair_count);
    const struct tls_pair *pair = &context->pairs[index];
    return (struct tls_validity){.not_before = tls_time(X509_get0_notBefore(pair->certificate)),
                                 .not_after = tls_time(X509_get0_notAfter(pair->certificate)),
                                 .staple_until = pair->staple_until,
                                 .staple_strays = pair->staple_strays};
}

bool tls_context_pick(const struct tls_context *context, const char *host, uint32_t *index) {
    const struct tls_name *found = host ? tls_context_choose(context, host) : NULL;
    if (!found && context->strict_sni) return false;
    const struct tls_set *set = &context->leaves[found ? found->leaf : 0].set;
    *index = UINT32_MAX;
    for (uint32_t i = 0; i < TLS_KEY_KIND_COUNT; i++) {
        if (set->pairs[i] < *index) *index = set->pairs[i];
    }
    return true;
}
