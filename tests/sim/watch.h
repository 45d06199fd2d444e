/* watch.h: what must hold in weir after every turn, counted in more than one way. */
#ifndef WEIR_TESTS_SIM_WATCH_H
#define WEIR_TESTS_SIM_WATCH_H

struct worker;

/* Between two turns. Also makes those defects that are mistakes of weir's own. */
void watch_turn(const struct worker *worker);
/* When the worker has ended and before it is freed. */
void watch_end(const struct worker *worker);

/* watch_h2.c: what weir's nghttp2 has received and was told is counted from here on. */
void watch_h2_begin(void);
/* Streams, windows and connections to servers. */
void watch_h2_turn(const struct worker *worker);

#endif
