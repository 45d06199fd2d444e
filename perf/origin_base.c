/* origin_base.c: counters, body, clocks and listener of the origins. */
#include "origin_base.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

struct counters *counters;
int origin_poller;
char origin_pattern[ORIGIN_PATTERN_SIZE];
char origin_date[48];
time_t origin_date_second;

static size_t files_max;
static volatile sig_atomic_t is_stopping;

void origin_die(const char *what) {
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
    exit(1);
}

uint64_t origin_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void date_refresh(void) {
    time_t now = time(NULL);
    if (now == origin_date_second) {
        return;
    }
    struct tm parts;
    gmtime_r(&now, &parts);
    strftime(origin_date, sizeof origin_date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    origin_date_second = now;
}

static void watch(int operation, int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(origin_poller, operation, fd, &event) < 0) {
        origin_die("epoll_ctl");
    }
}

void origin_watch(int fd, uint32_t events) { watch(EPOLL_CTL_ADD, fd, events); }

void origin_rewatch(int fd, uint32_t events) { watch(EPOLL_CTL_MOD, fd, events); }

void origin_linger(int fd) {
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger); /* or it ends by FIN */
}

bool origin_pattern_is(uint64_t at, const void *bytes, uint64_t size) {
    const char *from = bytes;
    at %= ORIGIN_PATTERN_SIZE;
    for (uint64_t run; size > 0; size -= run, from += run, at = 0) {
        run = size < ORIGIN_PATTERN_SIZE - at ? size : ORIGIN_PATTERN_SIZE - at;
        if (memcmp(from, origin_pattern + at, run) != 0) {
            return false;
        }
    }
    return true;
}

int origin_accept(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            return -1;
        }
        if ((size_t)fd >= files_max) {
            close(fd);
            continue;
        }
        int on = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* an optimisation only */
        counters->accepted++;
        counters->open++;
        return fd;
    }
}

static int listener_open(uint16_t port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, 65535) < 0) {
        origin_die("listen");
    }
    origin_watch(listener, EPOLLIN);
    return listener;
}

static void counters_open(const char *file) {
    int fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, sizeof *counters) < 0) {
        origin_die(file);
    }
    counters = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (counters == MAP_FAILED) {
        origin_die("mmap");
    }
    close(fd);
}

static void stop(int number) {
    (void)number;
    is_stopping = 1;
}

static void pattern_init(void) {
    for (unsigned i = 0; i < ORIGIN_PATTERN_SIZE / 8; i++) {
        char line[9];
        snprintf(line, sizeof line, "%07x\n", i & 0xfffffff);
        memcpy(origin_pattern + (size_t)i * 8, line, 8);
    }
}

int origin_start(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "use: %s PORT COUNTERS_FILE\n", program_invocation_short_name);
        exit(2);
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    files_max = (size_t)files.rlim_cur;
    origin_poller = epoll_create1(EPOLL_CLOEXEC);
    if (origin_poller < 0) {
        origin_die("epoll_create1");
    }
    pattern_init();
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    counters_open(argv[2]);
    date_refresh();
    int listener = listener_open((uint16_t)strtoul(argv[1], NULL, 10));
    puts("ready");
    fflush(stdout);
    return listener;
}

size_t origin_files_max(void) { return files_max; }

bool origin_goes_on(void) {
    date_refresh();
    return !is_stopping;
}
