#include "control/tls_store.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "control/tls_check.h"
#include "control/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* What stat(2) says of a file; a file that is not there has all of it 0. */
struct tls_stamp {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified;
    struct timespec changed;
};

static struct tls_stamp tls_stamp_of(const char *path) {
    struct stat status;
    struct tls_stamp stamp;
    memset(&stamp, 0, sizeof stamp); /* padding too: stamps are compared as bytes */
    if (!path || stat(path, &status) < 0) return stamp;
    stamp.device = status.st_dev;
    stamp.inode = status.st_ino;
    stamp.size = status.st_size;
    stamp.modified = status.st_mtim;
    stamp.changed = status.st_ctim;
    return stamp;
}

static void tls_source_look(const struct tls_source *source, struct tls_stamp *stamps) {
    for (uint32_t i = 0; i < source->subject.file_count; i++)
        stamps[i] = tls_stamp_of(tls_subject_file(&source->subject, i).path);
}

static bool tls_source_same(const struct tls_source *source, const struct tls_stamp *a,
                            const struct tls_stamp *b) {
    return memcmp(a, b, source->subject.file_count * sizeof *a) == 0;
}

static void tls_source_log(const struct tls_source *source, const struct tls_fault *fault,
                           const char *consequence) {
    char name[128];
    struct writer w = writer_make(name, sizeof name);
    uint32_t line = 0;
    const char *key = tls_fault_key(&source->subject, fault, &line);
    const char *path = "";
    for (uint32_t i = 0; i < source->subject.file_count; i++) {
        struct tls_file file = tls_subject_file(&source->subject, i);
        bool is_checks = file.part == TLS_PART_CA || file.part == TLS_PART_CRL;
        if (file.part == fault->part && file.path && (is_checks || file.index == fault->index))
            path = file.path;
    }
    tls_subject_write(&source->subject, &w);
    log_error("%.*s.%s: %s: %s%s", BYTES_FMT(writer_bytes(&w)), key, path, fault->text,
              consequence);
}

/* Which seats of a worker are a source's: listeners first, by index, then upstreams. */
static bool tls_source_feeds(const struct tls_source *source, const struct config *config,
                             uint32_t seat) {
    if (seat < config->listener_count)
        return source->subject.tls && config->listeners[seat].tls == source->subject.tls;
    return source->subject.upstream == &config->upstreams[seat - config->listener_count];
}

static uint32_t tls_seat_count(const struct config *config) {
    return config->listener_count + config->upstream_count;
}

/* Servers that are to speak HTTP/2 are asked for it (RFC 9113 section 3.2); HTTP/1.1 is what they
 * speak unasked. */
static struct bytes tls_source_alpn(const struct tls_source *source) {
    bool is_h2 = source->subject.upstream->protocol == CONFIG_PROTOCOL_H2;
    return is_h2 ? BYTES("\x02h2") : BYTES_NONE;
}

/* Contexts for all seats of `worker_count` workers, by worker and seat; false and *fault. */
static bool tls_source_build(const struct tls_source *source, struct tls_context **contexts,
                             struct worker *const *workers, uint32_t worker_count,
                             struct tls_fault *fault) {
    const struct config *config = workers[0]->config;
    const struct tls_subject *subject = &source->subject;
    struct tls_material material;
    if (!tls_material_load(&material, subject, fault)) return false;
    struct tls_identity *identities = calloc(subject->certificate_count + 1, sizeof *identities);
    CHECK(identities != NULL); /* some hundred bytes, on the main thread: as config/memory.h */
    struct tls_context_options options = tls_material_options(&material, subject, identities);
    options.tickets = source->tickets;
    uint32_t seats = tls_seat_count(config);
    bool is_good = true;
    for (uint32_t i = 0; is_good && i < worker_count * seats; i++) {
        uint32_t seat = i % seats;
        if (!tls_source_feeds(source, config, seat)) continue;
        options.alpn =
            seat < config->listener_count ? config->listeners[seat].alpn : tls_source_alpn(source);
        options.library = workers[i / seats]->library;
        contexts[i] = tls_material_context(subject, &options, fault);
        is_good = contexts[i] != NULL;
    }
    tls_material_free(&material);
    free(identities);
    return is_good;
}

