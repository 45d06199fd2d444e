#include "control/tls_check.h"

#include "base/check.h"
#include "base/log.h"
#include "proto/tls_identity.h"

#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#define DAY_S (24 * 3600)

struct finding {
    uint32_t line;
    uint32_t order;
    bool is_error;
    char *text;
};

struct findings {
    struct finding *items;
    uint32_t count;
    uint32_t errors;
};

/* A warning, until it is said to be more. */
static void add(struct findings *findings, uint32_t line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void add(struct findings *findings, uint32_t line, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments); /* cut is fine */
    va_end(arguments);
    findings->items = reallocarray(findings->items, findings->count + 1, sizeof *findings->items);
    CHECK(findings->items != NULL); /* a command, or a start: as in config/memory.h */
    struct finding *finding = &findings->items[findings->count];
    *finding = (struct finding){.line = line, .order = findings->count, .text = strdup(text)};
    CHECK(finding->text != NULL); /* likewise */
    findings->count++;
}

static void add_fault(struct findings *findings, const struct tls_subject *subject,
                      const struct tls_fault *fault) {
    char name[128];
    struct writer w = writer_make(name, sizeof name);
    uint32_t line = 0;
    const char *key = tls_fault_key(subject, fault, &line);
    const char *path = "";
    for (uint32_t i = 0; i < subject->file_count; i++) {
        struct tls_file file = tls_subject_file(subject, i);
        bool is_checks = file.part == TLS_PART_CA || file.part == TLS_PART_CRL;
        if (file.part == fault->part && file.path && (is_checks || file.index == fault->index))
            path = file.path;
    }
    tls_subject_write(subject, &w);
    add(findings, line, "%.*s.%s: %s%s%s", BYTES_FMT(writer_bytes(&w)), key, path,
        path[0] != '\0' ? ": " : "", fault->text);
    findings->items[findings->count - 1].is_error = true;
    findings->errors++;
}

static void write_date(int64_t at, char *text, size_t size) {
    time_t seconds = (time_t)at;
    struct tm broken;
    if (!gmtime_r(&seconds, &broken) || strftime(text, size, "%Y-%m-%d %H:%M UTC", &broken) == 0)
        text[0] = '\0';
}

static void warn_of_certificate(struct findings *findings, const struct tls_subject *subject,
                                const struct tls_context *context, uint32_t index) {
    char name[128];
    char date[64];
    struct writer w = writer_make(name, sizeof name);
    const struct config_certificate *certificate = &subject->certificates[index];
    struct tls_validity validity = tls_context_validity(context, index);
    int64_t now = (int64_t)time(NULL);
    tls_subject_write(subject, &w);
    struct bytes section = writer_bytes(&w);
    write_date(validity.not_after, date, sizeof date);
    if (validity.not_after <= now) {
        add(findings, certificate->file.line, "%.*s.certificate: %s has expired: %s",
            BYTES_FMT(section), certificate->file.text, date);
    } else if (validity.not_after - now < TLS_CHECK_DAYS * DAY_S) {
        add(findings, certificate->file.line, "%.*s.certificate: %s expires soon: %s",
            BYTES_FMT(section), certificate->file.text, date);
    }
    write_date(validity.not_before, date, sizeof date);
    if (validity.not_before > now)
        add(findings, certificate->file.line, "%.*s.certificate: %s is not valid before %s",
            BYTES_FMT(section), certificate->file.text, date);
    write_date(validity.staple_until, date, sizeof date);
    if (validity.staple_until != 0 && validity.staple_until <= now)
        add(findings, certificate->ocsp_staple.line,
            "%.*s.ocsp_staple: %s has expired and is not sent: %s", BYTES_FMT(section),
            certificate->ocsp_staple.text, date);
    if (validity.staple_strays)
        add(findings, certificate->ocsp_staple.line,
            "%.*s.ocsp_staple: %s is not about %s and is not sent", BYTES_FMT(section),
            certificate->ocsp_staple.text, certificate->file.text);
}

/* A list that has run out clears nobody. */
static void warn_of_revocations(struct findings *findings, const struct tls_subject *subject,
                                struct bytes crl) {
    char name[128];
    char date[64];
    struct writer w = writer_make(name, sizeof name);
    int64_t until = tls_revocations_until(crl);
    if (until == 0 || until > (int64_t)time(NULL)) return;
    tls_subject_write(subject, &w);
    write_date(until, date, sizeof date);
    add(findings, subject->crl.line,
        "%.*s.crl: %s has expired, and nobody whom it is about is believed: %s",
        BYTES_FMT(writer_bytes(&w)), subject->crl.text, date);
}

