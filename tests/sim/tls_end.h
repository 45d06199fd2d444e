/* tls_end.h: TLS as the actors speak it: OpenSSL between an actor and its end of a connection.
 *
 * The actor goes on with the calls of kernel.h: sock_read and sock_write are of plaintext then.
 * What OpenSSL makes waits here until the socket takes it, also after the actor has closed. FIN
 * without close_notify before it is an error for who reads, as is everything that OpenSSL does not
 * take: weir's TLS has no faults, unless this end has made one before.
 *
 * OpenSSL draws all that is random from the run's seed.
 */
#ifndef WEIR_TESTS_SIM_TLS_END_H
#define WEIR_TESTS_SIM_TLS_END_H

#include "sim/kernel.h"
#include "sim/plan.h"

struct tls_end;

/* What an end does instead of what it should, after so many bytes that it has sent. */
enum breach {
    BREACH_NONE,
    BREACH_PLAIN,   /* HTTP in clear, from the beginning: of clients */
    BREACH_GARBAGE, /* what is no TLS */
    BREACH_FLIP,    /* one bit of it is another one */
    BREACH_ALERT,   /* the end, said in clear */
    BREACH_STOPS,   /* nothing more is sent */
    BREACH_FIN,
    BREACH_RESET
};

/* Fixed for an end. */
struct tls_end_options {
    bool is_server;
    bool is_http;        /* weir answers what comes in clear */
    const char *alpn;    /* one name; NULL: none */
    struct text *clear;  /* what goes before in clear, copied; NULL: nothing */
    bool begins_in_line; /* a line in clear comes before */
};

/* Before anything was read or written. */
void tls_end_begin(struct sock *sock, const struct tls_end_options *options);
/* Whether it will do something wrong, or has. */
bool tls_end_breaches(const struct sock *sock);
/* And so sends nothing any more. */
bool tls_end_is_stuck(const struct sock *sock);
/* What a client's connection, that is not open for it yet, has come to: with TLS it is not before
 * the handshake. */
enum tls_opening { TLS_OPENING_WAITS, TLS_OPENING_DONE, TLS_OPENING_OVER };
enum tls_opening tls_end_opening(const struct sock *sock);
/* Whether weir may end it before. */
bool tls_end_may_be_refused(const struct sock *sock);

/* For kernel_sock.c. */
void tls_end_step(struct tls_end *end);
ssize_t tls_end_read(struct tls_end *end, void *to, size_t size);
ssize_t tls_end_write(struct tls_end *end, const void *from, size_t size);
/* FIN behind all that was written; `says`: behind close_notify. */
void tls_end_shutdown(struct tls_end *end, bool says);
void tls_end_close(struct tls_end *end, bool says);
void tls_end_free(struct tls_end *end);

/* tls_site.c: what all runs of the process share: a certificate, and who believes in it. Then, of a
 * run: its seed, and the sessions of clients. */
void tls_site_begin(uint64_t seed);
void tls_site_end(void);
/* The names of files. */
const char *tls_site_certificate(void);
const char *tls_site_key(void);
/* One of OpenSSL's, of a server or a client: SSL_free. */
struct ssl_st *tls_site_new(bool is_server, const char *alpn);

#endif
