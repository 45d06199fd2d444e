/* tls_words.h: the lists of ciphers and groups that a context is configured with.
 *
 * OpenSSL leaves out of a list of ciphers what it does not know, without a word: a slip would take
 * away what was asked for. Here it is a fault that names the item. Called while a context is
 * built, on the main thread; nothing is kept.
 */
#ifndef WEIR_PROTO_TLS_WORDS_H
#define WEIR_PROTO_TLS_WORDS_H

#include "proto/tls_context.h"
#include "proto/tls_identity.h"

#include <openssl/ssl.h>

/* Sets options->ciphers, ciphersuites and groups, those that are not NULL. False and *fault when
 * OpenSSL does not know all that is in them; then `ssl` is good for nothing. What a list of ciphers
 * takes away (!X, -X), moves (+X) or commands (@X) is not looked at: openssl-ciphers(1). */
bool tls_words_set(SSL_CTX *ssl, const struct tls_context_options *options,
                   struct tls_fault *fault);

#endif
