#include "control/heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LARGE (1 << 20)
#define SMALL 100
#define SMALLS 2000

/* A thread with an arena of its own, which takes and frees when it is told. */
struct taker {
    pthread_t thread;
    sem_t go;
    sem_t done;
    uint32_t arena;
    int error;
    char *large;
    char *smalls[SMALLS];
    char *foreign; /* of the main thread: to be freed */
    const uint64_t *taken;
};

static void take(struct taker *taker) {
    taker->large = malloc(LARGE);
    memset(taker->large, 1, LARGE);
    for (int i = 0; i < SMALLS; i++) {
        taker->smalls[i] = malloc(SMALL);
        memset(taker->smalls[i], 1, SMALL);
    }
}

static void *run(void *argument) {
    struct taker *taker = argument;
    taker->error = heap_begin_arena(&taker->arena);
    taker->taken = heap_thread_allocated();
    take(taker);
    sem_post(&taker->done);
    sem_wait(&taker->go);
    free(taker->foreign);
    sem_post(&taker->done);
    sem_wait(&taker->go);
    return NULL;
}

static void start(struct taker *taker) {
    memset(taker, 0, sizeof *taker);
    taker->arena = HEAP_NO_ARENA;
    assert_int_equal(sem_init(&taker->go, 0, 0) + sem_init(&taker->done, 0, 0), 0);
    taker->foreign = malloc(LARGE);
    memset(taker->foreign, 1, LARGE);
    assert_int_equal(pthread_create(&taker->thread, NULL, run, taker), 0);
    sem_wait(&taker->done);
    assert_int_equal(taker->error, 0);
}

static void go(struct taker *taker) {
    sem_post(&taker->go);
    sem_wait(&taker->done);
}

static void end(struct taker *taker) {
    sem_post(&taker->go);
    pthread_join(taker->thread, NULL);
    sem_destroy(&taker->go);
    sem_destroy(&taker->done);
}

static void free_taken(struct taker *taker) {
    free(taker->large);
    for (int i = 0; i < SMALLS; i++)
        free(taker->smalls[i]);
}

#ifndef WEIR_NO_JEMALLOC
#include <jemalloc/jemalloc.h>

static struct heap_arena arena_of(const struct taker *taker) {
    struct heap heap;
    struct heap_arena use;
    assert_true(heap_read(&heap));
    assert_true(heap_read_arena(taker->arena, &use));
    assert_true(use.allocated <= use.active && use.active <= heap.active);
    return use;
}

static void a_thread_takes_from_its_own_arena(void **state) {
    (void)state;
    static struct taker a, b;
    start(&a);
    start(&b);
    assert_true(a.arena != HEAP_NO_ARENA && b.arena != HEAP_NO_ARENA && a.arena != b.arena);
    assert_true(*a.taken >= LARGE + SMALLS * SMALL);
    struct heap_arena before = arena_of(&a);
    assert_true(before.allocated >= LARGE + SMALLS * SMALL);
    assert_true(before.allocated < LARGE + 2 * SMALLS * SMALL);
    /* What others take is not in it. */
    char *mine = malloc(LARGE);
    memset(mine, 1, LARGE);
    struct heap_arena after = arena_of(&a);
    assert_int_equal(after.allocated, before.allocated);
    free(mine);
    free_taken(&a);
    free_taken(&b);
    go(&a);
    go(&b);
    end(&a);
    end(&b);
}

static void whoever_frees_it_it_goes_back_there(void **state) {
    (void)state;
    static struct taker taker;
    start(&taker);
    free_taken(&taker); /* by this thread, whose cache keeps a few of the small ones */
    struct heap_arena use = arena_of(&taker);
    assert_true(use.allocated < 300 * SMALL + 65536);
    /* And what this thread has taken goes back to where it came from. */
    go(&taker);
    assert_true(arena_of(&taker).allocated <= use.allocated);
    end(&taker);
}

static void what_is_not_needed_goes_back_to_the_kernel(void **state) {
    (void)state;
    static struct taker taker;
    char name[64];
    ssize_t decay_ms = 20;
    start(&taker);
    (void)snprintf(name, sizeof name, "arena.%u.dirty_decay_ms", taker.arena);
    assert_int_equal(mallctl(name, NULL, NULL, &decay_ms, sizeof decay_ms), 0);
    free_taken(&taker);
    /* Its thread sleeps all the while. */
    for (int i = 0; i < 1000000 && arena_of(&taker).dirty != 0; i++)
        heap_trim(taker.arena);
    assert_int_equal(arena_of(&taker).dirty, 0);
    go(&taker);
    end(&taker);
}

#else

static void nothing_is_known(void **state) {
    (void)state;
    static struct taker taker;
    struct heap heap;
    struct heap_arena use;
    start(&taker);
    assert_int_equal(taker.arena, HEAP_NO_ARENA);
    assert_null(taker.taken);
    assert_false(heap_read(&heap) || heap_read_arena(taker.arena, &use));
    free_taken(&taker);
    go(&taker);
    end(&taker);
}

#endif

static void without_an_arena_there_is_nothing_to_tell(void **state) {
    (void)state;
    struct heap_arena use = {.active = 7};
    assert_false(heap_read_arena(HEAP_NO_ARENA, &use));
    assert_false(heap_read_arena(4000, &use));
    assert_int_equal(use.active, 7);
    heap_trim(HEAP_NO_ARENA);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#ifndef WEIR_NO_JEMALLOC
        cmocka_unit_test(a_thread_takes_from_its_own_arena),
        cmocka_unit_test(whoever_frees_it_it_goes_back_there),
        cmocka_unit_test(what_is_not_needed_goes_back_to_the_kernel),
#else
        cmocka_unit_test(nothing_is_known),
#endif
        cmocka_unit_test(without_an_arena_there_is_nothing_to_tell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
