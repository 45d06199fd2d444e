#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "base/rand.h"
#include "unit/base/death.h"

enum { SMALL = 256, LARGE = 1024 };

static struct arena_pool pool;
static struct arena arena;

static int set_up(void **state) {
    (void)state;
    arena_init(&arena, &pool);
    return arena_pool_init(&pool, SMALL, 4, LARGE, 4);
}

static int tear_down(void **state) {
    (void)state;
    arena_reset(&arena);
    arena_pool_fini(&pool); /* CHECKs that nothing leaked */
    return 0;
}

static void allocations_are_aligned_and_apart(void **state) {
    (void)state;
    for (size_t size = 0; size < 40; size++) {
        char *a = arena_alloc(&arena, size);
        char *b = arena_alloc(&arena, 1);
        assert_non_null(a);
        assert_non_null(b);
        assert_int_equal((uintptr_t)a % ARENA_ALIGN, 0);
        assert_int_equal((uintptr_t)b % ARENA_ALIGN, 0);
        assert_true(b >= a + size);
        arena_reset(&arena);
    }
}

static void the_first_chunk_is_small_and_the_next_large(void **state) {
    (void)state;
    assert_non_null(arena_alloc(&arena, 1));
    assert_non_null(arena_alloc(&arena, SMALL - ARENA_CHUNK_OVERHEAD - ARENA_ALIGN));
    assert_int_equal(pool.small.used, 1);
    assert_int_equal(pool.large.used, 0);
    assert_non_null(arena_alloc(&arena, 1));
    assert_int_equal(pool.small.used, 1);
    assert_int_equal(pool.large.used, 1);
    assert_int_equal(arena.chunks, 2);
}

static void what_does_not_fit_a_small_chunk_starts_large(void **state) {
    (void)state;
    assert_non_null(arena_alloc(&arena, SMALL - ARENA_CHUNK_OVERHEAD + 1));
    assert_int_equal(pool.small.used, 0);
    assert_int_equal(pool.large.used, 1);
}

static void the_largest_allocation_fills_a_large_chunk(void **state) {
    (void)state;
    char *memory = arena_alloc(&arena, LARGE - ARENA_CHUNK_OVERHEAD);
    assert_non_null(memory);
    memset(memory, 1, LARGE - ARENA_CHUNK_OVERHEAD);
    assert_null(arena_alloc(&arena, LARGE - ARENA_CHUNK_OVERHEAD + 1));
    assert_null(arena_alloc(&arena, SIZE_MAX));
    assert_null(arena_alloc(&arena, SIZE_MAX - ARENA_ALIGN));
    assert_int_equal(arena.chunks, 1);
}

static void chunks_max_is_a_limit_and_what_was_allocated_stays(void **state) {
    (void)state;
    pool.chunks_max = 2;
    char *first = arena_alloc(&arena, 8);
    assert_non_null(first);
    memcpy(first, "contents", 8);
    assert_non_null(arena_alloc(&arena, LARGE - ARENA_CHUNK_OVERHEAD));
    assert_null(arena_alloc(&arena, 1));
    struct bytes copy = BYTES("untouched");
    assert_false(arena_copy(&arena, BYTES("more"), &copy));
    assert_true(bytes_equal(copy, BYTES("untouched")));
    assert_memory_equal(first, "contents", 8);
}

static void an_empty_slab_is_null_until_another_arena_resets(void **state) {
    (void)state;
    struct arena others[4];
    for (int i = 0; i < 4; i++) {
        arena_init(&others[i], &pool);
        assert_non_null(arena_alloc(&others[i], 1));
    }
    assert_null(arena_alloc(&arena, 1));
    arena_reset(&others[2]);
    assert_non_null(arena_alloc(&arena, 1));
    for (int i = 0; i < 4; i++)
        arena_reset(&others[i]);
}

static void reset_gives_everything_back_and_may_be_repeated(void **state) {
    (void)state;
    arena_reset(&arena);
    for (int round = 0; round < 3; round++) {
        assert_non_null(arena_alloc(&arena, 10));
        assert_non_null(arena_alloc(&arena, 900));
        assert_non_null(arena_alloc(&arena, 900));
        arena_reset(&arena);
        assert_int_equal(pool.small.used, 0);
        assert_int_equal(pool.large.used, 0);
    }
}

