#include "net/pipe.h"

#include "base/check.h"
#include "base/stat.h"

#include <fcntl.h>
#include <unistd.h>

void pipe_pool_init(struct pipe_pool *pool, uint32_t count, struct stat_block *stats) {
    CHECK(count <= PIPES_MAX);
    *pool = (struct pipe_pool){.count = count, .stats = stats};
    for (uint32_t i = 0; i < count; i++) {
        pool->pipes[i] = (struct pipe){.read_fd = -1, .write_fd = -1, .next = pool->closed};
        pool->closed = &pool->pipes[i];
    }
}

static void pipe_count(const struct pipe_pool *pool) {
    stat_set(pool->stats, STAT_PIPES_USED, pool->used);
    stat_set(pool->stats, STAT_PIPES_SPARE, pool->open - pool->used);
}

static void pipe_close(struct pipe *pipe) {
    /* Nothing can be done about an error, and the descriptors are gone anyway. */
    (void)close(pipe->read_fd);
    (void)close(pipe->write_fd);
    pipe->read_fd = pipe->write_fd = -1;
    pipe->len = 0;
}

void pipe_pool_fini(struct pipe_pool *pool) {
    CHECK(pool->used == 0);
    for (uint32_t i = 0; i < pool->count; i++) {
        if (pool->pipes[i].read_fd >= 0) pipe_close(&pool->pipes[i]);
    }
    pool->count = 0;
}

static bool pipe_open(struct pipe *pipe) {
    int fds[2];
    if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) return false;
    pipe->read_fd = fds[0];
    pipe->write_fd = fds[1];
    /* A small pipe would cost more calls than copying. */
    if (fcntl(pipe->write_fd, F_SETPIPE_SZ, PIPE_SIZE) >= PIPE_SIZE) return true;
    pipe_close(pipe);
    return false;
}

struct pipe *pipe_take(struct pipe_pool *pool) {
    struct pipe *pipe = pool->spare;
    if (pipe) {
        pool->spare = pipe->next;
    } else if (pool->closed && pipe_open(pool->closed)) {
        pipe = pool->closed;
        pool->closed = pipe->next;
        pool->open++;
    } else {
        stat_add(pool->stats, STAT_PIPE_SHORTAGES, 1);
        return NULL;
    }
    pool->used++;
    pipe_count(pool);
    return pipe;
}

void pipe_give(struct pipe_pool *pool, struct pipe *pipe) {
    CHECK(pool->used > 0);
    pool->used--;
    struct pipe **stack = &pool->spare;
    if (pipe->len != 0) {
        pipe_close(pipe);
        pool->open--;
        stack = &pool->closed;
    }
    pipe->next = *stack;
    *stack = pipe;
    pipe_count(pool);
}
