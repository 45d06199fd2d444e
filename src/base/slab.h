/* slab.h: a fixed number of equal objects, acquired and released in O(1), hottest first, then
 * lowest.
 *
 * One slab belongs to one worker (no locking). Its memory is one anonymous mapping reserved at init
 * for all objects and touched only as they are used. The few that were released last are the next
 * (their bytes are still in the processor's cache, and no bitmap has to be written); after them the
 * free object with the lowest index: so few objects at work lie close together, and after a burst
 * the upper part of the mapping falls free as a whole. slab_trim gives such parts back to the
 * kernel. Objects are aligned to 64.
 *
 * What is known of an object stands outside of it, in bitmaps, so that a free object is not
 * touched. Its bytes stay as they were or, once its memory has gone back, read zero. Under
 * AddressSanitizer a released object is poisoned from byte SLAB_OPEN_SIZE on, so a use after
 * release is reported. What may be read of a free object (a mark that says it is free) therefore
 * stands in the first SLAB_OPEN_SIZE bytes and has 0 among its meanings.
 */
#ifndef WEIR_BASE_SLAB_H
#define WEIR_BASE_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLAB_NONE UINT32_MAX
#define SLAB_OPEN_SIZE 16
/* Levels of 64-way bitmaps that cover 2^32 objects. */
#define SLAB_LEVELS 6
/* What slab_trim leaves at the low end, where the next objects come from: a small steady load
 * never asks the kernel for memory again. */
#define SLAB_RESERVE_SIZE (256 * 1024)

/* How many of the objects released last are the next: about as many as are released in a turn with
 * much to do. */
#define SLAB_HOT 64

/* 64 objects, a bit each. */
struct slab_marks {
    uint64_t busy;   /* their bytes matter */
    uint64_t held;   /* used since their memory last went back: the kernel's pages stand behind */
    uint64_t recent; /* busy at the last trim, or since */
};

struct slab {
    /* Fixed after init. */
    const char *name; /* for metrics: a word like "conn" */
    char *memory;
    size_t object_size; /* rounded up to 64 */
    uint64_t inverse;   /* of object_size without its factors of two, modulo 2^64 */
    uint32_t shift;     /* how many those are */
    size_t mapped_size;
    size_t tables_size;
    size_t page_size;
    uint32_t capacity; /* objects */
    uint32_t reserve;  /* objects that slab_trim leaves alone: those below this index */
    uint32_t levels;
    struct slab_marks *marks;
    /* Level 0: the object is taken, or hot. Above: all 64 of the word below are. */
    uint64_t *full[SLAB_LEVELS];
    /* Changes in routine work. `used` and `held` are read by other threads. */
    uint32_t fresh;         /* no object from this index on was ever acquired */
    uint32_t used;          /* objects acquired now */
    uint32_t hot[SLAB_HOT]; /* released, though `full` says taken; the last is next */
    uint32_t hot_count;
    uint32_t held;      /* objects marked as held */
    uint32_t trim_next; /* where a pass of slab_trim goes on: index of slab_marks */
    bool trim_later;    /* this pass has seen what the next may give back */
};

/* 0 or -errno (ENOMEM). A fresh object is zeroed. `name` must outlive the slab. A capacity of 0 is
 * a slab that is always full. */
int slab_init(struct slab *slab, const char *name, size_t object_size, uint32_t capacity);
/* CHECKs that nothing is in use. Harmless on a zeroed slab. */
void slab_fini(struct slab *slab);
/* NULL when all objects are in use. */
void *slab_acquire(struct slab *slab);
/* Nulls the caller's pointer: `object` is a variable or member that holds it. CHECKs that it was
 * acquired. */
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

/* As slab_acquire, for an object whose bytes do not matter until slab_touch: its memory may go back
 * to the kernel until then. SLAB_NONE when all are in use. */
uint32_t slab_acquire_index(struct slab *slab);
void slab_touch(struct slab *slab, uint32_t index);
/* The bytes of an acquired object do not matter any more, until the next slab_touch. */
void slab_rest(struct slab *slab, uint32_t index);

/* Bytes of the slab's own tables that have been touched, to the page. */
size_t slab_tables_held(const struct slab *slab);

/* Gives back the whole pages of what was not busy at the last pass nor since, from where the last
 * call stopped. A call ends after *budget bytes (and takes from it what it has given back) or with
 * the pass. True when the pass is done; slab->trim_later then says whether the next one will find
 * something even if nothing happens until then. */
bool slab_trim(struct slab *slab, size_t *budget);

#endif
