#include "base/slab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/rand.h"
#include "unit/base/death.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifndef WITH_ASAN
#define WITH_ASAN 0
#endif
#if WITH_ASAN
#include <sanitizer/asan_interface.h>
#endif

static struct slab slab;

static void fresh_objects_come_zeroed_aligned_in_index_order(void **state) {
    (void)state;
    assert_int_equal(slab_init(&slab, "test", 65, 10), 0);
    assert_int_equal(slab.object_size, 128);
    static const char zeros[128];
    void *objects[10];
    for (uint32_t i = 0; i < 10; i++) {
        objects[i] = slab_acquire(&slab);
        assert_non_null(objects[i]);
        assert_int_equal((uintptr_t)objects[i] % 64, 0);
        assert_memory_equal(objects[i], zeros, sizeof zeros);
        assert_int_equal(slab_index(&slab, objects[i]), i);
        assert_ptr_equal(slab_at(&slab, i), objects[i]);
    }
    for (uint32_t i = 0; i < 10; i++)
        slab_release(&slab, objects[i]);
    slab_fini(&slab);
}

static void a_full_slab_gives_null_and_recovers(void **state) {
    (void)state;
    assert_int_equal(slab_init(&slab, "test", 64, 2), 0);
    void *a = slab_acquire(&slab);
    void *b = slab_acquire(&slab);
    assert_null(slab_acquire(&slab));
    assert_int_equal(slab.used, 2);
    slab_release(&slab, b);
    b = slab_acquire(&slab);
    assert_non_null(b);
    slab_release(&slab, a);
    slab_release(&slab, b);
    slab_fini(&slab);
}

static void release_nulls_the_pointer_and_the_hottest_comes_first(void **state) {
    (void)state;
    assert_int_equal(slab_init(&slab, "test", 64, 4), 0);
    char *a = slab_acquire(&slab);
    char *b = slab_acquire(&slab);
    char *c = slab_acquire(&slab);
    void *first = a;
    void *second = b;
    slab_release(&slab, a);
    slab_release(&slab, b);
    assert_null(a);
    assert_null(b);
    assert_ptr_equal(slab_acquire(&slab), second);
    assert_ptr_equal(slab_acquire(&slab), first);
    assert_int_equal(slab.fresh, 3);
    slab_release(&slab, first);
    slab_release(&slab, second);
    slab_release(&slab, c);
    slab_fini(&slab);
}

static void behind_the_hottest_comes_the_lowest(void **state) {
    (void)state;
    enum { COUNT = 3 * SLAB_HOT };
    char *objects[COUNT];
    assert_int_equal(slab_init(&slab, "test", 64, COUNT), 0);
    for (uint32_t i = 0; i < COUNT; i++)
        objects[i] = slab_acquire(&slab);
    for (uint32_t i = COUNT; i-- > 0;)
        slab_release(&slab, objects[i]);
    for (uint32_t i = 0; i < SLAB_HOT; i++) {
        objects[i] = slab_acquire(&slab);
        assert_int_equal(slab_index(&slab, objects[i]), COUNT - SLAB_HOT + i);
    }
    for (uint32_t i = SLAB_HOT; i < COUNT; i++) {
        objects[i] = slab_acquire(&slab);
        assert_int_equal(slab_index(&slab, objects[i]), i - SLAB_HOT);
    }
    for (uint32_t i = 0; i < COUNT; i++)
        slab_release(&slab, objects[i]);
    /* A pass of trimming puts the hot ones in order. */
    size_t budget = SIZE_MAX;
    assert_true(slab_trim(&slab, &budget));
    objects[0] = slab_acquire(&slab);
    assert_int_equal(slab_index(&slab, objects[0]), 0);
    slab_release(&slab, objects[0]);
    slab_fini(&slab);
}

/* More than 64 * 64: three levels, with an odd end on each. */
static void every_object_of_a_large_slab_is_found(void **state) {
    (void)state;
    enum { COUNT = 64 * 64 * 2 + 64 + 7 };
    static void *objects[COUNT];
    assert_int_equal(slab_init(&slab, "test", 64, COUNT), 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        objects[i] = slab_acquire(&slab);
        assert_int_equal(slab_index(&slab, objects[i]), i);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_null(slab_acquire(&slab));
        void *only = objects[i];
        slab_release(&slab, only);
        assert_ptr_equal(slab_acquire(&slab), objects[i]);
    }
    for (uint32_t i = COUNT; i-- > 0;)
        slab_release(&slab, objects[i]);
    assert_int_equal(slab.used, 0);
    assert_int_equal(slab_index(&slab, objects[0] = slab_acquire(&slab)), COUNT - SLAB_HOT);
    slab_release(&slab, objects[0]);
    slab_fini(&slab);
}

