#include "control/tls_files.h"

#include "base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FILE_SIZE_MAX (64 << 20) /* lists of revocations can be long */
/* Files come in this order: three for each certificate, then these two. */
#define FILES_OF_CERTIFICATE 3
#define FILES_OF_CHECKS 2

/* Where the system keeps whom it believes, as one file: a folder would be read while a server's
 * certificate is looked at, by a worker. */
static const char *system_store(void) {
    static const char *const known[] = {"/etc/ssl/certs/ca-certificates.crt",
                                        "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"};
    const char *named = getenv(X509_get_default_cert_file_env());
    if (named) return named;
    const char *usual = X509_get_default_cert_file();
    for (size_t i = 0; access(usual, R_OK) != 0 && i < sizeof known / sizeof known[0]; i++)
        usual = known[i];
    return usual;
}

struct tls_subject tls_subject_of_section(const struct config_tls *tls) {
    return (struct tls_subject){.tls = tls,
                                .certificates = tls->certificates,
                                .certificate_count = tls->certificate_count,
                                .ca = tls->ca,
                                .crl = tls->crl,
                                .watch_ms = tls->watch_ms,
                                .file_count = tls->certificate_count * FILES_OF_CERTIFICATE +
                                              FILES_OF_CHECKS};
}

struct tls_subject tls_subject_of_upstream(const struct config_upstream *upstream) {
    const struct config_upstream_tls *tls = &upstream->tls;
    CHECK(tls->on);
    uint32_t count = tls->certificate.file.text ? 1 : 0;
    struct tls_subject subject = {.upstream = upstream,
                                  .certificates = &tls->certificate,
                                  .certificate_count = count,
                                  .ca = tls->ca,
                                  .crl = tls->crl,
                                  .watch_ms = tls->watch_ms,
                                  .file_count = count * FILES_OF_CERTIFICATE + FILES_OF_CHECKS};
    /* The structs of a configuration have plain pointers; nobody writes to what they point at. */
    if (tls->verify && !tls->ca.text)
        subject.ca = (struct config_entry){(char *)(uintptr_t)system_store(), tls->line};
    return subject;
}

void tls_subject_write(const struct tls_subject *subject, struct writer *w) {
    const struct config_tls *tls = subject->tls;
    writer_print(w, "%s %s", tls ? "tls" : "upstream", tls ? tls->name : subject->upstream->name);
}

struct tls_file tls_subject_file(const struct tls_subject *subject, uint32_t index) {
    CHECK(index < subject->file_count);
    uint32_t which = index / FILES_OF_CERTIFICATE;
    const struct config_entry *entry = &subject->crl;
    enum tls_part part = TLS_PART_CRL;
    if (index == subject->certificate_count * FILES_OF_CERTIFICATE) {
        entry = &subject->ca;
        part = TLS_PART_CA;
    } else if (which < subject->certificate_count) {
        const struct config_certificate *certificate = &subject->certificates[which];
        const struct config_entry *const entries[] = {&certificate->file, &certificate->key,
                                                      &certificate->ocsp_staple};
        static const enum tls_part parts[] = {TLS_PART_CERTIFICATE, TLS_PART_KEY, TLS_PART_STAPLE};
        entry = entries[index % FILES_OF_CERTIFICATE];
        part = parts[index % FILES_OF_CERTIFICATE];
    }
    return (struct tls_file){
        .path = entry->text, .part = part, .index = which, .line = entry->line};
}

const char *tls_fault_key(const struct tls_subject *subject, const struct tls_fault *fault,
                          uint32_t *line) {
    const struct config_tls *tls = subject->tls;
    *line = tls ? tls->line : subject->upstream->tls.line;
    if (fault->part == TLS_PART_CIPHERS && tls) *line = tls->ciphers.line;
    if (fault->part == TLS_PART_CIPHERSUITES && tls) *line = tls->ciphersuites.line;
    if (fault->part == TLS_PART_GROUPS && tls) *line = tls->groups.line;
    for (uint32_t i = 0; i < subject->file_count; i++) {
        struct tls_file file = tls_subject_file(subject, i);
        bool is_checks = file.part == TLS_PART_CA || file.part == TLS_PART_CRL;
        if (file.part == fault->part && (is_checks || file.index == fault->index))
            *line = file.line;
    }
    /* A key that is not said stands in the file of its certificate. */
    static const char *const keys[] = {
        [TLS_PART_CERTIFICATE] = "certificate",
        [TLS_PART_KEY] = "key",
        [TLS_PART_STAPLE] = "ocsp_staple",
        [TLS_PART_CIPHERS] = "ciphers",
        [TLS_PART_CIPHERSUITES] = "ciphersuites",
        [TLS_PART_GROUPS] = "groups",
        [TLS_PART_CA] = "ca",
        [TLS_PART_CRL] = "crl",
        [TLS_PART_NONE] = "tls",
    };
    return keys[fault->part];
}

