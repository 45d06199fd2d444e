#include "base/slab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

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
    void *first = a;
    void *second = b;
    slab_release(&slab, a);
    slab_release(&slab, b);
    assert_null(a);
    assert_null(b);
    assert_ptr_equal(slab_acquire(&slab), second);
    assert_ptr_equal(slab_acquire(&slab), first);
    assert_int_equal(slab.fresh, 2);
    slab_release(&slab, first);
    slab_release(&slab, second);
    slab_fini(&slab);
}

static void bytes_behind_the_link_survive_release(void **state) {
    (void)state;
    assert_int_equal(slab_init(&slab, "test", 64, 1), 0);
    char *object = slab_acquire(&slab);
    memset(object, 'x', 64);
    slab_release(&slab, object);
    /* Readable while free, under AddressSanitizer too. */
    const char *open = slab_at(&slab, 0);
    for (size_t i = 8; i < SLAB_OPEN_SIZE; i++)
        assert_int_equal(open[i], 'x');
    object = slab_acquire(&slab);
    for (size_t i = 8; i < 64; i++)
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

static void wrong_use_is_caught(void **state) {
    (void)state;
    assert_true(death_by_abort(fini_with_an_object_in_use, NULL, 0));
    assert_true(death_by_abort(release_of_a_pointer_into_an_object, NULL, 0));
    assert_true(death_by_abort(release_of_a_foreign_pointer, NULL, 0));
    assert_true(death_by_abort(at_an_index_never_used, NULL, 0));
}

#if WITH_ASAN
static void released_twice(void) {
    if (slab_init(&slab, "test", 64, 2) != 0) return;
    void *object = slab_acquire(&slab);
    (void)slab_acquire(&slab);
    slab_release_object(&slab, object);
    slab_release_object(&slab, object);
}

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
    assert_true(death_by_abort(released_twice, NULL, 0));
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_objects_come_zeroed_aligned_in_index_order),
        cmocka_unit_test(a_full_slab_gives_null_and_recovers),
        cmocka_unit_test(release_nulls_the_pointer_and_the_hottest_comes_first),
        cmocka_unit_test(bytes_behind_the_link_survive_release),
        cmocka_unit_test(no_capacity_is_always_full),
        cmocka_unit_test(too_much_is_enomem),
        cmocka_unit_test(a_big_slab_costs_nothing_until_used),
        cmocka_unit_test(random_use_never_hands_out_an_object_twice),
        cmocka_unit_test(wrong_use_is_caught),
#if WITH_ASAN
        cmocka_unit_test(free_objects_are_poisoned),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
