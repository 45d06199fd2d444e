/* pool.h: connections to servers, idle and busy, of one worker.
 *
 * pool_take gives a stream on an open connection at once, or dials and tells the waiter later. A
 * connection that was dialled for a waiter that has gone becomes idle, or ends when its protocol
 * has one stream a connection (session_ops.one_stream). Idle connections are used last-in
 * first-out, so that surplus ones reach keepalive_timeout. A connection that began with a PROXY
 * header is one client's: it never becomes idle, but ends. Whatever gives a server room
 * (an idle connection, one that has ended, a connect that failed) pokes its upstream's queue.
 *
 * Multiplexed connections (session_ops.multiplexed) are few, and shared by many: one that has
 * streams and is below POOL_LOAD comes first, then an idle one, then one above POOL_LOAD, while
 * another is being dialled in advance. As many wait for one dial as the server's last connection
 * was to carry, or as the protocol guesses. Where a connection stands:
 *
 *   DIALLING --as many wait as it takes--> CROWDED        IDLE --one stream--> SHARED
 *      |    <----------one goes------------   |             ^                    |
 *      +------------------+-------------------+             |   POOL_LOAD, or below it again
 *                         | ready                           |                    |
 *            IDLE, SHARED, LOADED, FULL      last stream ends             LOADED --> FULL
 *
 * and from anywhere to ENDING. FULL is also a connection of HTTP/1 with its one stream, and one
 * that its server is closing (streams_max is 0): that one ends with its last stream.
 */
#ifndef WEIR_PROXY_POOL_H
#define WEIR_PROXY_POOL_H

#include "proxy/upstream.h"

/* How many streams a connection carries before the next is dialled: three quarters of what its
 * server takes, at most this. */
#define POOL_LOAD 100

struct pool_wait {
    /* Set by the caller. */
    const struct session_ops *ops; /* how a server that is dialled is spoken to */
    void (*on_stream)(struct pool_wait *wait, struct stream *stream);
    void (*on_failed)(struct pool_wait *wait, enum reason reason);
    struct session *client; /* whose connection it is to be: told to servers with send_proxy */
    /* The pool's. */
    struct session *session; /* being dialled; NULL: not waiting */
    struct list link;        /* in its waiters */
    struct arena *arena;
};

/* A stream on an open connection; or NULL with `wait` under way and *failure REASON_NONE; or NULL
 * with the reason why not even a dial could begin: SERVER_BUSY when the server is at its limit, and
 * then it is not available until there is room; NO_MEMORY when a connection has room for a stream,
 * but the worker has none. `fresh`: only a new connection will do, and an idle
 * one makes room for it where the server is at its max_connections. `arena` outlives the stream;
 * NULL where nothing is built for it. */
struct stream *pool_take(struct server *server, struct arena *arena, bool fresh,
                         struct pool_wait *wait, enum reason *failure);
/* The waiter goes; harmless when it does not wait. */
void pool_cancel(struct pool_wait *wait);
/* Closes all idle connections of the server. */
void pool_drain(struct server *server);

#endif
