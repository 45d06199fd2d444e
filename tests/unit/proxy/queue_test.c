#include "proxy/queue.h"

#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define START_MS 1000
#define TIMEOUT_MS 1000
#define WAITERS 64

/* A queue on a net that has a clock, a wheel and tasks, and no ring: the test moves the clock. */
struct world {
    struct net net;
    struct stat_block *stats;
    struct queue queue;
    uint32_t room; /* how many turns can take something */
    char served[WAITERS + 1];
    char late[WAITERS + 1];
    uint32_t asked; /* turns given */
};

struct waiter {
    struct queue_entry entry;
    struct world *world;
    char name;
    bool choosy; /* what is free is not for it */
};

static void note(char *names, char name) {
    size_t len = strlen(names);
    assert_true(len < WAITERS);
    names[len] = name;
}

static enum queue_turn on_turn(struct queue_entry *entry) {
    struct waiter *waiter = LIST_OWNER(entry, struct waiter, entry);
    struct world *world = waiter->world;
    world->asked++;
    if (waiter->choosy) return QUEUE_PASSED;
    if (world->room == 0) return QUEUE_NOTHING;
    world->room--;
    note(world->served, waiter->name);
    queue_leave(&world->queue, entry);
    return QUEUE_TAKEN;
}

static void on_timeout(struct queue_entry *entry) {
    struct waiter *waiter = LIST_OWNER(entry, struct waiter, entry);
    assert_false(list_linked(&entry->link));
    note(waiter->world->late, waiter->name);
}

static void set_clock(struct world *world, uint64_t now_ms) {
    world->net.now_ms = now_ms;
    world->net.now_ns = now_ms * 1000000;
}

static struct world *world_new(uint32_t max) {
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->stats = aligned_alloc(64, sizeof *world->stats);
    assert_non_null(world->stats);
    memset(world->stats, 0, sizeof *world->stats);
    world->net.stats = world->stats;
    list_init(&world->net.tasks);
    wheel_init(&world->net.wheel, START_MS);
    set_clock(world, START_MS);
    queue_init(&world->queue, &world->net, max, TIMEOUT_MS);
    return world;
}

static void world_free(struct world *world) {
    queue_fini(&world->queue);
    assert_int_equal(world->net.wheel.armed, 0);
    assert_true(list_empty(&world->net.tasks));
    free(world->stats);
    free(world);
}

static void waiter_init(struct world *world, struct waiter *waiter, char name) {
    *waiter = (struct waiter){.world = world, .name = name};
    queue_entry_init(&waiter->entry, on_turn, on_timeout);
}

/* One waiter for each letter. */
static void join(struct world *world, struct waiter *waiters, const char *names) {
    for (; *names != '\0'; names++, waiters++) {
        waiter_init(world, waiters, *names);
        assert_true(queue_join(&world->queue, &waiters->entry));
    }
}

static void run_tasks(struct world *world) {
    struct list batch;
    list_init(&batch);
    list_take_all(&batch, &world->net.tasks);
    for (struct list *node; (node = list_pop_front(&batch));) {
        struct net_task *task = LIST_OWNER(node, struct net_task, link);
        task->run(task);
    }
}

static void free_room(struct world *world, uint32_t room) {
    world->room = room;
    queue_poke(&world->queue);
    run_tasks(world);
}

/* To so many ms after the start. */
static void advance(struct world *world, uint64_t ms) {
    set_clock(world, START_MS + ms);
    wheel_advance(&world->net.wheel, START_MS + ms);
}

static void first_come_first_served(void **state) {
    (void)state;
    struct world *world = world_new(10);
    struct waiter waiters[5];
    join(world, waiters, "abcde");
    free_room(world, 1);
    assert_string_equal(world->served, "a");
    free_room(world, 3);
    assert_string_equal(world->served, "abcd");
    free_room(world, 3);
    assert_string_equal(world->served, "abcde");
    assert_int_equal(world->room, 2);
    world_free(world);
}