static void bytes_survive_release(void **state) {
    (void)state;
    assert_int_equal(slab_init(&slab, "test", 64, 1), 0);
    char *object = slab_acquire(&slab);
    memset(object, 'x', 64);
    slab_release(&slab, object);
    /* Readable while free, under AddressSanitizer too. */
    const char *open = slab_at(&slab, 0);
    for (size_t i = 0; i < SLAB_OPEN_SIZE; i++)
        assert_int_equal(open[i], 'x');
    object = slab_acquire(&slab);
    for (size_t i = 0; i < 64; i++)
        assert_int_equal(object[i], 'x');
    slab_release(&slab, object);
    slab_fini(&slab);
}

static void no_capacity_is_always_full(void **state) {
    (void)state;
    assert_int_equal(slab_init(&slab, "test", 64, 0), 0);
    assert_null(slab_acquire(&slab));
    slab_fini(&slab);
    slab_fini(&slab);
}

static void too_much_is_enomem(void **state) {
    (void)state;
    assert_int_equal(slab_init(&slab, "test", SIZE_MAX / 4, UINT32_MAX), -ENOMEM);
    assert_int_equal(slab_init(&slab, "test", SIZE_MAX - 1, 1), -ENOMEM);
    assert_int_equal(slab_init(&slab, "test", (size_t)1 << 50, 1), -ENOMEM);
}

static void a_big_slab_costs_nothing_until_used(void **state) {
    (void)state;
    assert_int_equal(slab_init(&slab, "test", 1 << 20, 1 << 16), 0); /* 64 GB */
    char *object = slab_acquire(&slab);
    assert_non_null(object);
    object[(1 << 20) - 1] = 1;
    slab_release(&slab, object);
    slab_fini(&slab);
}

static void random_use_never_hands_out_an_object_twice(void **state) {
    (void)state;
    enum { COUNT = 100 };
    struct rand_state random;
    rand_seed(&random, 1);
    assert_int_equal(slab_init(&slab, "test", 200, COUNT), 0);
    char *held[COUNT] = {0};
    uint32_t used = 0;
    for (int i = 0; i < 20000; i++) {
        uint32_t slot = rand_below(&random, COUNT);
        if (held[slot]) {
            for (size_t at = 0; at < 200; at++)
                assert_int_equal(held[slot][at], (char)slot);
            slab_release(&slab, held[slot]);
            used--;
        } else {
            held[slot] = slab_acquire(&slab);
            assert_non_null(held[slot]);
            memset(held[slot], (int)slot, 200);
            used++;
        }
        assert_int_equal(slab.used, used);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        if (held[i]) slab_release(&slab, held[i]);
    }
    slab_fini(&slab);
}

/* One pass, all at once. */
static void pass(void) {
    size_t budget = SIZE_MAX;
    assert_true(slab_trim(&slab, &budget));
}

static uint32_t resident_pages(void) {
    static unsigned char pages[16384];
    uint32_t count = 0;
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    assert_true(slab.mapped_size / size < sizeof pages);
    assert_int_equal(mincore(slab.memory, slab.mapped_size, pages), 0);
    for (size_t i = 0; i < (slab.mapped_size + size - 1) / size; i++)
        count += pages[i] & 1;
    return count;
}

enum { MANY = 1000 };
static char *many[MANY];

static void acquire_many(size_t object_size) {
    assert_int_equal(slab_init(&slab, "test", object_size, MANY), 0);
    for (uint32_t i = 0; i < MANY; i++) {
        many[i] = slab_acquire(&slab);
        memset(many[i], 1 + (int)i % 100, object_size);
    }
}

static void what_was_idle_between_two_passes_goes_back_and_reads_zero(void **state) {
    (void)state;
    acquire_many(4096);
    assert_int_equal(slab.reserve, SLAB_RESERVE_SIZE / 4096);
    for (uint32_t i = 0; i < MANY; i++)
        slab_release(&slab, many[i]);
    pass();
    assert_int_equal(slab.held, MANY); /* it was in use a moment ago */
    assert_true(slab.trim_later);
    pass();
    assert_false(slab.trim_later);
    assert_int_equal(slab.held, slab.reserve);
    assert_int_equal(resident_pages(), slab.reserve);
    for (uint32_t i = 0; i < MANY; i++) {
        many[i] = slab_acquire(&slab);
        assert_int_equal(many[i][4095], i < slab.reserve ? 1 + i % 100 : 0);
        assert_int_equal(slab.held, i < slab.reserve ? slab.reserve : i + 1);
    }
    for (uint32_t i = 0; i < MANY; i++)
        slab_release(&slab, many[i]);
    slab_fini(&slab);
}

