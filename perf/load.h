/* load.h: what the kinds of load of perf/load.c share. One program, one thread, epoll.
 *
 * Each kind is a function that opens its connections, calls load_ready, and then works until
 * load_goes_on says false. Figures belong to the window between SIGUSR1 (or the start) and SIGINT
 * or SIGTERM; errors are counted all the time. It trusts whoever it talks to: never face a network.
 */
#ifndef WEIR_PERF_LOAD_H
#define WEIR_PERF_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define LOAD_EVENTS_MAX 512
/* A request that has waited this long when the load ends is counted as a timeout. */
#define LOAD_STALL_NS 3000000000ull

struct load_options {
    uint16_t port;
    uint32_t connections;
    uint32_t active;     /* echo: how many of them send */
    uint64_t rate;       /* echo: messages per second of all; 0: the next when the last is back */
    uint64_t size;       /* post: of a body; echo: of a message */
    const char *path;    /* get, post, connect, tls */
    const char *session; /* tls: "full", "resumed" or "keep" */
};

/* Told as the fields of one line of JSON: those of wrk_report.lua. */
struct load_figures {
    uint64_t requests;
    uint64_t bytes;
    uint64_t connect_errors;
    uint64_t read_errors;
    uint64_t write_errors;
    uint64_t status_errors;
    uint64_t timeouts;
    uint64_t handshake_errors; /* tls: failed, or not resumed */
    uint64_t tickets;          /* tls: new ones */
};

extern struct load_options load_options;
extern struct load_figures load_figures;
extern int load_poller;

/* The kinds. */
void load_run_get(void);
void load_run_post(void);
void load_run_connect(void);
void load_run_echo(void);
void load_run_tls(void);

/* Prints the cause and ends the program: for what only a broken machine or call can cause. */
void load_die(const char *what) __attribute__((noreturn));

/* Nanoseconds of the monotonic clock. */
uint64_t load_now_ns(void);

/* All connections stand: prints "ready", for the measuring program to wait for. */
void load_ready(void);

/* Begins the window when SIGUSR1 has come. False after SIGINT or SIGTERM. */
bool load_goes_on(void);

/* One answer is complete: counts it and the time since `begin_ns`. */
void load_count(uint64_t begin_ns, uint64_t bytes);

/* A request that began at `begin_ns` is still unanswered at the end. */
void load_count_left(uint64_t begin_ns);

/* Reads the whole head of an answer. False: not one as the origin gives it. */
bool load_head_read(const char *head, uint64_t *body_size);

/* A non-blocking TCP socket on its way to 127.0.0.1:port. -1: refused, counted. */
int load_connect(void);

/* Watches fd for `events`, or changes what it is watched for; `index` comes back with them. */
void load_watch(int fd, uint32_t events, uint32_t index);
void load_rewatch(int fd, uint32_t events, uint32_t index);

/* Ends a connection by a reset: nothing of it stays in TIME_WAIT. */
void load_reset(int fd);

#endif
