/* conn.h: one connected (or connecting) socket: receives, a queue of bytes to send, one deadline, a
 * close in three steps.
 *
 *              conn_dial                conn_accept
 *                 |                         |
 *            CONNECTING --on_open-------> OPEN --conn_finish--> FINISHING --queue sent--> LINGERING
 *                 |                         |                       |                        |
 *                 +---------conn_close / conn_reset / an error (on_lost)---------------------+
 *                                           v
 *                                        CLOSING  --no operation in flight: released
 *
 * CONNECTING  the connect is in flight; nothing is received or sent
 * OPEN        has a user; receives unless paused or at the end of the stream; sends what is queued
 * FINISHING   no user; sends what is queued, discards what is received
 * LINGERING   no user; FIN sent; discards until the other side's FIN or one second has passed
 * CLOSING     no user; the socket is shut down or its operations cancelled; waits for their
 * completions
 *
 * The user (a session) is told of what happens by struct conn_events and is detached at once by
 * conn_finish, conn_close and conn_reset: no event comes after them, and the conn must not be
 * touched. After on_lost too.
 */
#ifndef WEIR_NET_CONN_H
#define WEIR_NET_CONN_H

#include "base/bytes.h"
#include "net/addr.h"
#include "net/conn_out.h"
#include "net/net.h"

#include <sys/socket.h>

struct conn;
struct conn_filter;
struct pump;

struct conn_events {
    /* The connect succeeded. Dialled connections only. */
    void (*on_open)(struct conn *conn);
    /* Bytes arrived. They lie in `lease`, of which the callee owns one reference. */
    void (*on_bytes)(struct conn *conn, struct bytes bytes, struct lease *lease);
    /* The other side sent FIN: no more bytes come; sending goes on. */
    void (*on_eof)(struct conn *conn);
    /* The queue fell to half its mark after a send call said it was over it. */
    void (*on_drained)(struct conn *conn);
    /* All that was queued has been handed to the kernel. Only after conn_notify_sent. */
    void (*on_sent)(struct conn *conn);
    /* Of `from` of a pump (net/pump.h): how many bytes may still pass; UINT64_MAX for all that
     * come. */
    uint64_t (*pump_limit)(struct conn *conn);
    /* So many have reached the other connection; 0 when it has begun, or bytes wait in it now. */
    void (*on_pumped)(struct conn *conn, uint64_t bytes);
    /* The deadline passed. The conn goes on. */
    void (*on_deadline)(struct conn *conn);
    /* The connection (or the connect) failed with -error; the conn is closing and detached. */
    void (*on_lost)(struct conn *conn, int error);
};

enum __attribute__((packed)) conn_state {
    CONN_CONNECTING,
    CONN_OPEN,
    CONN_FINISHING,
    CONN_LINGERING,
    CONN_CLOSING
};

struct conn {
    /* Fixed after init. In a free slot only bytes 8 to 15 are ours, and they may read zero
     * (base/slab.h): generation 0, which no completion carries, is that of a free slot. Each use of
     * a slot has another one, counted by the net. */
    struct net *net;
    uint32_t generation;
    int fd;
    const struct conn_events *events;
    void *user;
    struct listener *listener; /* where from; NULL for dialled ones */
    bool is_client;            /* accepted, not dialled */
    /* Changes in routine work. */
    enum conn_state state;
    uint8_t ops_in_flight; /* operations that owe a final completion */
    bool poll_in_armed;
    bool poll_out_armed;
    bool recv_armed;
    bool recv_bulk_armed; /* the armed receive is a one-shot into a bulk buffer */
    bool recv_cancelling;
    bool recv_starved;
    bool paused;
    bool bulk; /* the user expects a long stream */
    bool eof;  /* the other side's FIN was seen */
    bool cut;  /* and no end of the stream before it, which the filter would have seen */
    bool send_armed;
    bool send_refused; /* the kernel would not wait for room to send */
    bool connect_armed;
    bool told_full;
    bool notify_sent;
    bool fin_wanted; /* FIN after what is queued */
    bool fin_sent;
    uint8_t pp_version;         /* of the PROXY header to be sent once connected; 0: none */
    bool recv_first : 1;        /* nothing was received: many a client sends one request only */
    bool recv_poll_first : 1;   /* the next receive will surely find nothing yet */
    bool recv_limited : 1;      /* the receive in flight ends after some bytes */
    bool bulk_switch : 1;       /* the receive in flight should make room for `bulk`, once */
    bool pumped : 1;            /* the last bytes came by a pump: the next are expected to */
    bool linger : 1;            /* wait for the other side's FIN when finishing */
    bool in_quota : 1;          /* of its listener: a client; else one that is refused */
    bool ip_counted : 1;        /* in its listener's limit, as ip_key */
    bool abort : 1;             /* end with RST */
    uint8_t send_tries : 3;     /* in a row for which the socket took nothing */
    bool watch_armed : 1;       /* its reset is told by a poll (net/conn_watch.h) */
    uint32_t flush_ms;          /* of conn_finish */
    uint32_t taken;             /* what conn_taken saw last, low bits */
    struct conn_out out;        /* for the socket */
    struct conn_filter *filter; /* between the socket and the user (conn_filter.h); NULL: none */
    struct pump *pump_out;      /* takes what this one receives; NULL: none */
    struct pump *pump_in;       /* fills what this one sends; NULL: none */
    struct addr_pair *ends; /* a client's, as a PROXY header told or is to tell them; else NULL */
    uint64_t deadline_ms;   /* 0: none */
    uint64_t sent_total;    /* bytes the kernel took */
    uint64_t ip_key;
    struct wheel_timer timer;      /* fires at or before deadline_ms, then looks again */
    struct wheel_timer send_timer; /* until it fires, nothing is sent */
    struct list dirty_link;
    struct list starved_link;
};

