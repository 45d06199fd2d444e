#include "base/wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/rand.h"
#include "unit/base/death.h"

/* The model: a plain array of timers that is searched in full. Every random run compares the wheel
 * with it at each step, and validate() walks the wheel's own structure. */

enum { TIMERS = 300 };

enum reaction { NOTHING, REARM_SELF, REARM_SELF_AT_ONCE, DISARM_OTHER, ARM_OTHER };

struct item {
    struct wheel_timer timer;
    bool armed;
    bool due; /* taken by the running advance: may still be disarmed by a callback */
    uint64_t deadline_ms;
    enum reaction reaction;
    uint32_t other;
    uint64_t delay_ms;
};

static struct wheel wheel;
static struct item items[TIMERS];
static struct rand_state random_state;
static uint64_t fired;

static void validate(void) {
    uint32_t count = 0;
    for (uint32_t level = 0; level < WHEEL_LEVELS; level++) {
        for (uint32_t slot = 0; slot < WHEEL_SLOTS; slot++) {
            struct list *head = &wheel.slots[level][slot];
            bool bit = wheel.occupied[level] >> slot & 1;
            assert_int_equal(bit, !list_empty(head));
            LIST_FOR_EACH(node, head) {
                const struct wheel_timer *timer = LIST_OWNER(node, struct wheel_timer, link);
                uint64_t at = timer->deadline_ms > wheel.now_ms ? timer->deadline_ms : wheel.now_ms;
                assert_int_equal(at >> (6 * level) & 63, slot);
                if (level + 1 < WHEEL_LEVELS)
                    assert_true(at >> (6 * level + 6) == wheel.now_ms >> (6 * level + 6));
                count++;
            }
        }
    }
    assert_int_equal(count, wheel.armed);
}

static void model_arm(struct item *item, uint64_t deadline_ms) {
    wheel_arm(&wheel, &item->timer, deadline_ms);
    item->armed = true;
    item->due = false;
    item->deadline_ms = deadline_ms;
}

static void model_disarm(struct item *item) {
    wheel_disarm(&wheel, &item->timer);
    item->armed = false;
    item->due = false;
}

static void react(struct item *item, uint64_t now_ms) {
    switch (item->reaction) {
    case NOTHING:
        return;
    case REARM_SELF:
        model_arm(item, now_ms + item->delay_ms);
        return;
    case REARM_SELF_AT_ONCE:
        model_arm(item, now_ms - item->delay_ms % (now_ms + 1));
        return;
    case DISARM_OTHER:
        model_disarm(&items[item->other]);
        return;
    case ARM_OTHER:
        model_arm(&items[item->other], now_ms + item->delay_ms);
        return;
    }
}

static void on_expire(struct wheel_timer *timer, uint64_t now_ms) {
    struct item *item = LIST_OWNER(timer, struct item, timer);
    assert_true(item->armed);
    assert_true(item->due);
    assert_true(item->deadline_ms <= now_ms);
    assert_int_equal(now_ms, wheel.now_ms);
    assert_false(wheel_timer_armed(timer));
    assert_int_equal(timer->deadline_ms, 0);
    item->armed = false;
    item->due = false;
    fired++;
    react(item, now_ms);
}

/* Advances both, and checks that exactly what was due has fired. */
static void model_advance(uint64_t now_ms) {
    for (uint32_t i = 0; i < TIMERS; i++)
        items[i].due = items[i].armed && items[i].deadline_ms <= now_ms;
    wheel_advance(&wheel, now_ms);
    uint32_t armed = 0;
    for (uint32_t i = 0; i < TIMERS; i++) {
        assert_false(items[i].due);
        assert_int_equal(items[i].armed, wheel_timer_armed(&items[i].timer));
        if (items[i].armed) assert_true(items[i].timer.deadline_ms == items[i].deadline_ms);
        armed += items[i].armed;
    }
    assert_int_equal(wheel.armed, armed);
    assert_true(wheel.now_ms == now_ms);
}

static void check_next(void) {
    bool any = false;
    uint64_t first_ms = UINT64_MAX;
    for (uint32_t i = 0; i < TIMERS; i++) {
        if (!items[i].armed) continue;
        any = true;
        if (items[i].deadline_ms < first_ms) first_ms = items[i].deadline_ms;
    }
    int64_t next_ms = wheel_next_ms(&wheel);
    if (!any) {
        assert_int_equal(next_ms, -1);
        return;
    }
    uint64_t wait_ms = first_ms > wheel.now_ms ? first_ms - wheel.now_ms : 0;
    assert_true(next_ms >= 0);
    assert_true((uint64_t)next_ms <= wait_ms);
    /* Exact when near, and never a wait of nothing when nothing is due. */
    if (first_ms / 64 == wheel.now_ms / 64 || wait_ms == 0)
        assert_true((uint64_t)next_ms == wait_ms);
    else
        assert_true(next_ms > 0);
}