static void half_of_the_timeout_turns_the_order(void **state) {
    (void)state;
    struct world *world = world_new(10);
    struct waiter old[2], later[3], last[2];
    join(world, old, "ab");
    advance(world, TIMEOUT_MS / 2);
    join(world, later, "cde");
    free_room(world, 1); /* half and not more */
    assert_string_equal(world->served, "a");
    advance(world, TIMEOUT_MS / 2 + 1);
    free_room(world, 2);
    assert_string_equal(world->served, "aed");
    join(world, last, "f");
    free_room(world, 2);
    assert_string_equal(world->served, "aedfc");
    /* Only the oldest is left; with it the reason goes. */
    free_room(world, 1);
    assert_string_equal(world->served, "aedfcb");
    join(world, last, "gh");
    free_room(world, 2);
    assert_string_equal(world->served, "aedfcbgh");
    world_free(world);
}

static void the_order_turns_back_when_the_old_are_late(void **state) {
    (void)state;
    struct world *world = world_new(10);
    struct waiter old, later[2];
    join(world, &old, "a");
    advance(world, TIMEOUT_MS - 1);
    join(world, later, "bc");
    assert_false(queue_must_wait(&world->queue)); /* as the newest it would be next anyway */
    advance(world, TIMEOUT_MS);
    assert_string_equal(world->late, "a");
    assert_true(queue_must_wait(&world->queue));
    free_room(world, 2);
    assert_string_equal(world->served, "bc");
    world_free(world);
}

static void who_comes_waits_only_behind_others(void **state) {
    (void)state;
    struct world *world = world_new(10);
    struct waiter waiter;
    assert_false(queue_must_wait(&world->queue));
    join(world, &waiter, "a");
    assert_true(queue_must_wait(&world->queue));
    advance(world, TIMEOUT_MS / 2);
    assert_true(queue_must_wait(&world->queue));
    queue_leave(&world->queue, &waiter.entry);
    assert_false(queue_must_wait(&world->queue));
    world_free(world);
}

static void a_full_queue_takes_nobody(void **state) {
    (void)state;
    for (uint32_t max = 0; max <= 3; max++) {
        struct world *world = world_new(max);
        struct waiter waiters[4];
        for (uint32_t i = 0; i < 4; i++) {
            waiter_init(world, &waiters[i], 'a');
            assert_int_equal(queue_join(&world->queue, &waiters[i].entry), i < max);
        }
        assert_int_equal(world->queue.count, max);
        if (max != 0) {
            free_room(world, 1);
            assert_true(queue_join(&world->queue, &waiters[3].entry));
            assert_int_equal(world->queue.count, max);
        }
        for (uint32_t i = 0; i < 4; i++)
            queue_leave(&world->queue, &waiters[i].entry);
        world_free(world);
    }
}

static void each_is_late_at_its_own_time(void **state) {
    (void)state;
    struct world *world = world_new(10);
    struct waiter first[2], second, third;
    join(world, first, "ab");
    advance(world, 300);
    join(world, &second, "c");
    advance(world, 310);
    join(world, &third, "d");
    advance(world, TIMEOUT_MS - 1);
    assert_string_equal(world->late, "");
    advance(world, TIMEOUT_MS);
    assert_string_equal(world->late, "ab");
    advance(world, TIMEOUT_MS + 299);
    assert_string_equal(world->late, "ab");
    advance(world, TIMEOUT_MS + 500);
    assert_string_equal(world->late, "abcd");
    assert_int_equal(world->asked, 0);
    world_free(world);
}

/* The timer was armed for one that has left, and looks again. */
static void one_that_left_early_makes_no_other_late(void **state) {
    (void)state;
    struct world *world = world_new(10);
    struct waiter first, second;
    join(world, &first, "a");
    advance(world, 200);
    join(world, &second, "b");
    queue_leave(&world->queue, &first.entry);
    advance(world, TIMEOUT_MS + 199);
    assert_string_equal(world->late, "");
    advance(world, TIMEOUT_MS + 200);
    assert_string_equal(world->late, "b");
    world_free(world);
}

static void an_empty_queue_holds_no_timer_and_no_task(void **state) {
    (void)state;
    struct world *world = world_new(10);
    struct waiter waiters[2];
    queue_poke(&world->queue);
    assert_true(list_empty(&world->net.tasks));
    join(world, waiters, "ab");
    assert_int_equal(world->net.wheel.armed, 1);
    queue_poke(&world->queue);
    queue_poke(&world->queue);
    assert_int_equal(world->asked, 0); /* never from within the call */
    queue_leave(&world->queue, &waiters[0].entry);
    queue_leave(&world->queue, &waiters[0].entry);
    assert_int_equal(world->queue.count, 1);
    queue_leave(&world->queue, &waiters[1].entry);
    assert_int_equal(world->net.wheel.armed, 0);
    assert_true(list_empty(&world->net.tasks));
    world_free(world);
}

