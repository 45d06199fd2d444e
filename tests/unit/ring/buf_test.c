#include "ring/buf.h"

#include "ring/op.h"
#include "unit/base/death.h"
#include "unit/net/net_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TOTAL 256

static struct net_world *world_of(uint32_t total) {
    struct net_options options = net_world_options();
    options.small_count = total;
    return net_world_new(&options);
}

static struct net_world *world_new(void) { return world_of(TOTAL); }

static void at_the_start_some_are_lent_and_none_is_leased(void **state) {
    (void)state;
    struct net_world *world = world_new();
    const struct buf_pool *pool = &world->net.small;
    assert_buffers_whole(world);
    assert_int_equal(pool->kernel_count, pool->kernel_target);
    assert_true(pool->kernel_count > 0 && pool->kernel_count < TOTAL);
    assert_int_equal(buf_pool_leased(pool), 0);
    net_world_free(world);
}

static void leases_are_disjoint_and_come_back(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct buf_pool *pool = &world->net.small;
    struct lease *taken[TOTAL];
    uint32_t count = 0;
    for (struct lease *lease; (lease = buf_take(pool)) != NULL;) {
        assert_int_equal(lease->refs, 1);
        assert_int_equal(lease->size, 4096);
        memset(lease->memory, (int)count, lease->size);
        taken[count++] = lease;
    }
    assert_int_equal(count, TOTAL - pool->kernel_count);
    assert_buffers_whole(world);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal((unsigned char)taken[i]->memory[0], i);
        assert_int_equal((unsigned char)taken[i]->memory[4095], i);
        lease_unref(taken[i]);
    }
    assert_int_equal(buf_pool_leased(pool), 0);
    /* The hottest comes first. */
    struct lease *again = buf_take(pool);
    assert_ptr_equal(again, taken[SLAB_HOT - 1]);
    lease_unref(again);
    net_world_free(world);
}

static void a_lease_stays_until_its_last_reference(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct lease *lease = buf_take(&world->net.small);
    lease_ref(lease);
    lease_ref(lease);
    lease_unref(lease);
    lease_unref(lease);
    assert_int_equal(buf_pool_leased(&world->net.small), 1);
    lease_unref(lease);
    assert_int_equal(buf_pool_leased(&world->net.small), 0);
    net_world_free(world);
}

static void only_starvation_raises_the_target(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct buf_pool *pool = &world->net.small;
    uint32_t target = pool->kernel_target;
    for (int i = 0; i < 10; i++)
        assert_true(buf_pool_refill(pool, false));
    assert_int_equal(pool->kernel_target, target);
    for (int i = 0; i < 10; i++)
        assert_true(buf_pool_refill(pool, true));
    assert_int_equal(pool->kernel_target, pool->ring_entries);
    assert_int_equal(pool->kernel_count, pool->ring_entries);
    assert_buffers_whole(world);
    net_world_free(world);
}

/* Were all buffers lent after a lack of them, nothing could be sent any more. */
static void starvation_lends_a_quarter_of_the_buffers_at_most(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct buf_pool *pool = &world->net.small;
    for (int i = 0; i < 20; i++)
        (void)buf_pool_refill(pool, true);
    assert_int_equal(pool->kernel_count, TOTAL / 4);
    net_world_free(world);
}

/* However many have been received into, there are as many to answer with as may still be. */
static void as_many_stay_spare_as_are_lent(void **state) {
    (void)state;
    struct net_world *world = world_new();
    struct buf_pool *pool = &world->net.small;
    struct lease *taken[TOTAL];
    uint32_t count = 0;
    while ((taken[count] = buf_take(pool)) != NULL)
        count++;
    uint32_t lent = pool->kernel_count;
    assert_true(buf_pool_refill(pool, true)); /* some are still there */
    assert_int_equal(pool->kernel_count, lent);
    while (pool->kernel_count != 0) {
        for (uint32_t id = 0; id < pool->ring_entries; id++) {
            /* As if the kernel had received into it; nothing is, so it will not. */
            if (pool->lent[id]) taken[count++] = buf_from_kernel(pool, id);
        }
    }
    assert_false(buf_pool_refill(pool, true));
    for (uint32_t i = 0; i < TOTAL; i++) {
        lease_unref(taken[i]);
        bool any = buf_pool_refill(pool, true);
        assert_int_equal(any, i != 0); /* the only one is for an answer */
        uint32_t half = (i + 1) / 2;
        assert_int_equal(pool->kernel_count, half < TOTAL / 4 ? half : TOTAL / 4);
    }
    assert_buffers_whole(world);
    net_world_free(world);
}

