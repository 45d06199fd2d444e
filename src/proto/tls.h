/* tls.h: one TLS connection (RFC 8446, RFC 5246) without I/O, by OpenSSL.
 *
 * Received bytes are given as a view; OpenSSL reads straight from it through a BIO of our own
 * (BIO_meth_new(3)) and writes through `put`, in the call that causes it: no memory BIO stands
 * between. A record whose last byte has not come waits inside OpenSSL.
 *
 *   tls_init   tls_give, tls_handshake until DONE    tls_give, tls_read*, tls_write*   tls_shutdown
 *   tls_fini
 *
 * Whatever a call causes to be sent (handshake, alerts, session tickets right behind Finished) is
 * put before it returns, so reading never waits for writing nor the other way round: renegotiation
 * is refused (SSL_OP_NO_RENEGOTIATION). Only an answer to KeyUpdate waits for the next one or for
 * the next write, in front of which it is put (RFC 8446 section 4.6.3). The end of the stream is
 * close_notify; whether FIN came without one is for the caller to see. Quiet shutdown is not used:
 * each end is said, and tls_fini marks the session as well ended whatever happened, since resuming
 * it does no harm.
 *
 * Who has TLS_USELESS_MAX bytes calculated without a byte of plaintext (a flood of KeyUpdate: the
 * costliest there is for its length) has failed.
 *
 * Records that are sent may be made by another than OpenSSL: with tls_keep_keys before the
 * handshake tls->keys are, after it, what the next one is to be encrypted with. For much data
 * tls_start_sealing encrypts from where the plaintext lies to where the caller wants it
 * (tls_record_*), by tls_seal. When the caller has given the keys to the socket (kTLS) behind all
 * that was put, tls_hand_over ends the putting; reading goes on here. New keys that the other side
 * asks for (KeyUpdate, RFC 8446 section 4.6.3) are changed by OpenSSL, which then makes the records
 * again, and there are none to hand over any more; the kernel cannot change them, and with it TLS
 * has failed.
 *
 * Between records OpenSSL holds no buffer (SSL_MODE_RELEASE_BUFFERS). Memory comes from its
 * allocator. Of one thread; may not be moved between tls_init and tls_fini.
 */
#ifndef WEIR_PROTO_TLS_H
#define WEIR_PROTO_TLS_H

#include "base/bytes.h"
#include "base/reason.h"
#include "proto/tls_keys.h"
#include "proto/tls_seal.h"

#include <openssl/ssl.h>

/* Plaintext of one record (RFC 8446 section 5.1), and what it may grow by: a client may have asked
 * for records of 512 bytes (RFC 6066 section 4). */
#define TLS_RECORD_MAX 16384
#define TLS_RECORD_OVERHEAD 4096
/* More than any record, and than the tickets that a server sends. */
#define TLS_USELESS_MAX (64 * 1024)

/* What OpenSSL takes at most: for a connection, with a record of which a part has come; more while
 * its handshake is under way, of which the longest message it reads has begun; more where the other
 * side shows certificates, as many as it reads. Measured (tls_memory_test.c). */
#define TLS_OPEN_MEMORY UINT64_C(65536)
#define TLS_SHAKE_MEMORY UINT64_C(327680)
#define TLS_CERTIFICATES_MEMORY UINT64_C(1572864)

struct tls;

struct tls_events {
    /* Bytes for the other side, to be copied. False: there is no memory; the connection fails. */
    bool (*put)(struct tls *tls, struct bytes bytes);
    /* Client role, of contexts with tls_keep_sessions: the server gave a session. Whoever keeps it
     * takes a reference (SSL_SESSION_up_ref(3)). */
    void (*on_session)(struct tls *tls, SSL_SESSION *session);
    /* After tls_hand_over: an alert for the other side, for the kernel to encrypt. */
    void (*alert)(struct tls *tls, struct bytes bytes);
};

enum tls_result {
    TLS_DONE,
    TLS_MORE, /* all that was given is used up */
    TLS_END,  /* close_notify */
    TLS_BAD   /* it has failed for good: tls->failure says why; an alert may have been put */
};

/* Of the records that are sent. */
enum tls_maker {
    TLS_BY_OPENSSL,
    TLS_BY_SEAL,
    TLS_BY_KERNEL,
    TLS_BY_NOBODY /* within a call: OpenSSL has changed the keys, and flushes what is to be dropped
                   */
};

