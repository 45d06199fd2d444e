/* limit.h: what all workers together let one listener take: new connections for each second, and
 * connections of one client address.
 *
 * The kernel spreads the connections of one client over the workers, so shares of these two limits
 * would be neither exact nor fair: here they are counted for the whole process. It is the only
 * thing in routine work that several workers write, and exists only where a key asks for it.
 *
 * Rate: a token bucket in one number, the time at which all that was taken is paid for (GCRA, as
 * ITU-T I.371 describes it), moved by compare-and-swap. Addresses: a table with open addressing and
 * room for twice the connections there can be, so it is never full; one mutex, held for a few
 * steps at the begin and the end of a connection. Made and ended by the main thread; the rest may
 * be called by any worker.
 */
#ifndef WEIR_NET_LIMIT_H
#define WEIR_NET_LIMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct limit;

struct limit_options {
    uint32_t per_second;      /* new connections; 0: no limit */
    uint32_t per_ip;          /* connections of one address; 0: no limit */
    uint32_t connections_max; /* of all workers at once */
    uint64_t seed;            /* of the table's hash: nobody shall choose addresses that collide */
};

/* NULL: out of memory. */
struct limit *limit_new(const struct limit_options *options);
/* CHECKs that no address is counted any more. NULL is harmless. */
void limit_free(struct limit *limit);

/* How many may come now without a wait, a second's worth at most; UINT32_MAX without such a limit.
 * What several workers accept at one instant may go below 0; it is paid back by waiting. */
uint32_t limit_rate_room(const struct limit *limit, uint64_t now_ns);
/* One has come, whether there was room or not. */
void limit_rate_take(struct limit *limit, uint64_t now_ns);
/* Until there is room for one; 0: now. */
uint64_t limit_rate_wait_ns(const struct limit *limit, uint64_t now_ns);

bool limit_is_per_ip(const struct limit *limit);
/* What is counted as one client: an IPv4 address (also when mapped into IPv6), the first 64 bits of
 * an IPv6 address. False for what is neither: it is not limited. */
bool limit_ip_key(const struct sockaddr *address, uint64_t *key);
/* One more connection; false, and nothing changed, when there are per_ip already. */
bool limit_ip_enter(struct limit *limit, uint64_t key);
/* Once for each limit_ip_enter that gave true. */
void limit_ip_leave(struct limit *limit, uint64_t key);

#endif
