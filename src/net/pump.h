/* pump.h: bytes from one connection to another inside the kernel, by splice(2) through a pipe.
 *
 * A pump is one direction. It takes over the receiving of `from` and the sending to `to`:
 *
 *            pump_start
 *               |
 *            STARTING --receive of `from` ended, queue of `to` empty--> MOVING
 *               |                                                         |
 *               |      .-- WAIT_IN: nothing to read; a poll of `from`  <--+
 *               |      |-- WAIT_OUT: `to` is full; a poll of `to`      <--+
 *               |      '------------------ the poll ends ---------------->+
 *               v                                                         v
 *             ended: all that may pass has passed; FIN; an error; no pipe left; few bytes at a time
 *
 * The user of `from` says how much may pass (conn_events.pump_limit), and is told what has reached
 * `to` (on_pumped), also when it begins and when bytes begin to be held in the pipe. FIN and errors
 * come as they do without a pump, after what was received before them. When a pump ends by itself
 * `from` receives as before, so nothing is lost and its user need not know. Polls and splices keep
 * the order: nothing is read while the pipe holds bytes that `to` has no room for (backpressure),
 * and nobody else sends to `to` meanwhile.
 *
 * splice(2), never IORING_OP_SPLICE: that one runs in a thread of the kernel for every call.
 */
#ifndef WEIR_NET_PUMP_H
#define WEIR_NET_PUMP_H

#include "net/conn.h"

struct pump {
    struct conn *from;
    struct conn *to;
    struct pipe *pipe;   /* NULL unless it holds bytes */
    uint64_t moved_ms;   /* when it moved much last */
    uint8_t small_moves; /* in a row that carried little */
    bool begun;
    bool waits_in;
    bool waits_out;
};

/* Both are open and neither has a pump in this direction. False: no slot is left, or a filter has
 * to see the bytes (conn_filter.h); go on copying. */
bool pump_start(struct conn *from, struct conn *to);
/* Gives the connections back to receiving and sending; bytes in the pipe are lost. Calls nobody. */
void pump_stop(struct pump *pump);
/* Whether bytes of it wait for room in `to`. */
static inline bool pump_holds(const struct pump *pump) { return pump && pump->pipe; }

/* How many pumps have moved much of late, in this millisecond or the last. While there are several,
 * the turn lets their readiness gather (ring_gather): each wake-up then finds more to move. */
uint32_t pump_busy_count(const struct net *net);

/* For conn.c: moves what can be moved, as part of the flush of `from`. May call events of both. */
void pump_run(struct pump *pump);
void pump_on_poll(struct conn *conn, const struct ring_completion *completion);

#endif
