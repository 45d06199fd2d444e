/* faults.h: collects the errors of one configuration, to be shown all at once in file order. */
#ifndef WEIR_CONFIG_FAULTS_H
#define WEIR_CONFIG_FAULTS_H

#include "config/config.h"
#include "config/memory.h"

#define FAULT_SIZE_MAX 1024 /* of one error's text; longer ones are cut */

struct fault {
    uint32_t line; /* 0: the file as a whole */
    uint32_t order;
    const char *text;
};

struct faults {
    struct memory *memory;
    struct fault *items;
    uint32_t count;
};

/* Where an error stands: the title of a section ("listener web") and a key; NULL: none. */
struct fault_place {
    uint32_t line;
    const char *section;
    const char *key;
};

/* "section.key: what is wrong" at a line. Bytes that are not printable ASCII become "?". */
void faults_add(struct faults *faults, struct fault_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* All of them as "file:line: text" lines, sorted by line; what one line has wrong keeps its order.
 * The caller owns errors->text. */
void faults_render(struct faults *faults, const char *file, struct config_errors *errors);

#endif
