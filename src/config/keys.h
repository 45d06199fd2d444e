/* keys.h: the table of sections and keys (defaults.def), and reading the numbers in it. */
#ifndef WEIR_CONFIG_KEYS_H
#define WEIR_CONFIG_KEYS_H

#include "base/bytes.h"

enum section_kind {
    SECTION_GLOBAL,
    SECTION_DEFAULTS,
    SECTION_ADMIN,
    SECTION_LISTENER,
    SECTION_TLS,
    SECTION_ROUTE,
    SECTION_UPSTREAM,
    SECTION_SERVICE,
    SECTION_COUNT
};

/* Places of a key: sets of sections. */
#define IN_GLOBAL (1u << SECTION_GLOBAL)
#define IN_DEFAULTS (1u << SECTION_DEFAULTS)
#define IN_ADMIN (1u << SECTION_ADMIN)
#define IN_LISTENER (1u << SECTION_LISTENER)
#define IN_TLS (1u << SECTION_TLS)
#define IN_ROUTE (1u << SECTION_ROUTE)
#define IN_UPSTREAM (1u << SECTION_UPSTREAM)
#define IN_SERVICE (1u << SECTION_SERVICE)

enum key_kind {
    KIND_COUNT,     /* decimal */
    KIND_DURATION,  /* ms */
    KIND_SIZE,      /* bytes */
    KIND_RATE,      /* bytes/s */
    KIND_FREQUENCY, /* events/s */
    KIND_SWITCH,    /* 0 or 1 */
    KIND_WORD,      /* an enum, by key_words */
    KIND_TEXT,      /* at most once; check.c reads it */
    KIND_LIST       /* several items, on one line or several */
};

enum key_id {
#define KEY(id, places, name, kind, fallback, min, max, help) KEY_##id,
#include "config/defaults.def"
    KEY_COUNT
};

struct key {
    const char *name;
    const char *fallback; /* "": none */
    const char *help;
    uint64_t min;
    uint64_t max;
    enum key_id id;
    enum key_kind kind;
    unsigned places;
};

/* A word of an enum; ends with word NULL. Words of later versions are known, so that the error can
 * say so. */
struct key_word {
    const char *word;
    uint64_t number;
    bool is_later;
};

/* Of [listener NAME]: "listener". */
const char *section_word(enum section_kind kind);
/* Whether such a section has a name. */
bool section_is_named(enum section_kind kind);
bool section_find(struct bytes word, enum section_kind *kind);
/* Sections VOCABULARY has for later versions. */
bool section_is_later(struct bytes word);

/* Never NULL; CHECKs id < KEY_COUNT. */
const struct key *key_at(enum key_id id);
/* The key of that name that may stand in `kind`, or NULL. */
const struct key *key_find(enum section_kind kind, struct bytes name);
bool key_is_later(enum section_kind kind, struct bytes name);
/* Why `name` is no key of `kind`: "unknown key (did you mean ...?)" and the like. */
void key_explain_unknown(enum section_kind kind, struct bytes name, struct writer *why);
/* NULL unless kind is KIND_WORD. */
const struct key_word *key_words(enum key_id id);
/* Reads and range-checks a value of a numeric kind (not TEXT, not LIST); false and a sentence in
 * `why`. */
bool key_number(const struct key *key, struct bytes text, uint64_t *number, struct writer *why);

#endif
