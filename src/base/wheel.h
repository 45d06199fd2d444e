/* wheel.h: timers of one worker, in milliseconds of the worker's clock, O(1) to arm and disarm.
 *
 * A hierarchical wheel: a deadline is a number of base 64, and a timer stands on the level of the
 * highest digit in which its deadline differs from now, in the slot of that digit. So every timer
 * of a level is due before every timer of the levels above, a timer moves down at most once per
 * level, and as the levels cover all 64 bits, no deadline is too far.
 *
 * Time is an argument, never read here. Timers are embedded in their owners and must be disarmed
 * before the owner's memory goes. A callback may arm or disarm any timer, its own too, and may free
 * its owner; it may not call wheel_advance. A timer never fires before its deadline, and fires at
 * most once per arming.
 */
#ifndef WEIR_BASE_WHEEL_H
#define WEIR_BASE_WHEEL_H

#include "base/list.h"

#include <stdint.h>

struct wheel_timer {
    struct list link;
    uint64_t deadline_ms; /* 0 while disarmed */
    void (*on_expire)(struct wheel_timer *timer, uint64_t now_ms);
};

#define WHEEL_LEVEL_BITS 6
#define WHEEL_LEVELS 11 /* 11 * 6 bits >= 64 */
#define WHEEL_SLOTS (1 << WHEEL_LEVEL_BITS)

struct wheel {
    uint64_t now_ms;
    uint64_t occupied[WHEEL_LEVELS]; /* bit per slot that is not empty */
    uint32_t armed;                  /* count */
    bool advancing;
    struct list slots[WHEEL_LEVELS][WHEEL_SLOTS];
};

/* The wheel may not be moved afterwards: its slots are list heads. */
void wheel_init(struct wheel *wheel, uint64_t now_ms);
void wheel_timer_init(struct wheel_timer *timer,
                      void (*on_expire)(struct wheel_timer *timer, uint64_t now_ms));
static inline bool wheel_timer_armed(const struct wheel_timer *timer) {
    return list_linked(&timer->link);
}
/* Re-arms when armed. A deadline that is not after wheel->now_ms fires at the next advance, also
 * when a callback arms it: the advance that runs the callback does not see it again. */
void wheel_arm(struct wheel *wheel, struct wheel_timer *timer, uint64_t deadline_ms);
/* Harmless when disarmed. */
void wheel_disarm(struct wheel *wheel, struct wheel_timer *timer);
/* Fires all that is due at now_ms, in order of deadlines; those equal or already past at their
 * arming, in any order. A timer is disarmed when its callback begins. CHECKs that now_ms does not
 * go back. */
void wheel_advance(struct wheel *wheel, uint64_t now_ms);
/* Milliseconds from wheel->now_ms until something may be due (may be early, never late); -1 when
 * nothing is armed. Exact for what is due before the next multiple of 64 ms. */
int64_t wheel_next_ms(const struct wheel *wheel);

#endif
