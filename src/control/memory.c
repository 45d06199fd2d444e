#include "control/memory.h"

#include "base/log.h"
#include "control/heap.h"
#include "proto/h2.h"
#include "session/h2.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* A pool with more objects for each connection than this has most of them for something else. */
#define MEMORY_PER_CONNECTION_MAX 8

/* What an arena has beside the connections: a run of pages for each size of object, and what the
 * thread's cache keeps, up to 20 pieces of up to 32 KiB each; OpenSSL's errors and generators of
 * random numbers, and the sessions of servers that may be resumed. */
#define MEMORY_ARENA_SIZE (4 << 20)

#define READ(cell) __atomic_load_n(&(cell), __ATOMIC_RELAXED)

/* Of the buffers that are not spare the kernel has some. A worker may be moving one while the two
 * numbers are read. */
static uint64_t leased(const struct buf_pool *pool) {
    uint64_t taken = READ(pool->slab.used);
    uint64_t lent = READ(pool->kernel_count);
    return taken > lent ? taken - lent : 0;
}

static struct memory_pool pool_of(const struct net *net, const struct slab *slab) {
    struct memory_pool pool = {.name = slab->name,
                               .size = slab->object_size,
                               .count = slab->capacity,
                               .used = READ(slab->used),
                               .held = READ(slab->held)};
    if (slab == &net->small.slab) pool.used = leased(&net->small);
    if (slab == &net->bulk.slab) pool.used = leased(&net->bulk);
    return pool;
}

/* Both queues, and the rings of receive buffers: the kernel has all of it from the start. */
static uint64_t ring_size(const struct net *net) {
    uint64_t entries = (uint64_t)READ(net->small.ring_entries) + READ(net->bulk.ring_entries);
    return net->ring.mapped_size + entries * 16;
}

/* A part of what OpenSSL may have: so many of what each takes at most. */
struct memory_term {
    const char *name;
    uint64_t count;
    uint64_t size;
};
#define MEMORY_TERMS_MAX 4

static bool asks_for_certificates(const struct config *config) {
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct config_tls *tls = config->listeners[i].tls;
        if (tls && tls->client_auth != CONFIG_CLIENT_AUTH_OFF) return true;
    }
    return false;
}

static bool dials_tls(const struct config *config) {
    for (uint32_t i = 0; i < config->upstream_count; i++)
        if (config->upstreams[i].tls.on) return true;
    return false;
}

/* Handshakes of clients are few at a time; to servers there may be as many as connections. */
static uint32_t openssl_terms(const struct worker *worker,
                              struct memory_term terms[MEMORY_TERMS_MAX]) {
    uint64_t wires = worker->room.wires.wires.capacity;
    bool dials = dials_tls(worker->config);
    uint64_t most = worker->room.wires.shaking_max;
    uint64_t shakes = dials || wires < most ? wires : most;
    uint32_t count = 0;
    terms[count++] = (struct memory_term){"arena", 1, MEMORY_ARENA_SIZE};
    if (wires == 0) return count;
    terms[count++] = (struct memory_term){"connections", wires, TLS_OPEN_MEMORY};
    terms[count++] = (struct memory_term){"handshakes", shakes, TLS_SHAKE_MEMORY};
    if (dials || asks_for_certificates(worker->config))
        terms[count++] = (struct memory_term){"certificates", wires, TLS_CERTIFICATES_MEMORY};
    return count;
}

