#include "net/net.h"

#include "unit/net/net_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_runs_once_in_the_next_turn),
        cmocka_unit_test(what_a_task_defers_waits_for_the_next_turn),
        cmocka_unit_test(a_task_may_cancel_another_of_its_turn),
        cmocka_unit_test(gauges_say_where_the_buffers_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