/* Takes the socket. NULL when all slots are in use: the socket is untouched then. */
struct conn *conn_accept(struct net *net, int fd, const struct conn_events *events, void *user);

struct conn_dial_options {
    const struct sockaddr *address; /* must stay valid until on_open or on_lost */
    socklen_t address_size;
    uint64_t deadline_ms; /* on the worker's clock: on_deadline, the user closes */
    bool nodelay;
    /* The connection begins with a PROXY header (net/pp.h) of that version, 0: none, that tells of
     * these ends, which are copied; NULL: of a client without any. */
    uint8_t pp_version;
    const struct addr_pair *pp_ends;
};
/* Opens a socket and connects it. NULL and *error (-errno) when that cannot even begin. */
struct conn *conn_dial(struct net *net, const struct conn_dial_options *options,
                       const struct conn_events *events, void *user, int *error);

/* For the session to attach itself later than conn_accept. */
static inline void conn_attach(struct conn *conn, const struct conn_events *events, void *user) {
    conn->events = events;
    conn->user = user;
    conn->notify_sent = false; /* by whoever had it before */
}

/* At least `size` bytes to write into (size <= the small buffer size), to be queued with
 * conn_commit before any other call on this conn. NULL when memory is used up. */
char *conn_reserve(struct conn *conn, size_t size);
void conn_commit(struct conn *conn, size_t size);
/* Copies and queues. False without memory: some of it may have been queued, the user resets. */
bool conn_send_copy(struct conn *conn, struct bytes bytes);
/* Queues bytes of `lease`, taking a reference; small pieces are copied. False as above. */
bool conn_send_lease(struct conn *conn, struct bytes bytes, struct lease *lease);
/* Whether more is queued than the mark; on_drained follows if so. */
bool conn_is_full(struct conn *conn);
/* As !conn_is_full, and there is memory for a frame: on_drained follows if not. */
bool conn_has_room(struct conn *conn);
/* Bytes queued and not yet accepted by the kernel. */
uint32_t conn_queued(const struct conn *conn);
void conn_notify_sent(struct conn *conn);

void conn_pause(struct conn *conn);
void conn_resume(struct conn *conn);
/* Whether a long stream is expected: big buffers are used for it then, unless a pump takes it. */
void conn_expect_bulk(struct conn *conn, bool bulk);
/* Whether some of what this side was given has not been taken by the kernel yet. */
bool conn_is_sending(const struct conn *conn);
/* Whether nothing is read because the other connection of a pump has no room: for the bytes it
 * holds or, before it begins, for what was queued there. */
bool conn_is_held(const struct conn *conn);

/* Absolute, on the worker's clock; 0: none. Cheap: moving a deadline out touches no timer. */
void conn_deadline(struct conn *conn, uint64_t deadline_ms);
/* How far the other side has come with what was sent. */
struct conn_taken conn_taken(struct conn *conn);

/* Half-close: FIN after what is queued; receiving goes on. */
void conn_send_fin(struct conn *conn);
/* Sends what is queued, then closes; it is given up and reset when the other side acknowledges
 * nothing for `flush_ms`. `linger`: the other side may still be sending, so its FIN is waited for
 * (a second): the RST that answers bytes nobody reads could destroy what was sent last. */
void conn_finish(struct conn *conn, uint64_t flush_ms, bool linger);
/* Drops what is queued and closes. */
void conn_close(struct conn *conn);
/* As conn_close, with RST instead of FIN: for the other side nothing looks complete. */
void conn_reset(struct conn *conn);
/* The same, and the user is told: on_lost with -error. */
void conn_abandon(struct conn *conn, int error);

/* Ends those that have no user and still send; returns how many. */
uint32_t conn_close_finishing(struct net *net);
/* Ends all connections, whatever they do; a user that is left hears on_lost. */
void conn_close_all(struct net *net);

#endif
