/* kernel_ktls.c: what a socket sends is made into TLS records by the kernel, as of Linux 6.1
 * (net/tls/tls_sw.c): a record that the socket has no room for waits in the kernel, FIN overtakes
 * it, and close(2) forgets it. */
#include "base/check.h"
#include "sim/kernel_internal.h"
#include "sim/plan.h"

#include <linux/tls.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define HEADER 5
#define TAG 16
#define NONCE 12
#define RECORD_MAX 16384
#define TYPE_DATA 23

struct ktls_out {
    union {
        struct tls_crypto_info type;
        struct tls12_crypto_info_aes_gcm_128 gcm_128;
        struct tls12_crypto_info_aes_gcm_256 gcm_256;
        struct tls12_crypto_info_chacha20_poly1305 chacha20;
    } keys;
    size_t keys_size;
    EVP_CIPHER_CTX *cipher;
    struct text held; /* made, and not in the stream yet */
    size_t held_at;
};

static bool is_13(const struct ktls_out *out) { return out->keys.type.version == TLS_1_3_VERSION; }

static bool is_chacha(const struct ktls_out *out) {
    return out->keys.type.cipher_type == TLS_CIPHER_CHACHA20_POLY1305;
}

static unsigned char *number_of(struct ktls_out *out) {
    return (unsigned char *)&out->keys + out->keys_size - 8; /* stands last */
}

/* AES-GCM: the part of the nonce that TLS 1.2 sends, and the key. */
static unsigned char *iv_of(struct ktls_out *out) {
    if (out->keys.type.cipher_type == TLS_CIPHER_AES_GCM_128) return out->keys.gcm_128.iv;
    return out->keys.gcm_256.iv;
}

static void make_nonce(struct ktls_out *out, unsigned char nonce[NONCE]) {
    bool is_128 = out->keys.type.cipher_type == TLS_CIPHER_AES_GCM_128;
    if (is_chacha(out)) {
        memcpy(nonce, out->keys.chacha20.iv, NONCE);
    } else {
        memcpy(nonce, is_128 ? out->keys.gcm_128.salt : out->keys.gcm_256.salt, 4);
        memcpy(nonce + 4, iv_of(out), 8);
    }
    if (!is_13(out) && !is_chacha(out)) return;
    for (int i = 0; i < 8; i++)
        nonce[4 + i] ^= number_of(out)[i];
}

static void increment(unsigned char *number) {
    for (int i = 7; i >= 0 && ++number[i] == 0; i--)
        continue;
}

/* RFC 8446 section 5.2; RFC 5246 section 6.2.3.3, RFC 5288, RFC 7905. */
static void add_record(struct ktls_out *out, uint8_t type, const char *from, uint32_t size) {
    static unsigned char plain[RECORD_MAX + 1], sealed[RECORD_MAX + 1];
    unsigned char nonce[NONCE], tag[TAG], extra[13];
    bool explicit = !is_13(out) && !is_chacha(out);
    uint32_t inner = size + is_13(out);
    uint32_t whole = inner + TAG + (explicit ? 8 : 0);
    unsigned char head[HEADER] = {is_13(out) ? TYPE_DATA : type, 3, 3, (unsigned char)(whole >> 8),
                                  (unsigned char)whole};
    memcpy(plain, from, size);
    plain[size] = type;
    make_nonce(out, nonce);
    memcpy(extra, number_of(out), 8);
    memcpy(extra + 8,
           (unsigned char[]){type, 3, 3, (unsigned char)(size >> 8), (unsigned char)size}, 5);
    int len = 0;
    CHECK(EVP_EncryptInit_ex(out->cipher, NULL, NULL, NULL, nonce) == 1);
    CHECK(EVP_EncryptUpdate(out->cipher, NULL, &len, is_13(out) ? head : extra,
                            is_13(out) ? HEADER : 13) == 1);
    CHECK(EVP_EncryptUpdate(out->cipher, sealed, &len, plain, (int)inner) == 1);
    CHECK(EVP_EncryptFinal_ex(out->cipher, sealed + len, &len) == 1);
    CHECK(EVP_CIPHER_CTX_ctrl(out->cipher, EVP_CTRL_AEAD_GET_TAG, TAG, tag) == 1);
    text_add(&out->held, (const char *)head, HEADER);
    if (explicit) text_add(&out->held, (const char *)iv_of(out), 8);
    text_add(&out->held, (const char *)sealed, inner);
    text_add(&out->held, (const char *)tag, TAG);
    increment(number_of(out));
    if (explicit) increment(iv_of(out));
}

void ktls_push_held(struct sock *sock) {
    struct ktls_out *out = sock->ktls;
    size_t left = out->held.len - out->held_at;
    if (left == 0 || sock->shut_write || sock->reset) return;
    out->held_at += sock_give_raw(sock, out->held.bytes + out->held_at, (uint32_t)left);
    if (out->held_at < out->held.len) return;
    out->held.len = out->held_at = 0;
}

uint32_t ktls_room(const struct sock *sock) {
    return sock->ktls->held.len == 0 && sock_room_raw(sock) != 0 ? RECORD_MAX : 0;
}

uint32_t ktls_give(struct sock *sock, uint8_t type, const char *from, uint32_t size) {
    ktls_push_held(sock);
    if (ktls_room(sock) == 0 || size == 0) return 0;
    if (size > RECORD_MAX) size = RECORD_MAX;
    add_record(sock->ktls, type, from, size);
    ktls_push_held(sock);
    return size;
}

static const EVP_CIPHER *cipher_of(const struct ktls_out *out, const unsigned char **key) {
    switch (out->keys.type.cipher_type) {
    case TLS_CIPHER_AES_GCM_128:
        *key = out->keys.gcm_128.key;
        return EVP_aes_128_gcm();
    case TLS_CIPHER_AES_GCM_256:
        *key = out->keys.gcm_256.key;
        return EVP_aes_256_gcm();
    case TLS_CIPHER_CHACHA20_POLY1305:
        *key = out->keys.chacha20.key;
        return EVP_chacha20_poly1305();
    default:
        CHECK(false);
        return NULL;
    }
}

void ktls_begin(struct sock *sock, const void *keys, size_t size) {
    CHECK(!sock->ktls && size <= sizeof sock->ktls->keys);
    struct ktls_out *out = calloc(1, sizeof *out);
    CHECK(out);
    memcpy(&out->keys, keys, size);
    out->keys_size = size;
    out->cipher = EVP_CIPHER_CTX_new();
    const unsigned char *key;
    const EVP_CIPHER *cipher = cipher_of(out, &key);
    CHECK(out->cipher && EVP_EncryptInit_ex(out->cipher, cipher, NULL, key, NULL) == 1);
    sock->ktls = out;
    sim_note("ktls", sock->number, out->keys.type.version, out->keys.type.cipher_type);
}

void ktls_tell_keys(const struct sock *sock, void *keys, size_t size) {
    CHECK(size == sock->ktls->keys_size);
    memcpy(keys, &sock->ktls->keys, size);
}

void ktls_free(struct ktls_out *out) {
    if (!out) return;
    EVP_CIPHER_CTX_free(out->cipher);
    text_free(&out->held);
    free(out);
}
