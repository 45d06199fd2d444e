#include "net/net.h"

#include "ring/op.h"
#include "unit/net/net_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct job {
    struct net_task task;
    struct net_world *world;
    uint32_t runs;
    struct job *defers;  /* another one, when it runs */
    struct job *cancels; /* another one, when it runs */
};

static void job_run(struct net_task *task) {
    struct job *job = LIST_OWNER(task, struct job, task);
    job->runs++;
    if (job->defers) net_defer(&job->world->net, &job->defers->task);
    if (job->cancels) net_task_cancel(&job->cancels->task);
}

static void job_init(struct job *job, struct net_world *world) {
    *job = (struct job){.world = world};
    net_task_init(&job->task, job_run);
}

static struct net_world *world_new(void) {
    struct net_options options = net_world_options();
    return net_world_new(&options);
}

static void a_task_runs_once_in_the_next_turn(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct job job;
    job_init(&job, world);
    net_defer(&world->net, &job.task);
    net_defer(&world->net, &job.task);
    assert_int_equal(job.runs, 0);
    net_world_turn(world);
    net_world_turn(world);
    assert_int_equal(job.runs, 1);
    net_defer(&world->net, &job.task);
    net_world_turn(world);
    assert_int_equal(job.runs, 2);
    net_world_free(world);
}

static void what_a_task_defers_waits_for_the_next_turn(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct job first;
    struct job second;
    job_init(&first, world);
    job_init(&second, world);
    first.defers = &second;
    second.defers = &second; /* for ever: each turn still ends */
    net_defer(&world->net, &first.task);
    net_world_turn(world);
    assert_int_equal(second.runs, 0);
    /* No timer is armed: a turn that slept would never end. */
    wheel_disarm(&world->net.wheel, &world->guard);
    assert_int_equal(net_turn(&world->net), 0);
    assert_int_equal(second.runs, 1);
    net_task_cancel(&second.task);
    net_world_free(world);
}

static void a_task_may_cancel_another_of_its_turn(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct job first;
    struct job second;
    job_init(&first, world);
    job_init(&second, world);
    first.cancels = &second;
    net_defer(&world->net, &first.task);
    net_defer(&world->net, &second.task);
    net_world_turn(world);
    net_world_turn(world);
    assert_int_equal(first.runs, 1);
    assert_int_equal(second.runs, 0);
    net_world_free(world);
}

static void gauges_say_where_the_buffers_are(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct lease *lease = buf_take(&world->net.small);
    net_world_turn(world);
    const struct stat_block *stats = &world->stats;
    assert_int_equal(stat_get(stats, STAT_URING_BUFFERS_LEASED), 1);
    assert_int_equal(stat_get(stats, STAT_URING_BUFFERS_KERNEL) +
                         stat_get(stats, STAT_URING_BUFFERS_SPARE),
                     world->net.small.total + world->net.bulk.total - 1);
    lease_unref(lease);
    net_world_free(world);
}

/* As often as the timer would, without the seconds between. */
static void trim(struct net_world *world, int passes) {
    struct net *net = &world->net;
    for (int i = 0; i < passes; i++) {
        do {
            wheel_disarm(&net->wheel, &net->trim_timer);
            net->trim_timer.on_expire(&net->trim_timer, net->now_ms);
        } while (net->trim_slab != 0);
    }
}

static void memory_not_used_for_two_passes_goes_back(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct net *net = &world->net;
    enum { COUNT = 4096, SIZE = 4096 };
    static struct slab slab;
    static void *objects[COUNT];
    assert_int_equal(slab_init(&slab, "test", SIZE, COUNT), 0);
    net_add_slab(net, &slab);
    for (int i = 0; i < COUNT; i++) {
        objects[i] = slab_acquire(&slab);
        memset(objects[i], 1, SIZE);
    }
    trim(world, 3);
    assert_int_equal(slab.held, COUNT);
    assert_false(wheel_timer_armed(&net->trim_timer));
    for (int i = 0; i < COUNT; i++)
        slab_release(&slab, objects[i]);
    trim(world, 1);
    assert_int_equal(slab.held, COUNT);
    assert_true(wheel_timer_armed(&net->trim_timer)); /* though nothing happens any more */
    trim(world, 1);
    assert_int_equal(slab.held, slab.reserve);
    trim(world, 1);
    assert_false(wheel_timer_armed(&net->trim_timer)); /* a worker at rest sleeps */
    slab_fini(&slab);
    net->slab_count--;
    net_world_free(world);
}