static uint32_t received;
static struct lease *kept[TOTAL];

/* The net's own handlers are for connections: this ring is used without them. */
struct bare {
    struct ring ring;
    struct stat_block stats;
    struct buf_pool pool;
    struct ring_completion last;
};

static void on_recv(void *owner, const struct ring_completion *completion) {
    struct bare *bare = owner;
    bare->last = *completion;
    if (completion->lease) kept[received++] = completion->lease;
}

static struct bare *bare_new(uint32_t total, uint32_t entries) {
    struct bare *bare = aligned_alloc(64, (sizeof *bare + 63) / 64 * 64);
    assert_non_null(bare);
    memset(bare, 0, sizeof *bare);
    struct ring_options options = {16, 256};
    assert_int_equal(ring_init(&bare->ring, &options, &bare->stats), 0);
    ring_handle(&bare->ring, RING_RECV, on_recv, bare);
    assert_int_equal(ring_enable(&bare->ring), 0);
    assert_int_equal(buf_pool_init(&bare->pool, &bare->ring, BUF_BULK, 1024, total, entries), 0);
    received = 0;
    return bare;
}

static void bare_free(struct bare *bare) {
    buf_pool_fini(&bare->pool);
    ring_fini(&bare->ring);
    free(bare);
}

static void turn(struct bare *bare) {
    assert_int_equal(ring_wait(&bare->ring, 20 * 1000000), 0);
    (void)ring_run(&bare->ring); /* what came is in `last` */
}

static void a_receive_brings_its_lease_and_a_lack_ends_it(void **state) {
    (void)state;
    struct bare *bare = bare_new(8, 4);
    assert_true(buf_pool_refill(&bare->pool, false));
    uint32_t lent = bare->pool.kernel_count;
    assert_in_range(lent, 1, 4);
    int fds[2];
    tcp_pair(fds);
    struct op_recv_options options = {.group = BUF_BULK, .multishot = true};
    op_recv(&bare->ring, (struct ring_token){RING_RECV, 1, 1}, fds[0], &options);
    char much[6000];
    memset(much, 'x', sizeof much);
    assert_int_equal(send(fds[1], much, sizeof much, 0), sizeof much);
    for (int i = 0; i < 10 && bare->ring.ops_in_flight != 0; i++)
        turn(bare);
    assert_int_equal(received, lent);
    assert_int_equal(bare->last.result, -ENOBUFS);
    assert_false(bare->last.more);
    assert_null(bare->last.lease);
    assert_int_equal(bare->pool.kernel_count, 0);
    assert_int_equal(buf_pool_leased(&bare->pool), lent);
    for (uint32_t i = 0; i < lent; i++) {
        for (uint32_t j = 0; j < i; j++)
            assert_ptr_not_equal(kept[i], kept[j]);
        assert_int_equal(kept[i]->memory[1023], 'x');
        lease_unref(kept[i]);
    }
    received = 0;
    assert_true(buf_pool_refill(&bare->pool, false));
    options.multishot = false;
    op_recv(&bare->ring, (struct ring_token){RING_RECV, 1, 1}, fds[0], &options);
    turn(bare);
    assert_int_equal(received, 1);
    assert_int_equal(bare->last.result, 1024);
    assert_false(bare->last.more);
    lease_unref(kept[0]);
    close(fds[0]);
    close(fds[1]);
    bare_free(bare);
}

/* Two passes of trimming, with all the kernel is ready to take. */
static void trim_twice(struct buf_pool *pool) {
    for (int i = 0; i < 2; i++) {
        size_t budget = SIZE_MAX;
        assert_true(slab_trim(&pool->slab, &budget));
    }
}

