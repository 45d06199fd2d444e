#include "ring/buf.h"

#include "ring/ring_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/* How many buffers are lent at first. For bulk it stays at that: a turn that receives into more of
 * them than the cache holds has lost the first by the time it sends them. */
#define BUF_TARGET_SMALL 64
#define BUF_TARGET_BULK 2

/* What a lease takes in front of its buffer. It also shifts the starts: buffers of a power-of-two
 * size would all have their hot first lines in the same cache sets. */
#define BUF_LEASE_SIZE 64
_Static_assert(sizeof(struct lease) <= BUF_LEASE_SIZE, "the buffer begins behind it");

/* What trimming leaves of a pool: the buffers lent at first, and some to send. */
#define BUF_RESERVE_SIZE (1024 * 1024)

static void *buf_map(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void buf_free_memory(struct buf_pool *pool) {
    slab_fini(&pool->slab);
    if (pool->kernel_ring)
        munmap(pool->kernel_ring, pool->ring_entries * sizeof(struct io_uring_buf));
    free(pool->lent);
    free(pool->free_ids);
}

static uint32_t buf_target_first(const struct buf_pool *pool) {
    uint32_t first = pool->group == BUF_SMALL ? BUF_TARGET_SMALL : BUF_TARGET_BULK;
    return pool->ring_entries < first ? pool->ring_entries : first;
}

int buf_pool_init(struct buf_pool *pool, struct ring *ring, enum buf_group group,
                  uint32_t buffer_size, uint32_t total, uint32_t ring_entries) {
    CHECK(ring_entries <= BUF_IDS_PER_GROUP && (ring_entries & (ring_entries - 1)) == 0);
    CHECK(total >= ring_entries);
    *pool = (struct buf_pool){.ring = ring,
                              .group = group,
                              .ring_entries = ring_entries,
                              .total = total,
                              .buffer_size = buffer_size,
                              .spare_count = total};
    pool->kernel_target = pool->kernel_low = buf_target_first(pool);
    int error = slab_init(&pool->slab, group == BUF_SMALL ? "buffer_small" : "buffer_bulk",
                          (size_t)buffer_size + BUF_LEASE_SIZE, total);
    if (error < 0) return error;
    pool->slab.reserve = (uint32_t)(BUF_RESERVE_SIZE / pool->slab.object_size);
    pool->kernel_ring = buf_map(ring_entries * sizeof(struct io_uring_buf));
    pool->lent = calloc(ring_entries, sizeof *pool->lent);
    pool->free_ids = calloc(ring_entries, sizeof *pool->free_ids);
    error = -ENOMEM;
    if (!pool->kernel_ring || !pool->lent || !pool->free_ids) goto failed;
    struct io_uring_buf_reg registration = {.ring_addr = (uint64_t)(uintptr_t)pool->kernel_ring,
                                            .ring_entries = ring_entries,
                                            .bgid = (uint16_t)group};
    error = io_uring_register_buf_ring(ring->uring, &registration, 0);
    if (error < 0) goto failed;
    io_uring_buf_ring_init(pool->kernel_ring);
    for (uint32_t i = 0; i < ring_entries; i++)
        pool->free_ids[i] = (uint16_t)(ring_entries - 1 - i);
    ring->pools[group] = pool;
    return 0;
failed:
    buf_free_memory(pool);
    *pool = (struct buf_pool){0};
    return error;
}

void buf_pool_fini(struct buf_pool *pool) {
    CHECK(buf_pool_leased(pool) == 0);
    (void)io_uring_unregister_buf_ring(pool->ring->uring, (int)pool->group); /* the ring ends right
                                                                                after */
    pool->ring->pools[pool->group] = NULL;
    for (uint32_t i = 0; i < pool->ring_entries; i++) {
        if (pool->lent[i]) slab_release(&pool->slab, pool->lent[i]);
    }
    buf_free_memory(pool);
    *pool = (struct buf_pool){0};
}

/* A buffer that is lent or spare may have lost its memory, and the lease in it. */
static struct lease *buf_lease(struct buf_pool *pool, struct lease *lease) {
    slab_touch(&pool->slab, slab_index(&pool->slab, lease));
    *lease = (struct lease){.pool = pool,
                            .memory = (char *)lease + BUF_LEASE_SIZE,
                            .size = pool->buffer_size,
                            .refs = 1};
    return lease;
}

/* The lowest spare one, not touched yet. */
static struct lease *buf_pop(struct buf_pool *pool) {
    uint32_t index = slab_acquire_index(&pool->slab);
    if (index == SLAB_NONE) return NULL;
    CHECK(pool->spare_count > 0);
    pool->spare_count--;
    return slab_at(&pool->slab, index);
}

/* Of the small ones, in which bytes to send are written too, never more are lent than stay spare:
 * however fast others send, one turn receives into half of what is free at most, and the other half
 * is there for answers. */
static bool buf_may_lend(const struct buf_pool *pool) {
    if (pool->kernel_count >= pool->kernel_target) return false;
    return pool->group == BUF_BULK || pool->kernel_count + 2 <= pool->spare_count;
}

bool buf_pool_refill(struct buf_pool *pool, bool starved) {
    if (pool->kernel_count < pool->kernel_low) pool->kernel_low = pool->kernel_count;
    if (starved && pool->kernel_target < pool->ring_entries) pool->kernel_target *= 2;
    int added = 0;
    int mask = io_uring_buf_ring_mask(pool->ring_entries);
    while (buf_may_lend(pool)) {
        struct lease *lease = buf_pop(pool);
        if (!lease) break;
        uint16_t id = pool->free_ids[pool->ring_entries - pool->kernel_count - 1];
        CHECK(!pool->lent[id]);
        pool->lent[id] = lease;
        pool->kernel_count++;
        io_uring_buf_ring_add(pool->kernel_ring, (char *)lease + BUF_LEASE_SIZE, pool->buffer_size,
                              (uint16_t)(id + pool->group * BUF_IDS_PER_GROUP), mask, added++);
    }
    if (added != 0) io_uring_buf_ring_advance(pool->kernel_ring, added);
    return pool->kernel_count != 0;
}

void buf_pool_calm(struct buf_pool *pool) {
    uint32_t half = pool->kernel_target / 2;
    /* One turn takes from what the last has left lent. */
    if (pool->kernel_low > half && half >= buf_target_first(pool)) pool->kernel_target = half;
    pool->kernel_low = pool->kernel_count;
}

struct lease *buf_take(struct buf_pool *pool) {
    struct lease *lease = buf_pop(pool);
    return lease ? buf_lease(pool, lease) : NULL;
}

struct lease *buf_from_kernel(struct buf_pool *pool, uint32_t id) {
    id -= pool->group * BUF_IDS_PER_GROUP;
    CHECK(id < pool->ring_entries);
    struct lease *lease = pool->lent[id];
    CHECK(lease);
    pool->lent[id] = NULL;
    pool->kernel_count--;
    pool->free_ids[pool->ring_entries - pool->kernel_count - 1] = (uint16_t)id;
    return buf_lease(pool, lease);
}

void lease_return(struct lease *lease) {
    struct buf_pool *pool = lease->pool;
    CHECK(lease->refs == 0 && pool->spare_count < pool->total);
    slab_release(&pool->slab, lease);
    pool->spare_count++;
}
