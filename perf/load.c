/* load.c: the load that wrk cannot make, for perf/bench.
 *
 *   load get PORT CONNECTIONS PATH           downloads; bodies are discarded in the kernel
 *   load post PORT CONNECTIONS PATH SIZE     uploads of SIZE bytes
 *   load connect PORT CONNECTIONS PATH       a connection for each request, ended by a reset
 *   load echo PORT CONNECTIONS ACTIVE SIZE RATE
 *                                            ACTIVE of the connections send SIZE bytes and want
 *                                            them back; RATE messages/s in all, or 0: each sends
 *                                            the next message when the last one is back
 *
 *   load tls PORT CONNECTIONS PATH full|resumed|keep
 *                                            downloads through TLS 1.3: with a full or a resumed
 *                                            handshake for each, or on connections that stay
 *
 * Prints "ready" when the connections stand, and after SIGINT or SIGTERM the line `WRK {...}` with
 * the figures since SIGUSR1. Everything goes to 127.0.0.1.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Times are kept in buckets that are 1/64 of their value wide. */
#define HISTOGRAM_BITS 6
#define HISTOGRAM_SLOTS ((64 - HISTOGRAM_BITS + 1) << HISTOGRAM_BITS)

struct load_options load_options;
struct load_figures load_figures;
int load_poller;

static uint64_t histogram[HISTOGRAM_SLOTS];
static uint64_t longest_ns;
static uint64_t window_ns; /* when the window began */
static volatile sig_atomic_t is_window_wanted;
static volatile sig_atomic_t is_stopping;

void load_die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

uint64_t load_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint32_t histogram_slot(uint64_t ns) {
    uint32_t bits = ns == 0 ? 0 : 63 - (uint32_t)__builtin_clzll(ns);
    uint32_t shift = bits > HISTOGRAM_BITS ? bits - HISTOGRAM_BITS : 0;
    return (shift << HISTOGRAM_BITS) + (uint32_t)(ns >> shift);
}

/* The largest time of the slot. */
static uint64_t histogram_ns(uint32_t slot) {
    uint32_t shift = slot >> HISTOGRAM_BITS;
    if (shift <= 1) {
        return slot;
    }
    shift--;
    return (((uint64_t)slot - ((uint64_t)shift << HISTOGRAM_BITS) + 1) << shift) - 1;
}

static uint64_t histogram_percentile_ns(double share) {
    uint64_t wanted = (uint64_t)((double)load_figures.requests * share);
    uint64_t seen = 0;
    for (uint32_t slot = 0; slot < HISTOGRAM_SLOTS; slot++) {
        seen += histogram[slot];
        if (seen > wanted) {
            uint64_t ns = histogram_ns(slot);
            return ns < longest_ns ? ns : longest_ns;
        }
    }
    return longest_ns;
}

void load_ready(void) {
    puts("ready");
    fflush(stdout);
    window_ns = load_now_ns();
}

bool load_goes_on(void) {
    if (is_window_wanted) {
        is_window_wanted = 0;
        memset(histogram, 0, sizeof histogram);
        longest_ns = 0;
        load_figures.requests = 0;
        load_figures.bytes = 0;
        load_figures.tickets = 0;
        window_ns = load_now_ns();
    }
    return !is_stopping;
}

void load_count(uint64_t begin_ns, uint64_t bytes) {
    uint64_t ns = load_now_ns() - begin_ns;
    histogram[histogram_slot(ns)]++;
    longest_ns = ns > longest_ns ? ns : longest_ns;
    load_figures.requests++;
    load_figures.bytes += bytes;
}

void load_count_left(uint64_t begin_ns) {
    if (load_now_ns() - begin_ns > LOAD_STALL_NS) {
        load_figures.timeouts++;
    }
}

bool load_head_read(const char *head, uint64_t *body_size) {
    if (memcmp(head, "HTTP/1.1 200 ", 13) != 0) {
        return false;
    }
    for (const char *line = head; line != NULL; line = strchr(line + 1, '\n')) {
        if (strncasecmp(line, "\ncontent-length:", 16) == 0) {
            *body_size = strtoull(line + 16, NULL, 10);
            return true;
        }
    }
    return false;
}