static void memory_goes_back_from_what_is_spare_or_lent_but_not_from_leases(void **state) {
    (void)state;
    struct bare *bare = bare_new(64, 32);
    struct buf_pool *pool = &bare->pool;
    pool->slab.reserve = 0;
    struct lease *taken[64];
    for (uint32_t i = 0; i < 64; i++) {
        taken[i] = buf_take(pool);
        memset(taken[i]->memory, (int)i, taken[i]->size);
    }
    assert_int_equal(pool->slab.held, 64);
    for (uint32_t i = 0; i < 64; i++) {
        if (i != 40) lease_unref(taken[i]);
    }
    for (int i = 0; i < 10; i++)
        (void)buf_pool_refill(pool, true);
    assert_int_equal(pool->kernel_count, 32);
    trim_twice(pool);
    /* Of its neighbours those remain whose pages it shares: 4096 bytes are less than four. */
    assert_in_range(pool->slab.held, 1, 9);
    assert_int_equal(taken[40]->refs, 1);
    for (uint32_t i = 0; i < taken[40]->size; i++)
        assert_int_equal(taken[40]->memory[i], 40);
    lease_unref(taken[40]);
    bare_free(bare);
}

static void the_kernel_receives_into_a_buffer_whose_memory_went_back(void **state) {
    (void)state;
    struct bare *bare = bare_new(8, 4);
    struct buf_pool *pool = &bare->pool;
    pool->slab.reserve = 0;
    assert_true(buf_pool_refill(pool, false));
    int fds[2];
    tcp_pair(fds);
    struct op_recv_options options = {.group = BUF_BULK, .multishot = true};
    op_recv(&bare->ring, (struct ring_token){RING_RECV, 1, 1}, fds[0], &options);
    for (int round = 0; round < 20; round++) {
        char text[1000];
        memset(text, 'a' + round, sizeof text);
        assert_int_equal(send(fds[1], text, sizeof text, 0), sizeof text);
        received = 0;
        for (int i = 0; i < 100 && received == 0; i++)
            turn(bare);
        assert_int_equal(received, 1);
        assert_memory_equal(kept[0]->memory, text, sizeof text);
        assert_true(pool->slab.held > 0);
        lease_unref(kept[0]);
        (void)buf_pool_refill(pool, false);
        trim_twice(pool); /* the receive is armed all the while */
        assert_int_equal(pool->slab.held, 0);
    }
    close(fds[1]);
    for (int i = 0; i < 100 && bare->ring.ops_in_flight != 0; i++)
        turn(bare);
    close(fds[0]);
    bare_free(bare);
}

static void a_target_that_half_would_have_done_for_is_halved(void **state) {
    (void)state;
    struct net_world *world = world_of(1024);
    struct buf_pool *pool = &world->net.small;
    uint32_t first = pool->kernel_target;
    (void)buf_pool_refill(pool, true);
    assert_int_equal(pool->kernel_target, 2 * first);
    buf_pool_calm(pool);
    assert_int_equal(pool->kernel_target, 2 * first); /* there were only half as many before */
    pool->kernel_low = first;                         /* as after a turn that took half of them */
    buf_pool_calm(pool);
    assert_int_equal(pool->kernel_target, 2 * first);
    buf_pool_calm(pool); /* and now none */
    assert_int_equal(pool->kernel_target, first);
    buf_pool_calm(pool);
    assert_int_equal(pool->kernel_target, first);
    /* What is lent stays so until it is used up. */
    assert_int_equal(pool->kernel_count, 2 * first);
    (void)buf_pool_refill(pool, false);
    assert_int_equal(pool->kernel_count, 2 * first);
    net_world_free(world);
}

static void fini_with_a_lease_out(void) {
    struct bare *bare = bare_new(8, 4);
    (void)buf_take(&bare->pool);
    buf_pool_fini(&bare->pool);
}

static void a_lost_lease_is_a_bug(void **state) {
    (void)state;
    assert_true(death_by_abort(fini_with_a_lease_out, NULL, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_the_start_some_are_lent_and_none_is_leased),
        cmocka_unit_test(leases_are_disjoint_and_come_back),
        cmocka_unit_test(a_lease_stays_until_its_last_reference),
        cmocka_unit_test(only_starvation_raises_the_target),
        cmocka_unit_test(starvation_lends_a_quarter_of_the_buffers_at_most),
        cmocka_unit_test(as_many_stay_spare_as_are_lent),
        cmocka_unit_test(a_receive_brings_its_lease_and_a_lack_ends_it),
        cmocka_unit_test(memory_goes_back_from_what_is_spare_or_lent_but_not_from_leases),
        cmocka_unit_test(the_kernel_receives_into_a_buffer_whose_memory_went_back),
        cmocka_unit_test(a_target_that_half_would_have_done_for_is_halved),
        cmocka_unit_test(a_lost_lease_is_a_bug),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
