/* arena.h: allocations that end together, in chunks from slabs of one worker.
 *
 * An arena_pool owns two slabs: small chunks (most messages fit one) and large ones (a head at its
 * limit). An arena's first chunk is a small one if the allocation fits it; every later chunk, and
 * one for what does not fit a small chunk, is large. It never takes more than `chunks_max` chunks:
 * then, or when the slab is empty, arena_alloc returns NULL, and the caller ends the exchange with
 * a reason. Nothing is freed one by one; arena_reset gives all chunks back.
 *
 * An arena that holds no chunk costs nothing and needs no fini. The pool outlives its arenas.
 */
#ifndef WEIR_BASE_ARENA_H
#define WEIR_BASE_ARENA_H

#include "base/bytes.h"
#include "base/slab.h"

#define ARENA_ALIGN 16
/* What a chunk keeps for itself of its size. */
#define ARENA_CHUNK_OVERHEAD 16
#define ARENA_CHUNKS_MAX 4

struct arena_pool {
    struct slab small;
    struct slab large;
    uint32_t chunks_max; /* per arena; init sets ARENA_CHUNKS_MAX, the owner may set another */
};

struct arena_chunk;

struct arena {
    struct arena_pool *pool;
    struct arena_chunk *first; /* newest first; NULL when empty */
    char *cursor;              /* the free part of the newest chunk: [cursor, end) */
    char *end;
    uint32_t chunks;
};

/* Chunk sizes are rounded up to 64. 0 or -errno (ENOMEM). */
int arena_pool_init(struct arena_pool *pool, size_t small_size, uint32_t small_count,
                    size_t large_size, uint32_t large_count);
/* CHECKs that every arena was reset. */
void arena_pool_fini(struct arena_pool *pool);

static inline void arena_init(struct arena *arena, struct arena_pool *pool) {
    *arena = (struct arena){.pool = pool};
}
/* Aligned to 16. Not zeroed. NULL when over the limit; what was allocated before stays. */
void *arena_alloc(struct arena *arena, size_t size);
/* A copy of `b` in the arena. false (and *copy untouched) when over the limit. An empty `b` takes
 * no memory and gives an empty copy, whose ptr is NULL if b's was. */
bool arena_copy(struct arena *arena, struct bytes b, struct bytes *copy);
void arena_reset(struct arena *arena);
/* Gives back all that was allocated since `mark`, an earlier copy of the arena's struct. */
void arena_rewind(struct arena *arena, const struct arena *mark);

#endif
