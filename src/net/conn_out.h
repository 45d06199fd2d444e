/* conn_out.h: a queue of bytes to send: slices of leases, and the buffer that is being filled.
 *
 * A connection has one for its socket; where a filter stands before the socket, that has one for
 * what its user queued. Bytes that were queued do not move until they are taken; the last slice
 * grows while its buffer has room. Blocks come from net->queues, buffers from net->small.
 */
#ifndef WEIR_NET_CONN_OUT_H
#define WEIR_NET_CONN_OUT_H

#include "base/bytes.h"
#include "ring/buf.h"

struct conn_queue;
struct net;

struct conn_out {
    struct conn_queue *first; /* NULL when there is none */
    struct conn_queue *last;
    struct lease *lease; /* the buffer that is being filled; NULL when there is none */
    uint32_t used;       /* of it */
    uint32_t queued;     /* bytes in all slices */
};

/* What the other side has taken of all that was sent: see conn_taken. */
struct conn_taken {
    uint64_t bytes;  /* of conn->sent_total */
    uint64_t ago_ms; /* when it was last seen to take some, or to make room for some; UINT64_MAX:
                      * not since the last look */
};

/* At least `size` bytes to write into (size <= the small buffer size), to be queued with
 * conn_out_commit before any other call. NULL when memory is used up. */
char *conn_out_reserve(struct net *net, struct conn_out *out, size_t size);
void conn_out_commit(struct net *net, struct conn_out *out, size_t size);
/* Copies and queues. False when memory is used up: some of it may have been queued. */
bool conn_out_copy(struct net *net, struct conn_out *out, struct bytes bytes);
/* Queues bytes of `lease`, taking a reference. False as above, and then nothing is queued. */
bool conn_out_append(struct net *net, struct conn_out *out, struct bytes bytes,
                     struct lease *lease);
/* The first slice; empty when there is none. */
struct bytes conn_out_front(const struct conn_out *out);
/* Copies bytes from the front, which stay; returns how many. */
size_t conn_out_peek(const struct conn_out *out, char *to, size_t size);
/* Takes bytes off the front and gives their leases back. */
void conn_out_take(struct net *net, struct conn_out *out, size_t size);
/* Drops all, and the buffer. */
void conn_out_drop(struct net *net, struct conn_out *out);

#endif
