#include "control/descriptors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "unit/config/load.h"

#define WITH_SERVERS                                                                               \
    "[global]\nworkers = 2\ncpu_affinity = off\nmax_connections = 1000\n"                          \
    "[admin]\nbind = 127.0.0.1:9900\n"                                                             \
    "[listener web]\nbind = 127.0.0.1:8080 127.0.0.1:8081\nupstream = app\n"                       \
    "[upstream app]\nkeepalive = 50\nserver = 127.0.0.1:9001\nserver = 127.0.0.1:9002\n"
#define WITHOUT_SERVERS                                                                            \
    "[global]\nworkers = 2\ncpu_affinity = off\nmax_connections = 1000\n"                          \
    "[listener web]\nbind = 127.0.0.1:8080\nservice = hi\n[service hi]\ntype = respond\n"
#define WITH_LIMITED_SERVERS                                                                       \
    "[global]\nworkers = 2\ncpu_affinity = off\nmax_connections = 1000\n"                          \
    "[listener web]\nbind = 127.0.0.1:8080\nupstream = app\n"                                      \
    "[upstream app]\nkeepalive = 0\nserver = 127.0.0.1:9001 max_connections=30\n"                  \
    "server = 127.0.0.1:9002 max_connections=20\n"

static void all_is_wanted_for_all_clients(void **state) {
    (void)state;
    struct config *config = load_good(WITH_SERVERS);
    struct descriptors plan = descriptors_wanted(config);
    assert_int_equal(plan.clients, 1000);
    assert_int_equal(plan.idle, 100);
    assert_int_equal(plan.admins, DESCRIPTORS_ADMINS_MAX);
    assert_int_equal(plan.refusals, DESCRIPTORS_REFUSALS_MAX);
    assert_int_equal(plan.pipes, DESCRIPTORS_PIPES_MAX);
    /* Clients, a server for each, idle ones, pipes, and the small parts of two workers. */
    uint64_t known = 1000 + 1000 + 100 + 2 * 2 * DESCRIPTORS_PIPES_MAX +
                     2 * DESCRIPTORS_REFUSALS_MAX + 2 * DESCRIPTORS_SPARE_MAX +
                     DESCRIPTORS_ADMINS_MAX + 2 * 3;
    assert_true(plan.sum > known && plan.sum < known + 30);
    config_free(config);
}

static void servers_count_as_far_as_they_can_be_used(void **state) {
    (void)state;
    struct config *config = load_good(WITHOUT_SERVERS);
    struct descriptors plan;
    uint64_t wanted = descriptors_wanted(config).sum;
    assert_true(wanted > 1000 && wanted < 1000 + 4 * DESCRIPTORS_PIPES_MAX + 200);
    assert_true(descriptors_plan(config, 500, &plan));
    assert_true(plan.clients > 400);
    config_free(config);
    config = load_good(WITH_LIMITED_SERVERS);
    assert_true(descriptors_wanted(config).sum - wanted <= 50 + 2 * DESCRIPTORS_SPARE_MAX);
    assert_true(descriptors_plan(config, 500, &plan));
    assert_true(plan.clients > 350);
    config_free(config);
}

/* Each worker may have a connection to each server, however small the limit is. */
static void small_limits_of_servers_count_for_each_worker(void **state) {
    (void)state;
    struct config *config =
        load_good("[global]\nworkers = 4\ncpu_affinity = off\nmax_connections = 1000\n"
                  "[listener web]\nbind = 127.0.0.1:8080\nupstream = app\n"
                  "[upstream app]\nkeepalive = 0\nserver = 127.0.0.1:9001 max_connections=1\n"
                  "server = 127.0.0.1:9002 max_connections=6\n");
    uint64_t some = descriptors_wanted(config).sum;
    config->upstreams[0].server_count = 0;
    assert_int_equal(some - descriptors_wanted(config).sum, 4 + 6);
    config->upstreams[0].server_count = 2;
    config_free(config);
}

static void enough_changes_nothing(void **state) {
    (void)state;
    struct config *config = load_good(WITH_SERVERS);
    struct descriptors wanted = descriptors_wanted(config);
    struct descriptors plan;
    assert_true(descriptors_plan(config, wanted.sum, &plan));
    assert_memory_equal(&plan, &wanted, sizeof plan);
    assert_true(descriptors_plan(config, wanted.sum - 1, &plan));
    assert_true(plan.sum < wanted.sum);
    config_free(config);
}

/* The promise: whatever the limit, what may be open at once stays within it. */
static void no_plan_is_over_its_limit(void **state) {
    (void)state;
    static const char *const texts[] = {WITH_SERVERS, WITHOUT_SERVERS, WITH_LIMITED_SERVERS};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct config *config = load_good(texts[i]);
        bool served = false;
        for (uint64_t limit = 0; limit < 3000; limit++) {
            struct descriptors plan;
            if (!descriptors_plan(config, limit, &plan)) {
                assert_false(served && limit > 64);
                continue;
            }
            served = true;
            assert_true(plan.sum <= limit);
            assert_true(plan.clients > 0 && plan.clients <= 1000);
            assert_true(plan.clients % config->workers == 0);
            assert_true(plan.refusals > 0);
        }
        assert_true(served);
        config_free(config);
    }
}

static void a_hundred_files_serve_some_clients_and_no_pipe(void **state) {
    (void)state;
    struct config *config = load_good(WITH_SERVERS);
    struct descriptors plan;
    assert_true(descriptors_plan(config, 100, &plan));
    assert_true(plan.clients >= 20);
    assert_int_equal(plan.pipes, 0);
    assert_true(plan.admins >= 2);
    assert_false(descriptors_plan(config, 15, &plan));
    config_free(config);
}

static void the_limit_goes_as_far_as_it_may(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        struct rlimit few = {.rlim_cur = 50, .rlim_max = 80};
        struct rlimit now;
        bool good = setrlimit(RLIMIT_NOFILE, &few) == 0 && descriptors_can_raise(70);
        good = good && getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == 50;
        good = good && now.rlim_max == 80 && descriptors_raise(40) == 50;
        good = good && descriptors_raise(70) == 70;
        /* No process may have more than fs.nr_open, whatever it may do else. */
        good = good && !descriptors_can_raise(UINT64_MAX / 2);
        good = good && descriptors_raise(UINT64_MAX / 2) == 80;
        _exit(good ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(descriptors_file_max() > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_wanted_for_all_clients),
        cmocka_unit_test(servers_count_as_far_as_they_can_be_used),
        cmocka_unit_test(small_limits_of_servers_count_for_each_worker),
        cmocka_unit_test(enough_changes_nothing),
        cmocka_unit_test(no_plan_is_over_its_limit),
        cmocka_unit_test(a_hundred_files_serve_some_clients_and_no_pipe),
        cmocka_unit_test(the_limit_goes_as_far_as_it_may),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
