/* balance.h: which server takes the next request. One policy a file (balance_<name>.c) behind
 * balance_ops.
 *
 * A balancer belongs to one upstream of one worker; it is not shared. It sees servers only as
 * struct balance_server: weight, requests in flight, and whether they may take one now. Policies
 * never skip the question balance_eligible. balance_pick asks the servers that are no backups
 * first, then the backups.
 */
#ifndef WEIR_PROXY_BALANCE_H
#define WEIR_PROXY_BALANCE_H

#include "base/rand.h"

#include <stdbool.h>
#include <stdint.h>

#define BALANCE_NONE UINT32_MAX
#define BALANCE_TRIED_MAX 16 /* servers one request tries at most */

struct balance_server {
    /* Fixed after init. */
    uint32_t weight; /* >= 1 */
    bool backup;
    /* Changes in routine work: kept by proxy/upstream. */
    bool available;     /* up, and below its max_connections (or with an idle connection) */
    uint32_t in_flight; /* requests of this worker */
    /* The policy's own. */
    int64_t current; /* smooth weighted round robin */
};

struct balance;

/* One question. */
struct balance_pick {
    uint64_t hash; /* of the request's key, for policies with uses_hash */
    bool backups;  /* set by balance_pick */
    uint32_t tried_count;
    uint32_t tried[BALANCE_TRIED_MAX]; /* indexes already tried for this request */
};

struct balance_ops {
    const char *name;
    bool uses_hash;
    /* 0 or -ENOMEM: builds policy state (tables) at start. NULL when there is none. */
    int (*init)(struct balance *balance);
    void (*fini)(struct balance *balance);
    /* Index of an eligible server, or BALANCE_NONE. */
    uint32_t (*pick)(struct balance *balance, const struct balance_pick *pick);
};

struct balance {
    const struct balance_ops *ops;
    struct balance_server *servers;
    uint32_t count;
    const char *const *names; /* per server: stable identity for consistent hashing */
    struct rand_state random;
    void *state; /* the policy's, from init */
};

/* `servers` and `names` must outlive the balancer. 0 or -ENOMEM. */
int balance_init(struct balance *balance, const struct balance_ops *ops,
                 struct balance_server *servers, const char *const *names, uint32_t count);
void balance_fini(struct balance *balance); /* harmless after an init that failed */
/* Non-backups first, then backups. BALANCE_NONE: none is eligible. */
uint32_t balance_pick(struct balance *balance, struct balance_pick *pick);
/* Adds to pick->tried; false when BALANCE_TRIED_MAX is reached. */
bool balance_mark_tried(struct balance_pick *pick, uint32_t index);
static inline bool balance_was_tried(const struct balance_pick *pick, uint32_t index) {
    for (uint32_t i = 0; i < pick->tried_count; i++) {
        if (pick->tried[i] == index) return true;
    }
    return false;
}
/* Available, of the tier asked and not tried. Inline: some policies ask it of every server. */
static inline bool balance_eligible(const struct balance *balance, const struct balance_pick *pick,
                                    uint32_t index) {
    const struct balance_server *server = &balance->servers[index];
    return server->available && server->backup == pick->backups && !balance_was_tried(pick, index);
}

extern const struct balance_ops balance_round_robin;
extern const struct balance_ops balance_least_conn;
extern const struct balance_ops balance_p2c;
extern const struct balance_ops balance_random;
extern const struct balance_ops balance_source_ip;
extern const struct balance_ops balance_maglev;
extern const struct balance_ops balance_first;

#endif