static void start_at(uint64_t now_ms, uint64_t seed) {
    memset(items, 0, sizeof items);
    wheel_init(&wheel, now_ms);
    for (uint32_t i = 0; i < TIMERS; i++)
        wheel_timer_init(&items[i].timer, on_expire);
    rand_seed(&random_state, seed);
    fired = 0;
}

static int set_up(void **state) {
    (void)state;
    start_at(1000, 1);
    return 0;
}

/* Any number of bits up to `bits` is as likely as any other: near and far alike. */
static uint64_t random_span(uint32_t bits) {
    uint32_t width = rand_below(&random_state, bits + 1);
    return width == 0 ? 0 : rand_next(&random_state) >> (64 - width);
}

static void arm_at_random(struct item *item, uint32_t bits) {
    item->reaction = (enum reaction)rand_below(&random_state, ARM_OTHER + 1);
    item->other = rand_below(&random_state, TIMERS);
    item->delay_ms = random_span(bits);
    uint64_t span = random_span(bits);
    bool past = rand_below(&random_state, 16) == 0;
    if (past)
        model_arm(item, span > wheel.now_ms ? 0 : wheel.now_ms - span);
    else
        model_arm(item, wheel.now_ms + span);
}

static void run_at_random(uint64_t now_ms, uint64_t seed, uint32_t bits, int steps) {
    start_at(now_ms, seed);
    for (int step = 0; step < steps; step++) {
        struct item *item = &items[rand_below(&random_state, TIMERS)];
        switch (rand_below(&random_state, 8)) {
        case 0:
            model_advance(wheel.now_ms + random_span(bits));
            break;
        case 1: { /* as the worker does: it sleeps exactly as long as it is told */
            int64_t next_ms = wheel_next_ms(&wheel);
            if (next_ms >= 0) model_advance(wheel.now_ms + (uint64_t)next_ms);
            break;
        }
        case 2:
            model_disarm(item);
            break;
        default:
            arm_at_random(item, bits);
            break;
        }
        check_next();
        if (step % 16 == 0) validate();
    }
    for (uint32_t i = 0; i < TIMERS; i++)
        model_disarm(&items[i]);
    validate();
    assert_int_equal(wheel_next_ms(&wheel), -1);
}

static void near_timers_agree_with_the_model(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 10; seed++)
        run_at_random(seed * 12345, seed, 8, 2000);
    assert_true(fired > 100);
}

static void usual_timers_agree_with_the_model(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 10; seed++)
        run_at_random(86400000 + seed, seed, 17, 2000);
    assert_true(fired > 100);
}

static void far_timers_and_large_jumps_agree_with_the_model(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 10; seed++)
        run_at_random(seed, seed, 45, 2000);
    assert_true(fired > 100);
}

static void times_around_carries_agree_with_the_model(void **state) {
    (void)state;
    for (uint32_t bit = 6; bit < 60; bit++)
        run_at_random(((uint64_t)1 << bit) - 3, bit, 7, 300);
}

static void a_timer_fires_at_its_deadline_and_not_before(void **state) {
    (void)state;
    for (uint64_t delay_ms = 1; delay_ms < 300000; delay_ms += 1 + delay_ms / 7) {
        start_at(123456789, 1);
        model_arm(&items[0], wheel.now_ms + delay_ms);
        model_advance(123456789 + delay_ms - 1);
        assert_int_equal(fired, 0);
        model_advance(123456789 + delay_ms);
        assert_int_equal(fired, 1);
    }
}

static void sleeping_as_told_reaches_the_deadline_in_few_turns(void **state) {
    (void)state;
    for (uint32_t bit = 0; bit < 62; bit++) {
        start_at(987654321, bit);
        uint64_t deadline_ms = wheel.now_ms + ((uint64_t)1 << bit) + rand_below(&random_state, 9);
        model_arm(&items[0], deadline_ms);
        int turns = 0;
        while (fired == 0) {
            model_advance(wheel.now_ms + (uint64_t)wheel_next_ms(&wheel));
            assert_true(++turns <= WHEEL_LEVELS);
        }
        assert_true(wheel.now_ms == deadline_ms);
    }
}

static void a_deadline_in_the_past_fires_at_the_next_advance(void **state) {
    (void)state;
    model_arm(&items[0], 0);
    model_arm(&items[1], 999);
    model_arm(&items[2], 1000);
    assert_int_equal(wheel_next_ms(&wheel), 0);
    model_advance(1000);
    assert_int_equal(fired, 3);
    assert_int_equal(wheel_next_ms(&wheel), -1);
}

