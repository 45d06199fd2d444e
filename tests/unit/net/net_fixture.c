#include "unit/net/net_fixture.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TURN_MS 5
/* More than a turn that sleeps takes on an idle machine. */
#define STEP_NS (2 * TURN_MS * 1000000ull)

/* What the linker puts before clock.h's, see net_fixture.h. */
uint64_t __real_clock_now_ns(void);
uint64_t __wrap_clock_now_ns(void);

static uint32_t worlds;
static uint64_t last_ns;
static uint64_t lost_ns;

uint64_t __wrap_clock_now_ns(void) {
    uint64_t now_ns = __real_clock_now_ns() - lost_ns;
    uint64_t step_ns = now_ns - last_ns;
    if (worlds != 0 && step_ns > STEP_NS) {
        lost_ns += step_ns - STEP_NS;
        now_ns = last_ns + STEP_NS;
    }
    last_ns = now_ns;
    return now_ns;
}

static void net_world_on_guard(struct wheel_timer *timer, uint64_t now_ms) {
    (void)timer; /* it has ended the sleep: that is all */
    (void)now_ms;
}

struct net_options net_world_options(void) {
    return (struct net_options){.conns_max = 64,
                                .sq_entries = 64,
                                .cq_entries = 1024,
                                .small_size = 4096,
                                .small_count = 32,
                                .bulk_size = 65536,
                                .bulk_count = 4,
                                .pipes_max = 4,
                                .queue_mark = 16384};
}

struct net_world *net_world_new(const struct net_options *options) {
    struct net_world *world = aligned_alloc(_Alignof(struct net_world), sizeof *world);
    assert_non_null(world);
    memset(world, 0, sizeof *world);
    last_ns = clock_now_ns();
    worlds++;
    assert_int_equal(net_init(&world->net, options, &world->stats), 0);
    assert_int_equal(net_start(&world->net), 0);
    wheel_timer_init(&world->guard, net_world_on_guard);
    return world;
}

void net_world_free(struct net_world *world) {
    conn_close_all(&world->net);
    TURN_UNTIL(world, world->net.ring.ops_in_flight == 0 && world->net.conns.used == 0 &&
                          list_empty(&world->net.tasks));
    wheel_disarm(&world->net.wheel, &world->guard);
    wheel_disarm(&world->net.wheel, &world->net.trim_timer);
    assert_int_equal(world->net.wheel.armed, 0);
    assert_int_equal(world->net.queues.used, 0);
    assert_int_equal(world->net.pumps.used, 0);
    assert_int_equal(world->net.pipes.used, 0);
    assert_int_equal(buf_pool_leased(&world->net.small), 0);
    assert_int_equal(buf_pool_leased(&world->net.bulk), 0);
    assert_int_equal(stat_get(&world->stats, STAT_URING_CQ_OVERFLOW), 0);
    net_fini(&world->net);
    worlds--;
    free(world);
}

void net_world_turn(struct net_world *world) {
    /* The worker's clock stood still while the test did something else. */
    uint64_t now_ms = clock_ms(clock_now_ns());
    wheel_arm(&world->net.wheel, &world->guard, now_ms + TURN_MS);
    assert_int_equal(net_turn(&world->net), 0);
    assert_buffers_whole(world);
}

void net_world_turn_for(struct net_world *world, uint64_t ms) {
    for (uint64_t end_ms = clock_ms(clock_now_ns()) + ms; world->net.now_ms < end_ms;)
        net_world_turn(world);
}

static void assert_pool_whole(const struct buf_pool *pool) {
    uint32_t lent = 0;
    for (uint32_t i = 0; i < pool->ring_entries; i++)
        lent += pool->lent[i] != NULL;
    assert_int_equal(lent, pool->kernel_count);
    const struct slab *slab = &pool->slab;
    assert_int_equal(pool->total - slab->used, pool->spare_count);
    /* What is out has contents and a reference; what is lent or spare has not. */
    uint32_t leased = 0;
    for (uint32_t i = 0; i < slab->fresh; i++) {
        if (!(slab->marks[i / 64].busy >> i % 64 & 1)) continue;
        const struct lease *lease = slab_at(slab, i);
        assert_true(lease->refs != 0 && lease->pool == pool);
        leased++;
    }
    assert_int_equal(leased, buf_pool_leased(pool));
    assert_int_equal(lent + leased + pool->spare_count, pool->total);
}

void assert_buffers_whole(const struct net_world *world) {
    assert_pool_whole(&world->net.small);
    assert_pool_whole(&world->net.bulk);
}

static void no_wait(int fd) {
    assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

int tcp_listen(struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size = sizeof *address;
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (const struct sockaddr *)address, sizeof *address), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &size), 0);
    return fd;
}

void tcp_refused(struct sockaddr_in *address) { close(tcp_listen(address)); }

int tcp_connect(const struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)address, sizeof *address), 0);
    no_wait(fd);
    return fd;
}

void tcp_pair(int fds[2]) {
    struct sockaddr_in address;
    int listening = tcp_listen(&address);
    fds[1] = tcp_connect(&address);
    fds[0] = accept(listening, NULL, NULL);
    assert_true(fds[0] >= 0);
    no_wait(fds[0]);
    close(listening);
}

void tcp_reset(int fd) {
    struct linger now = {.l_onoff = 1};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    close(fd);
}

void peer_send(int fd, const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

ssize_t peer_take(int fd, void *memory, size_t size) {
    ssize_t got = recv(fd, memory, size, MSG_DONTWAIT);
    return got < 0 ? -errno : got;
}

void peer_expect(struct net_world *world, int fd, const char *text) {
    size_t size = strlen(text);
    char *got = calloc(1, size + 1);
    assert_non_null(got);
    size_t len = 0;
    ssize_t part = 0;
    TURN_UNTIL(world, (part = peer_take(fd, got + len, size - len)) != -EAGAIN &&
                          (part <= 0 || (len += (size_t)part) == size));
    assert_string_equal(got, text);
    free(got);
}

void peer_expect_eof(struct net_world *world, int fd) {
    char byte;
    ssize_t got = 0;
    TURN_UNTIL(world, (got = peer_take(fd, &byte, 1)) != -EAGAIN);
    assert_int_equal(got, 0);
}

void peer_expect_reset(struct net_world *world, int fd) {
    char some[4096];
    ssize_t got = 0;
    TURN_UNTIL(world, (got = peer_take(fd, some, sizeof some)) <= 0 && got != -EAGAIN);
    assert_int_equal(got, -ECONNRESET);
}
