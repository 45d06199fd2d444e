#include "proto/tls_keys.h"

#include <openssl/crypto.h>

void tls_keys_set(struct tls_keys *keys, const void *told) {
    struct tls_crypto_info type;
    tls_keys_wipe(keys);
    memcpy(&type, told, sizeof type);
    switch (type.cipher_type) {
    case TLS_CIPHER_AES_GCM_128:
        keys->size = sizeof keys->as.gcm_128;
        break;
    case TLS_CIPHER_AES_GCM_256:
        keys->size = sizeof keys->as.gcm_256;
        break;
    case TLS_CIPHER_CHACHA20_POLY1305:
        keys->size = sizeof keys->as.chacha20;
        break;
    default:
        return;
    }
    memcpy(&keys->as, told, keys->size);
}

/* A number of 8 bytes, the highest first. */
static void tls_keys_increment(unsigned char *number) {
    for (int i = 7; i >= 0 && ++number[i] == 0; i--)
        ;
}

bool tls_keys_send_nonce(const struct tls_keys *keys) {
    return keys->as.type.version != TLS_1_3_VERSION &&
           keys->as.type.cipher_type != TLS_CIPHER_CHACHA20_POLY1305;
}

void tls_keys_advance(struct tls_keys *keys) {
    if (keys->size == 0) return;
    unsigned char *all = (unsigned char *)&keys->as;
    tls_keys_increment(all + keys->size - TLS_CIPHER_AES_GCM_128_REC_SEQ_SIZE); /* it stands last */
    if (!tls_keys_send_nonce(keys)) return;
    bool is_128 = keys->as.type.cipher_type == TLS_CIPHER_AES_GCM_128;
    tls_keys_increment(is_128 ? keys->as.gcm_128.iv : keys->as.gcm_256.iv);
}

void tls_keys_wipe(struct tls_keys *keys) { OPENSSL_cleanse(keys, sizeof *keys); }