static void tls_source_note(struct tls_source *source, const struct tls_context *context) {
    for (uint32_t i = 0; i < source->subject.certificate_count; i++)
        __atomic_store_n(&source->not_after[i], tls_context_validity(context, i).not_after,
                         __ATOMIC_RELAXED);
}

/* Builds for `worker_count` workers and puts the contexts in their seats. */
static bool tls_source_deliver(struct tls_store *store, struct tls_source *source,
                               struct worker *const *workers, uint32_t worker_count,
                               struct tls_fault *fault) {
    uint32_t seats = tls_seat_count(store->config);
    struct tls_context **contexts = calloc((size_t)worker_count * seats + 1, sizeof *contexts);
    CHECK(contexts != NULL); /* as above */
    bool is_good = tls_source_build(source, contexts, workers, worker_count, fault);
    for (uint32_t i = 0; i < worker_count * seats; i++) {
        if (!contexts[i]) continue;
        if (!is_good) {
            tls_context_free(contexts[i]);
            continue;
        }
        tls_source_note(source, contexts[i]);
        struct tls_seat *seat = &workers[i / seats]->seats[i % seats];
        /* One that the worker never took: a newer one has come. */
        tls_context_free(__atomic_exchange_n(&seat->next, contexts[i], __ATOMIC_ACQ_REL));
    }
    free(contexts);
    return is_good;
}

static int tls_source_init(struct tls_source *source, struct tls_subject subject) {
    uint64_t now_ms = clock_ms(clock_now_ns());
    *source = (struct tls_source){.subject = subject, .look_ms = UINT64_MAX};
    source->rotate_ms = UINT64_MAX;
    source->built = calloc(subject.file_count, sizeof *source->built);
    source->seen = calloc(subject.file_count, sizeof *source->seen);
    source->not_after = calloc(subject.certificate_count + 1, sizeof *source->not_after);
    if (!source->built || !source->seen || !source->not_after) return -ENOMEM;
    tls_source_look(source, source->built);
    tls_source_look(source, source->seen);
    if (subject.watch_ms != 0) source->look_ms = now_ms + subject.watch_ms;
    if (!subject.tls || !subject.tls->session_tickets) return 0;
    uint64_t rotation_ms = subject.tls->ticket_rotation_ms;
    source->rotate_ms = now_ms + rotation_ms;
    source->tickets = calloc(1, sizeof *source->tickets);
    if (!source->tickets) return -ENOMEM;
    if (tls_tickets_init(source->tickets, (uint32_t)(rotation_ms / 1000))) return 0;
    log_error("tls %s: the system has no random bytes for ticket keys", subject.tls->name);
    return -EIO;
}

int tls_store_init(struct tls_store *store, const struct config *config,
                   struct worker *const *workers) {
    *store = (struct tls_store){.config = config, .workers = workers};
    store->sources = calloc(config->tls_count + config->upstream_count + 1, sizeof *store->sources);
    if (!store->sources) return -ENOMEM;
    int error = 0;
    for (uint32_t i = 0; error == 0 && i < config->tls_count; i++)
        error = tls_source_init(&store->sources[store->source_count++],
                                tls_subject_of_section(&config->tls[i]));
    for (uint32_t i = 0; error == 0 && i < config->upstream_count; i++) {
        if (!config->upstreams[i].tls.on) continue;
        error = tls_source_init(&store->sources[store->source_count++],
                                tls_subject_of_upstream(&config->upstreams[i]));
    }
    return error;
}

int tls_store_equip(struct tls_store *store, struct worker *worker) {
    struct worker *const one[] = {worker};
    for (uint32_t i = 0; i < store->source_count; i++) {
        struct tls_fault fault;
        if (tls_source_deliver(store, &store->sources[i], one, 1, &fault)) continue;
        tls_source_log(&store->sources[i], &fault, "");
        return -EINVAL;
    }
    tls_seats_take(worker->seats, tls_seat_count(store->config));
    return 0;
}