static void a_callback_that_is_always_due_runs_once_an_advance(void **state) {
    (void)state;
    items[0].reaction = REARM_SELF_AT_ONCE;
    model_arm(&items[0], 1000);
    for (uint64_t i = 1; i <= 5; i++) {
        model_advance(1000 + i);
        assert_int_equal(fired, i);
        assert_int_equal(wheel_next_ms(&wheel), 0);
    }
}

static void a_callback_may_disarm_one_that_is_due_with_it(void **state) {
    (void)state;
    items[0].reaction = DISARM_OTHER;
    items[0].other = 1;
    model_arm(&items[0], 1010);
    model_arm(&items[1], 1020);
    model_advance(2000);
    assert_int_equal(fired, 1);
}

static void a_callback_may_postpone_one_that_is_due_with_it(void **state) {
    (void)state;
    items[0].reaction = ARM_OTHER;
    items[0].other = 1;
    items[0].delay_ms = 50;
    model_arm(&items[0], 1010);
    model_arm(&items[1], 1020);
    model_advance(2000);
    assert_int_equal(fired, 1);
    model_advance(2049);
    assert_int_equal(fired, 1);
    model_advance(2050);
    assert_int_equal(fired, 2);
}

static uint64_t order[8];
static int ordered;

static void note_order(struct wheel_timer *timer, uint64_t now_ms) {
    (void)now_ms;
    order[ordered++] = (uint64_t)(LIST_OWNER(timer, struct item, timer) - items);
}

static void one_large_jump_fires_in_order_of_deadlines(void **state) {
    (void)state;
    static const uint64_t deadlines_ms[8] = {900000000, 1001, 70000, 1000, 5000, 4096, 1063, 5001};
    static const uint64_t expected[8] = {3, 1, 6, 5, 4, 7, 2, 0};
    ordered = 0;
    for (int i = 0; i < 8; i++) {
        wheel_timer_init(&items[i].timer, note_order);
        wheel_arm(&wheel, &items[i].timer, deadlines_ms[i]);
    }
    wheel_advance(&wheel, 1000000000);
    assert_int_equal(ordered, 8);
    assert_memory_equal(order, expected, sizeof expected);
}

static void the_ends_of_time_are_no_special_case(void **state) {
    (void)state;
    start_at(0, 1);
    model_arm(&items[0], UINT64_MAX);
    assert_true(wheel_next_ms(&wheel) == INT64_MAX);
    model_arm(&items[1], (uint64_t)INT64_MAX - 5);
    assert_true(wheel_next_ms(&wheel) > 0);
    model_advance((uint64_t)INT64_MAX - 6);
    assert_int_equal(wheel_next_ms(&wheel), 1);
    model_advance((uint64_t)INT64_MAX);
    assert_int_equal(fired, 1);
    assert_true(wheel_next_ms(&wheel) > 0);
    model_advance(UINT64_MAX);
    assert_int_equal(fired, 2);
    validate();
}

static void disarming_twice_is_harmless(void **state) {
    (void)state;
    wheel_disarm(&wheel, &items[0].timer);
    model_arm(&items[0], 5000);
    model_disarm(&items[0]);
    model_disarm(&items[0]);
    assert_int_equal(wheel.armed, 0);
    assert_int_equal(items[0].timer.deadline_ms, 0);
    assert_int_equal(wheel_next_ms(&wheel), -1);
}

static void go_back(void) { wheel_advance(&wheel, 999); }

static void advance_again(struct wheel_timer *timer, uint64_t now_ms) {
    (void)timer;
    wheel_advance(&wheel, now_ms);
}

static void advance_in_a_callback(void) {
    wheel_timer_init(&items[0].timer, advance_again);
    wheel_arm(&wheel, &items[0].timer, 1001);
    wheel_advance(&wheel, 1001);
}

static void wrong_use_is_caught(void **state) {
    (void)state;
    assert_true(death_by_abort(go_back, NULL, 0));
    assert_true(death_by_abort(advance_in_a_callback, NULL, 0));
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(near_timers_agree_with_the_model),
        TEST(usual_timers_agree_with_the_model),
        TEST(far_timers_and_large_jumps_agree_with_the_model),
        TEST(times_around_carries_agree_with_the_model),
        TEST(a_timer_fires_at_its_deadline_and_not_before),
        TEST(sleeping_as_told_reaches_the_deadline_in_few_turns),
        TEST(a_deadline_in_the_past_fires_at_the_next_advance),
        TEST(a_callback_that_is_always_due_runs_once_an_advance),
        TEST(a_callback_may_disarm_one_that_is_due_with_it),
        TEST(a_callback_may_postpone_one_that_is_due_with_it),
        TEST(one_large_jump_fires_in_order_of_deadlines),
        TEST(the_ends_of_time_are_no_special_case),
        TEST(disarming_twice_is_harmless),
        TEST(wrong_use_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
