/* pump_line.h: a source, a pump and a sink, whose bytes are a pattern that shows every shift. */
#ifndef WEIR_TESTS_UNIT_NET_PUMP_LINE_H
#define WEIR_TESTS_UNIT_NET_PUMP_LINE_H

#include "net/pump.h"

#include "unit/net/conn_user.h"

#define MB (1 << 20)

/* A source whose bytes go through `from` and `to` to a sink. */
struct line {
    struct net_world *world;
    struct conn_user *from;
    struct conn_user *to;
    int source;
    int sink;
    size_t sent;
    size_t taken;
};

struct line *line_new_in(struct net_world *world);
struct line *line_new(void);
/* The world must have closed the connections. */
void line_close(struct line *line);
/* With its world: fails the test when anything is left behind. */
void line_free(struct line *line);

void line_pump(struct line *line);
/* Sends what the socket takes of the pattern, up to its byte `end`. */
void line_feed(struct line *line, size_t end);
/* Reads all there is at the sink; returns where the pattern stands. */
size_t line_drain(struct line *line);
/* Turns until the sink has got all up to `end`. */
void line_carry(struct line *line, size_t end);
/* Starts the pump and turns until the sink takes no more and bytes are held for it. */
void line_fill(struct line *line);
uint64_t line_stat(const struct line *line, enum stat_id id);

#endif