static void copies_are_equal_and_their_own(void **state) {
    (void)state;
    char source[] = "name";
    struct bytes copy;
    assert_true(arena_copy(&arena, bytes_of(source), &copy));
    source[0] = 'x';
    assert_true(bytes_equal(copy, BYTES("name")));
}

static void an_empty_copy_takes_no_chunk_and_none_stays_none(void **state) {
    (void)state;
    struct bytes copy = BYTES("x");
    assert_true(arena_copy(&arena, BYTES(""), &copy));
    assert_non_null(copy.ptr);
    assert_int_equal(copy.len, 0);
    assert_true(arena_copy(&arena, BYTES_NONE, &copy));
    assert_null(copy.ptr);
    assert_int_equal(arena.chunks, 0);
}

static void random_allocations_never_overlap(void **state) {
    (void)state;
    struct rand_state random;
    rand_seed(&random, 2);
    for (int round = 0; round < 500; round++) {
        struct {
            unsigned char *memory;
            size_t size;
        } made[200];
        int count = 0;
        while (count < 200) {
            size_t size = rand_below(&random, 300);
            unsigned char *memory = arena_alloc(&arena, size);
            if (!memory) break;
            memset(memory, count, size);
            made[count].memory = memory;
            made[count++].size = size;
        }
        for (int i = 0; i < count; i++) {
            for (size_t at = 0; at < made[i].size; at++)
                assert_int_equal(made[i].memory[at], i);
        }
        assert_true(arena.chunks <= pool.chunks_max);
        arena_reset(&arena);
    }
}

static void a_pool_that_cannot_be_mapped_is_enomem(void **state) {
    (void)state;
    struct arena_pool other;
    assert_int_equal(arena_pool_init(&other, SMALL, 1, (size_t)1 << 50, 1), -ENOMEM);
    assert_int_equal(arena_pool_init(&other, SIZE_MAX / 4, UINT32_MAX, SIZE_MAX / 4, UINT32_MAX),
                     -ENOMEM);
}

static void fini_before_reset(void) {
    if (!arena_alloc(&arena, 1)) return;
    arena_pool_fini(&pool);
}

static void fini_before_reset_is_caught(void **state) {
    (void)state;
    assert_true(death_by_abort(fini_before_reset, NULL, 0));
}

static void rewind_gives_back_what_came_after_the_mark(void **state) {
    (void)state;
    char *before = arena_alloc(&arena, 16);
    assert_non_null(before);
    memset(before, 'b', 16);
    struct arena mark = arena;
    char *after = arena_alloc(&arena, 16);
    assert_non_null(arena_alloc(&arena, pool.small.object_size)); /* a second chunk */
    assert_int_equal(arena.chunks, 2);
    arena_rewind(&arena, &mark);
    assert_int_equal(arena.chunks, 1);
    assert_int_equal(pool.large.used, 0);
    assert_ptr_equal(arena_alloc(&arena, 16), after);
    assert_memory_equal(before, "bbbbbbbbbbbbbbbb", 16);
    arena_reset(&arena);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(allocations_are_aligned_and_apart),
        TEST(the_first_chunk_is_small_and_the_next_large),
        TEST(what_does_not_fit_a_small_chunk_starts_large),
        TEST(the_largest_allocation_fills_a_large_chunk),
        TEST(chunks_max_is_a_limit_and_what_was_allocated_stays),
        TEST(an_empty_slab_is_null_until_another_arena_resets),
        TEST(reset_gives_everything_back_and_may_be_repeated),
        TEST(copies_are_equal_and_their_own),
        TEST(an_empty_copy_takes_no_chunk_and_none_stays_none),
        TEST(random_allocations_never_overlap),
        TEST(a_pool_that_cannot_be_mapped_is_enomem),
        TEST(rewind_gives_back_what_came_after_the_mark),
        TEST(fini_before_reset_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