static void what_is_in_use_stays_as_it_is(void **state) {
    (void)state;
    static const size_t sizes[] = {64, 320, 3968, 4096, 8256, 20032};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        acquire_many(sizes[s]);
        slab.reserve = 0;
        for (uint32_t i = 0; i < MANY; i++) {
            if (i % 97 != 5) slab_release(&slab, many[i]);
        }
        pass();
        uint32_t before = resident_pages();
        pass();
        assert_true(sizes[s] == 64 || resident_pages() < before / 2);
        assert_true(slab.held >= slab.used);
        for (uint32_t i = 5; i < MANY; i += 97) {
            for (size_t at = 0; at < sizes[s]; at++)
                assert_int_equal(many[i][at], 1 + i % 100);
            slab_release(&slab, many[i]);
        }
        pass();
        pass();
        assert_int_equal(slab.held, 0);
        assert_int_equal(resident_pages(), 0);
        slab_fini(&slab);
    }
}

static void what_was_used_between_two_passes_stays(void **state) {
    (void)state;
    acquire_many(4096);
    slab.reserve = 0;
    for (uint32_t i = 0; i < MANY; i++)
        slab_release(&slab, many[i]);
    pass();
    for (uint32_t i = 0; i < 10; i++)
        many[i] = slab_acquire(&slab);
    for (uint32_t i = 0; i < 10; i++)
        slab_release(&slab, many[i]);
    pass();
    assert_int_equal(slab.held, 10);
    assert_true(slab.trim_later);
    slab_fini(&slab);
}

static void a_pass_goes_on_where_its_budget_ended(void **state) {
    (void)state;
    acquire_many(4096);
    slab.reserve = 0;
    for (uint32_t i = 0; i < MANY; i++)
        slab_release(&slab, many[i]);
    pass();
    uint32_t calls = 0;
    for (bool done = false; !done; calls++) {
        uint32_t before = slab.held;
        size_t budget = 64 * 4096;
        done = slab_trim(&slab, &budget);
        assert_in_range(before - slab.held, 1, 64);
    }
    assert_int_equal(calls, (MANY + 63) / 64);
    assert_int_equal(slab.held, 0);
    slab_fini(&slab);
}

/* Acquired, but nothing is in it that matters. */
static void an_object_not_touched_holds_no_memory(void **state) {
    (void)state;
    assert_int_equal(slab_init(&slab, "test", 4096, 64), 0);
    slab.reserve = 0;
    uint32_t indexes[64];
    for (uint32_t i = 0; i < 64; i++)
        indexes[i] = slab_acquire_index(&slab);
    assert_int_equal(slab_acquire_index(&slab), SLAB_NONE);
    assert_int_equal(slab.held, 0);
    memset(slab_at(&slab, 7), 'x', 4096); /* as the kernel may do before it says so */
    slab_touch(&slab, 7);
    assert_int_equal(slab.held, 1);
    pass();
    pass();
    assert_int_equal(slab.held, 1);
    assert_int_equal(((char *)slab_at(&slab, 7))[4095], 'x');
    for (uint32_t i = 0; i < 64; i++)
        slab_release_object(&slab, slab_at(&slab, indexes[i]));
    pass();
    pass();
    assert_int_equal(slab.held, 0);
    slab_fini(&slab);
}

static void random_use_with_trimming_loses_no_byte(void **state) {
    (void)state;
    static const size_t sizes[] = {64, 200, 3968, 8256, 20000};
    struct rand_state random;
    rand_seed(&random, 7);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        enum { COUNT = 300 };
        static char *held[COUNT];
        memset(held, 0, sizeof held);
        assert_int_equal(slab_init(&slab, "test", sizes[s], COUNT), 0);
        slab.reserve = 0;
        for (int i = 0; i < 6000; i++) {
            /* Waves, so that whole ranges fall idle. */
            uint32_t slot = rand_below(&random, i / 1000 % 2 ? COUNT : COUNT / 10);
            bool more = i / 500 % 2 == 0;
            if (held[slot] && !more) {
                for (size_t at = 0; at < sizes[s]; at += 61)
                    assert_int_equal(held[slot][at], (char)slot);
                assert_int_equal(held[slot][sizes[s] - 1], (char)slot);
                slab_release(&slab, held[slot]);
            } else if (!held[slot] && more) {
                held[slot] = slab_acquire(&slab);
                memset(held[slot], (int)slot, sizes[s]);
            }
            size_t budget = rand_below(&random, 200000);
            if (i % 50 == 0) (void)slab_trim(&slab, &budget);
        }
        for (uint32_t i = 0; i < COUNT; i++) {
            if (held[i]) slab_release(&slab, held[i]);
        }
        pass();
        pass();
        pass();
        assert_int_equal(slab.held, 0);
        slab_fini(&slab);
    }
}

