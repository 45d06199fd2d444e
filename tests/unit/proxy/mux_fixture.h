/* mux_fixture.h: sessions to a server that carry many streams, and requests that take them from the
 * pool of a proxy_world, both played by the test. */
#ifndef WEIR_TESTS_UNIT_PROXY_MUX_FIXTURE_H
#define WEIR_TESTS_UNIT_PROXY_MUX_FIXTURE_H

#include "unit/proxy/proxy_fixture.h"

#define MUX_STREAMS 128
#define MUX_SESSIONS 64

struct mux;

struct mux_stream {
    struct stream stream;
    struct mux *mux;
    bool open;
};

struct mux {
    struct session session;
    struct mux_stream streams[MUX_STREAMS];
    bool ready;
    bool lost;   /* open gives nothing any more */
    bool closed; /* ops->close was called, or the last stream closed a lost one */
    bool gone;
};

extern const struct session_ops mux_ops;
extern struct mux *muxes[MUX_SESSIONS]; /* as they were dialled */
extern uint32_t mux_count;
extern uint32_t mux_takes; /* streams_max before the server has said it: 4 */
extern bool mux_refuses;   /* connect fails at once */

void mux_ready(struct mux *mux);
/* Its connection is there, and open gives nothing: otherwise it has no conn. */
void mux_short_of_memory(struct mux *mux, bool is_short);
/* The server says how many streams it takes. */
void mux_set(struct mux *mux, uint32_t streams_max);
void mux_gone(struct mux *mux, enum reason reason);

/* A request, as the pool sees it. */
struct waiter {
    struct pool_wait wait;
    struct stream *stream;
    uint32_t failures;
    enum reason reason;
    struct waiter *cancels; /* when it is told something */
    bool closes;            /* its stream, at once */
};

/* Of the first server. */
void take_as(struct proxy_world *world, struct waiter *waiter, bool fresh,
             const struct session_ops *ops);
void take(struct proxy_world *world, struct waiter *waiter);
void take_many(struct proxy_world *world, struct waiter *waiters, uint32_t count);
void waiter_close(struct waiter *waiter);
void close_many(struct waiter *waiters, uint32_t count);
/* For waiters made by hand. */
void waiter_on_stream(struct pool_wait *wait, struct stream *stream);
void waiter_on_failed(struct pool_wait *wait, enum reason reason);

uint64_t gauge(struct proxy_world *world, enum stat_id id);
void assert_gauges(struct proxy_world *world, uint64_t connecting, uint64_t active, uint64_t idle);

/* A proxy_world whose first upstream is spoken to by these. */
struct proxy_world *shared_world(const char *config);
void shared_world_free(struct proxy_world *world);

#endif
