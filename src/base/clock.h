/* clock.h: CLOCK_MONOTONIC in integers. Workers read it once a turn and pass it on. */
#ifndef WEIR_BASE_CLOCK_H
#define WEIR_BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_now_ns(void);
static inline uint64_t clock_ms(uint64_t ns) { return ns / 1000000; }

#endif
