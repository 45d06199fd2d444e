#include "base/slab.h"

#include "base/check.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define OBJECT_ALIGN 64

#ifdef __has_feature
#define CLANG_ASAN __has_feature(address_sanitizer)
#else
#define CLANG_ASAN 0
#endif

#if CLANG_ASAN || defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>

static void poison(const struct slab *slab, char *object) {
    __asan_poison_memory_region(object + SLAB_OPEN_SIZE, slab->object_size - SLAB_OPEN_SIZE);
}
static void unpoison(const struct slab *slab, char *object) {
    __asan_unpoison_memory_region(object, slab->object_size);
}
#else
static void poison(const struct slab *slab, char *object) {
    (void)slab;
    (void)object;
}
static void unpoison(const struct slab *slab, char *object) {
    (void)slab;
    (void)object;
}
#endif

_Static_assert(SLAB_OPEN_SIZE < OBJECT_ALIGN, "something is left to poison");

static char *object_at(const struct slab *slab, uint32_t index) {
    return slab->memory + (size_t)index * slab->object_size;
}

/* NORESERVE: the mapping is sized for the configured maximum, and most of it is never touched.
 * mmap(2): anonymous memory is zeroed and aligned to a page. */
static void *map(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static uint32_t words_of(uint32_t bits) { return (uint32_t)(((uint64_t)bits + 63) / 64); }

/* Zeroed tables say: everything is free. So they too are touched only as objects are used. */
static int map_tables(struct slab *slab) {
    uint32_t words[SLAB_LEVELS];
    uint32_t bits = slab->capacity;
    size_t total = 0;
    do {
        bits = words[slab->levels++] = words_of(bits);
        total += bits;
    } while (bits > 1);
    slab->tables_size = total * sizeof(uint64_t) + words[0] * sizeof(struct slab_marks);
    char *tables = map(slab->tables_size);
    if (!tables) return -ENOMEM;
    slab->marks = (struct slab_marks *)(void *)tables;
    uint64_t *next = (uint64_t *)(void *)(slab->marks + words[0]);
    for (uint32_t level = 0; level < slab->levels; level++) {
        slab->full[level] = next;
        next += words[level];
    }
    return 0;
}

/* The inverse of an odd number modulo 2^64 by Newton's iteration: `odd` itself is right in the low
 * 3 bits, and each step doubles how many are. */
static uint64_t inverse_of(uint64_t odd) {
    uint64_t inverse = odd;
    for (int bits = 3; bits < 64; bits *= 2)
        inverse *= 2 - odd * inverse;
    return inverse;
}

int slab_init(struct slab *slab, const char *name, size_t object_size, uint32_t capacity) {
    CHECK(object_size > 0);
    size_t rounded;
    size_t size;
    if (__builtin_add_overflow(object_size, OBJECT_ALIGN - 1, &rounded)) return -ENOMEM;
    rounded -= rounded % OBJECT_ALIGN;
    if (__builtin_mul_overflow(rounded, (size_t)capacity, &size)) return -ENOMEM;
    struct slab made = {.name = name,
                        .object_size = rounded,
                        .mapped_size = size,
                        .page_size = (size_t)sysconf(_SC_PAGESIZE),
                        .capacity = capacity,
                        .reserve = (uint32_t)(SLAB_RESERVE_SIZE / rounded)};
    made.shift = (uint32_t)__builtin_ctzll(rounded);
    made.inverse = inverse_of(rounded >> made.shift);
    if (size != 0) {
        made.memory = map(size);
        if (!made.memory) return -ENOMEM;
        if (map_tables(&made) < 0) {
            CHECK(munmap(made.memory, size) == 0);
            return -ENOMEM;
        }
        /* A huge page would take 2 MB for the first object and could not be accounted for. It is
         * only a matter of size where the kernel does not know the word (EINVAL). */
        (void)madvise(made.memory, size, MADV_NOHUGEPAGE);
    }
    *slab = made;
    return 0;
}

void slab_fini(struct slab *slab) {
    CHECK(slab->used == 0);
    if (slab->memory) {
        /* The next mapping at these addresses is somebody else's. */
        for (uint32_t i = 0; i < slab->fresh; i++)
            unpoison(slab, object_at(slab, i));
        CHECK(munmap(slab->memory, slab->mapped_size) == 0);
        CHECK(munmap(slab->marks, slab->tables_size) == 0);
    }
    *slab = (struct slab){0};
}

/* Bits behind the end of a level are 0 and may be found only when all before them are taken: the
 * caller has seen that they are not. */
static uint32_t lowest_free(const struct slab *slab) {
    uint64_t at = 0;
    for (uint32_t level = slab->levels; level-- > 0;)
        at = at * 64 + (uint64_t)__builtin_ctzll(~slab->full[level][at]);
    return (uint32_t)at;
}

/* The lowest free one, for a slab that has one. */
static uint32_t take_lowest(struct slab *slab) {
    uint32_t index = lowest_free(slab);
    uint32_t at = index;
    for (uint32_t level = 0; level < slab->levels; level++) {
        uint64_t *word = &slab->full[level][at / 64];
        *word |= 1ULL << at % 64;
        if (*word != UINT64_MAX) break;
        at /= 64;
    }
    if (index >= slab->fresh) slab->fresh = index + 1;
    return index;
}

uint32_t slab_acquire_index(struct slab *slab) {
    if (slab->used == slab->capacity) return SLAB_NONE;
    uint32_t index = slab->hot_count != 0 ? slab->hot[--slab->hot_count] : take_lowest(slab);
    slab->used++;
    unpoison(slab, object_at(slab, index));
    return index;
}

static inline void touch(struct slab *slab, uint32_t index) {
    struct slab_marks *marks = &slab->marks[index / 64];
    uint64_t bit = 1ULL << index % 64;
    marks->busy |= bit;
    marks->recent |= bit;
    if (marks->held & bit) return;
    marks->held |= bit;
    slab->held++;
}

void slab_touch(struct slab *slab, uint32_t index) { touch(slab, index); }

void slab_rest(struct slab *slab, uint32_t index) {
    slab->marks[index / 64].busy &= ~(1ULL << index % 64);
}

/* What works on the bitmaps is rare, and called last: else every call would save the registers that
 * only this needs. */
static __attribute__((noinline)) void *acquire_cold(struct slab *slab) {
    uint32_t index = slab_acquire_index(slab);
    if (index == SLAB_NONE) return NULL;
    touch(slab, index);
    return object_at(slab, index);
}

void *slab_acquire(struct slab *slab) {
    if (slab->hot_count == 0) return acquire_cold(slab);
    uint32_t index = slab->hot[--slab->hot_count];
    slab->used++;
    unpoison(slab, object_at(slab, index));
    touch(slab, index);
    return object_at(slab, index);
}

/* Not touched since it was acquired, or not acquired at all. */
static void check_acquired(const struct slab *slab, uint32_t index) {
    CHECK(slab->full[0][index / 64] >> index % 64 & 1);
    for (uint32_t i = 0; i < slab->hot_count; i++)
        CHECK(slab->hot[i] != index);
}

/* To the bitmaps. */
static void put_back(struct slab *slab, uint32_t index) {
    uint32_t at = index;
    for (uint32_t level = 0; level < slab->levels; level++) {
        uint64_t *word = &slab->full[level][at / 64];
        bool was_full = *word == UINT64_MAX;
        *word &= ~(1ULL << at % 64);
        if (!was_full) break;
        at /= 64;
    }
}

static __attribute__((noinline)) void release_cold(struct slab *slab, uint32_t index) {
    struct slab_marks *marks = &slab->marks[index / 64];
    uint64_t bit = 1ULL << index % 64;
    if (!(marks->busy & bit)) check_acquired(slab, index);
    marks->busy &= ~bit;
    if (slab->hot_count < SLAB_HOT)
        slab->hot[slab->hot_count++] = index;
    else
        put_back(slab, index);
    slab->used--;
    poison(slab, object_at(slab, index));
}

void slab_release_object(struct slab *slab, void *object) {
    uint32_t index = slab_index(slab, object);
    struct slab_marks *marks = &slab->marks[index / 64];
    uint64_t bit = 1ULL << index % 64;
    if (!(marks->busy & bit) || slab->hot_count == SLAB_HOT) {
        release_cold(slab, index);
        return;
    }
    marks->busy &= ~bit;
    slab->hot[slab->hot_count++] = index;
    slab->used--;
    poison(slab, object);
}

uint32_t slab_index(const struct slab *slab, const void *object) {
    /* Exact division: an offset that is no multiple of the size, or lies below the slab, becomes a
     * large number, as its low bits turn to the top or the product modulo 2^64 is no quotient. */
    uint64_t offset = (uint64_t)((uintptr_t)object - (uintptr_t)slab->memory);
    uint64_t turned = offset >> slab->shift | offset << (64 - slab->shift);
    uint64_t index = turned * slab->inverse;
    CHECK(index < slab->fresh);
    return (uint32_t)index;
}

void *slab_at(const struct slab *slab, uint32_t index) {
    CHECK(index < slab->fresh);
    return object_at(slab, index);
}

size_t slab_tables_held(const struct slab *slab) {
    if (slab->fresh == 0) return 0;
    size_t words = words_of(slab->fresh);
    size_t touched = words * (sizeof(struct slab_marks) + sizeof(uint64_t));
    /* The levels above the first are small, and begin on the page where that one ends, or near. */
    size_t pages = 2 + touched / slab->page_size;
    return pages * slab->page_size < slab->tables_size ? pages * slab->page_size
                                                       : slab->tables_size;
}

/* `count` bits from `first` on; count > 0, and both within a word. */
static uint64_t bits_of(uint32_t first, uint32_t count) {
    return (UINT64_MAX >> (64 - count)) << first;
}

/* Gives back the pages that lie wholly in `count` idle objects from `first` on; returns bytes. The
 * first and the last may share a page with one in use: small ones then stay held, and are no cause
 * to ask the kernel; large ones are gone but for that page. */
static size_t give_back(struct slab *slab, uint32_t first, uint32_t count) {
    size_t size = slab->object_size;
    size_t page = slab->page_size;
    size_t begin = ((size_t)first * size + page - 1) / page * page;
    size_t end = ((size_t)first + count) * size / page * page;
    if (first + count == slab->capacity) end = slab->mapped_size; /* nobody has the rest */
    if (begin >= end) return 0;
    bool large = size >= page;
    uint32_t from = large ? first : (uint32_t)((begin + size - 1) / size);
    uint32_t to = large ? first + count : (uint32_t)(end / size);
    if (from >= to) return 0;
    struct slab_marks *marks = &slab->marks[first / 64];
    uint64_t gone = bits_of(from % 64, to - from) & marks->held;
    if (gone == 0) return 0;
    /* A lack of memory in the kernel (EAGAIN) is the only error there can be: they stay held, and
     * the next pass tries again. */
    if (madvise(slab->memory + begin, end - begin, MADV_DONTNEED) < 0) return 0;
    marks->held &= ~gone;
    slab->held -= (uint32_t)__builtin_popcountll(gone);
    return end - begin;
}

/* All runs of idle objects in 64 of them, which are whole pages of 4096 bytes, as sizes are
 * multiples of 64: where pages are larger, runs of small objects hold none. */
static size_t trim_word(struct slab *slab, uint32_t word) {
    struct slab_marks *marks = &slab->marks[word];
    uint32_t left = slab->capacity - word * 64;
    uint64_t idle = ~(marks->busy | marks->recent) & bits_of(0, left < 64 ? left : 64);
    uint64_t resting = ~marks->busy & marks->recent;
    marks->recent = marks->busy;
    if (word * 64 < slab->reserve) {
        uint32_t kept = slab->reserve - word * 64;
        uint64_t below = bits_of(0, kept < 64 ? kept : 64);
        idle &= ~below;
        resting &= ~below;
    }
    if (resting & marks->held) slab->trim_later = true;
    size_t total = 0;
    while (idle & marks->held) {
        uint32_t first = (uint32_t)__builtin_ctzll(idle);
        uint64_t rest = ~(idle >> first);
        uint32_t count = rest == 0 ? 64 : (uint32_t)__builtin_ctzll(rest);
        if (count > 64 - first) count = 64 - first;
        total += give_back(slab, word * 64 + first, count);
        idle &= ~bits_of(first, count);
    }
    return total;
}

bool slab_trim(struct slab *slab, size_t *budget) {
    if (slab->trim_next == 0) {
        slab->trim_later = false;
        while (slab->hot_count != 0)
            put_back(slab, slab->hot[--slab->hot_count]);
    }
    uint32_t words = words_of(slab->fresh);
    while (slab->trim_next < words) {
        size_t given = trim_word(slab, slab->trim_next++);
        *budget -= given < *budget ? given : *budget;
        if (*budget == 0 && slab->trim_next < words) return false;
    }
    slab->trim_next = 0;
    return true;
}