static void who_cannot_use_what_is_free_lets_the_next_one(void **state) {
    (void)state;
    struct world *world = world_new(10);
    struct waiter waiters[4];
    join(world, waiters, "abcd");
    waiters[0].choosy = waiters[2].choosy = true;
    free_room(world, 1);
    assert_string_equal(world->served, "b");
    assert_int_equal(world->asked, 4); /* it asks on as long as there may be room */
    waiters[0].choosy = false;
    free_room(world, 3);
    assert_string_equal(world->served, "bad");
    assert_int_equal(world->queue.count, 1);
    queue_leave(&world->queue, &waiters[2].entry);
    world_free(world);
}

static void when_nothing_is_free_nobody_else_is_asked(void **state) {
    (void)state;
    struct world *world = world_new(10);
    struct waiter waiters[4];
    join(world, waiters, "abcd");
    free_room(world, 0);
    assert_int_equal(world->asked, 1);
    for (int i = 0; i < 4; i++)
        queue_leave(&world->queue, &waiters[i].entry);
    world_free(world);
}

static void a_turn_asks_only_so_many_in_vain(void **state) {
    (void)state;
    struct world *world = world_new(QUEUE_PASSES_MAX + 2);
    struct waiter waiters[QUEUE_PASSES_MAX + 2];
    for (uint32_t i = 0; i < QUEUE_PASSES_MAX + 2; i++) {
        join(world, &waiters[i], "x");
        waiters[i].choosy = i < QUEUE_PASSES_MAX;
    }
    free_room(world, 2);
    assert_int_equal(world->asked, QUEUE_PASSES_MAX);
    assert_string_equal(world->served, "");
    queue_leave(&world->queue, &waiters[3].entry);
    free_room(world, 2);
    assert_string_equal(world->served, "xx");
    for (uint32_t i = 0; i < QUEUE_PASSES_MAX; i++)
        queue_leave(&world->queue, &waiters[i].entry);
    world_free(world);
}

/* The server that it was given could not be reached, and the others have no room. */
static void one_that_comes_back_has_its_old_place(void **state) {
    (void)state;
    struct world *world = world_new(10);
    struct waiter waiters[4];
    for (uint32_t i = 0; i < 4; i++) {
        advance(world, i);
        join(world, &waiters[i], (const char[]){(char)('a' + (int)i), '\0'});
    }
    queue_leave(&world->queue, &waiters[0].entry);
    queue_leave(&world->queue, &waiters[1].entry);
    advance(world, 100);
    assert_true(queue_join(&world->queue, &waiters[1].entry));
    assert_true(queue_join(&world->queue, &waiters[0].entry));
    free_room(world, 1);
    assert_string_equal(world->served, "a");
    /* The same from the other end. */
    advance(world, TIMEOUT_MS / 2 + 3);
    queue_leave(&world->queue, &waiters[2].entry);
    queue_leave(&world->queue, &waiters[3].entry);
    assert_true(queue_join(&world->queue, &waiters[3].entry));
    assert_true(queue_join(&world->queue, &waiters[2].entry));
    free_room(world, 1);
    assert_string_equal(world->served, "ad");
    /* And its time has gone on. */
    advance(world, TIMEOUT_MS + 1);
    assert_string_equal(world->late, "b");
    free_room(world, 1);
    assert_string_equal(world->served, "adc");
    world_free(world);
}

/* Alone and back after its time: late at once. */
static void one_that_comes_back_late_is_late(void **state) {
    (void)state;
    struct world *world = world_new(10);
    struct waiter first, second;
    join(world, &first, "a");
    queue_leave(&world->queue, &first.entry);
    advance(world, TIMEOUT_MS + 5);
    join(world, &second, "b");
    assert_true(queue_join(&world->queue, &first.entry));
    advance(world, TIMEOUT_MS + 6);
    assert_string_equal(world->late, "a");
    free_room(world, 1);
    assert_string_equal(world->served, "b");
    world_free(world);
}

