#include "control/heap.h"

#include <stddef.h>

#ifndef WEIR_NO_JEMALLOC

#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <stdio.h>

int heap_begin_arena(uint32_t *arena) {
    unsigned index;
    size_t size = sizeof index;
    if (mallctl("arenas.create", &index, &size, NULL, 0) != 0) return -ENOMEM;
    if (mallctl("thread.arena", NULL, NULL, &index, sizeof index) != 0) return -ENOMEM;
    *arena = index;
    return 0;
}

const uint64_t *heap_thread_allocated(void) {
    const uint64_t *count = NULL;
    size_t size = sizeof count;
    return mallctl("thread.allocatedp", (void *)&count, &size, NULL, 0) == 0 ? count : NULL;
}

void heap_trim(uint32_t arena) {
    char name[64];
    if (arena == HEAP_NO_ARENA) return;
    (void)snprintf(name, sizeof name, "arena.%u.decay", arena); /* fits */
    (void)mallctl(name, NULL, NULL, NULL, 0);                   /* or the pages stay for longer */
}

static bool heap_number(const char *name, uint64_t *value) {
    size_t number = 0;
    size_t size = sizeof number;
    if (mallctl(name, &number, &size, NULL, 0) != 0) return false;
    *value = number;
    return true;
}

bool heap_read(struct heap *heap) {
    uint64_t epoch = 1; /* writing one refreshes the statistics */
    return mallctl("epoch", NULL, NULL, &epoch, sizeof epoch) == 0 &&
           heap_number("stats.allocated", &heap->allocated) &&
           heap_number("stats.active", &heap->active) &&
           heap_number("stats.metadata", &heap->metadata) &&
           heap_number("stats.resident", &heap->resident) &&
           heap_number("stats.mapped", &heap->mapped);
}

static bool heap_arena_number(uint32_t arena, const char *what, uint64_t *value) {
    char name[64];
    (void)snprintf(name, sizeof name, "stats.arenas.%u.%s", arena, what); /* fits */
    return heap_number(name, value);
}

bool heap_read_arena(uint32_t arena, struct heap_arena *use) {
    uint64_t page, small, large, active, dirty;
    if (arena == HEAP_NO_ARENA || !heap_number("arenas.page", &page) ||
        !heap_arena_number(arena, "small.allocated", &small) ||
        !heap_arena_number(arena, "large.allocated", &large) ||
        !heap_arena_number(arena, "pactive", &active) ||
        !heap_arena_number(arena, "pdirty", &dirty))
        return false;
    *use = (struct heap_arena){
        .allocated = small + large, .active = active * page, .dirty = dirty * page};
    return true;
}

#else /* AddressSanitizer has an allocator of its own. */

int heap_begin_arena(uint32_t *arena) {
    (void)arena;
    return 0;
}

const uint64_t *heap_thread_allocated(void) { return NULL; }

void heap_trim(uint32_t arena) { (void)arena; }

bool heap_read(struct heap *heap) {
    (void)heap;
    return false;
}

bool heap_read_arena(uint32_t arena, struct heap_arena *use) {
    (void)arena;
    (void)use;
    return false;
}

#endif