static void fini_with_an_object_in_use(void) {
    if (slab_init(&slab, "test", 64, 2) != 0) return;
    (void)slab_acquire(&slab);
    slab_fini(&slab);
}

static void release_of_a_pointer_into_an_object(void) {
    if (slab_init(&slab, "test", 64, 2) != 0) return;
    char *object = slab_acquire(&slab);
    slab_release_object(&slab, object + 8);
}

static void release_of_a_foreign_pointer(void) {
    static _Alignas(64) char foreign[64];
    if (slab_init(&slab, "test", 64, 2) != 0) return;
    (void)slab_acquire(&slab);
    slab_release_object(&slab, foreign);
}

static void at_an_index_never_used(void) {
    if (slab_init(&slab, "test", 64, 2) != 0) return;
    (void)slab_acquire(&slab);
    (void)slab_at(&slab, 1);
}

static void released_twice(void) {
    if (slab_init(&slab, "test", 64, 2) != 0) return;
    void *object = slab_acquire(&slab);
    (void)slab_acquire(&slab);
    slab_release_object(&slab, object);
    slab_release_object(&slab, object);
}

/* A pass of trimming makes it one of many that are free. */
static void released_twice_with_a_pass_between(void) {
    if (slab_init(&slab, "test", 64, 2) != 0) return;
    void *object = slab_acquire(&slab);
    (void)slab_acquire(&slab);
    slab_release_object(&slab, object);
    size_t budget = SIZE_MAX;
    (void)slab_trim(&slab, &budget);
    slab_release_object(&slab, object);
}

static void wrong_use_is_caught(void **state) {
    (void)state;
    assert_true(death_by_abort(fini_with_an_object_in_use, NULL, 0));
    assert_true(death_by_abort(release_of_a_pointer_into_an_object, NULL, 0));
    assert_true(death_by_abort(release_of_a_foreign_pointer, NULL, 0));
    assert_true(death_by_abort(at_an_index_never_used, NULL, 0));
    assert_true(death_by_abort(released_twice, NULL, 0));
    assert_true(death_by_abort(released_twice_with_a_pass_between, NULL, 0));
}

#if WITH_ASAN
static void free_objects_are_poisoned(void **state) {
    (void)state;
    assert_int_equal(slab_init(&slab, "test", 100, 2), 0);
    char *object = slab_acquire(&slab);
    char *address = object;
    slab_release(&slab, object);
    assert_null(__asan_region_is_poisoned(address, SLAB_OPEN_SIZE));
    for (size_t i = SLAB_OPEN_SIZE; i < 128; i++)
        assert_true(__asan_address_is_poisoned(address + i));
    object = slab_acquire(&slab);
    assert_null(__asan_region_is_poisoned(object, 128));
    slab_release(&slab, object);
    slab_fini(&slab);
    assert_null(__asan_region_is_poisoned(address, 128));
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_objects_come_zeroed_aligned_in_index_order),
        cmocka_unit_test(a_full_slab_gives_null_and_recovers),
        cmocka_unit_test(release_nulls_the_pointer_and_the_hottest_comes_first),
        cmocka_unit_test(behind_the_hottest_comes_the_lowest),
        cmocka_unit_test(every_object_of_a_large_slab_is_found),
        cmocka_unit_test(bytes_survive_release),
        cmocka_unit_test(no_capacity_is_always_full),
        cmocka_unit_test(too_much_is_enomem),
        cmocka_unit_test(a_big_slab_costs_nothing_until_used),
        cmocka_unit_test(random_use_never_hands_out_an_object_twice),
        cmocka_unit_test(what_was_idle_between_two_passes_goes_back_and_reads_zero),
        cmocka_unit_test(what_is_in_use_stays_as_it_is),
        cmocka_unit_test(what_was_used_between_two_passes_stays),
        cmocka_unit_test(a_pass_goes_on_where_its_budget_ended),
        cmocka_unit_test(an_object_not_touched_holds_no_memory),
        cmocka_unit_test(random_use_with_trimming_loses_no_byte),
        cmocka_unit_test(wrong_use_is_caught),
#if WITH_ASAN
        cmocka_unit_test(free_objects_are_poisoned),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
