/* net_fixture.h: a real ring with its connections, turned by hand, and plain sockets for the other
 * side. While there is a world its clock takes small steps: for as long as the machine leaves the
 * test standing still, no time passes, and nobody is late for that. */
#ifndef WEIR_TESTS_UNIT_NET_NET_FIXTURE_H
#define WEIR_TESTS_UNIT_NET_NET_FIXTURE_H

#include "net/conn.h"
#include "net/net.h"

#include <netinet/in.h>

struct net_world {
    struct net net;
    struct stat_block stats;
    struct wheel_timer guard; /* no turn sleeps longer than until it fires */
};

/* Small numbers, so that limits are reached: 64 connections, 32 small buffers of 4 KB, 4 bulk ones
 * of 64 KB, 4 pipes, a queue mark of 16 KB. A test may change them before the start. */
struct net_options net_world_options(void);
/* Zeroed memory aligned to its cache lines. */
struct net_world *net_world_new(const struct net_options *options);
/* Closes what is open, and fails the test if anything was not given back. */
void net_world_free(struct net_world *world);
/* One turn, of at most 5 ms. */
void net_world_turn(struct net_world *world);
void net_world_turn_for(struct net_world *world, uint64_t ms);
/* kernel + leased + spare == total, in both pools. */
void assert_buffers_whole(const struct net_world *world);

/* Turns until `condition`; the test fails when that takes more than 5 seconds. */
#define TURN_UNTIL(world, condition)                                                               \
    do {                                                                                           \
        for (uint64_t turn_end_ms = (world)->net.now_ms + 5000; !(condition);) {                   \
            net_world_turn(world);                                                                 \
            assert_true((world)->net.now_ms < turn_end_ms);                                        \
        }                                                                                          \
    } while (0)

/* Plain sockets, not blocking. */
void tcp_pair(int fds[2]);
/* A listening socket of 127.0.0.1 and its address. */
int tcp_listen(struct sockaddr_in *address);
/* A port of 127.0.0.1 nobody listens on. */
void tcp_refused(struct sockaddr_in *address);
int tcp_connect(const struct sockaddr_in *address);
/* Closes with RST. */
void tcp_reset(int fd);
void peer_send(int fd, const char *text);
/* What recv(2) gives now: bytes, 0 at the end of the stream, -errno. */
ssize_t peer_take(int fd, void *memory, size_t size);
/* Turns until exactly this has arrived at `fd`. */
void peer_expect(struct net_world *world, int fd, const char *text);
/* Turns until the other side's FIN has arrived; nothing may come before it. */
void peer_expect_eof(struct net_world *world, int fd);
/* Turns until the connection has been reset, whatever comes before. */
void peer_expect_reset(struct net_world *world, int fd);

#endif
