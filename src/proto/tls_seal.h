/* tls_seal.h: records of a TLS connection, encrypted from where their plaintext lies to where they
 * are sent from.
 *
 * OpenSSL's own way takes two copies: plaintext into a buffer of its own, and from there the record
 * into what is sent. With the keys that it told (tls_keys.h) its ciphers (EVP_EncryptUpdate(3))
 * need neither. A record is made in one go, its plaintext in any pieces:
 *
 *   tls_seal_begin, tls_seal_add for all of it, tls_seal_end
 *
 * AES-GCM and ChaCha20-Poly1305, in TLS 1.3 (RFC 8446 section 5.2) and 1.2 (RFC 5246 section
 * 6.2.3.3, RFC 5288, RFC 7905). Nothing fails but for a lack of memory, and then nothing that was
 * written may be sent, nor the keys be used again.
 */
#ifndef WEIR_PROTO_TLS_SEAL_H
#define WEIR_PROTO_TLS_SEAL_H

#include "proto/tls_keys.h"

#include <openssl/types.h>

/* What stands before the encrypted bytes and behind them, at most. */
#define TLS_SEAL_HEAD_MAX 13
#define TLS_SEAL_TAIL_MAX 17

/* Zeroed it is not started. */
struct tls_seal {
    EVP_CIPHER_CTX *cipher; /* NULL: not started */
    uint8_t type;           /* of the record under way */
};

/* There are keys. Ciphers come from `library` (OSSL_LIB_CTX(3)), NULL: the process's. False: no
 * memory, or it does not have them. */
bool tls_seal_start(struct tls_seal *seal, const struct tls_keys *keys, OSSL_LIB_CTX *library);
/* Harmless where it was not started. */
void tls_seal_stop(struct tls_seal *seal);

/* Writes the head of a record of `type` for `size` bytes, TLS_RECORD_MAX at most, with the keys it
 * was started with, which move on. Returns its length; 0: no memory. */
size_t tls_seal_begin(struct tls_seal *seal, struct tls_keys *keys, uint8_t type, size_t size,
                      char *to);
/* As many bytes as there are in `plain`, not where it lies. False: no memory. */
bool tls_seal_add(struct tls_seal *seal, struct bytes plain, char *to);
/* Behind the last one. Returns the tail's length; 0: no memory. */
size_t tls_seal_end(struct tls_seal *seal, const struct tls_keys *keys, char *to);

#endif
