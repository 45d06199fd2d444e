/* tls_store.h: the contexts of all workers, kept as new as their files: built at start, and again
 * when a file has changed, without a reload.
 *
 * The main thread looks at the files of each section that speaks TLS (stat(2), every `watch`).
 * What has changed and then stood still for one look is read, and one context for each worker and
 * listener or upstream is built of it; when all could be built each worker gets its own by mail
 * (MAIL_TLS), else the old ones stay, and one line says why. Connections that have begun keep the
 * context they began with, which ends with the last of them.
 *
 * A seat is where one listener's or upstream's context waits for its worker: the main thread puts
 * it in `next`, the worker takes it from there and makes it `current`; both by atomic exchange, so
 * whoever finds one owns it.
 */
#ifndef WEIR_CONTROL_TLS_STORE_H
#define WEIR_CONTROL_TLS_STORE_H

#include "control/tls_files.h"
#include "proto/tls_tickets.h"

struct worker;

struct tls_seat {
    struct tls_context *next;         /* NULL: nothing new */
    struct tls_context *current;      /* the worker's */
    const struct tls_context **place; /* where sessions find it */
};

/* One section with its files. */
struct tls_source {
    struct tls_subject subject;
    struct tls_stamp *built;     /* by file: as it was when the contexts were built, or refused */
    struct tls_stamp *seen;      /* and at the last look */
    struct tls_tickets *tickets; /* NULL: none */
    int64_t *not_after;          /* by certificate, UNIX time: read by other threads */
    uint64_t look_ms;            /* on the clock of clock.h; UINT64_MAX: never */
    uint64_t rotate_ms;
};

struct tls_store {
    const struct config *config;
    struct worker *const *workers;
    struct tls_source *sources; /* the [tls] sections by index, then upstreams with tls = on */
    uint32_t source_count;
    uint64_t untold;  /* reloads of which the workers have no mail yet */
    uint64_t reloads; /* read by other threads */
    uint64_t reloads_failed;
};

/* Reads the files, and makes the keys of tickets. 0 or -errno, after a line in the log. `config`
 * and `workers` outlive the store. */
int tls_store_init(struct tls_store *store, const struct config *config,
                   struct worker *const *workers);
/* Builds the contexts of a worker that has been initialised and not yet started. As above. */
int tls_store_equip(struct tls_store *store, struct worker *worker);
/* After the user has been changed: says which files it could not read again. */
void tls_store_check_rights(struct tls_store *store);
/* Looks at what is due and turns keys. True: there are new contexts; the caller mails the workers.
 * *wait_ms: when to come again, at most what it was. */
bool tls_store_tick(struct tls_store *store, uint64_t now_ms, uint64_t *wait_ms);
/* The mail is there: who sees a reload counted meets the new context. */
void tls_store_count_told(struct tls_store *store);
/* After the workers have ended. Harmless when it was never initialised. */
void tls_store_fini(struct tls_store *store);

/* For the worker, upon MAIL_TLS: takes what is in its seats. */
void tls_seats_take(struct tls_seat *seats, uint32_t count);

#endif
