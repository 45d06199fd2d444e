#include "proto/tls_tickets.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <stddef.h>
#include <string.h>

static bool tls_tickets_make(struct tls_tickets *tickets, uint32_t turn) {
    struct tls_ticket_key *key = &tickets->keys[turn % TLS_TICKET_SLOTS];
    return RAND_bytes(key->name, sizeof key->name) == 1 &&
           RAND_priv_bytes(key->cipher, sizeof key->cipher) == 1 &&
           RAND_priv_bytes(key->mac, sizeof key->mac) == 1;
}

bool tls_tickets_init(struct tls_tickets *tickets, uint32_t lifetime_s) {
    /* Turn 1, so that there is one before it; its key is as unknown to clients as any other. */
    *tickets = (struct tls_tickets){.lifetime_s = lifetime_s, .turn = 1};
    return tls_tickets_make(tickets, 0) && tls_tickets_make(tickets, 1) &&
           tls_tickets_make(tickets, 2);
}

bool tls_tickets_rotate(struct tls_tickets *tickets) {
    uint32_t turn = tickets->turn + 1;
    if (!tls_tickets_make(tickets, turn + 1)) return false;
    __atomic_store_n(&tickets->turn, turn, __ATOMIC_RELEASE);
    return true;
}

void tls_tickets_fini(struct tls_tickets *tickets) { OPENSSL_cleanse(tickets, sizeof *tickets); }

static uint32_t tls_tickets_turn(const struct tls_tickets *tickets) {
    return __atomic_load_n(&tickets->turn, __ATOMIC_ACQUIRE);
}

const struct tls_ticket_key *tls_tickets_current(const struct tls_tickets *tickets) {
    return &tickets->keys[tls_tickets_turn(tickets) % TLS_TICKET_SLOTS];
}

const struct tls_ticket_key *tls_tickets_find(const struct tls_tickets *tickets,
                                              const unsigned char *name) {
    uint32_t turn = tls_tickets_turn(tickets);
    for (uint32_t i = turn - 1; i != turn + 2; i++) {
        const struct tls_ticket_key *key = &tickets->keys[i % TLS_TICKET_SLOTS];
        if (memcmp(key->name, name, TLS_TICKET_NAME_SIZE) == 0) return key;
    }
    return NULL;
}

SSL_TICKET_RETURN tls_tickets_on_opened(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                        size_t name_size, SSL_TICKET_STATUS status, void *used) {
    (void)ssl;
    (void)name;
    (void)name_size;
    (void)used; /* the session knows its certificate */
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    const X509 *shown = SSL_SESSION_get0_peer(session);
    /* 0: no time can be read of it. */
    if (shown && X509_cmp_current_time(X509_get0_notAfter(shown)) <= 0)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

int tls_tickets_on_number(SSL *ssl, unsigned char *number, unsigned int *size) {
    (void)ssl;
    number[0] = 0;
    *size = 1; /* no number at all is an error */
    return 1;
}
