/* h2_queue.h: bytes of an HTTP/2 stream that wait to be sent, or to be taken, and the room that all
 * such sessions of a worker share.
 *
 * A queue holds slices in order, each with a reference to its lease, in blocks from a slab. A
 * zeroed one is empty; h2_queue_clear gives everything back.
 */
#ifndef WEIR_SESSION_H2_QUEUE_H
#define WEIR_SESSION_H2_QUEUE_H

#include "net/net.h"
#include "proto/h2_write.h"

/* What a stream holds to be sent before it says that it is full, while all buffers are spare. */
#define H2_STREAM_MARK (64 * 1024)

#define H2_BLOCK_SLICES 7
struct h2_slice {
    const char *ptr;
    struct lease *lease;
    uint32_t len;
};
struct h2_block {
    struct h2_block *next;
    uint32_t first; /* of the slices still there */
    uint32_t count;
    struct h2_slice slices[H2_BLOCK_SLICES];
};
/* Bytes in order, each slice with a reference to its lease. */
struct h2_queue {
    struct h2_block *first;
    struct h2_block *last;
    struct lease *copy; /* the buffer that small pieces are copied to */
    uint32_t copy_used;
    uint32_t bytes;
};

/* What all HTTP/2 sessions of a worker share. */
struct h2_room {
    struct net *net;
    struct h2_codec codec;
    struct h2_list list; /* scratch, for a head to send */
    struct slab sessions;
    struct slab streams;
    struct slab heads;
    struct slab blocks;
    uint32_t more_max;  /* streams of clients beyond the first of each connection */
    uint32_t more;      /* of them, those there are */
    struct lease *copy; /* what the streams of this turn are given in small pieces; NULL: none */
    uint32_t copy_used;
    struct net_task copy_task; /* lets it go */
};

/* False when memory is used up; `lease` gets a reference. Small pieces behind others are copied. */
bool h2_queue_add(struct h2_room *room, struct h2_queue *queue, struct bytes bytes,
                  struct lease *lease);
/* Copies, into buffers of the room's net: all that is not behind something else shares one in a
 * turn, as most of it is sent in that turn. */
void h2_queue_init(struct h2_room *room);
void h2_queue_fini(struct h2_room *room);
bool h2_queue_copy(struct h2_room *room, struct h2_queue *queue, struct bytes bytes);
/* Whether it holds more than its share (net_share) of H2_STREAM_MARK; and less than half of it. */
bool h2_queue_is_full(const struct h2_room *room, const struct h2_queue *queue);
bool h2_queue_is_low(const struct h2_room *room, const struct h2_queue *queue);
/* The first slice, at most `max` bytes of it; the caller has `len` of them taken off by drop. */
struct h2_slice h2_queue_front(const struct h2_queue *queue, uint32_t max);
void h2_queue_drop(struct h2_room *room, struct h2_queue *queue, uint32_t bytes);
void h2_queue_clear(struct h2_room *room, struct h2_queue *queue);

#endif