int load_connect(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        load_die("socket");
    }
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* an optimisation only */
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(load_options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
        load_figures.connect_errors++;
        close(fd);
        return -1;
    }
    return fd;
}

static void watch(int operation, int fd, uint32_t events, uint32_t index) {
    struct epoll_event event = {.events = events, .data.u32 = index};
    if (epoll_ctl(load_poller, operation, fd, &event) < 0) {
        load_die("epoll_ctl");
    }
}

void load_watch(int fd, uint32_t events, uint32_t index) {
    watch(EPOLL_CTL_ADD, fd, events, index);
}

void load_rewatch(int fd, uint32_t events, uint32_t index) {
    watch(EPOLL_CTL_MOD, fd, events, index);
}

void load_reset(int fd) {
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger); /* then it ends by FIN */
    close(fd);
}

static void on_signal(int number) {
    if (number == SIGUSR1) {
        is_window_wanted = 1;
    } else {
        is_stopping = 1;
    }
}

static void report(void) {
    uint64_t duration_ns = load_now_ns() - window_ns;
    printf(
        "WRK {\"requests\": %llu, \"duration_us\": %llu, \"bytes\": %llu, \"p50_us\": %.1f, "
        "\"p99_us\": %.1f, \"max_us\": %.1f, \"connect\": %llu, \"read\": %llu, "
        "\"write\": %llu, \"status\": %llu, \"timeout\": %llu, \"handshake\": %llu, "
        "\"tickets\": %llu}\n",
        (unsigned long long)load_figures.requests, (unsigned long long)duration_ns / 1000,
        (unsigned long long)load_figures.bytes, (double)histogram_percentile_ns(0.50) / 1e3,
        (double)histogram_percentile_ns(0.99) / 1e3, (double)longest_ns / 1e3,
        (unsigned long long)load_figures.connect_errors,
        (unsigned long long)load_figures.read_errors, (unsigned long long)load_figures.write_errors,
        (unsigned long long)load_figures.status_errors, (unsigned long long)load_figures.timeouts,
        (unsigned long long)load_figures.handshake_errors,
        (unsigned long long)load_figures.tickets);
}

static const struct kind {
    const char *name;
    int argument_count;
    void (*run)(void);
} kinds[] = {{"get", 5, load_run_get},
             {"post", 6, load_run_post},
             {"connect", 5, load_run_connect},
             {"echo", 7, load_run_echo},
             {"tls", 6, load_run_tls}};

static const struct kind *kind_of(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(argv[1], kinds[i].name) == 0 && argc == kinds[i].argument_count) {
            return &kinds[i];
        }
    }
    fprintf(stderr, "use: load get|connect PORT CONNECTIONS PATH\n"
                    "     load post PORT CONNECTIONS PATH SIZE\n"
                    "     load echo PORT CONNECTIONS ACTIVE SIZE RATE\n"
                    "     load tls PORT CONNECTIONS PATH full|resumed|keep\n");
    exit(2);
}

int main(int argc, char **argv) {
    const struct kind *kind = kind_of(argc, argv);
    load_options.port = (uint16_t)strtoul(argv[2], NULL, 10);
    load_options.connections = (uint32_t)strtoul(argv[3], NULL, 10);
    if (kind->run == load_run_echo) {
        load_options.active = (uint32_t)strtoul(argv[4], NULL, 10);
        load_options.size = strtoull(argv[5], NULL, 10);
        load_options.rate = strtoull(argv[6], NULL, 10);
    } else {
        load_options.path = argv[4];
        load_options.session = argc > 5 ? argv[5] : "";
        load_options.size = kind->run == load_run_post ? strtoull(argv[5], NULL, 10) : 0;
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    load_poller = epoll_create1(EPOLL_CLOEXEC);
    if (load_poller < 0) {
        load_die("epoll_create1");
    }
    kind->run();
    report();
    return 0;
}
