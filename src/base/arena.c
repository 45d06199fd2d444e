#include "base/arena.h"

#include "base/check.h"

struct arena_chunk {
    struct arena_chunk *next;
    struct slab *home;
};
_Static_assert(sizeof(struct arena_chunk) <= ARENA_CHUNK_OVERHEAD, "the payload begins behind it");
_Static_assert(ARENA_CHUNK_OVERHEAD % ARENA_ALIGN == 0, "the payload is aligned");

int arena_pool_init(struct arena_pool *pool, size_t small_size, uint32_t small_count,
                    size_t large_size, uint32_t large_count) {
    CHECK(small_size > ARENA_CHUNK_OVERHEAD && large_size >= small_size);
    struct arena_pool made = {.chunks_max = ARENA_CHUNKS_MAX};
    int error = slab_init(&made.small, "arena_small", small_size, small_count);
    if (error != 0) return error;
    error = slab_init(&made.large, "arena_large", large_size, large_count);
    if (error != 0) {
        slab_fini(&made.small);
        return error;
    }
    *pool = made;
    return 0;
}

void arena_pool_fini(struct arena_pool *pool) {
    slab_fini(&pool->small);
    slab_fini(&pool->large);
}

/* Makes a new chunk the current one. What was left of the chunk before is lost until the reset. */
static bool add_chunk(struct arena *arena, size_t size) {
    struct arena_pool *pool = arena->pool;
    if (arena->chunks >= pool->chunks_max) return false;
    bool small = arena->chunks == 0 && size <= pool->small.object_size - ARENA_CHUNK_OVERHEAD;
    struct slab *home = small ? &pool->small : &pool->large;
    if (size > home->object_size - ARENA_CHUNK_OVERHEAD) return false;

    struct arena_chunk *chunk = slab_acquire(home);
    if (!chunk) return false;
    *chunk = (struct arena_chunk){.next = arena->first, .home = home};
    arena->first = chunk;
    arena->chunks++;
    arena->cursor = (char *)chunk + ARENA_CHUNK_OVERHEAD;
    arena->end = (char *)chunk + home->object_size;
    return true;
}

static inline void *take(struct arena *arena, size_t rounded) {
    void *memory = arena->cursor;
    arena->cursor += rounded;
    return memory;
}

/* Called last, and not inlined: else every call would save the registers that only this needs. */
static __attribute__((noinline)) void *take_from_chunk(struct arena *arena, size_t rounded) {
    return add_chunk(arena, rounded) ? take(arena, rounded) : NULL;
}

void *arena_alloc(struct arena *arena, size_t size) {
    /* Both ends of the free part stay aligned: a rounded size fits if and only if the size does. */
    size_t rounded;
    if (__builtin_add_overflow(size, (size_t)ARENA_ALIGN - 1, &rounded)) return NULL;
    rounded -= rounded % ARENA_ALIGN;
    bool fits = arena->first && rounded <= (size_t)(arena->end - arena->cursor);
    return fits ? take(arena, rounded) : take_from_chunk(arena, rounded);
}

bool arena_copy(struct arena *arena, struct bytes b, struct bytes *copy) {
    if (b.len == 0) {
        *copy = b.ptr ? BYTES("") : BYTES_NONE;
        return true;
    }
    char *memory = arena_alloc(arena, b.len);
    if (!memory) return false;
    memcpy(memory, b.ptr, b.len);
    *copy = bytes_make(memory, b.len);
    return true;
}

void arena_rewind(struct arena *arena, const struct arena *mark) {
    CHECK(arena->pool == mark->pool && arena->chunks >= mark->chunks);
    while (arena->first != mark->first) {
        struct arena_chunk *chunk = arena->first;
        arena->first = chunk->next;
        struct slab *home = chunk->home;
        slab_release(home, chunk);
    }
    *arena = *mark;
}

void arena_reset(struct arena *arena) {
    struct arena empty = {.pool = arena->pool};
    arena_rewind(arena, &empty);
}