static uint64_t less(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

/* Bytes, not objects. What nghttp2 uses is known, the rest that is in use is OpenSSL's. Of pages
 * whose user has gone nobody knows who that was: they are OpenSSL's as far as it may have so many.
 */
static void library_pools(const struct worker *worker, struct memory_pool pools[2]) {
    struct h2_room_memory h2 = h2_room_memory(&worker->room);
    struct memory_term terms[MEMORY_TERMS_MAX];
    uint32_t count = openssl_terms(worker, terms);
    struct heap_arena arena = {0};
    (void)heap_read_arena(READ(worker->arena), &arena); /* unknown: none */
    struct memory_pool openssl = {"openssl", 1, 0, less(arena.allocated, h2.used), 0};
    for (uint32_t i = 0; i < count; i++)
        openssl.count += terms[i].count * terms[i].size;
    uint64_t pages = less(arena.active + arena.dirty, h2.used);
    openssl.held = pages < openssl.count ? pages : openssl.count;
    pools[0] = (struct memory_pool){"nghttp2", 1, h2.max, h2.used, h2.used + pages - openssl.held};
    pools[1] = openssl;
}

uint32_t memory_pools(const struct worker *worker, struct memory_pool pools[MEMORY_POOLS_MAX]) {
    const struct net *net = &worker->net;
    uint32_t slabs = __atomic_load_n(&net->slab_count, __ATOMIC_ACQUIRE);
    uint32_t count = 0;
    uint64_t tables_size = 0, tables_held = 0;
    pools[count++] = (struct memory_pool){"ring", ring_size(net), 1, 1, 1};
    for (uint32_t i = 0; i < slabs; i++) {
        tables_size += net->slabs[i]->tables_size;
        tables_held += slab_tables_held(net->slabs[i]);
        pools[count++] = pool_of(net, net->slabs[i]);
    }
    pools[count++] = (struct memory_pool){"slab_table", 1, tables_size, tables_held, tables_held};
    uint32_t pipes = READ(net->pipes.used);
    pools[count++] = (struct memory_pool){"pipe", PIPE_SIZE, net->pipes.count, pipes, pipes};
    library_pools(worker, pools + count);
    return count + 2;
}

bool memory_process(struct memory_process *process) {
    char text[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t len = read(fd, text, sizeof text);
    (void)close(fd); /* only read */
    if (len <= 0) return false;
    struct bytes rest = bytes_make(text, (size_t)len);
    struct bytes size, resident, files;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (!bytes_split(&rest, ' ', &size) || !bytes_split(&rest, ' ', &resident) ||
        !bytes_split(&rest, ' ', &files))
        return false;
    if (!bytes_to_u64(resident, &process->resident) || !bytes_to_u64(files, &process->files))
        return false;
    process->resident *= page;
    process->files *= page;
    return true;
}

/* How many of a pool there are for each connection; the others are for all together. */
static uint64_t per_connection(const struct memory_pool *pool, uint64_t connections) {
    uint64_t each = pool->size == 1 ? 0 : pool->count / connections;
    return each < MEMORY_PER_CONNECTION_MAX ? each : MEMORY_PER_CONNECTION_MAX;
}

static uint64_t print_term(struct writer *text, const struct memory_pool *pool, uint64_t count) {
    if (count == 0) return 0;
    writer_print(text, "%s%s %llu x %llu", text->len != 0 ? " + " : "", pool->name,
                 (unsigned long long)count, (unsigned long long)pool->size);
    return count * pool->size;
}

/* What the two pools of libraries are made of. */
static void print_libraries(const struct worker *worker) {
    struct h2_room_memory h2 = h2_room_memory(&worker->room);
    struct memory_term terms[MEMORY_TERMS_MAX];
    uint32_t count = openssl_terms(worker, terms);
    char memory[512];
    struct writer text = writer_make(memory, sizeof memory);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        writer_print(&text, "%s%s %llu x %llu", i != 0 ? " + " : "", terms[i].name,
                     (unsigned long long)terms[i].count, (unsigned long long)terms[i].size);
        sum += terms[i].count * terms[i].size;
    }
    log_info("memory of nghttp2 in a worker: sessions %u x %llu + streams %u x %llu, at most %llu "
             "bytes",
             h2.sessions, (unsigned long long)H2_SESSION_MEMORY, h2.streams,
             (unsigned long long)h2.stream_size, (unsigned long long)h2.max);
    log_info("memory of openssl in a worker: %.*s = %llu bytes", BYTES_FMT(writer_bytes(&text)),
             (unsigned long long)sum);
}

void memory_print_budget(const struct worker *worker, uint32_t workers) {
    struct memory_pool pools[MEMORY_POOLS_MAX];
    uint32_t count = memory_pools(worker, pools);
    uint64_t connections = worker->clients_max;
    char of_worker[1024], of_connection[1024];
    struct writer fixed = writer_make(of_worker, sizeof of_worker);
    struct writer each = writer_make(of_connection, sizeof of_connection);
    uint64_t fixed_sum = 0, each_sum = 0, held = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t for_each = per_connection(&pools[i], connections);
        uint64_t others = pools[i].count - for_each * connections;
        each_sum += print_term(&each, &pools[i], for_each);
        fixed_sum += print_term(&fixed, &pools[i], others);
        held += pools[i].held * pools[i].size;
    }
    print_libraries(worker);
    uint64_t all_connections = connections * workers;
    uint64_t sum = workers * fixed_sum + all_connections * each_sum;
    log_info("memory of a worker: %.*s = %llu bytes", BYTES_FMT(writer_bytes(&fixed)),
             (unsigned long long)fixed_sum);
    log_info("memory of a connection: %.*s = %llu bytes", BYTES_FMT(writer_bytes(&each)),
             (unsigned long long)each_sum);
    log_info(
        "memory at most: %u workers x %llu + %llu connections x %llu = %llu bytes (%llu MiB of "
        "addresses, %llu KiB of them in use now)",
        workers, (unsigned long long)fixed_sum, (unsigned long long)all_connections,
        (unsigned long long)each_sum, (unsigned long long)sum, (unsigned long long)(sum >> 20),
        (unsigned long long)(held * workers >> 10));
}
