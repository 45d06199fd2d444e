#include "base/reason.h"

#include "base/check.h"

#include <stddef.h>

/* The names of the table in memory of their own, to be lowered in place. */
#define REASON(name, status, outcome, proxy_error, text, test) static char name_##name[] = #name;
#include "base/reason.def"
#undef REASON

static const struct reason_entry entries[REASON_COUNT] = {
#define REASON(name, status, outcome, proxy_error, text, test)                                     \
    [REASON_##name] = {name_##name, status, outcome, proxy_error, text},
#include "base/reason.def"
#undef REASON
};

static void lower(char *name) {
    for (; *name != '\0'; name++) {
        if (*name >= 'A' && *name <= 'Z') *name = (char)(*name - 'A' + 'a');
    }
}

/* Before main, so that there are no threads yet: afterwards the names are only read. */
__attribute__((constructor)) static void lower_names(void) {
#define REASON(name, status, outcome, proxy_error, text, test) lower(name_##name);
#include "base/reason.def"
#undef REASON
}

const struct reason_entry *reason_entry(enum reason reason) {
    CHECK((unsigned)reason < REASON_COUNT);
    return &entries[reason];
}
