/* conn_internal.h: what conn.c (life and receive) and conn_send.c (the queue) share. */
#ifndef WEIR_NET_CONN_INTERNAL_H
#define WEIR_NET_CONN_INTERNAL_H

#include "net/conn.h"

#include <sys/uio.h>

#define CONN_SLICES 16     /* slices of one queue block */
#define CONN_SEND_SLICES 8 /* slices of one send */

struct conn_slice {
    const char *ptr;
    uint32_t len;
    struct lease *lease;
};

/* Part of a send queue; the first one also holds what the send in flight points at. */
struct conn_queue {
    struct conn_queue *next;
    uint32_t first; /* index of the first slice not yet sent */
    uint32_t count; /* slices in use, from index 0 */
    struct conn_slice slices[CONN_SLICES];
    struct iovec vector[CONN_SEND_SLICES];
    struct msghdr message;
};

/* For net.c: acts on what was changed since the last flush. */
void conn_flush(struct conn *conn);
void conn_rearm_starved(struct net *net, struct buf_pool *pool);
/* Every completion of a connection comes through here: it is the handler of their kinds. */
void conn_on_completion(void *owner, const struct ring_completion *completion);
int conn_init_room(struct net *net);
void conn_fini_room(struct net *net);

void conn_mark_dirty(struct conn *conn);
struct ring_token conn_token(const struct conn *conn, enum ring_kind kind);
/* Submits a send of what is queued, if none is in flight. */
void conn_flush_send(struct conn *conn);
void conn_on_send(struct conn *conn, const struct ring_completion *completion);
/* Nothing is sent for a while, on a socket that cannot be waited for. */
void conn_send_later(struct conn *conn);
void conn_on_send_timer(struct wheel_timer *timer, uint64_t now_ms);
/* As conn_send_later, where the socket would take more but there is nothing to give it yet. */
void conn_send_again(struct conn *conn);
/* As if they had just arrived; `lease` goes along. */
void conn_receive(struct conn *conn, struct bytes bytes, struct lease *lease);
/* FIN came, after all bytes before it. Nothing if the connection is no longer in use. */
void conn_end_of_stream(struct conn *conn);
/* Queues the PROXY header of a connection that has just been dialled. false: no memory. */
bool conn_send_pp(struct conn *conn);
/* The connection failed by itself. Nothing if it is closing. */
void conn_lose(struct conn *conn, int error);
/* There may be descriptors again for a dial. */
void conn_on_dial_timer(struct wheel_timer *timer, uint64_t now_ms);
/* Counts an operation in and, at its final completion, out. */
void conn_op_begin(struct conn *conn);

#endif
