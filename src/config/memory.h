/* memory.h: the start-up heap of one configuration: many small allocations, one end.
 *
 * Everything a snapshot points at lies here (but compiled expressions and templates, which their
 * owners free), and so does what reading a file leaves behind. When the system has no memory left
 * the process ends: this is some kilobytes, taken before a worker exists.
 */
#ifndef WEIR_CONFIG_MEMORY_H
#define WEIR_CONFIG_MEMORY_H

#include "base/bytes.h"

struct memory_block;

struct memory {
    struct memory_block *blocks; /* newest first */
};

/* Zeroed, aligned to 16, never NULL. */
void *memory_alloc(struct memory *memory, size_t count, size_t size);
/* NUL-terminated, never NULL. */
char *memory_string(struct memory *memory, struct bytes text);
/* A copy of the bytes; NUL-terminated too, so ptr is never NULL. */
struct bytes memory_bytes(struct memory *memory, struct bytes text);
/* `items` with room for one more than `count`: the same array or a longer copy, the new item
 * zeroed. Arrays must have been built by this function alone, from NULL and 0. */
void *memory_grow(struct memory *memory, void *items, size_t count, size_t size);
void memory_fini(struct memory *memory);

#endif
