#include "proto/tls_seal.h"

#include "base/check.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>

#define TLS_SEAL_TAG 16   /* of each of these ciphers */
#define TLS_SEAL_NONCE 12 /* the same */
#define TLS_SEAL_NUMBER 8 /* of a record, and in TLS 1.2 the nonce of AES-GCM that is sent */

static bool tls_seal_is_13(const struct tls_keys *keys) {
    return keys->as.type.version == TLS_1_3_VERSION;
}

struct tls_seal_parts {
    const char *cipher; /* as EVP_CIPHER_fetch(3) knows it */
    const unsigned char *key;
    const unsigned char *salt; /* the first bytes of the nonce, which stay */
    const unsigned char *iv;   /* and the rest of them */
    const unsigned char *number;
    size_t salt_size;
};

static struct tls_seal_parts tls_seal_parts(const struct tls_keys *keys) {
    const struct tls12_crypto_info_aes_gcm_128 *gcm_128 = &keys->as.gcm_128;
    const struct tls12_crypto_info_aes_gcm_256 *gcm_256 = &keys->as.gcm_256;
    const struct tls12_crypto_info_chacha20_poly1305 *chacha20 = &keys->as.chacha20;
    uint16_t type = keys->as.type.cipher_type;
    if (type == TLS_CIPHER_CHACHA20_POLY1305)
        return (struct tls_seal_parts){.cipher = "ChaCha20-Poly1305",
                                       .key = chacha20->key,
                                       .salt = chacha20->iv,
                                       .iv = chacha20->iv,
                                       .number = chacha20->rec_seq};
    bool is_128 = type == TLS_CIPHER_AES_GCM_128;
    CHECK(is_128 || type == TLS_CIPHER_AES_GCM_256);
    return (struct tls_seal_parts){.cipher = is_128 ? "AES-128-GCM" : "AES-256-GCM",
                                   .key = is_128 ? gcm_128->key : gcm_256->key,
                                   .salt = is_128 ? gcm_128->salt : gcm_256->salt,
                                   .iv = is_128 ? gcm_128->iv : gcm_256->iv,
                                   .number = is_128 ? gcm_128->rec_seq : gcm_256->rec_seq,
                                   .salt_size = sizeof gcm_128->salt};
}

/* Salt and nonce as they are (RFC 5288 section 3), else with the record's number over their end
 * (RFC 8446 section 5.3, RFC 7905 section 2). */
static void tls_seal_nonce(const struct tls_keys *keys, unsigned char *nonce) {
    struct tls_seal_parts parts = tls_seal_parts(keys);
    memcpy(nonce, parts.salt, parts.salt_size);
    memcpy(nonce + parts.salt_size, parts.iv, TLS_SEAL_NONCE - parts.salt_size);
    if (tls_keys_send_nonce(keys)) return;
    for (int i = 0; i < TLS_SEAL_NUMBER; i++)
        nonce[TLS_SEAL_NONCE - TLS_SEAL_NUMBER + i] ^= parts.number[i];
}

bool tls_seal_start(struct tls_seal *seal, const struct tls_keys *keys, OSSL_LIB_CTX *library) {
    CHECK(!seal->cipher && keys->size != 0);
    struct tls_seal_parts parts = tls_seal_parts(keys);
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(library, parts.cipher, NULL);
    seal->cipher = cipher ? EVP_CIPHER_CTX_new() : NULL;
    bool started = seal->cipher && EVP_CIPHER_get_iv_length(cipher) == TLS_SEAL_NONCE &&
                   EVP_EncryptInit_ex2(seal->cipher, cipher, parts.key, NULL, NULL) == 1;
    EVP_CIPHER_free(cipher); /* the context has its own reference */
    if (started) return true;
    tls_seal_stop(seal);
    ERR_clear_error();
    return false;
}

void tls_seal_stop(struct tls_seal *seal) {
    EVP_CIPHER_CTX_free(seal->cipher);
    seal->cipher = NULL;
}

static void tls_seal_put_size(unsigned char *to, size_t size) {
    to[0] = (unsigned char)(size >> 8);
    to[1] = (unsigned char)size;
}

size_t tls_seal_begin(struct tls_seal *seal, struct tls_keys *keys, uint8_t type, size_t size,
                      char *to) {
    CHECK(seal->cipher && size <= SSL3_RT_MAX_PLAIN_LENGTH);
    unsigned char nonce[TLS_SEAL_NONCE];
    unsigned char extra[TLS_SEAL_NUMBER + SSL3_RT_HEADER_LENGTH];
    unsigned char *head = (unsigned char *)to;
    bool is_13 = tls_seal_is_13(keys);
    size_t nonce_size = tls_keys_send_nonce(keys) ? TLS_SEAL_NUMBER : 0;
    seal->type = type;
    tls_seal_nonce(keys, nonce);
    /* In TLS 1.3 all seem to be data: what it is stands encrypted behind it. */
    head[0] = is_13 ? SSL3_RT_APPLICATION_DATA : type;
    tls_seal_put_size(head + 1, TLS1_2_VERSION);
    tls_seal_put_size(head + 3, nonce_size + size + is_13 + TLS_SEAL_TAG);
    memcpy(head + SSL3_RT_HEADER_LENGTH, nonce + TLS_SEAL_NONCE - TLS_SEAL_NUMBER, nonce_size);
    /* What is authenticated and not encrypted: the head; in TLS 1.2 with the number, and the size
     * of the plaintext. */
    memcpy(extra, tls_seal_parts(keys).number, TLS_SEAL_NUMBER);
    memcpy(extra + TLS_SEAL_NUMBER, head, 3);
    tls_seal_put_size(extra + TLS_SEAL_NUMBER + 3, size);
    const unsigned char *known = is_13 ? head : extra;
    int known_size = is_13 ? SSL3_RT_HEADER_LENGTH : (int)sizeof extra;
    int len;
    tls_keys_advance(keys); /* whatever comes of it, this nonce is used */
    if (EVP_EncryptInit_ex2(seal->cipher, NULL, NULL, nonce, NULL) != 1) return 0;
    if (EVP_EncryptUpdate(seal->cipher, NULL, &len, known, known_size) != 1) return 0;
    return SSL3_RT_HEADER_LENGTH + nonce_size;
}

bool tls_seal_add(struct tls_seal *seal, struct bytes plain, char *to) {
    const unsigned char *from = (const unsigned char *)plain.ptr;
    int len = 0;
    return EVP_EncryptUpdate(seal->cipher, (unsigned char *)to, &len, from, (int)plain.len) == 1 &&
           len == (int)plain.len;
}

size_t tls_seal_end(struct tls_seal *seal, const struct tls_keys *keys, char *to) {
    unsigned char *tail = (unsigned char *)to;
    size_t size = 0;
    int len;
    if (tls_seal_is_13(keys)) {
        struct bytes type = bytes_make((const char *)&seal->type, sizeof seal->type);
        if (!tls_seal_add(seal, type, to)) return 0;
        size = type.len;
    }
    if (EVP_EncryptFinal_ex(seal->cipher, tail + size, &len) != 1 || len != 0) return 0;
    if (EVP_CIPHER_CTX_ctrl(seal->cipher, EVP_CTRL_AEAD_GET_TAG, TLS_SEAL_TAG, tail + size) != 1)
        return 0;
    return size + TLS_SEAL_TAG;
}
