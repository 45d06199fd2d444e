#include "base/clock.h"

#include "base/check.h"

#include <stdbool.h>
#include <time.h>

#define DAY_S 86400
/* A leap day is the last of a year that begins with March; calendars repeat after 400 of these. */
#define ERA_DAYS 146097
#define DAYS_TO_1970 719468 /* since 1 March of the year 0 */

uint64_t clock_now_ns(void) {
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

struct clock_date clock_date_of(int64_t second) {
    uint64_t at = second > 0 ? (uint64_t)second : 0;
    uint64_t days = at / DAY_S + DAYS_TO_1970;
    uint32_t rest = (uint32_t)(at % DAY_S);
    uint32_t in_era = (uint32_t)(days % ERA_DAYS);
    /* Without the leap days, of which the last ends every 4, no 100, but 400 years. */
    uint32_t year = (in_era - in_era / 1460 + in_era / 36524 - in_era / (ERA_DAYS - 1)) / 365;
    uint32_t in_year = in_era - (365 * year + year / 4 - year / 100);
    /* Five months from March, and five from August, have 153 days. */
    uint32_t month = (5 * in_year + 2) / 153;
    bool is_next_year = month >= 10;
    return (struct clock_date){
        .year = (uint32_t)(days / ERA_DAYS) * 400 + year + is_next_year,
        .month = is_next_year ? month - 9 : month + 3,
        .day = in_year - (153 * month + 2) / 5 + 1,
        .weekday = (uint32_t)((days + 3) % 7), /* that 1 March was a Wednesday */
        .hour = rest / 3600,
        .minute = rest / 60 % 60,
        .second = rest % 60,
    };
}
