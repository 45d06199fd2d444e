/* listener.h: one listening socket of one worker, with one accept in flight, multishot unless
 * near its limit.
 *
 * Every worker opens its own socket for an address (SO_REUSEPORT), so the kernel spreads
 * connections and no worker shares an accept queue. Unix sockets know no SO_REUSEPORT: the workers
 * share one descriptor for them. A listener pauses itself when its worker's connection slots are
 * used up (clients wait in the backlog), and when descriptors or memory run short (50 ms, doubling
 * to 500 ms); it never ends by itself.
 */
#ifndef WEIR_NET_LISTENER_H
#define WEIR_NET_LISTENER_H

#include "net/conn.h"

struct listener_options {
    const struct sockaddr *address;
    socklen_t address_size;
    const char *address_text; /* for messages */
    uint32_t backlog;
    bool nodelay;
    uint32_t ttl;         /* 0: the system's */
    uint32_t recv_buffer; /* bytes, 0: autotuning */
    uint32_t send_buffer;
};

/* How many connections some listeners of a worker may have together. */
struct listener_quota {
    uint32_t max;
    uint32_t used;
};

struct listener {
    /* Fixed after start. */
    struct net *net;
    int fd;
    uint32_t slot; /* names it in completions */
    const char *address_text;
    struct listener_quota *quota; /* shared with others; outlives it */
    uint32_t backlog;             /* how many one accept may bring */
    /* A connection was accepted; the callee attaches itself (conn_attach) or closes it. */
    void (*on_conn)(void *user, struct conn *conn);
    void *user;
    struct list link;
    /* Changes in routine work. */
    bool armed;
    bool cancelling;
    bool short_of; /* paused by a shortage, until the timer */
    bool draining; /* until the timer */
    bool stopped;
    uint32_t conns; /* client connections now */
    uint32_t backoff_ms;
    struct wheel_timer timer;
};

/* Opens a bound, listening socket: by any thread. The descriptor, or -errno of the call that failed
 * (bind(2), listen(2), ...). */
int listener_open(const struct listener_options *options);

/* Starts accepting on `fd`, which the listener owns from now on. */
void listener_start(struct listener *listener, struct net *net, int fd);
/* Begins no new handshake, accepts those under way, and stops a little later by itself. */
void listener_drain(struct listener *listener);
/* Accepts what waits in the queue, then stops for good; `listener_ended` tells when its memory may
 * go. */
void listener_stop(struct listener *listener);
static inline bool listener_ended(const struct listener *listener) {
    return listener->stopped && !listener->armed && listener->conns == 0;
}

/* For conn.c: a client connection of this listener is gone. */
void listener_on_released(struct listener *listener);
/* For net.c: the handler of accept completions. */
void listener_on_accept(void *net, const struct ring_completion *completion);

#endif
