#include "ring/buf.h"

#include "ring/ring_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/* How many buffers are lent at first. For bulk it stays at that: a turn that receives into more of
 * them than the cache holds has lost the first by the time it sends them. */
#define BUF_TARGET_SMALL 64
#define BUF_TARGET_BULK 2

/* Buffers of a power-of-two size all start on the same cache sets; a shifted start spreads their
 * hot first lines. */
#define BUF_STAGGER 64

static void *buf_map(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static size_t buf_stride(const struct buf_pool *pool) {
    return (size_t)pool->buffer_size + BUF_STAGGER;
}

static void buf_free_memory(struct buf_pool *pool) {
    if (pool->memory) munmap(pool->memory, pool->memory_size);
    if (pool->kernel_ring)
        munmap(pool->kernel_ring, pool->ring_entries * sizeof(struct io_uring_buf));
    free(pool->leases);
    free(pool->lent);
    free(pool->free_ids);
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
    uint32_t first = group == BUF_SMALL ? BUF_TARGET_SMALL : BUF_TARGET_BULK;
    pool->kernel_target = ring_entries < first ? ring_entries : first;
    pool->memory_size = buf_stride(pool) * total;
    pool->memory = buf_map(pool->memory_size);
    pool->kernel_ring = buf_map(ring_entries * sizeof(struct io_uring_buf));
    pool->leases = calloc(total, sizeof *pool->leases);
    pool->lent = calloc(ring_entries, sizeof *pool->lent);
    pool->free_ids = calloc(ring_entries, sizeof *pool->free_ids);
    int error = -ENOMEM;
    if (!pool->memory || !pool->kernel_ring || !pool->leases || !pool->lent || !pool->free_ids)
        goto failed;
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
    buf_free_memory(pool);
    *pool = (struct buf_pool){0};
}

/* The hottest spare lease; refs stay 0. */
static struct lease *buf_pop(struct buf_pool *pool) {
    struct lease *lease = pool->spare;
    if (lease) {
        pool->spare = lease->next;
    } else {
        if (pool->fresh == pool->total) return NULL;
        uint32_t index = pool->fresh++;
        lease = &pool->leases[index];
        lease->pool = pool;
        lease->size = pool->buffer_size;
        lease->memory = pool->memory + buf_stride(pool) * index;
    }
    CHECK(lease->refs == 0 && pool->spare_count > 0);
    pool->spare_count--;
    return lease;
}

bool buf_pool_refill(struct buf_pool *pool, bool starved) {
    if (starved && pool->kernel_target < pool->ring_entries) pool->kernel_target *= 2;
    if (pool->kernel_count >= pool->kernel_target) return true;
    int added = 0;
    int mask = io_uring_buf_ring_mask(pool->ring_entries);
    while (pool->kernel_count < pool->kernel_target) {
        struct lease *lease = buf_pop(pool);
        if (!lease) break;
        uint16_t id = pool->free_ids[pool->ring_entries - pool->kernel_count - 1];
        CHECK(!pool->lent[id]);
        pool->lent[id] = lease;
        pool->kernel_count++;
        io_uring_buf_ring_add(pool->kernel_ring, lease->memory, lease->size,
                              (uint16_t)(id + pool->group * BUF_IDS_PER_GROUP), mask, added++);
    }
    if (added != 0) io_uring_buf_ring_advance(pool->kernel_ring, added);
    return pool->kernel_count != 0;
}

struct lease *buf_take(struct buf_pool *pool) {
    struct lease *lease = buf_pop(pool);
    if (lease) lease->refs = 1;
    return lease;
}

struct lease *buf_from_kernel(struct buf_pool *pool, uint32_t id) {
    id -= pool->group * BUF_IDS_PER_GROUP;
    CHECK(id < pool->ring_entries);
    struct lease *lease = pool->lent[id];
    CHECK(lease && lease->refs == 0);
    pool->lent[id] = NULL;
    pool->kernel_count--;
    pool->free_ids[pool->ring_entries - pool->kernel_count - 1] = (uint16_t)id;
    lease->refs = 1;
    return lease;
}

void lease_return(struct lease *lease) {
    struct buf_pool *pool = lease->pool;
    CHECK(lease->refs == 0 && pool->spare_count < pool->total);
    lease->next = pool->spare;
    pool->spare = lease;
    pool->spare_count++;
}