void tls_store_check_rights(struct tls_store *store) {
    for (uint32_t i = 0; i < store->source_count; i++) {
        struct tls_source *source = &store->sources[i];
        const struct tls_subject *subject = &source->subject;
        for (uint32_t j = 0; subject->watch_ms != 0 && j < subject->file_count; j++) {
            const char *path = tls_subject_file(subject, j).path;
            /* By what open(2) goes by: access(2) leaves out capabilities of who is not root. */
            if (!path || faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) == 0) continue;
            log_warn("%s: %s: when it changes, it will not be read again (global.user has no "
                     "right to)",
                     path, strerror(errno));
            /* Where it is not even seen any more, that is no change. */
            source->built[j] = source->seen[j] = tls_stamp_of(path);
        }
    }
}

static bool tls_source_reload(struct tls_store *store, struct tls_source *source) {
    struct tls_fault fault;
    bool is_good =
        tls_source_deliver(store, source, store->workers, store->config->workers, &fault);
    if (!is_good) {
        __atomic_store_n(&store->reloads_failed, store->reloads_failed + 1, __ATOMIC_RELAXED);
        tls_source_log(source, &fault, " (the files from before stay in use)");
        return false;
    }
    store->untold++;
    char name[128];
    struct writer w = writer_make(name, sizeof name);
    tls_subject_write(&source->subject, &w);
    log_info("%.*s: its files have changed and are in use", BYTES_FMT(writer_bytes(&w)));
    tls_check_again(&source->subject);
    return true;
}

/* A file may be seen half written, or before the key that belongs to it: so what has changed must
 * stand still from one look to the next. What was refused is not tried again until it changes. */
static bool tls_source_watch(struct tls_store *store, struct tls_source *source) {
    struct tls_stamp *now = calloc(source->subject.file_count, sizeof *now);
    CHECK(now != NULL); /* as above */
    tls_source_look(source, now);
    bool has_settled = tls_source_same(source, now, source->seen);
    bool is_due = has_settled && !tls_source_same(source, now, source->built);
    free(source->seen);
    source->seen = now;
    if (!is_due) return false;
    memcpy(source->built, now, source->subject.file_count * sizeof *now);
    return tls_source_reload(store, source);
}

static void tls_source_rotate(struct tls_source *source) {
    if (tls_tickets_rotate(source->tickets)) return;
    log_error("tls %s: the system has no random bytes: ticket keys stay",
              source->subject.tls->name);
}

bool tls_store_tick(struct tls_store *store, uint64_t now_ms, uint64_t *wait_ms) {
    bool has_new = false;
    for (uint32_t i = 0; i < store->source_count; i++) {
        struct tls_source *source = &store->sources[i];
        if (source->look_ms <= now_ms) {
            has_new |= tls_source_watch(store, source);
            source->look_ms = now_ms + source->subject.watch_ms;
        }
        if (source->rotate_ms <= now_ms) {
            tls_source_rotate(source);
            source->rotate_ms = now_ms + source->subject.tls->ticket_rotation_ms;
        }
        uint64_t due_ms = source->look_ms < source->rotate_ms ? source->look_ms : source->rotate_ms;
        if (due_ms - now_ms < *wait_ms) *wait_ms = due_ms - now_ms;
    }
    return has_new;
}

void tls_store_count_told(struct tls_store *store) {
    __atomic_store_n(&store->reloads, store->reloads + store->untold, __ATOMIC_RELEASE);
    store->untold = 0;
}

void tls_store_fini(struct tls_store *store) {
    for (uint32_t i = 0; i < store->source_count; i++) {
        struct tls_source *source = &store->sources[i];
        if (source->tickets) tls_tickets_fini(source->tickets);
        free(source->tickets);
        free(source->built);
        free(source->seen);
        free(source->not_after);
    }
    free(store->sources);
    *store = (struct tls_store){0};
}

void tls_seats_take(struct tls_seat *seats, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        struct tls_context *next = __atomic_exchange_n(&seats[i].next, NULL, __ATOMIC_ACQ_REL);
        if (!next) continue;
        struct tls_context *old = seats[i].current;
        seats[i].current = next;
        *seats[i].place = next;
        tls_context_free(old);
    }
}
