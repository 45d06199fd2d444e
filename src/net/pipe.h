/* pipe.h: the pipes that splice(2) moves bytes through, a bounded number of them per worker.
 *
 * A pipe is taken when bytes are about to be moved and given back as soon as it is empty, so few
 * serve many connections. Pipes are opened when first needed and kept open; the one used last is
 * taken first. Its bytes are pages of the sockets, in the kernel: PIPE_SIZE at most each.
 */
#ifndef WEIR_NET_PIPE_H
#define WEIR_NET_PIPE_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes that fit. More gave no further gain; less, more system calls per byte. */
#define PIPE_SIZE (256 * 1024)

#define PIPES_MAX 128

struct pipe {
    int read_fd; /* -1: not open */
    int write_fd;
    uint32_t len; /* bytes in it */
    struct pipe *next;
};

struct stat_block;

struct pipe_pool {
    /* Fixed after init. */
    uint32_t count;
    struct stat_block *stats;
    /* Changes in routine work. */
    struct pipe *spare;  /* open ones, a stack */
    struct pipe *closed; /* not open, a stack */
    uint32_t used;
    uint32_t open; /* used ones and spare ones */
    struct pipe pipes[PIPES_MAX];
};

/* Opens nothing yet. `count`: at most PIPES_MAX; with 0 the pool is always empty. */
void pipe_pool_init(struct pipe_pool *pool, uint32_t count, struct stat_block *stats);
/* CHECKs that all are back. */
void pipe_pool_fini(struct pipe_pool *pool);
/* An empty pipe; NULL when all are in use, or when the system gives none (pipe(7): descriptors,
 * pipe-user-pages-soft). Counted. */
struct pipe *pipe_take(struct pipe_pool *pool);
/* One with bytes left in it is closed: the next user must not find them. */
void pipe_give(struct pipe_pool *pool, struct pipe *pipe);

#endif
