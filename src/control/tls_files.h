/* tls_files.h: the files behind a section that speaks TLS, and contexts made of them.
 *
 * A subject is a [tls NAME] or an [upstream NAME] with tls = on: one view of both, for whoever
 * reads their files. Main thread only.
 */
#ifndef WEIR_CONTROL_TLS_FILES_H
#define WEIR_CONTROL_TLS_FILES_H

#include "config/config.h"
#include "proto/tls_context.h"

#include <sys/stat.h>

struct tls_subject {
    const struct config_tls *tls; /* NULL: an upstream's */
    const struct config_upstream *upstream;
    const struct config_certificate *certificates;
    uint32_t certificate_count;
    struct config_entry ca; /* text NULL: none is needed */
    struct config_entry crl;
    uint64_t watch_ms;
    uint32_t file_count;
};

struct tls_subject tls_subject_of_section(const struct config_tls *tls);
/* Needs tls = on. Without ca it is the system's. */
struct tls_subject tls_subject_of_upstream(const struct config_upstream *upstream);
/* "tls site" or "upstream app", as messages name it. */
void tls_subject_write(const struct tls_subject *subject, struct writer *w);

/* A file of a subject, by index up to file_count; path NULL: it has none there. */
struct tls_file {
    const char *path;
    enum tls_part part;
    uint32_t index; /* of the certificate */
    uint32_t line;
};
struct tls_file tls_subject_file(const struct tls_subject *subject, uint32_t index);
/* The key and the line that are to blame for a fault. */
const char *tls_fault_key(const struct tls_subject *subject, const struct tls_fault *fault,
                          uint32_t *line);

/* The bytes of all files of a subject. */
struct tls_material {
    struct bytes *files;
    uint32_t count;
};

/* Nothing is read yet. */
void tls_material_init(struct tls_material *material, const struct tls_subject *subject);
/* One of them; false and *fault when it cannot be read: it counts as not said then. */
bool tls_material_read(struct tls_material *material, const struct tls_subject *subject,
                       uint32_t index, struct tls_fault *fault);
/* All of them, from the beginning. False and *fault at the first that cannot be read; `material`
 * holds nothing then. */
bool tls_material_load(struct tls_material *material, const struct tls_subject *subject,
                       struct tls_fault *fault);
/* Overwrites the keys. */
void tls_material_free(struct tls_material *material);

/* What tls_context needs: what is viewed lives as long as material and subject; the array of
 * identities is the caller's, with room for certificate_count. */
struct tls_context_options tls_material_options(const struct tls_material *material,
                                                const struct tls_subject *subject,
                                                struct tls_identity *identities);
struct tls_context *tls_material_context(const struct tls_subject *subject,
                                         const struct tls_context_options *options,
                                         struct tls_fault *fault);

/* One that is only looked at: without tickets and ALPN. NULL and *fault. */
struct tls_context *tls_subject_context(const struct tls_subject *subject, struct tls_fault *fault);

#endif
