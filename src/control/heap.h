/* heap.h: jemalloc's memory: of the whole process, and of each worker's own arena.
 *
 * A worker's thread takes all that it asks the heap for from an arena of its own (jemalloc(3),
 * thread.arena). weir itself takes nothing after the start, so this is what OpenSSL and nghttp2
 * have for the worker's connections. Memory goes back to the arena it came from whichever thread
 * frees it, and an arena's numbers do not depend on who does. What the main thread makes for a
 * worker (all of worker_init, contexts of TLS) is the process's, though the worker frees it.
 *
 * Any thread may read. Where jemalloc is not there (under the sanitizers) nothing is known.
 */
#ifndef WEIR_CONTROL_HEAP_H
#define WEIR_CONTROL_HEAP_H

#include <stdbool.h>
#include <stdint.h>

/* That of the main thread: no worker's. */
#define HEAP_NO_ARENA 0

/* By the worker's thread, before it asks for anything. 0 and *arena, or -ENOMEM; without jemalloc
 * *arena stays as it is. */
int heap_begin_arena(uint32_t *arena);
/* Bytes the calling thread has ever taken: lasts as long as the thread. NULL without jemalloc. */
const uint64_t *heap_thread_allocated(void);
/* Has an arena give back to the kernel what it has not needed for 10 s. By itself it does so only
 * when its thread asks for memory: one that is idle never would. */
void heap_trim(uint32_t arena);

/* The heap of the whole process as jemalloc counts it (jemalloc(3), stats.*), in bytes. `resident`
 * is far more than there is, as whole blocks of metadata are in it that are never touched; `active`
 * is a little more. */
struct heap {
    uint64_t allocated;
    uint64_t active;
    uint64_t metadata;
    uint64_t resident;
    uint64_t mapped;
};
/* Counts anew, also for heap_read_arena. False when the allocator cannot tell. */
bool heap_read(struct heap *heap);

struct heap_arena {
    uint64_t allocated;
    uint64_t active; /* whole pages of it, part of heap.active */
    uint64_t dirty;  /* pages it may use again, and gives back after a while */
};
/* As at the last heap_read by anybody. False for HEAP_NO_ARENA, and when it cannot be told. */
bool heap_read_arena(uint32_t arena, struct heap_arena *use);

#endif
