#include "net/limit.h"

#include "base/check.h"
#include "base/hash.h"

#include <endian.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS 1000000000ull
#define CACHE_LINE 64

struct limit_client {
    uint64_t key;
    uint32_t count; /* 0: this place is free */
};

struct limit {
    /* Fixed after init. */
    uint64_t interval_ns; /* what one connection costs; 0: no limit */
    uint64_t burst_ns;    /* what a full bucket holds */
    uint64_t seed;
    uint32_t per_ip;
    uint32_t mask;                /* places of the table - 1 */
    struct limit_client *clients; /* NULL: no limit */
    /* Changes in routine work, by all workers. */
    _Alignas(CACHE_LINE) uint64_t paid_ns;      /* when all that was taken is paid for; atomic */
    _Alignas(CACHE_LINE) pthread_mutex_t mutex; /* of the table and `used` */
    uint32_t used;                              /* places that are not free */
};

struct limit *limit_new(const struct limit_options *options) {
    struct limit *limit = aligned_alloc(_Alignof(struct limit), sizeof *limit);
    if (!limit) return NULL;
    uint64_t places = 2;
    while (places < 2 * (uint64_t)options->connections_max)
        places *= 2;
    CHECK(places <= UINT32_MAX);
    memset(limit, 0, sizeof *limit);
    limit->seed = options->seed;
    limit->per_ip = options->per_ip;
    limit->mask = (uint32_t)places - 1;
    if (options->per_second != 0) {
        limit->interval_ns = SECOND_NS / options->per_second;
        limit->burst_ns = limit->interval_ns * options->per_second;
    }
    CHECK(pthread_mutex_init(&limit->mutex, NULL) == 0); /* cannot fail with glibc */
    if (options->per_ip == 0) return limit;
    limit->clients = calloc(places, sizeof *limit->clients);
    if (limit->clients) return limit;
    limit_free(limit);
    return NULL;
}

void limit_free(struct limit *limit) {
    if (!limit) return;
    CHECK(limit->used == 0);
    (void)pthread_mutex_destroy(&limit->mutex); /* nobody holds it any more */
    free(limit->clients);
    free(limit);
}

/* What is taken and not paid for yet; over burst_ns when several workers took the last one. */
static uint64_t limit_owed_ns(const struct limit *limit, uint64_t now_ns) {
    uint64_t paid_ns = __atomic_load_n(&limit->paid_ns, __ATOMIC_RELAXED);
    return paid_ns > now_ns ? paid_ns - now_ns : 0;
}

uint32_t limit_rate_room(const struct limit *limit, uint64_t now_ns) {
    if (limit->interval_ns == 0) return UINT32_MAX;
    uint64_t owed_ns = limit_owed_ns(limit, now_ns);
    if (owed_ns >= limit->burst_ns) return 0;
    return (uint32_t)((limit->burst_ns - owed_ns) / limit->interval_ns);
}

void limit_rate_take(struct limit *limit, uint64_t now_ns) {
    if (limit->interval_ns == 0) return;
    uint64_t paid_ns = __atomic_load_n(&limit->paid_ns, __ATOMIC_RELAXED);
    uint64_t next_ns;
    do {
        next_ns = (paid_ns > now_ns ? paid_ns : now_ns) + limit->interval_ns;
    } while (!__atomic_compare_exchange_n(&limit->paid_ns, &paid_ns, next_ns, true,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

uint64_t limit_rate_wait_ns(const struct limit *limit, uint64_t now_ns) {
    if (limit->interval_ns == 0) return 0;
    uint64_t owed_ns = limit_owed_ns(limit, now_ns) + limit->interval_ns;
    return owed_ns > limit->burst_ns ? owed_ns - limit->burst_ns : 0;
}

bool limit_is_per_ip(const struct limit *limit) { return limit->per_ip != 0; }

/* IPv4 as ::ffff:0:0/96 writes it, in the first 64 bits: 0:ffff:a.b.c.d, from a block (RFC 4291
 * section 2.4, ::/8) that no IPv6 host has its address from. */
static uint64_t limit_key_v4(const uint8_t *octets) {
    uint32_t address;
    memcpy(&address, octets, sizeof address);
    return 0xffffull << 32 | ntohl(address);
}

bool limit_ip_key(const struct sockaddr *address, uint64_t *key) {
    const void *any = address;
    if (address->sa_family == AF_INET) {
        *key = limit_key_v4((const uint8_t *)&((const struct sockaddr_in *)any)->sin_addr);
        return true;
    }
    if (address->sa_family != AF_INET6) return false;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)any)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(v6)) {
        *key = limit_key_v4(v6->s6_addr + 12);
        return true;
    }
    memcpy(key, v6->s6_addr, sizeof *key);
    *key = be64toh(*key);
    return true;
}

static uint32_t limit_home(const struct limit *limit, uint64_t key) {
    return (uint32_t)hash_u64(hash_u64(key ^ limit->seed) + limit->seed) & limit->mask;
}

/* The place of a key, or the free one where it would stand: at most half of them are in use. */
static uint32_t limit_find(const struct limit *limit, uint64_t key) {
    uint32_t at = limit_home(limit, key);
    while (limit->clients[at].count != 0 && limit->clients[at].key != key)
        at = (at + 1) & limit->mask;
    return at;
}

bool limit_ip_enter(struct limit *limit, uint64_t key) {
    CHECK(pthread_mutex_lock(&limit->mutex) == 0);
    struct limit_client *client = &limit->clients[limit_find(limit, key)];
    bool fits = client->count < limit->per_ip;
    if (fits && client->count == 0) {
        client->key = key;
        limit->used++;
        CHECK(limit->used <= limit->mask); /* one place stays free, or no search would end */
    }
    if (fits) client->count++;
    CHECK(pthread_mutex_unlock(&limit->mutex) == 0);
    return fits;
}

/* Whoever stands behind the hole and would be looked for across it moves into it, so that no search
 * ends too early. */
static void limit_close_hole(struct limit *limit, uint32_t hole) {
    uint32_t mask = limit->mask;
    for (uint32_t at = (hole + 1) & mask; limit->clients[at].count != 0; at = (at + 1) & mask) {
        uint32_t home = limit_home(limit, limit->clients[at].key);
        if (((at - home) & mask) < ((at - hole) & mask)) continue;
        limit->clients[hole] = limit->clients[at];
        limit->clients[at].count = 0;
        hole = at;
    }
}

void limit_ip_leave(struct limit *limit, uint64_t key) {
    CHECK(pthread_mutex_lock(&limit->mutex) == 0);
    uint32_t at = limit_find(limit, key);
    CHECK(limit->clients[at].count != 0);
    if (--limit->clients[at].count == 0) {
        limit->used--;
        limit_close_hole(limit, at);
    }
    CHECK(pthread_mutex_unlock(&limit->mutex) == 0);
}
