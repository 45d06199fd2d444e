/* conn_user.h: a user of a conn that writes down what it is told, and bytes that can be told apart.
 */
#ifndef WEIR_TESTS_UNIT_NET_CONN_USER_H
#define WEIR_TESTS_UNIT_NET_CONN_USER_H

#include "unit/net/net_fixture.h"

struct conn_user {
    struct net_world *world;
    struct conn *conn;
    char bytes[1 << 20]; /* received */
    size_t len;
    uint32_t reads;
    uint32_t reads_bulk;
    /* How often each event came. */
    uint32_t opened;
    uint32_t eofs;
    uint32_t drained;
    uint32_t sent;
    uint32_t deadlines;
    uint32_t lost;
    int lost_error;
    /* As `from` of a pump: how many bytes may pass, or UINT64_MAX; how many have; the calls. */
    uint64_t pump_limit;
    uint64_t pumped;
    uint64_t pumped_at_eof;
    uint32_t pumped_calls;
    bool pumping_at_eof;
    /* What it does with bytes. */
    bool echo;
    bool echo_lease;
    bool close_on_bytes;
    struct lease **keep;  /* where it keeps what they lie in: one place after the other */
    bool send_on;         /* queues them on `to` ... */
    struct conn *pump_to; /* ... and starts a pump to it with the first ones */
    struct conn *reset_on_pumped[2];
};

extern const struct conn_events conn_user_events;

/* With an accepted connection, whose other side is *peer. The caller frees it. */
struct conn_user *conn_user_accept(struct net_world *world, int *peer);
/* Makes little room in the kernel, so that a queue builds up soon. */
void conn_user_narrow(struct conn_user *user, int peer);

/* A world of the usual options with one accepted connection. */
struct conn_line {
    struct net_world *world;
    struct conn_user *user;
    int peer; /* its other side, -1: closed */
};

struct conn_line conn_line_new(void);
struct conn_line conn_line_with(const struct net_options *options);
void conn_line_hang_up(struct conn_line *line);
void conn_line_free(struct conn_line *line);

/* Fills `memory` with the part of an endless text that begins at `at`. */
struct bytes pattern_bytes(char *memory, size_t at, size_t size);
/* Reads all there is at `fd`, checks that the text goes on with it, and returns where it ends. */
size_t peer_read_pattern(int fd, size_t at);

#endif
