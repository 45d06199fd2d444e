/* descriptors.h: how many clients the limit of open files allows, as a sum made at start.
 *
 * Clients, a connection to a server for each of them, idle ones beside those, and what weir needs
 * for itself stay within RLIMIT_NOFILE (getrlimit(2)): so whoever is accepted can be served, and
 * the quota of clients pauses the accepts before the kernel has to. Main thread, at start and for
 * `weir doctor`.
 */
#ifndef WEIR_CONTROL_DESCRIPTORS_H
#define WEIR_CONTROL_DESCRIPTORS_H

#include "config/config.h"
#include "net/pipe.h"

/* What a worker may have at most, and has less of where descriptors are few. */
#define DESCRIPTORS_ADMINS_MAX 64       /* the admin's connections: all of the process */
#define DESCRIPTORS_REFUSALS_MAX 64     /* connections being told that they are too many */
#define DESCRIPTORS_SPARE_MAX 128       /* connections to servers beyond one for each client */
#define DESCRIPTORS_PIPES_MAX PIPES_MAX /* to splice through; two descriptors each */

struct descriptors {
    uint32_t clients;  /* client connections, all workers together */
    uint32_t idle;     /* connections kept idle for the next request, all workers together */
    uint32_t admins;   /* connections to the admin's listener */
    uint32_t refusals; /* for each worker */
    uint32_t spare;    /* for each worker */
    uint32_t pipes;    /* for each worker */
    uint64_t sum;      /* open at once, at most */
};

/* What max_connections needs. */
struct descriptors descriptors_wanted(const struct config *config);
/* What `limit` open files allow: as wanted, or less, and then `clients` is a multiple of the
 * workers where there are enough. False when they are too few to serve anybody. */
bool descriptors_plan(const struct config *config, uint64_t limit, struct descriptors *plan);

/* Raises RLIMIT_NOFILE to `wanted`, or as far as it goes; gives what it is then. */
uint64_t descriptors_raise(uint64_t wanted);
/* Whether it could be raised so far: tries, and puts it back. */
bool descriptors_can_raise(uint64_t wanted);
/* /proc/sys/fs/file-max; 0 when it cannot be read. */
uint64_t descriptors_file_max(void);

#endif