static void the_time_in_the_queue_is_observed(void **state) {
    (void)state;
    struct world *world = world_new(10);
    struct waiter waiters[3];
    const struct stat_histogram *seconds = &world->stats->histogram[STAT_HIST_UPSTREAM_QUEUE];
    join(world, waiters, "abc");
    advance(world, 100);
    free_room(world, 1);
    assert_int_equal(seconds->sum, 100 * 1000000ull);
    advance(world, 300);
    queue_leave(&world->queue, &waiters[1].entry);
    queue_leave(&world->queue, &waiters[1].entry);
    advance(world, TIMEOUT_MS);
    assert_int_equal(seconds->count, 3);
    assert_int_equal(seconds->sum, (100 + 300 + TIMEOUT_MS) * 1000000ull);
    world_free(world);
}

/* Everything at random, against a list of who waits since when. */
static void it_behaves_like_a_sorted_list(void **state) {
    (void)state;
    enum { MAX = 8, STEPS = 20000 };
    struct rand_state random;
    rand_seed(&random, 20240607);
    struct world *world = world_new(MAX);
    struct waiter waiters[MAX];
    uint64_t since_ms[MAX];
    struct waiter *model[MAX]; /* in order of arrival */
    uint32_t count = 0;
    for (uint32_t i = 0; i < MAX; i++)
        waiter_init(world, &waiters[i], (char)('a' + i));
    uint64_t now_ms = 0;
    for (uint32_t step = 0; step < STEPS; step++) {
        memset(world->served, 0, sizeof world->served);
        memset(world->late, 0, sizeof world->late);
        char expected[WAITERS + 1] = "";
        struct waiter *waiter = &waiters[rand_below(&random, MAX)];
        bool waits = list_linked(&waiter->entry.link);
        switch (rand_below(&random, 4)) {
        case 0:
            if (waits) break;
            waiter_init(world, waiter, waiter->name);
            assert_true(queue_join(&world->queue, &waiter->entry));
            since_ms[waiter - waiters] = now_ms;
            model[count++] = waiter;
            break;
        case 1: {
            queue_leave(&world->queue, &waiter->entry);
            uint32_t kept = 0;
            for (uint32_t i = 0; i < count; i++)
                if (model[i] != waiter) model[kept++] = model[i];
            count = kept;
            break;
        }
        case 2: {
            uint32_t room = rand_below(&random, 3);
            bool newest = count != 0 && now_ms - since_ms[model[0] - waiters] > TIMEOUT_MS / 2;
            for (uint32_t i = 0; i < room && count != 0; i++) {
                note(expected, newest ? model[count - 1]->name : model[0]->name);
                if (!newest) memmove(&model[0], &model[1], (count - 1) * sizeof model[0]);
                count--;
            }
            free_room(world, room);
            assert_string_equal(world->served, expected);
            break;
        }
        case 3: {
            now_ms += rand_below(&random, 400);
            uint32_t late = 0;
            while (late < count && since_ms[model[late] - waiters] + TIMEOUT_MS <= now_ms)
                note(expected, model[late++]->name);
            count -= late;
            memmove(&model[0], &model[late], count * sizeof model[0]);
            advance(world, now_ms);
            assert_string_equal(world->late, expected);
            break;
        }
        }
        assert_int_equal(world->queue.count, count);
        assert_int_equal(world->net.wheel.armed, count != 0);
    }
    for (uint32_t i = 0; i < MAX; i++)
        queue_leave(&world->queue, &waiters[i].entry);
    world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_come_first_served),
        cmocka_unit_test(half_of_the_timeout_turns_the_order),
        cmocka_unit_test(the_order_turns_back_when_the_old_are_late),
        cmocka_unit_test(who_comes_waits_only_behind_others),
        cmocka_unit_test(a_full_queue_takes_nobody),
        cmocka_unit_test(each_is_late_at_its_own_time),
        cmocka_unit_test(one_that_left_early_makes_no_other_late),
        cmocka_unit_test(an_empty_queue_holds_no_timer_and_no_task),
        cmocka_unit_test(who_cannot_use_what_is_free_lets_the_next_one),
        cmocka_unit_test(when_nothing_is_free_nobody_else_is_asked),
        cmocka_unit_test(a_turn_asks_only_so_many_in_vain),
        cmocka_unit_test(one_that_comes_back_has_its_old_place),
        cmocka_unit_test(one_that_comes_back_late_is_late),
        cmocka_unit_test(the_time_in_the_queue_is_observed),
        cmocka_unit_test(it_behaves_like_a_sorted_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