/* 0 and *bytes (to be freed), or -errno. */
static int read_file(const char *path, struct bytes *bytes) {
    struct stat status;
    int error = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return -errno;
    if (fstat(fd, &status) < 0) error = -errno;
    if (error == 0 && !S_ISREG(status.st_mode)) error = -EINVAL;
    if (error == 0 && status.st_size > FILE_SIZE_MAX) error = -EFBIG;
    size_t size = error == 0 ? (size_t)status.st_size : 0;
    char *memory = error == 0 ? malloc(size + 1) : NULL;
    if (error == 0 && !memory) error = -ENOMEM;
    size_t len = 0;
    while (error == 0 && len < size) {
        ssize_t part = read(fd, memory + len, size - len);
        if (part < 0 && errno != EINTR) error = -errno;
        if (part == 0) break; /* it was cut meanwhile */
        if (part > 0) len += (size_t)part;
    }
    (void)close(fd); /* nothing was written */
    if (error != 0) {
        free(memory);
        return error;
    }
    *bytes = bytes_make(memory, len);
    return 0;
}

void tls_material_init(struct tls_material *material, const struct tls_subject *subject) {
    *material = (struct tls_material){.count = subject->file_count};
    material->files = calloc(subject->file_count, sizeof *material->files);
    CHECK(material->files != NULL); /* some hundred bytes, on the main thread: as config/memory.h */
}

bool tls_material_read(struct tls_material *material, const struct tls_subject *subject,
                       uint32_t index, struct tls_fault *fault) {
    struct tls_file file = tls_subject_file(subject, index);
    struct bytes *bytes = &material->files[index];
    int error = file.path ? read_file(file.path, bytes) : 0;
    /* One without a byte is no list that revokes nobody: a disk may be full. */
    if (error == 0 && (!file.path || bytes->len != 0)) return true;
    *fault = (struct tls_fault){.part = file.part, .index = file.index};
    const char *what = error == 0 ? "it is empty" : "cannot be read: ";
    const char *why = error == -EINVAL ? "not a file" : error == 0 ? "" : strerror(-error);
    (void)snprintf(fault->text, sizeof fault->text, "%s%s", what, why);
    return false;
}

bool tls_material_load(struct tls_material *material, const struct tls_subject *subject,
                       struct tls_fault *fault) {
    tls_material_init(material, subject);
    for (uint32_t i = 0; i < subject->file_count; i++) {
        if (tls_material_read(material, subject, i, fault)) continue;
        tls_material_free(material);
        return false;
    }
    return true;
}

void tls_material_free(struct tls_material *material) {
    for (uint32_t i = 0; i < material->count; i++) {
        void *memory = (void *)(uintptr_t)material->files[i].ptr;
        if (memory) OPENSSL_cleanse(memory, material->files[i].len);
        free(memory);
    }
    free(material->files);
    *material = (struct tls_material){0};
}

static void set_section(struct tls_context_options *options, const struct config_tls *tls) {
    static const enum tls_client_auth words[] = {
        [CONFIG_CLIENT_AUTH_OFF] = TLS_CLIENT_AUTH_OFF,
        [CONFIG_CLIENT_AUTH_OPTIONAL] = TLS_CLIENT_AUTH_OPTIONAL,
        [CONFIG_CLIENT_AUTH_REQUIRE] = TLS_CLIENT_AUTH_REQUIRE,
    };
    options->min_version = tls->min_version;
    options->ciphers = tls->ciphers.text;
    options->ciphersuites = tls->ciphersuites.text;
    options->groups = tls->groups.text;
    options->client_auth = words[tls->client_auth];
    options->strict_sni = tls->strict_sni;
    options->scope = bytes_of(tls->name);
}

struct tls_context_options tls_material_options(const struct tls_material *material,
                                                const struct tls_subject *subject,
                                                struct tls_identity *identities) {
    const struct bytes *files = material->files;
    uint32_t count = subject->certificate_count;
    for (uint32_t i = 0; i < count; i++, files += FILES_OF_CERTIFICATE)
        identities[i] = (struct tls_identity){files[0], files[1], files[2]};
    struct tls_context_options options = {
        .identities = identities,
        .identity_count = count,
        .min_version = 2,
        .ca = files[0],
        .crl = files[1],
    };
    if (subject->tls) set_section(&options, subject->tls);
    if (subject->upstream) options.verify = subject->upstream->tls.verify;
    return options;
}

struct tls_context *tls_material_context(const struct tls_subject *subject,
                                         const struct tls_context_options *options,
                                         struct tls_fault *fault) {
    return subject->tls ? tls_context_new_server(options, fault)
                        : tls_context_new_client(options, fault);
}

struct tls_context *tls_subject_context(const struct tls_subject *subject,
                                        struct tls_fault *fault) {
    struct tls_material material;
    if (!tls_material_load(&material, subject, fault)) return NULL;
    struct tls_identity *identities = calloc(subject->certificate_count + 1, sizeof *identities);
    CHECK(identities != NULL); /* as above */
    struct tls_context_options options = tls_material_options(&material, subject, identities);
    struct tls_context *context = tls_material_context(subject, &options, fault);
    tls_material_free(&material);
    free(identities);
    return context;
}
