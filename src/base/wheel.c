#include "base/wheel.h"

#include "base/check.h"

#define SLOT_MASK ((uint64_t)WHEEL_SLOTS - 1)

_Static_assert(64 / WHEEL_LEVEL_BITS < WHEEL_LEVELS, "every deadline has a level");
_Static_assert(WHEEL_SLOTS == 64, "occupied has a bit per slot");

struct place {
    uint32_t level;
    uint32_t slot;
};

/* Where a timer stands is a function of its deadline and now alone, so it is not stored. As long as
 * no occupied slot lies between, moving now does not move a timer: the digits above its level stay
 * equal, and its own digit stays ahead of now's. */
static struct place place_of(const struct wheel *wheel, uint64_t deadline_ms) {
    uint64_t at = deadline_ms > wheel->now_ms ? deadline_ms : wheel->now_ms;
    uint64_t differing = at ^ wheel->now_ms;
    uint32_t level = 0;
    if (differing != 0) level = (63 - (uint32_t)__builtin_clzll(differing)) / WHEEL_LEVEL_BITS;
    return (struct place){level, (uint32_t)(at >> level * WHEEL_LEVEL_BITS & SLOT_MASK)};
}

static void put(struct wheel *wheel, struct wheel_timer *timer) {
    struct place place = place_of(wheel, timer->deadline_ms);
    list_push_back(&wheel->slots[place.level][place.slot], &timer->link);
    wheel->occupied[place.level] |= (uint64_t)1 << place.slot;
}

/* The first occupied slot and the earliest time of any timer in it; false when there is none. The
 * lowest level holds the earliest timers, and on it no occupied slot lies behind now's digit. */
static bool first_place(const struct wheel *wheel, struct place *place, uint64_t *start_ms) {
    uint32_t level = 0;
    while (level < WHEEL_LEVELS && wheel->occupied[level] == 0)
        level++;
    if (level == WHEEL_LEVELS) return false;

    uint32_t slot = (uint32_t)__builtin_ctzll(wheel->occupied[level]);
    uint32_t shift = level * WHEEL_LEVEL_BITS;
    *place = (struct place){level, slot};
    *start_ms = ((wheel->now_ms >> shift & ~SLOT_MASK) | slot) << shift;
    return true;
}

void wheel_init(struct wheel *wheel, uint64_t now_ms) {
    *wheel = (struct wheel){.now_ms = now_ms};
    for (uint32_t level = 0; level < WHEEL_LEVELS; level++) {
        for (uint32_t slot = 0; slot < WHEEL_SLOTS; slot++)
            list_init(&wheel->slots[level][slot]);
    }
}

void wheel_timer_init(struct wheel_timer *timer,
                      void (*on_expire)(struct wheel_timer *timer, uint64_t now_ms)) {
    *timer = (struct wheel_timer){.on_expire = on_expire};
    list_init(&timer->link);
}

void wheel_arm(struct wheel *wheel, struct wheel_timer *timer, uint64_t deadline_ms) {
    CHECK(timer->on_expire);
    wheel_disarm(wheel, timer);
    timer->deadline_ms = deadline_ms;
    put(wheel, timer);
    wheel->armed++;
}

void wheel_disarm(struct wheel *wheel, struct wheel_timer *timer) {
    if (!wheel_timer_armed(timer)) return;
    CHECK(wheel->armed > 0);
    /* While callbacks run, a timer that is due stands on wheel_advance's own list and not in this
     * slot: then the bit is cleared only if the slot is empty anyway. */
    struct place place = place_of(wheel, timer->deadline_ms);
    list_remove(&timer->link);
    if (list_empty(&wheel->slots[place.level][place.slot])) {
        wheel->occupied[place.level] &= ~((uint64_t)1 << place.slot);
    }
    timer->deadline_ms = 0;
    wheel->armed--;
}

/* Takes what is due out of the wheel before the first callback runs, so that callbacks find the
 * wheel whole, at its new time, and what they arm waits for the next advance. */
static void collect_due(struct wheel *wheel, uint64_t now_ms, struct list *due) {
    struct place place;
    uint64_t start_ms;
    while (first_place(wheel, &place, &start_ms) && start_ms <= now_ms) {
        wheel->now_ms = start_ms;
        wheel->occupied[place.level] &= ~((uint64_t)1 << place.slot);
        struct list *slot = &wheel->slots[place.level][place.slot];
        if (place.level == 0) {
            list_take_all(due, slot);
            continue;
        }
        /* Now has this slot's digit, so each of its timers goes to a lower level. */
        struct list *node;
        while ((node = list_pop_front(slot)) != NULL) {
            put(wheel, LIST_OWNER(node, struct wheel_timer, link));
        }
    }
    wheel->now_ms = now_ms;
}

void wheel_advance(struct wheel *wheel, uint64_t now_ms) {
    CHECK(now_ms >= wheel->now_ms);
    CHECK(!wheel->advancing);
    struct list due;
    list_init(&due);
    collect_due(wheel, now_ms, &due);

    wheel->advancing = true;
    struct list *node;
    while ((node = list_pop_front(&due)) != NULL) {
        struct wheel_timer *timer = LIST_OWNER(node, struct wheel_timer, link);
        CHECK(timer->deadline_ms <= now_ms);
        timer->deadline_ms = 0;
        wheel->armed--;
        timer->on_expire(timer, now_ms);
    }
    wheel->advancing = false;
}

int64_t wheel_next_ms(const struct wheel *wheel) {
    struct place place;
    uint64_t start_ms;
    if (!first_place(wheel, &place, &start_ms)) return -1;
    uint64_t wait_ms = start_ms - wheel->now_ms;
    return wait_ms > INT64_MAX ? INT64_MAX : (int64_t)wait_ms;
}
