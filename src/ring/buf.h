/* buf.h: receive buffers, lent to the kernel by group and leased to whoever holds received bytes.
 *
 * A pool belongs to one ring. Each buffer is in exactly one place: the kernel's ring of provided
 * buffers, a lease, or spare: kernel + leased + spare == total. Only a few buffers are lent at a
 * time, those with the lowest addresses, so that a calm worker cycles through little memory. A
 * lease also serves as memory for bytes to send (buf_take). A lease is counted: whoever keeps bytes
 * of it holds a reference.
 *
 * Buffers are objects of a slab, each behind its lease. What is spare or lent has no contents, so
 * slab_trim may take its memory away: the kernel that receives into a lent buffer finds a new page.
 */
#ifndef WEIR_RING_BUF_H
#define WEIR_RING_BUF_H

#include "base/slab.h"

#include <stdbool.h>
#include <stdint.h>

struct ring;

enum buf_group {
    BUF_SMALL, /* heads and messages */
    BUF_BULK,  /* streams of known or proven size */
    BUF_GROUP_COUNT
};

/* A completion names a buffer by a 16-bit id without its group: each group has a range of its own.
 */
#define BUF_IDS_PER_GROUP 4096

struct lease {
    /* Fixed while it is out; means nothing before. */
    struct buf_pool *pool;
    char *memory;
    uint32_t size;
    /* Changes in routine work. */
    uint32_t refs;
    uint32_t at;        /* for the one holder that queues it: where its unread bytes start */
    uint32_t len;       /* and how many they are */
    struct lease *next; /* for that holder's queue */
};

struct buf_pool {
    /* Fixed after init. */
    struct ring *ring;
    enum buf_group group;
    struct slab slab;  /* struct lease, then its memory */
    void *kernel_ring; /* struct io_uring_buf_ring, page-aligned, ring_entries long */
    uint32_t ring_entries;
    uint32_t total;
    uint32_t buffer_size;
    /* Changes in routine work. */
    struct lease **lent; /* by id: the lease the kernel has under it, NULL when the id is free */
    uint16_t *free_ids;  /* stack of ring_entries - kernel_count ids */
    uint32_t spare_count;
    uint32_t kernel_count;
    uint32_t kernel_target; /* how many to keep lent */
    uint32_t kernel_low;    /* the fewest that were lent since buf_pool_calm */
};

/* Registers the group with the ring: by the owning thread, after ring_enable. ring_entries is a
 * power of two; total >= ring_entries. 0 or -errno. */
int buf_pool_init(struct buf_pool *pool, struct ring *ring, enum buf_group group,
                  uint32_t buffer_size, uint32_t total, uint32_t ring_entries);
/* CHECKs that no lease is out. */
void buf_pool_fini(struct buf_pool *pool);
/* Lends spare buffers until the target is reached, small ones only as long as no fewer stay spare;
 * raises the target when `starved`. True when the kernel has some. */
bool buf_pool_refill(struct buf_pool *pool, bool starved);
/* Now and then: halves the target when half of it would have done since the last call. */
void buf_pool_calm(struct buf_pool *pool);
static inline uint32_t buf_pool_leased(const struct buf_pool *pool) {
    return pool->total - pool->spare_count - pool->kernel_count;
}

/* A spare buffer with one reference, NULL when there is none. */
struct lease *buf_take(struct buf_pool *pool);
/* The lease of a completion; one reference. */
struct lease *buf_from_kernel(struct buf_pool *pool, uint32_t id);
static inline void lease_ref(struct lease *lease) { lease->refs++; }
void lease_return(struct lease *lease);
static inline void lease_unref(struct lease *lease) {
    if (--lease->refs == 0) lease_return(lease);
}

#endif
