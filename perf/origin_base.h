/* origin_base.h: what the two origins of perf/bench share: counters, body, clocks, listener.
 *
 * Each origin is one thread with one epoll. It trusts its clients, which are proxies under test: it
 * must never face a network. What a broken machine causes ends the program.
 *
 * A body is the text of eight-byte lines that count up in hexadecimal ("0000000\n0000001\n..."),
 * beginning again each MiB, so that a client can see bytes lost or moved. The counters are kept in
 * a file that the measuring program maps as well: reading them costs nothing.
 */
#ifndef WEIR_PERF_ORIGIN_BASE_H
#define WEIR_PERF_ORIGIN_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define ORIGIN_PATTERN_SIZE (1024 * 1024)
#define ORIGIN_EVENTS_MAX 512
#define ORIGIN_DELAY_MS_MAX 60000

/* The layout is known to benchlib/load.py. */
struct counters {
    uint64_t requests;
    uint64_t bytes_sent; /* heads too */
    uint64_t body_bytes_received;
    uint64_t accepted;
    uint64_t open;
    uint64_t waiting;
};

extern struct counters *counters;
extern int origin_poller;
extern char origin_pattern[ORIGIN_PATTERN_SIZE];
/* RFC 9110 section 6.6.1: an origin with a clock sends Date. Once a second is what servers do. */
extern char origin_date[48];
extern time_t origin_date_second;

/* Reads PORT and COUNTERS_FILE, listens, and says "ready". Returns the listening socket. */
int origin_start(int argc, char **argv);

/* How many files may be open: no descriptor is as large. */
size_t origin_files_max(void);

/* False after SIGTERM. Once a turn: it refreshes the date. */
bool origin_goes_on(void);

/* The next connection, non-blocking and counted; -1: none is left. */
int origin_accept(int listener);

/* Watches for `events`, or changes what is watched for; the descriptor comes back with them. */
void origin_watch(int fd, uint32_t events);
void origin_rewatch(int fd, uint32_t events);

/* Makes the coming close of `fd` a reset: nothing of it stays in TIME_WAIT. */
void origin_linger(int fd);

/* False: the bytes are not those of the body at `at`. */
bool origin_pattern_is(uint64_t at, const void *bytes, uint64_t size);

uint64_t origin_now_ms(void);

/* Prints the cause and ends the program. */
void origin_die(const char *what) __attribute__((noreturn));

#endif
