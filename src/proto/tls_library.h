/* tls_library.h: OpenSSL's library context (OSSL_LIB_CTX(3)) of one worker.
 *
 * Each handshake finds algorithms, keys' methods and random numbers in the library context of its
 * SSL_CTX, some hundred times, and each time takes a lock there. Threads with one of their own do
 * not wait for each other, nor take the lock's cache line from each other.
 */
#ifndef WEIR_PROTO_TLS_LIBRARY_H
#define WEIR_PROTO_TLS_LIBRARY_H

#include <openssl/types.h>

/* Configured as the process's own is (config(5), OPENSSL_CONF): providers, properties. NULL: no
 * memory, or what is configured cannot be had. */
OSSL_LIB_CTX *tls_library_new(void);
/* After all that was made in it. Harmless with NULL. */
void tls_library_free(OSSL_LIB_CTX *library);

#endif
