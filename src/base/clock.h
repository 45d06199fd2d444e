/* clock.h: CLOCK_MONOTONIC in integers, which workers read once a turn and pass on; and what date a
 * second of UNIX time has. */
#ifndef WEIR_BASE_CLOCK_H
#define WEIR_BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_now_ns(void);
static inline uint64_t clock_ms(uint64_t ns) { return ns / 1000000; }

struct clock_date {
    uint32_t year;
    uint32_t month;   /* 1 to 12 */
    uint32_t day;     /* 1 to 31 */
    uint32_t weekday; /* 0: Sunday */
    uint32_t hour;
    uint32_t minute;
    uint32_t second;
};
/* In UTC; of years up to 9999, what lies before 1970 counts as its beginning. gmtime_r(3) and
 * strftime(3) take a lock of libc's, which a thread may hold that does not run. */
struct clock_date clock_date_of(int64_t second);

#endif
