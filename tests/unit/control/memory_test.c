#include "control/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit/control/world.h"

#define ARENA (4 << 20) /* what an arena has beside the connections */

static struct memory_pool pool(const struct worker *worker, const char *name) {
    struct memory_pool pools[MEMORY_POOLS_MAX];
    uint32_t count = memory_pools(worker, pools);
    assert_true(count <= MEMORY_POOLS_MAX);
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(pools[i].name, name) == 0) return pools[i];
    fail_msg("no pool %s", name);
    return pools[0];
}

static uint64_t openssl_max(const struct worker *worker) {
    struct memory_pool of = pool(worker, "openssl");
    assert_int_equal(of.size, 1); /* bytes */
    return of.count;
}

/* A world with room for so many connections with TLS in its first worker. */
#define HANDSHAKES 1000

static struct world *world_of(uint32_t wires) {
    struct world *world = world_new();
    assert_int_equal(slab_init(&world->workers[0]->room.wires.wires, "wire", 64, wires), 0);
    world->workers[0]->room.wires.shaking_max = HANDSHAKES;
    return world;
}

static void end(struct world *world) {
    slab_fini(&world->workers[0]->room.wires.wires);
    world_free(world);
}

static void without_tls_openssl_takes_next_to_nothing(void **state) {
    (void)state;
    struct world *world = world_of(0);
    assert_int_equal(openssl_max(world->workers[0]), ARENA);
    end(world);
}

static void handshakes_of_clients_are_few_at_a_time(void **state) {
    (void)state;
    struct world *world = world_of(10);
    assert_int_equal(openssl_max(world->workers[0]),
                     ARENA + 10 * (TLS_OPEN_MEMORY + TLS_SHAKE_MEMORY));
    end(world);
    world = world_of(5000);
    assert_int_equal(openssl_max(world->workers[0]),
                     ARENA + 5000 * TLS_OPEN_MEMORY + HANDSHAKES * TLS_SHAKE_MEMORY);
    end(world);
}

static void who_dials_may_shake_all_hands_and_is_shown_certificates(void **state) {
    (void)state;
    struct world *world = world_of(5000);
    world->config->upstreams[0].tls.on = true;
    assert_int_equal(openssl_max(world->workers[0]),
                     ARENA + 5000 * (TLS_OPEN_MEMORY + TLS_SHAKE_MEMORY + TLS_CERTIFICATES_MEMORY));
    end(world);
}

static void clients_that_are_asked_show_certificates_too(void **state) {
    (void)state;
    struct world *world = world_of(10);
    struct config_tls tls = {.client_auth = CONFIG_CLIENT_AUTH_OPTIONAL};
    world->config->listeners[0].tls = &tls;
    assert_int_equal(openssl_max(world->workers[0]),
                     ARENA + 10 * (TLS_OPEN_MEMORY + TLS_SHAKE_MEMORY + TLS_CERTIFICATES_MEMORY));
    tls.client_auth = CONFIG_CLIENT_AUTH_OFF;
    assert_int_equal(openssl_max(world->workers[0]),
                     ARENA + 10 * (TLS_OPEN_MEMORY + TLS_SHAKE_MEMORY));
    world->config->listeners[0].tls = NULL;
    end(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_tls_openssl_takes_next_to_nothing),
        cmocka_unit_test(handshakes_of_clients_are_few_at_a_time),
        cmocka_unit_test(who_dials_may_shake_all_hands_and_is_shown_certificates),
        cmocka_unit_test(clients_that_are_asked_show_certificates_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
