/* check.h: from sections and entries to a snapshot: every value read, every reference resolved.
 *
 * Goes on after an error, so that one run names them all; a snapshot is whole only when no fault
 * was added.
 */
#ifndef WEIR_CONFIG_CHECK_H
#define WEIR_CONFIG_CHECK_H

#include "config/config.h"
#include "config/faults.h"
#include "config/ini.h"
#include "config/memory.h"

struct check {
    struct memory *memory; /* the snapshot's */
    struct faults *faults;
    struct ini_file *ini;
    struct config *config;
};

void check_file(struct check *check);

#endif
