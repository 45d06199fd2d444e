#include "ring/ring.h"

#include "base/clock.h"
#include "ring/op.h"
#include "unit/base/death.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#define SEEN_MAX 8192

struct world {
    struct ring ring;
    struct stat_block stats;
    uint32_t count;
    struct ring_completion seen[SEEN_MAX];
};

static void on_completion(void *owner, const struct ring_completion *completion) {
    struct world *world = owner;
    assert_true(world->count < SEEN_MAX);
    world->seen[world->count++] = *completion;
}

static struct world *world_new(uint32_t sq_entries) {
    struct world *world = aligned_alloc(64, (sizeof *world + 63) / 64 * 64);
    assert_non_null(world);
    memset(world, 0, sizeof *world);
    struct ring_options options = {.sq_entries = sq_entries, .cq_entries = 4096};
    assert_int_equal(ring_init(&world->ring, &options, &world->stats), 0);
    for (int kind = RING_ACCEPT; kind < RING_KIND_COUNT; kind++)
        ring_handle(&world->ring, (enum ring_kind)kind, on_completion, world);
    assert_int_equal(ring_enable(&world->ring), 0);
    return world;
}

static void world_free(struct world *world) {
    assert_int_equal(world->ring.ops_in_flight, 0);
    ring_fini(&world->ring);
    free(world);
}

static void wait_ns(struct world *world, int64_t ns) {
    assert_int_equal(ring_wait(&world->ring, ns), 0);
    (void)ring_run(&world->ring); /* the count of completions is the world's */
}

static void a_wait_ends_in_time(void **state) {
    (void)state;
    struct world *world = world_new(8);
    uint64_t began_ns = clock_now_ns();
    wait_ns(world, 30 * 1000000);
    uint64_t took_ns = clock_now_ns() - began_ns;
    assert_in_range(took_ns, 29000000, 5000000000);
    began_ns = clock_now_ns();
    for (int i = 0; i < 100; i++)
        wait_ns(world, 0);
    assert_true(clock_now_ns() - began_ns < 100 * 30000000ull);
    assert_int_equal(world->count, 0);
    world_free(world);
}

static void late_ones_are_waited_for_a_moment_and_no_longer(void **state) {
    (void)state;
    struct world *world = world_new(8);
    if (!world->ring.can_gather) {
        world_free(world);
        skip(); /* before Linux 6.12 */
    }
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    ring_gather(&world->ring, 2);
    uint64_t began_ns = clock_now_ns();
    op_send(&world->ring, (struct ring_token){RING_SEND, 1, 1}, fds[0], BYTES("x"), OP_SEND_ALL);
    wait_ns(world, -1); /* for ever: but one is there when the moment is over */
    assert_int_equal(world->count, 1);
    assert_true(clock_now_ns() - began_ns >= RING_GATHER_US * 1000);
    began_ns = clock_now_ns();
    wait_ns(world, 30 * 1000000); /* with none, until the time is over */
    assert_int_equal(world->count, 1);
    assert_true(clock_now_ns() - began_ns >= 29000000);
    ring_gather(&world->ring, 0); /* as one */
    wait_ns(world, 0);
    close(fds[0]);
    close(fds[1]);
    world_free(world);
}

static void a_completion_names_its_owner(void **state) {
    (void)state;
    struct world *world = world_new(8);
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct ring_token token = {RING_SEND, 0xffffff, 0xfffffffe};
    op_send(&world->ring, token, fds[0], BYTES("hello"), OP_SEND_ALL);
    assert_int_equal(world->ring.ops_in_flight, 1);
    assert_int_equal(world->count, 0); /* submitting calls nobody */
    wait_ns(world, -1);
    assert_int_equal(world->count, 1);
    const struct ring_completion *seen = &world->seen[0];
    assert_int_equal(seen->result, 5);
    assert_int_equal(seen->token.kind, RING_SEND);
    assert_int_equal(seen->token.generation, 0xffffff);
    assert_int_equal(seen->token.slot, 0xfffffffe);
    assert_false(seen->more);
    assert_null(seen->lease);
    close(fds[0]);
    close(fds[1]);
    world_free(world);
}

static void waiting_calls_nobody(void **state) {
    (void)state;
    struct world *world = world_new(8);
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    op_send(&world->ring, (struct ring_token){RING_SEND, 1, 1}, fds[0], BYTES("x"), OP_SEND_ALL);
    assert_int_equal(ring_wait(&world->ring, -1), 0);
    assert_int_equal(world->count, 0);
    assert_int_equal(ring_run(&world->ring), 1);
    assert_int_equal(world->count, 1);
    assert_int_equal(ring_run(&world->ring), 0); /* each once */
    close(fds[0]);
    close(fds[1]);
    world_free(world);
}

static int alarm_fd;

static void on_alarm(int number) {
    (void)number;
    assert_int_equal(write(alarm_fd, "x", 1), 1);
}

