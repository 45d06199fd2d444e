/* tls_ends.h: two ends of a TLS connection in memory: what one puts is kept until the test gives it
 * to the other, in pieces of any size.
 */
#ifndef WEIR_TESTS_UNIT_PROTO_TLS_ENDS_H
#define WEIR_TESTS_UNIT_PROTO_TLS_ENDS_H

#include "proto/tls.h"

#define TLS_ENDS_WIRE_MAX (4 << 20)

struct tls_end {
    struct tls tls;
    char *sent; /* what it has put and the other has not been given */
    size_t sent_size;
    size_t puts_left; /* how often put succeeds from now on */
    SSL_SESSION *session;
    char alert[2]; /* told instead of put, the last one */
    uint32_t alerts;
};

struct tls_ends {
    SSL_CTX *server_context;
    SSL_CTX *client_context;
    struct tls_end server;
    struct tls_end client;
};

/* What keys are told of, and told as which (linux/tls.h). */
struct tls_ends_suite {
    int version;
    const char *name;
    uint16_t type;
};
#define TLS_ENDS_SUITES 6
extern const struct tls_ends_suite tls_ends_suites[TLS_ENDS_SUITES];

/* With a certificate made for "weir.test" that the client trusts. `version`: the only one, as
 * TLS1_3_VERSION; 0: any. */
void tls_ends_init(struct tls_ends *pair, int version);
void tls_ends_fini(struct tls_ends *pair);
/* The same, open, with this suite; the server keeps its keys or not. */
void tls_ends_open(struct tls_ends *pair, const struct tls_ends_suite *suite, bool keep);
/* Both ends anew, of the same contexts. */
void tls_ends_begin(struct tls_ends *pair);
void tls_ends_end(struct tls_ends *pair);
/* Gives what `from` has put to `to`, `piece` bytes at a time, and takes handshake steps until both
 * ends have nothing to say. */
void tls_ends_shake(struct tls_ends *pair, size_t piece);
/* Takes what was put, for the caller to give; freed by tls_ends_end or the next. */
struct bytes tls_ends_take(struct tls_end *from);
/* Reads all there is of `wire` into `to`, given in pieces; the result of the last read. */
enum tls_result tls_ends_read(struct tls_end *end, struct bytes wire, size_t piece,
                              struct writer *to);
/* A key and a certificate for `name`, signed by itself. */
void tls_ends_certify(SSL_CTX *context, const char *name);

#endif