static void a_pass_over_much_memory_stops_for_the_connections(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct net *net = &world->net;
    enum { COUNT = 4096, SIZE = 4096 };
    static struct slab slab;
    static void *objects[COUNT];
    assert_int_equal(slab_init(&slab, "test", SIZE, COUNT), 0);
    net_add_slab(net, &slab);
    for (int i = 0; i < COUNT; i++)
        objects[i] = slab_acquire(&slab);
    for (int i = 0; i < COUNT; i++)
        slab_release(&slab, objects[i]);
    trim(world, 1);
    wheel_disarm(&net->wheel, &net->trim_timer);
    uint32_t before = slab.held;
    int steps = 0;
    do {
        net->trim_timer.on_expire(&net->trim_timer, net->now_ms);
        uint32_t gone = before - slab.held;
        assert_in_range(gone, 0, 2 * 256); /* about a megabyte */
        before = slab.held;
        steps++;
        wheel_disarm(&net->wheel, &net->trim_timer);
    } while (net->trim_slab != 0);
    assert_int_equal(slab.held, slab.reserve);
    assert_true(steps >= 8);
    slab_fini(&slab);
    net->slab_count--;
    net_world_free(world);
}

/* The buffer that begins with this among those lent to the kernel; NULL: none. */
static struct lease *lent_with(const struct buf_pool *pool, const char *text) {
    size_t head_size = pool->slab.object_size - pool->buffer_size;
    for (uint32_t id = 0; id < pool->ring_entries; id++) {
        struct lease *lease = pool->lent[id];
        if (lease && strcmp((char *)lease + head_size, text) == 0) return lease;
    }
    return NULL;
}

static void what_is_received_and_not_read_yet_keeps_its_memory(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct net *net = &world->net;
    struct buf_pool *pool = &net->small;
    int fds[2];
    tcp_pair(fds);
    pool->slab.reserve = 0;
    /* As buffers that were used before, and are lent again. */
    for (uint32_t id = 0; id < pool->ring_entries; id++) {
        if (!pool->lent[id]) continue;
        slab_touch(&pool->slab, slab_index(&pool->slab, pool->lent[id]));
        slab_rest(&pool->slab, slab_index(&pool->slab, pool->lent[id]));
    }
    struct op_recv_options options = {.group = BUF_SMALL};
    peer_send(fds[1], "received");
    op_recv(&net->ring, (struct ring_token){RING_NOTHING, 0, 0}, fds[0], &options);
    /* The queue overflows, so it is submitted in the middle of a turn, and done at once. */
    while (!ring_has_unread(&net->ring))
        op_cancel(&net->ring, (struct ring_token){RING_SEND, 1, 1});
    struct lease *lease = lent_with(pool, "received");
    assert_non_null(lease);
    trim(world, 3);
    assert_ptr_equal(lent_with(pool, "received"), lease);
    assert_true(wheel_timer_armed(&net->trim_timer));
    assert_int_equal(net_turn(net), 0);
    assert_false(ring_has_unread(&net->ring));
    lease_unref(lease);
    trim(world, 3);
    assert_int_equal(pool->slab.held, 0);
    close(fds[0]);
    close(fds[1]);
    net_world_free(world);
}

/* Only what completions bring can have used memory. */
static void a_worker_that_is_idle_arms_no_timer_of_its_own(void **state) {
    (void)state;
    struct net_world *world = world_new();
    net_world_turn(world);
    net_world_turn(world);
    assert_false(wheel_timer_armed(&world->net.trim_timer));
    net_world_free(world);
}

/* So many completions in one turn. */
static void turn_with(struct net_world *world, uint32_t count) {
    struct net *net = &world->net;
    for (uint32_t i = 0; i < count; i++)
        op_cancel(&net->ring, (struct ring_token){RING_SEND, 1, 1});
    net_world_turn(world);
    assert_int_equal(net->run_count, count);
}

/* What the turn after one with so many waits for, if that has asked for it. */
static uint32_t gathered_after(struct net_world *world, uint32_t count) {
    turn_with(world, count);
    net_gather(&world->net);
    net_world_turn(world);
    return world->net.ring.gather_count;
}

static void after_a_full_turn_most_of_as_much_gathers_for_who_shares(void **state) {
    (void)state;
    struct net_world *world = world_new();
    if (!world->net.ring.can_gather) {
        net_world_free(world);
        skip(); /* before Linux 6.12 */
    }
    assert_int_equal(gathered_after(world, 15), 1); /* one alone waits for nobody */
    assert_int_equal(gathered_after(world, 16), 12);
    assert_int_equal(gathered_after(world, 40), 30);
    assert_int_equal(gathered_after(world, 500), 48);
    /* Once each time that it is asked for. */
    turn_with(world, 40);
    net_world_turn(world);
    assert_int_equal(world->net.ring.gather_count, 1);
    net_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_received_and_not_read_yet_keeps_its_memory),
        cmocka_unit_test(a_task_runs_once_in_the_next_turn),
        cmocka_unit_test(what_a_task_defers_waits_for_the_next_turn),
        cmocka_unit_test(a_task_may_cancel_another_of_its_turn),
        cmocka_unit_test(gauges_say_where_the_buffers_are),
        cmocka_unit_test(memory_not_used_for_two_passes_goes_back),
        cmocka_unit_test(a_pass_over_much_memory_stops_for_the_connections),
        cmocka_unit_test(a_worker_that_is_idle_arms_no_timer_of_its_own),
        cmocka_unit_test(after_a_full_turn_most_of_as_much_gathers_for_who_shares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
