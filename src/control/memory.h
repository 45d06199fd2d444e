/* memory.h: what the process may take, holds and uses, pool by pool, so that the sum can be
 * compared with what the kernel says.
 *
 * A pool is a number of equal objects of one worker: a slab, its receive buffers, its ring. How
 * many there can be is fixed at start; address space is reserved for all, memory comes with their
 * first use and goes back some time after their last (base/slab.h). What nghttp2 and OpenSSL have
 * of a worker's arena (control/heap.h) are two pools more, of bytes: nghttp2's are counted one by
 * one and bounded; for OpenSSL what a connection takes at most (proto/tls.h) is reckoned up. Beside
 * the pools there is only the program itself and the rest of the heap, which stands still after the
 * start. Any thread may read.
 */
#ifndef WEIR_CONTROL_MEMORY_H
#define WEIR_CONTROL_MEMORY_H

#include "control/worker.h"

#define MEMORY_POOLS_MAX (NET_SLABS_MAX + 5)

struct memory_pool {
    const char *name;
    uint64_t size;  /* bytes of one object */
    uint64_t count; /* objects at most */
    uint64_t used;  /* objects in use now */
    uint64_t held;  /* objects with memory behind them: in use, or not long ago */
};

/* Fills in the pools of one worker, in the same order for all; returns how many. A worker that is
 * starting may not have all yet. What libraries hold is that of the last heap_read. */
uint32_t memory_pools(const struct worker *worker, struct memory_pool pools[MEMORY_POOLS_MAX]);

/* The kernel's view, proc(5) statm, in bytes. */
struct memory_process {
    uint64_t resident;
    uint64_t files; /* of these, pages of files: program, libraries, and the rings */
};
/* False when /proc is not there. */
bool memory_process(struct memory_process *process);

/* Logs the sum of all that `workers` equal workers may ever take. */
void memory_print_budget(const struct worker *worker, uint32_t workers);

#endif
