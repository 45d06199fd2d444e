/* ini.h: reads an INI file into sections and entries, as text with line numbers.
 *
 * inih splits lines; this file decides what a line is before inih sees it. Knows which keys exist
 * (keys.h) and that a scalar stands once; what values mean is check.c's. Everything read lies in
 * the memory given. Main thread only: inih's options are process-wide variables.
 */
#ifndef WEIR_CONFIG_INI_H
#define WEIR_CONFIG_INI_H

#include "config/faults.h"
#include "config/keys.h"
#include "config/memory.h"

#define INI_LINE_SIZE_MAX 8192 /* longer lines are errors */
#define INI_TITLE_SIZE_MAX 49  /* inih would cut longer ones without a word */

struct ini_entry {
    const struct key *key;
    struct bytes value; /* without quotes; NUL-terminated */
    bool is_quoted;
    bool is_valid; /* set by check.c: `number` can be used */
    uint32_t line;
    uint64_t number; /* of numeric kinds */
};

struct ini_section {
    enum section_kind kind;
    const char *title; /* "listener web" */
    const char *name;  /* "web", "" when the kind has none */
    uint32_t line;
    uint32_t ordinal; /* among sections of its kind */
    struct ini_entry *entries;
    uint32_t entry_count;
};

struct ini_file {
    struct ini_section *sections; /* file order */
    uint32_t section_count;
    uint32_t kind_counts[SECTION_COUNT];
};

/* Everything wrong goes to `faults`; what could be read is in *ini all the same. */
void ini_read(const char *file, struct memory *memory, struct faults *faults, struct ini_file *ini);
/* The only or first entry of a key, or NULL. */
struct ini_entry *ini_find(const struct ini_section *section, enum key_id key);
/* The next entry of a key after `entry` (NULL: the first), or NULL. */
const struct ini_entry *ini_next(const struct ini_section *section, enum key_id key,
                                 const struct ini_entry *entry);
/* The first section of a kind and name ("" for those without), or NULL. */
const struct ini_section *ini_section_find(const struct ini_file *ini, enum section_kind kind,
                                           struct bytes name);

#endif
