/* tls_keys.h: what the next record of one direction of a TLS connection is encrypted with, as the
 * kernel takes it (linux/tls.h; setsockopt TLS_TX): so that it can go on where OpenSSL stops.
 *
 * OpenSSL tells once, when it begins to use the keys, and not of the records it makes with them:
 * each moves the number of the next, and in TLS 1.2 the nonce of AES-GCM, which never may be
 * used twice (RFC 5288 section 3). Zeroed there are none.
 */
#ifndef WEIR_PROTO_TLS_KEYS_H
#define WEIR_PROTO_TLS_KEYS_H

#include "base/bytes.h"

#include <linux/tls.h>

struct tls_keys {
    union {
        struct tls_crypto_info type;
        struct tls12_crypto_info_aes_gcm_128 gcm_128;
        struct tls12_crypto_info_aes_gcm_256 gcm_256;
        struct tls12_crypto_info_chacha20_poly1305 chacha20;
    } as;
    uint32_t size; /* of the one of `as` that it is; 0: there are none */
};

/* `told`: by BIO_CTRL_SET_KTLS, one of the structs above; of another cipher there are none then. */
void tls_keys_set(struct tls_keys *keys, const void *told);
/* Whether each record carries its nonce, which then moves as its number does: AES-GCM in TLS 1.2
 * (RFC 5288 section 3). TLS 1.3 and ChaCha20 make it of the number (RFC 8446 section 5.3, RFC
 * 7905). */
bool tls_keys_send_nonce(const struct tls_keys *keys);
/* A record was made. */
void tls_keys_advance(struct tls_keys *keys);
/* There are none any more, nor a trace of them. */
void tls_keys_wipe(struct tls_keys *keys);
static inline struct bytes tls_keys_bytes(const struct tls_keys *keys) {
    return bytes_make((const char *)&keys->as, keys->size);
}

#endif