/* Of a chain that does not end in a root nobody is believed, and an authority that has run out has
 * signed nothing that is. Not for those of the system: some are always old. */
static void warn_of_authorities(struct findings *findings, const struct tls_subject *subject,
                                struct bytes ca) {
    char name[128];
    char date[64];
    struct writer w = writer_make(name, sizeof name);
    if (ca.len == 0 || !(subject->tls || subject->upstream->tls.ca.text)) return;
    tls_subject_write(subject, &w);
    struct bytes section = writer_bytes(&w);
    if (!tls_authorities_have_root(ca))
        add(findings, subject->ca.line,
            "%.*s.ca: %s has no root, a certificate signed by itself: nobody is believed by it",
            BYTES_FMT(section), subject->ca.text);
    int64_t until = tls_authorities_until(ca);
    int64_t left_s = until - (int64_t)time(NULL);
    if (until == 0 || left_s >= TLS_CHECK_DAYS * DAY_S) return;
    write_date(until, date, sizeof date);
    add(findings, subject->ca.line, "%.*s.ca: %s %s: %s", BYTES_FMT(section), subject->ca.text,
        left_s <= 0 ? "has an authority that has expired, and nobody whom it has signed is believed"
                    : "has an authority that expires soon",
        date);
}

/* What is made of a subject's files, without what was found to be wrong. */
struct look {
    const struct tls_subject *subject;
    struct tls_context_options options;
    struct tls_identity *identities;
    uint32_t *places; /* of each identity left, its index in the file */
};

/* Takes out what a fault was about, by its index among those left, so that the next look finds the
 * next one; false when that cannot be told. */
static bool leave_out(struct look *look, const struct tls_fault *fault) {
    struct tls_context_options *options = &look->options;
    switch (fault->part) {
    case TLS_PART_CERTIFICATE:
    case TLS_PART_KEY:
        options->identity_count--;
        for (uint32_t i = fault->index; i < options->identity_count; i++) {
            look->identities[i] = look->identities[i + 1];
            look->places[i] = look->places[i + 1];
        }
        return true;
    case TLS_PART_STAPLE:
        look->identities[fault->index].staple = BYTES_NONE;
        return true;
    case TLS_PART_CIPHERS:
        options->ciphers = NULL;
        return true;
    case TLS_PART_CIPHERSUITES:
        options->ciphersuites = NULL;
        return true;
    case TLS_PART_GROUPS:
        options->groups = NULL;
        return true;
    case TLS_PART_CA:
        options->client_auth = TLS_CLIENT_AUTH_OFF;
        options->verify = false;
        options->ca = BYTES_NONE;
        return true;
    case TLS_PART_CRL:
        options->crl = BYTES_NONE;
        return true;
    case TLS_PART_NONE:
        break;
    }
    return false;
}

/* Where all certificates are bad, the rest is looked at as a client's, who needs none. */
static struct tls_context *make_context(struct look *look, struct tls_fault *fault) {
    if (!look->subject->tls || look->options.identity_count != 0)
        return tls_material_context(look->subject, &look->options, fault);
    look->options.verify = look->options.client_auth != TLS_CLIENT_AUTH_OFF;
    return tls_context_new_client(&look->options, fault);
}

/* A file that could not be read: whatever needs it is left out. A key that is not said stands in
 * the file of its certificate, of which all has been said. */
static void leave_out_file(struct findings *findings, struct look *look,
                           const struct tls_fault *fault) {
    bool is_check = fault->part == TLS_PART_CA || fault->part == TLS_PART_CRL;
    const struct config_certificate *certificate = &look->subject->certificates[fault->index];
    bool is_told = fault->part == TLS_PART_KEY && certificate->key.text == certificate->file.text;
    if (!is_told) add_fault(findings, look->subject, fault);
    struct tls_fault left = *fault;
    left.index = 0;
    while (!is_check && left.index < look->options.identity_count &&
           look->places[left.index] != fault->index)
        left.index++;
    if (is_check || left.index < look->options.identity_count)
        (void)leave_out(look, &left); /* of a file it can be told */
}

