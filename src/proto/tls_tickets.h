/* tls_tickets.h: the keys of session tickets (RFC 5077, RFC 8446 section 4.6.1), shared by all
 * workers, so that a session can be resumed on any of them.
 *
 * Three keys are known at a time: the current one makes tickets and opens them, the one before and
 * the one after it only open them. Rotation makes the next key the current one, so a ticket can be
 * opened for one rotation at least and two at most. Keys are random and never leave the process.
 *
 * Written by one thread (tls_tickets_rotate), read by any, without a lock: a key is written to a
 * slot of which no reader knows, then `turn` is published. That slot's key before was forgotten a
 * whole rotation ago: a reader that still looks at it has slept that long inside one call.
 */
#ifndef WEIR_PROTO_TLS_TICKETS_H
#define WEIR_PROTO_TLS_TICKETS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#define TLS_TICKET_NAME_SIZE 16
#define TLS_TICKET_SLOTS 4

struct tls_ticket_key {
    unsigned char name[TLS_TICKET_NAME_SIZE]; /* stands in the ticket in clear */
    unsigned char cipher[32];                 /* AES-256-CBC */
    unsigned char mac[32];                    /* HMAC-SHA256 */
};

struct tls_tickets {
    uint32_t lifetime_s;                          /* what clients are told: one rotation */
    uint32_t turn;                                /* how many rotations there were */
    struct tls_ticket_key keys[TLS_TICKET_SLOTS]; /* by turn */
};

/* False: the system has no random bytes. */
bool tls_tickets_init(struct tls_tickets *tickets, uint32_t lifetime_s);
bool tls_tickets_rotate(struct tls_tickets *tickets);
void tls_tickets_fini(struct tls_tickets *tickets);

/* The key that makes tickets now. */
const struct tls_ticket_key *tls_tickets_current(const struct tls_tickets *tickets);
/* The key of that name (TLS_TICKET_NAME_SIZE bytes), NULL when it is not known any more. */
const struct tls_ticket_key *tls_tickets_find(const struct tls_tickets *tickets,
                                              const unsigned char *name);

/* For SSL_CTX_set_session_ticket_cb(3): a session whose certificate has run out since is not
 * resumed, which OpenSSL would do, with TLS 1.3 for ever: each resumption brings a new ticket. */
SSL_TICKET_RETURN tls_tickets_on_opened(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                        size_t name_size, SSL_TICKET_STATUS status, void *used);

/* For SSL_CTX_set_generate_session_id(3): OpenSSL would draw 32 random bytes for the number of each
 * session. A ticket does not have it, and where there is no cache a client without one is told
 * none: so any will do. */
int tls_tickets_on_number(SSL *ssl, unsigned char *number, unsigned int *size);

#endif
