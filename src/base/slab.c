#include "base/slab.h"

#include "base/check.h"

#include <errno.h>
#include <sys/mman.h>

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
static void check_not_released(const char *object) {
    CHECK(!__asan_address_is_poisoned(object + SLAB_OPEN_SIZE));
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
static void check_not_released(const char *object) { (void)object; }
#endif

/* What a free object holds in its first bytes. */
struct free_link {
    uint64_t next; /* index or SLAB_NONE */
};
_Static_assert(sizeof(struct free_link) <= SLAB_OPEN_SIZE, "the link is never poisoned");
_Static_assert(SLAB_OPEN_SIZE < OBJECT_ALIGN, "something is left to poison");

static char *object_at(const struct slab *slab, uint32_t index) {
    return slab->memory + (size_t)index * slab->object_size;
}

int slab_init(struct slab *slab, const char *name, size_t object_size, uint32_t capacity) {
    CHECK(object_size > 0);
    size_t rounded;
    size_t size;
    if (__builtin_add_overflow(object_size, OBJECT_ALIGN - 1, &rounded)) return -ENOMEM;
    rounded -= rounded % OBJECT_ALIGN;
    if (__builtin_mul_overflow(rounded, (size_t)capacity, &size)) return -ENOMEM;

    void *memory = NULL;
    if (size != 0) {
        /* NORESERVE: the mapping is sized for the configured maximum, and most of it is never
         * touched. mmap(2): anonymous memory is zeroed and aligned to a page. */
        memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return -errno;
    }
    *slab = (struct slab){
        .name = name,
        .memory = memory,
        .object_size = rounded,
        .mapped_size = size,
        .capacity = capacity,
        .free_head = SLAB_NONE,
    };
    return 0;
}

void slab_fini(struct slab *slab) {
    CHECK(slab->used == 0);
    if (slab->memory) {
        /* The next mapping at these addresses is somebody else's. */
        for (uint32_t i = 0; i < slab->fresh; i++)
            unpoison(slab, object_at(slab, i));
        CHECK(munmap(slab->memory, slab->mapped_size) == 0);
    }
    *slab = (struct slab){.free_head = SLAB_NONE};
}

void *slab_acquire(struct slab *slab) {
    uint32_t index = slab->free_head;
    if (index != SLAB_NONE) {
        char *object = object_at(slab, index);
        slab->free_head = (uint32_t)((const struct free_link *)(void *)object)->next;
        unpoison(slab, object);
        slab->used++;
        return object;
    }
    if (slab->fresh == slab->capacity) return NULL;
    slab->used++;
    return object_at(slab, slab->fresh++);
}

void slab_release_object(struct slab *slab, void *object) {
    uint32_t index = slab_index(slab, object);
    CHECK(slab->used > 0);
    check_not_released(object);
    ((struct free_link *)object)->next = slab->free_head;
    slab->free_head = index;
    slab->used--;
    poison(slab, object);
}

uint32_t slab_index(const struct slab *slab, const void *object) {
    /* An address below the slab wraps around to a large offset. */
    size_t offset = (size_t)((uintptr_t)object - (uintptr_t)slab->memory);
    size_t index = offset / slab->object_size;
    CHECK(index < slab->fresh && offset % slab->object_size == 0);
    return (uint32_t)index;
}

void *slab_at(const struct slab *slab, uint32_t index) {
    CHECK(index < slab->fresh);
    return object_at(slab, index);
}
