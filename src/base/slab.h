/* slab.h: a fixed number of equal objects, acquired and released in O(1), hottest first.
 *
 * One slab belongs to one worker (no locking). Its memory is one anonymous mapping reserved at init
 * for all objects and touched only as they are used: objects never used before are handed out in
 * index order, released ones last-in first-out. Objects are aligned to 64.
 *
 * While an object is free its first 8 bytes belong to the slab. All other bytes stay as they were
 * until it is acquired again. Under AddressSanitizer a released object is poisoned from byte
 * SLAB_OPEN_SIZE on, so a use after release is reported. What may be read of a free object (a
 * generation that a handle is compared with) therefore stands in bytes 8 to 15.
 */
#ifndef WEIR_BASE_SLAB_H
#define WEIR_BASE_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLAB_NONE UINT32_MAX
#define SLAB_OPEN_SIZE 16

struct slab {
    /* Fixed after init. */
    const char *name; /* for metrics: a word like "conn" */
    char *memory;
    size_t object_size; /* rounded up to 64 */
    size_t mapped_size;
    uint32_t capacity; /* objects */
    /* Changes in routine work. */
    uint32_t free_head; /* index, SLAB_NONE when empty */
    uint32_t fresh;     /* objects ever touched: the high-water mark */
    uint32_t used;      /* objects acquired now */
};

/* 0 or -errno (ENOMEM). A fresh object is zeroed. `name` must outlive the slab. A capacity of 0 is
 * a slab that is always full. */
int slab_init(struct slab *slab, const char *name, size_t object_size, uint32_t capacity);
/* CHECKs that nothing is in use. Harmless on a zeroed slab. */
void slab_fini(struct slab *slab);
/* NULL when all objects are in use. */
void *slab_acquire(struct slab *slab);
/* Nulls the caller's pointer: `object` is a variable or member that holds it. */
#define slab_release(slab, object)                                                                 \
    do {                                                                                           \
        slab_release_object((slab), (object));                                                     \
        (object) = NULL;                                                                           \
    } while (0)
void slab_release_object(struct slab *slab, void *object);
/* CHECKs that `object` is one of this slab. */
uint32_t slab_index(const struct slab *slab, const void *object);
/* CHECKs index < fresh. The object may be free. */
void *slab_at(const struct slab *slab, uint32_t index);

#endif