struct tls {
    /* Fixed after init. */
    SSL *ssl;
    const struct tls_events *events;
    /* Changes in routine work. */
    struct bytes input;   /* given and not taken yet */
    struct tls_keys keys; /* of the next record that is sent; none without tls_keep_keys */
    struct tls_seal seal; /* started while TLS_BY_SEAL */
    enum tls_maker maker;
    enum reason failure; /* REASON_NONE until it has failed */
    const char *words;   /* OpenSSL's for that, never freed; NULL: none */
    size_t useless;      /* bytes taken since the last plaintext */
    bool is_open;        /* the handshake is done */
    bool is_split;       /* a part of a record may wait inside OpenSSL */
    bool no_memory;      /* put has failed */
};

/* False: no memory. */
bool tls_init(struct tls *tls, SSL_CTX *context, bool is_server, const struct tls_events *events);
/* Harmless on a zeroed one. */
void tls_fini(struct tls *tls);
/* Client role, before the handshake. */
void tls_resume(struct tls *tls, SSL_SESSION *session);
/* Once for a context of client role: its connections tell on_session, and it keeps none itself. */
void tls_keep_sessions(SSL_CTX *context);

/* Before the handshake. */
void tls_keep_keys(struct tls *tls);
/* Whether there are tls->keys, and no new ones have been asked for. */
bool tls_may_hand_over(const struct tls *tls);
/* If so: they are used elsewhere from now on. tls_write must not be called any more, and of what
 * else OpenSSL would send only alerts are told, to events->alert. */
void tls_hand_over(struct tls *tls);

/* What was given before has been used up (or is given up). The view must last until it is, too. */
void tls_give(struct tls *tls, struct bytes bytes);
/* DONE, MORE or BAD. */
enum tls_result tls_handshake(struct tls *tls);
/* One record's plaintext at most, or what is left of it. `to` may lie in bytes that were given and
 * taken, and where tls_fits in those that are next. */
enum tls_result tls_read(struct tls *tls, char *to, size_t size, size_t *len);
/* Whether the next plaintext is no longer than the input it is made of: `to` may begin where that
 * begins. */
bool tls_fits(const struct tls *tls);
/* Where it does not: DONE when plaintext is ready, and its size. */
enum tls_result tls_next(struct tls *tls, size_t *size);
/* One record (rarely more), of 1 to TLS_RECORD_MAX bytes. DONE, BAD, or MORE: a part of a handshake
 * message was read (a ticket of several records), and until its rest is nothing is written. */
enum tls_result tls_write(struct tls *tls, struct bytes bytes);

/* If tls_may_hand_over: from now on tls_record_* may be used, and tls_write must not, while
 * tls_seals. `library`: as of the context it was made of. False: all is as it was. */
bool tls_start_sealing(struct tls *tls, OSSL_LIB_CTX *library);
/* Not any more when new keys are owed: tls_write changes them. */
bool tls_seals(const struct tls *tls);
/* A record of `size` bytes of plaintext, 1 to TLS_RECORD_MAX, made in one go as tls_seal.h says;
 * each writes to `to`, whence the caller sends it behind all that was put. False or 0: TLS has
 * failed. */
size_t tls_record_begin(struct tls *tls, size_t size, char *to);
bool tls_record_add(struct tls *tls, struct bytes plain, char *to);
size_t tls_record_end(struct tls *tls, char *to);
/* Puts close_notify, once. Nothing where there is no use: before the end of the handshake, after a
 * failure. */
void tls_shutdown(struct tls *tls);

struct tls_facts {
    const char *version;      /* "TLSv1.3" */
    const char *cipher;       /* as OpenSSL writes it */
    struct bytes server_name; /* asked for by the client; empty: none */
    struct bytes alpn;        /* agreed on; empty: nothing */
    bool is_resumed;
    bool has_certificate; /* the other side showed one */
    long verify_result;   /* X509_V_OK (0), or why it is not believed */
};
/* After the handshake; views last as long as the connection. */
void tls_facts(const struct tls *tls, struct tls_facts *facts);
/* The same in words, for a line of the log: ", TLSv1.3 TLS_AES_128_GCM_SHA256, resumed". */
void tls_describe(const struct tls *tls, struct writer *text);
/* The subject of the other side's certificate as RFC 4514 writes it; nothing when there is none. */
void tls_subject(const struct tls *tls, struct writer *text);

#endif
