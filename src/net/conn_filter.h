/* conn_filter.h: what may stand between the socket of a connection and its user: TLS.
 *
 *   socket --on_bytes, on_eof--> filter --conn->events--> user
 *   socket <--conn->out--------- filter <--plain--------- user: conn_send_*, as without a filter
 *
 * With a filter what arrives goes to it, and it calls the user's events itself; what the user
 * queues waits in `plain`, and when the connection is flushed and no send is in flight the filter
 * turns some of it into bytes for the socket. Everything else of conn.h means what it meant:
 * conn_queued counts both queues, so also conn_is_full, on_drained and on_sent; sent_total and the
 * counters of bytes are those of the socket. A filter that marks the end of a stream does so before
 * FIN.
 *
 * What arrives always passes the filter, so nothing is pumped from such a connection. To it a pump
 * can, where the filter lets the kernel do its work on what is sent (net/ktls.h): it `offers`, is
 * asked by `offload` once a pump has something for the connection, everything queued has gone, and
 * from then on `plain` is not used: what the user queues goes to the socket as it is.
 *
 * The owner embeds struct conn_filter; its memory must last until on_released or conn_drop_filter.
 */
#ifndef WEIR_NET_CONN_FILTER_H
#define WEIR_NET_CONN_FILTER_H

#include "net/conn.h"
#include "net/ktls.h"

struct conn_filter_ops {
    /* The connect succeeded: the filter calls the user's on_open when it is ready. */
    void (*on_open)(struct conn *conn);
    /* As in conn_events: the callee owns a reference of `lease`, and may write into the bytes. */
    void (*on_bytes)(struct conn *conn, struct bytes bytes, struct lease *lease);
    void (*on_eof)(struct conn *conn);
    /* Takes of `plain` as much as one send should carry, and puts what it makes of it
     * (conn_filter_put). `end`: nothing follows what is queued; once all of it was taken the end is
     * marked, and `ended` set. May do nothing for a lack of memory: it is asked again. False: the
     * connection is lost. Offloaded, it is asked for the end only, when nothing is queued. */
    bool (*flush)(struct conn *conn, bool end);
    /* Of filters that offer: nothing is queued or in flight, and the kernel may begin
     * (conn_filter_offload). False: it does not, and is not offered any more. */
    bool (*offload)(struct conn *conn);
    /* The connection is gone, or the filter was dropped: nothing refers to it any more. */
    void (*on_released)(struct conn_filter *filter);
};

struct conn_filter {
    const struct conn_filter_ops *ops;
    struct conn_out plain; /* of the user, not yet taken */
    bool ended;            /* the end is marked, or no mark can be made */
    bool offers;           /* the kernel could do its work; the owner says so */
    bool offloaded;        /* and does */
    struct ktls kernel;    /* then */
};

/* While nothing has been queued by a user yet. */
void conn_set_filter(struct conn *conn, struct conn_filter *filter);
/* From now on the user speaks to the socket; what the filter has put goes first, what it has not
 * taken is dropped. Ends with on_released. */
void conn_drop_filter(struct conn *conn);
/* The connection fails with -error: as if its socket had. Harmless when it is closing. */
void conn_fail(struct conn *conn, int error);

/* For filters: queues bytes for the socket. False when memory is used up. */
bool conn_filter_put(struct conn *conn, struct bytes bytes);
/* The same in place: at least `size` bytes to write into (size <= the small buffer size), and
 * *room, how many there are; to be queued with conn_filter_commit before any other call. NULL as
 * above. */
char *conn_filter_reserve(struct conn *conn, size_t size, size_t *room);
void conn_filter_commit(struct conn *conn, size_t size);
/* How many bytes conn_filter_put can take for certain. */
size_t conn_filter_room(const struct conn *conn);
/* In `offload`: the kernel makes the records from now on, with these keys. False: it will not. */
bool conn_filter_offload(struct conn *conn, struct bytes keys);
/* Offloaded: a record that is no data. -EAGAIN: there is no room yet, or something goes first. */
int conn_filter_say(struct conn *conn, uint8_t type, struct bytes bytes);
/* Offloaded: whether the kernel holds nothing of what it was given. */
bool conn_filter_is_sent(const struct conn *conn);

/* For conn.c. */
/* Has the filter make bytes for the socket. False: the connection is lost. */
bool conn_filter_flush(struct conn *conn);
/* Whether nothing of the user is left, nor an end that is to be marked. */
bool conn_filter_is_done(const struct conn *conn);
/* Whether a pump that wants to move `limit` bytes may send to the connection, maybe offloaded. */
bool conn_filter_lets_pump(const struct conn *to, uint64_t limit);
/* The pump has come to its first byte, nothing is queued. False: it has to end. */
bool conn_filter_begin_pump(struct conn *to);
/* All of an open connection is the kernel's, which has not sent it and would forget it, or has no
 * room for the mark of its end: then it is finished instead of closed. */
bool conn_filter_closes_later(struct conn *conn);
/* Before a close: marks the end where that needs no waiting, and lets alerts go out. */
void conn_filter_say_last(struct conn *conn);

#endif
