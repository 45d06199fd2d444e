#include "net/pipe.h"

#include "base/stat.h"
#include "unit/net/net_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

struct pool_world {
    struct stat_block stats;
    struct pipe_pool pool;
};

static struct pool_world *pool_new(uint32_t count) {
    struct pool_world *world = aligned_alloc(_Alignof(struct pool_world), sizeof *world);
    assert_non_null(world);
    *world = (struct pool_world){0};
    pipe_pool_init(&world->pool, count, &world->stats);
    return world;
}

static void pool_free(struct pool_world *world) {
    pipe_pool_fini(&world->pool);
    free(world);
}

/* What the gauges say: used and spare. */
static void assert_counted(const struct pool_world *world, uint64_t used, uint64_t spare) {
    assert_int_equal(stat_get(&world->stats, STAT_PIPES_USED), used);
    assert_int_equal(stat_get(&world->stats, STAT_PIPES_SPARE), spare);
}

static void pipes_are_opened_when_needed_and_the_last_used_comes_first(void **state) {
    (void)state;
    struct pool_world *world = pool_new(3);
    assert_counted(world, 0, 0);
    struct pipe *first = pipe_take(&world->pool);
    struct pipe *second = pipe_take(&world->pool);
    assert_counted(world, 2, 0);
    assert_true(fcntl(first->write_fd, F_GETPIPE_SZ) >= PIPE_SIZE);
    assert_true(fcntl(first->read_fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(first->read_fd, F_GETFD) & FD_CLOEXEC);
    pipe_give(&world->pool, first);
    pipe_give(&world->pool, second);
    assert_counted(world, 0, 2);
    assert_ptr_equal(pipe_take(&world->pool), second);
    assert_ptr_equal(pipe_take(&world->pool), first);
    assert_counted(world, 2, 0);
    pipe_give(&world->pool, first);
    pipe_give(&world->pool, second);
    int fd = first->read_fd;
    pool_free(world);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void a_pipe_that_holds_bytes_is_closed(void **state) {
    (void)state;
    struct pool_world *world = pool_new(1);
    struct pipe *pipe = pipe_take(&world->pool);
    assert_int_equal(write(pipe->write_fd, "left", 4), 4);
    pipe->len = 4;
    pipe_give(&world->pool, pipe);
    assert_counted(world, 0, 0);
    pipe = pipe_take(&world->pool);
    assert_non_null(pipe);
    assert_int_equal(pipe->len, 0);
    char byte;
    assert_int_equal(read(pipe->read_fd, &byte, 1), -1);
    assert_int_equal(errno, EAGAIN);
    assert_counted(world, 1, 0);
    pipe_give(&world->pool, pipe);
    pool_free(world);
}

static void with_all_in_use_there_is_none_and_it_is_counted(void **state) {
    (void)state;
    struct pool_world *world = pool_new(1);
    struct pipe *pipe = pipe_take(&world->pool);
    assert_null(pipe_take(&world->pool));
    assert_null(pipe_take(&world->pool));
    assert_int_equal(stat_get(&world->stats, STAT_PIPE_SHORTAGES), 2);
    pipe_give(&world->pool, pipe);
    assert_ptr_equal(pipe_take(&world->pool), pipe);
    pipe_give(&world->pool, pipe);
    pool_free(world);
    world = pool_new(0);
    assert_null(pipe_take(&world->pool));
    pool_free(world);
}

static struct rlimit no_more_fds(void) {
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int next = dup(0);
    close(next);
    struct rlimit now = {.rlim_cur = (rlim_t)next, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    return before;
}

/* One that was closed since must not stand before one that is open. */
static void without_descriptors_the_open_ones_still_serve(void **state) {
    (void)state;
    struct pool_world *world = pool_new(4);
    struct pipe *open = pipe_take(&world->pool);
    struct pipe *dirty = pipe_take(&world->pool);
    pipe_give(&world->pool, open);
    dirty->len = 1;
    pipe_give(&world->pool, dirty);
    int taken[2] = {dup(0), dup(0)};
    struct rlimit before = no_more_fds();
    struct pipe *again = pipe_take(&world->pool);
    struct pipe *none = pipe_take(&world->pool);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_ptr_equal(again, open);
    assert_null(none);
    assert_int_equal(stat_get(&world->stats, STAT_PIPE_SHORTAGES), 1);
    close(taken[0]);
    close(taken[1]);
    struct pipe *opened = pipe_take(&world->pool);
    assert_non_null(opened);
    assert_counted(world, 2, 0);
    pipe_give(&world->pool, opened);
    pipe_give(&world->pool, again);
    pool_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipes_are_opened_when_needed_and_the_last_used_comes_first),
        cmocka_unit_test(a_pipe_that_holds_bytes_is_closed),
        cmocka_unit_test(with_all_in_use_there_is_none_and_it_is_counted),
        cmocka_unit_test(without_descriptors_the_open_ones_still_serve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