static void warn(struct findings *findings, const struct look *look,
                 const struct tls_context *context) {
    const struct tls_subject *subject = look->subject;
    uint32_t count = subject->certificate_count;
    for (uint32_t i = 0; look->options.identity_count == count && i < count; i++)
        warn_of_certificate(findings, subject, context, i);
    warn_of_authorities(findings, subject, look->options.ca);
    if (look->options.crl.len != 0) warn_of_revocations(findings, subject, look->options.crl);
}

static void check_subject(struct findings *findings, const struct tls_subject *subject) {
    struct tls_material material;
    uint32_t count = subject->certificate_count, unread_count = 0;
    struct look look = {.subject = subject};
    struct tls_fault *unread = calloc(subject->file_count, sizeof *unread);
    look.identities = calloc(count + 1, sizeof *look.identities);
    look.places = calloc(count + 1, sizeof *look.places);
    CHECK(unread && look.identities && look.places); /* as in add */
    tls_material_init(&material, subject);
    for (uint32_t i = 0; i < subject->file_count; i++)
        unread_count += !tls_material_read(&material, subject, i, &unread[unread_count]);
    look.options = tls_material_options(&material, subject, look.identities);
    for (uint32_t i = 0; i < count; i++)
        look.places[i] = i;
    for (uint32_t i = 0; i < unread_count; i++)
        leave_out_file(findings, &look, &unread[i]);
    struct tls_context *context = NULL;
    struct tls_fault fault;
    bool goes_on = true;
    while (goes_on && !(context = make_context(&look, &fault))) {
        struct tls_fault found = fault;
        found.index = look.places[fault.index];
        add_fault(findings, subject, &found);
        goes_on = leave_out(&look, &fault);
    }
    if (context) warn(findings, &look, context);
    tls_context_free(context);
    tls_material_free(&material);
    free(look.identities);
    free(look.places);
    free(unread);
}

static int compare(const void *a, const void *b) {
    const struct finding *left = a;
    const struct finding *right = b;
    if (left->line != right->line) return left->line < right->line ? -1 : 1;
    return left->order < right->order ? -1 : 1;
}

/* A forgotten `tls = NAME` leaves a listener in clear where nobody expects it. */
static void warn_of_unused(struct findings *findings, const struct config *config,
                           const struct config_tls *tls) {
    for (uint32_t i = 0; i < config->listener_count; i++) {
        if (config->listeners[i].tls == tls) return;
    }
    add(findings, tls->line, "tls %s: no listener says tls = %s", tls->name, tls->name);
}

static void forget(struct findings *findings) {
    for (uint32_t i = 0; i < findings->count; i++)
        free(findings->items[i].text);
    free(findings->items);
}

uint32_t tls_check(const struct config *config, bool warns, FILE *to) {
    struct findings findings = {0};
    for (uint32_t i = 0; i < config->tls_count; i++) {
        warn_of_unused(&findings, config, &config->tls[i]);
        struct tls_subject subject = tls_subject_of_section(&config->tls[i]);
        check_subject(&findings, &subject);
    }
    for (uint32_t i = 0; i < config->upstream_count; i++) {
        if (!config->upstreams[i].tls.on) continue;
        struct tls_subject subject = tls_subject_of_upstream(&config->upstreams[i]);
        check_subject(&findings, &subject);
        if (!config->upstreams[i].tls.verify)
            add(&findings, config->upstreams[i].tls.line,
                "upstream %s.verify: off: whoever answers is believed to be the server",
                config->upstreams[i].name);
    }
    if (findings.count != 0) qsort(findings.items, findings.count, sizeof *findings.items, compare);
    for (uint32_t i = 0; i < findings.count; i++) {
        const struct finding *finding = &findings.items[i];
        if (!finding->is_error && !warns) continue;
        /* Nowhere to tell it when that fails. */
        (void)fprintf(to, "%s:%u: %s%s\n", config->file, finding->line,
                      finding->is_error ? "" : "warning: ", finding->text);
    }
    forget(&findings);
    return findings.errors;
}

void tls_check_again(const struct tls_subject *subject) {
    struct findings findings = {0};
    check_subject(&findings, subject);
    for (uint32_t i = 0; i < findings.count; i++) {
        if (!findings.items[i].is_error) log_warn("%s", findings.items[i].text);
    }
    forget(&findings);
}
