/* kernel.h: a kernel that exists only in this process: sockets, pipes and io_uring.
 *
 * weir meets it from below: the functions of liburing are defined here, and the system calls that
 * src/ makes on descriptors are wrapped by the linker (the list is in the Makefile). So all of
 * src/ring/ is the real one. The clients and the servers of a run meet it from above, by the calls
 * below: they own ends of connections, as actors, without descriptors.
 *
 * A connection is two flows of bytes. What is written is at first on its way and arrives in
 * segments, later; FIN comes behind it; RST destroys what has not arrived. What the kernel may do
 * differently from one time to the next, the seed decides (sim_fault).
 */
#ifndef WEIR_TESTS_SIM_KERNEL_H
#define WEIR_TESTS_SIM_KERNEL_H

#include "sim/sim.h"

#include <sys/types.h>

struct sock;
struct ring;

/* An actor's view of its end of a connection. */
struct sock_actor {
    /* Something may be read or written now, or the connection has changed. */
    void (*on_change)(void *owner);
    void *owner;
};

/* What becomes of a connect to a server. */
struct connect_fate {
    int error;        /* 0, or -errno */
    bool never;       /* no answer ever comes */
    uint64_t wait_ns; /* until it is known */
};

/* A server's listening address: a port of 127.0.0.1. */
struct kernel_server {
    uint16_t port;
    struct connect_fate (*on_connect)(void *owner);
    /* The end of the new connection that is the server's. */
    void (*on_accept)(void *owner, struct sock *sock);
    void *owner;
    struct kernel_server *next;
};

void kernel_init(void);
/* What must be gone by then is: ends the run otherwise. Pipes and memory are freed. */
void kernel_fini(void);
void kernel_serve(struct kernel_server *server);
/* The ring in whose turns time passes, and what is called at the beginning of each. */
void kernel_on_turn(const struct ring *ring, void (*on_turn)(void *owner), void *owner);

/* Actors' calls. The results are those of the system calls, errors as -errno. */
/* To weir's listener; on_change tells when it is open. NULL: refused at once. */
struct sock *sock_connect(uint16_t port, uint32_t client, struct sock_actor actor);
void sock_set_actor(struct sock *sock, struct sock_actor actor);
bool sock_is_open(const struct sock *sock);
uint32_t sock_number(const struct sock *sock);  /* in the trace */
bool sock_is_accepted(const struct sock *sock); /* no more in weir's backlog */
bool sock_is_dead(const struct sock *sock);     /* was reset, by whomever */
bool sock_is_broken(const struct sock *sock);   /* was reset by the network */
bool sock_is_over(const struct sock *sock);     /* no more comes: FIN or RST has arrived */
/* -EAGAIN: nothing there now; 0: the other side's FIN; -ECONNRESET. */
ssize_t sock_read(struct sock *sock, void *to, size_t size);
ssize_t sock_write(struct sock *sock, const void *from, size_t size);
void sock_shutdown(struct sock *sock); /* SHUT_WR */
/* The actor has no more to do with it. */
void sock_close(struct sock *sock);
void sock_abort(struct sock *sock); /* with RST */
/* Of TLS: FIN, without a word that this is the end. */
void sock_cut(struct sock *sock);
/* The network resets both ends. */
void sock_break(struct sock *sock);

/* What the invariants compare with. */
struct kernel_owed {
    uint32_t all; /* final completions, submitted or queued, not yet seen by the application */
    uint32_t by_kind[256];
    uint32_t accepted;   /* sockets in completions not yet seen */
    uint32_t buffers[2]; /* in the kernel's hands, or in completions not yet seen, by group */
};
struct kernel_owed kernel_owed(const struct ring *ring);
uint32_t kernel_open_socks(void); /* descriptors of streams */
uint64_t kernel_turns(void);

#endif