/* As after SIGSTOP: what has come meanwhile is seen before it is found out how late it is. */
static void a_signal_ends_a_wait_with_what_has_come_by_then(void **state) {
    (void)state;
    const struct sigaction action = {.sa_handler = on_alarm};
    const struct itimerval soon = {.it_value.tv_usec = 20000};
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    for (uint32_t before = 0; before < 2; before++) {
        struct world *world = world_new(8);
        int fds[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        alarm_fd = fds[1];
        op_poll(&world->ring, (struct ring_token){RING_POLL_IN, 1, 1}, fds[0], POLLIN);
        /* What is submitted with the wait hides how that ended. */
        if (before) wait_ns(world, 0);
        assert_int_equal(setitimer(ITIMER_REAL, &soon, NULL), 0);
        wait_ns(world, 60ll * 1000000000);
        assert_int_equal(world->count, 1);
        close(fds[0]);
        close(fds[1]);
        world_free(world);
    }
    assert_true(signal(SIGALRM, SIG_DFL) == on_alarm);
}

static void more_operations_than_the_queue_holds_all_go_out(void **state) {
    (void)state;
    struct world *world = world_new(4);
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
    for (uint32_t i = 0; i < 100; i++) {
        op_send(&world->ring, (struct ring_token){RING_SEND, 1, i}, fds[0], BYTES("x"),
                OP_SEND_NOW);
    }
    assert_int_equal(world->ring.ops_in_flight, 100);
    while (world->count < 100)
        wait_ns(world, -1);
    for (uint32_t i = 0; i < 100; i++)
        assert_true(world->seen[i].result == 1 || world->seen[i].result == -EAGAIN);
    assert_int_equal(stat_get(&world->stats, STAT_URING_SQE), 100);
    assert_int_equal(stat_get(&world->stats, STAT_URING_CQE), 100);
    close(fds[0]);
    close(fds[1]);
    world_free(world);
}

static void one_turn_is_one_enter(void **state) {
    (void)state;
    struct world *world = world_new(64);
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    for (uint32_t i = 0; i < 10; i++)
        op_send(&world->ring, (struct ring_token){RING_SEND, 1, i}, fds[0], BYTES("x"),
                OP_SEND_ALL);
    wait_ns(world, -1);
    assert_int_equal(world->count, 10);
    assert_int_equal(stat_get(&world->stats, STAT_URING_ENTER), 1);
    close(fds[0]);
    close(fds[1]);
    world_free(world);
}

static void a_cancel_ends_its_target_and_is_not_delivered(void **state) {
    (void)state;
    struct world *world = world_new(8);
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct ring_token accepting = {RING_ACCEPT, 3, 7};
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(listen(listening, 4), 0);
    op_accept(&world->ring, accepting, listening, true);
    wait_ns(world, 0);
    op_cancel(&world->ring, accepting);
    assert_int_equal(world->ring.ops_in_flight, 2);
    while (world->ring.ops_in_flight != 0)
        wait_ns(world, -1);
    assert_int_equal(world->count, 1);
    assert_int_equal(world->seen[0].result, -ECANCELED);
    assert_int_equal(world->seen[0].token.slot, 7);
    /* A target that is gone is no error. */
    op_cancel(&world->ring, accepting);
    while (world->ring.ops_in_flight != 0)
        wait_ns(world, -1);
    assert_int_equal(world->count, 1);
    close(listening);
    close(fds[0]);
    close(fds[1]);
    world_free(world);
}

static void init_twice_the_same_kind(void) {
    struct ring ring = {0};
    ring_handle(&ring, RING_SEND, on_completion, NULL);
    ring_handle(&ring, RING_SEND, on_completion, NULL);
}

static void a_kind_has_one_handler(void **state) {
    (void)state;
    assert_true(death_by_abort(init_twice_the_same_kind, NULL, 0));
}

static void a_probe_tells_the_kernel(void **state) {
    (void)state;
    struct ring_features features;
    assert_int_equal(ring_probe(&features), 0);
    assert_true(features.single_issuer);
    assert_true(features.kernel[0] >= '5' && features.kernel[0] <= '9');
}

static void every_error_is_explained_with_its_fix(void **state) {
    (void)state;
    static const struct {
        int error;
        const char *fix;
    } cases[] = {{-ENOSYS, "seccomp"},        {-EPERM, "kernel.io_uring_disabled"},
                 {-EACCES, "seccomp"},        {-EINVAL, "6.1"},
                 {-ENOMEM, "RLIMIT_MEMLOCK"}, {-EMFILE, "RLIMIT_NOFILE"},
                 {-ENFILE, "ulimit -n"},      {-EIO, "io_uring_setup failed"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[400];
        ring_explain_error(cases[i].error, text, sizeof text);
        assert_non_null(strstr(text, cases[i].fix));
        assert_non_null(strstr(text, strerror(-cases[i].error)));
    }
    char tiny[8];
    ring_explain_error(-EPERM, tiny, sizeof tiny);
    assert_int_equal(strlen(tiny), 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wait_ends_in_time),
        cmocka_unit_test(late_ones_are_waited_for_a_moment_and_no_longer),
        cmocka_unit_test(a_completion_names_its_owner),
        cmocka_unit_test(waiting_calls_nobody),
        cmocka_unit_test(a_signal_ends_a_wait_with_what_has_come_by_then),
        cmocka_unit_test(more_operations_than_the_queue_holds_all_go_out),
        cmocka_unit_test(one_turn_is_one_enter),
        cmocka_unit_test(a_cancel_ends_its_target_and_is_not_delivered),
        cmocka_unit_test(a_kind_has_one_handler),
        cmocka_unit_test(a_probe_tells_the_kernel),
        cmocka_unit_test(every_error_is_explained_with_its_fix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
