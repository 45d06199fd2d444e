#include "unit/control/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "unit/config/load.h"

static const char text[] = "[global]\n"
                           "workers = 2\n"
                           "cpu_affinity = off\n"
                           "[admin]\n"
                           "bind = 127.0.0.1:9900\n"
                           "[listener web]\n"
                           "bind = 127.0.0.1:8080 127.0.0.1:8081\n"
                           "upstream = app\n"
                           "[route api]\n"
                           "listener = web\n"
                           "path = /api/\n"
                           "upstream = app\n"
                           "[route old]\n"
                           "path = /old\n"
                           "redirect = 301 https://$host$uri\n"
                           "[upstream app]\n"
                           "server = 127.0.0.1:9001\n"
                           "server = 127.0.0.1:9002\n";

static void *zeroed(size_t count, size_t size) {
    void *memory = calloc(count, size);
    assert_non_null(memory);
    return memory;
}

static void make_pools(struct worker *worker) {
    assert_int_equal(slab_init(&worker->net.conns, "conn", 64, 8), 0);
    assert_int_equal(slab_init(&worker->net.queues, "send_queue", 128, 8), 0);
    assert_int_equal(slab_init(&worker->room.sessions, "session", 192, 8), 0);
    assert_int_equal(slab_init(&worker->room.heads, "head", 256, 8), 0);
    assert_int_equal(arena_pool_init(&worker->room.arenas, 1024, 8, 4096, 8), 0);
    assert_int_equal(slab_init(&worker->proxy.exchanges, "exchange", 320, 8), 0);
    assert_int_equal(slab_init(&worker->net.small.slab, "buffer_small", 8256, 100), 0);
    assert_int_equal(slab_init(&worker->net.bulk.slab, "buffer_bulk", 65600, 32), 0);
    struct slab *slabs[] = {
        &worker->net.conns,       &worker->net.queues,        &worker->room.sessions,
        &worker->room.heads,      &worker->room.arenas.small, &worker->room.arenas.large,
        &worker->proxy.exchanges, &worker->net.small.slab,    &worker->net.bulk.slab};
    for (size_t i = 0; i < sizeof slabs / sizeof slabs[0]; i++)
        net_add_slab(&worker->net, slabs[i]);
}

static void make_proxy(struct proxy *proxy, const struct config *config) {
    proxy->config = config;
    proxy->series =
        zeroed((size_t)config->listener_count * (config->route_count + 1), sizeof *proxy->series);
    proxy->fronts = zeroed(config->listener_count, sizeof *proxy->fronts);
    for (uint32_t i = 0; i < config->listener_count; i++) {
        proxy->fronts[i].config = &config->listeners[i];
        proxy->fronts[i].session_ops = &session_h1;
    }
    proxy->upstreams = zeroed(config->upstream_count, sizeof *proxy->upstreams);
    for (uint32_t i = 0; i < config->upstream_count; i++)
        proxy->upstreams[i].servers =
            zeroed(config->upstreams[i].server_count, sizeof(struct server));
}

static void make_listeners(struct worker *worker, const struct config *config) {
    worker->listeners = zeroed(8, sizeof *worker->listeners);
    for (uint32_t i = 0; i < config->listener_count; i++) {
        if (config->listeners[i].is_admin && worker->index != 0) continue;
        for (uint32_t j = 0; j < config->listeners[i].bind_count; j++)
            worker->listeners[worker->opened++].front = &worker->proxy.fronts[i];
    }
}

static void make_tls(struct tls_store *tls) {
    static char name[] = "site";
    static char file[] = "site.pem";
    static struct config_certificate certificate = {.file = {file, 1}};
    static const struct config_tls section = {
        .name = name, .certificates = &certificate, .certificate_count = 1};
    static int64_t not_after = 2000000000;
    static struct tls_source source;
    source =
        (struct tls_source){.subject = tls_subject_of_section(&section), .not_after = &not_after};
    *tls = (struct tls_store){.sources = &source, .source_count = 1};
}

struct world *world_new(void) {
    struct world *world = zeroed(1, sizeof *world);
    world->config = load_good(text);
    assert_int_equal(world->config->workers, WORLD_WORKERS);
    for (uint32_t i = 0; i < WORLD_WORKERS; i++) {
        struct worker *worker = aligned_alloc(_Alignof(struct worker), sizeof *worker);
        assert_non_null(worker);
        memset(worker, 0, sizeof *worker);
        world->workers[i] = worker;
        worker->index = i;
        worker->config = world->config;
        worker->state = WORKER_RUNNING;
        make_pools(worker);
        make_proxy(&worker->proxy, world->config);
        make_listeners(worker, world->config);
    }
    make_tls(&world->tls);
    admin_init(&world->admin, world->config, world->workers, &world->tls);
    return world;
}

static void free_worker(struct worker *worker, const struct config *config) {
    slab_fini(&worker->net.conns);
    slab_fini(&worker->net.queues);
    slab_fini(&worker->room.sessions);
    slab_fini(&worker->room.heads);
    arena_pool_fini(&worker->room.arenas);
    slab_fini(&worker->proxy.exchanges);
    slab_fini(&worker->net.small.slab);
    slab_fini(&worker->net.bulk.slab);
    for (uint32_t i = 0; i < config->upstream_count; i++)
        free(worker->proxy.upstreams[i].servers);
    free(worker->proxy.upstreams);
    free(worker->proxy.fronts);
    free(worker->proxy.series);
    free(worker->listeners);
    free(worker);
}

void world_free(struct world *world) {
    for (uint32_t i = 0; i < WORLD_WORKERS; i++)
        free_worker(world->workers[i], world->config);
    config_free(world->config);
    free(world);
}
