/* churn.c: opens and ends connections as fast as they go, each in one of four ways:
 *
 *     churn PORT CONNECTIONS THREADS PATH...
 *
 *   0  a request, its answer, RST
 *   1  a request with Connection: close, its answer, the other side's FIN, then ours
 *   2  half a head, RST
 *   3  two requests and their answers, FIN
 *
 * Each answer must be a 200 with the body "hello". The paths are asked for in turn. Sources are
 * 127.0.0.2 and up, one for each thread, so that ports do not run out and nobody else's are taken.
 * Exit status 0 when every connection went as it should; else 1, with the first fault on stderr.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define PATIENCE_S 20

struct job {
    pthread_t thread;
    uint32_t source; /* last byte of its address */
    long count;
    bool failed;
};

static struct sockaddr_in target;
static char **paths;
static int path_count;

static int fault(const char *what) {
    fprintf(stderr, "churn: %s: %s\n", what, strerror(errno));
    return -1;
}

static int open_connection(uint32_t source) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return fault("socket");
    int on = 1;
    struct timeval patience = {.tv_sec = PATIENCE_S};
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + source)};
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (bind(fd, (const struct sockaddr *)&from, sizeof from) == 0 &&
        connect(fd, (const struct sockaddr *)&target, sizeof target) == 0)
        return fd;
    fault("connect");
    close(fd);
    return -1;
}

static int send_all(int fd, const char *text) {
    size_t len = strlen(text);
    return send(fd, text, len, MSG_NOSIGNAL) == (ssize_t)len ? 0 : fault("send");
}

/* Reads up to the end of one answer; pipelining is not used, so nothing may follow. */
static int read_answer(int fd) {
    static const char ok[] = "HTTP/1.1 200 ";
    static const char end[] = "\r\n\r\nhello";
    char text[2048];
    size_t len = 0;
    for (;;) {
        ssize_t got = recv(fd, text + len, sizeof text - 1 - len, 0);
        if (got <= 0) {
            if (got == 0) errno = ECONNRESET;
            return fault("the answer");
        }
        len += (size_t)got;
        text[len] = '\0';
        const char *found = strstr(text, end);
        if (!found) continue;
        if (strncmp(text, ok, sizeof ok - 1) == 0 && found + sizeof end - 1 == text + len) return 0;
        fprintf(stderr, "churn: a wrong answer:\n%s\n", text);
        return -1;
    }
}

static int ask(int fd, const char *path, bool close_after) {
    char text[256];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: churn\r\n%s\r\n", path,
             close_after ? "Connection: close\r\n" : "");
    return send_all(fd, text) < 0 ? -1 : read_answer(fd);
}

static int expect_fin(int fd) {
    char byte;
    ssize_t got = recv(fd, &byte, 1, 0);
    if (got > 0) errno = EPROTO;
    return got == 0 ? 0 : fault("the end");
}

static void reset(int fd) {
    struct linger now = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

static int one(long number, uint32_t source) {
    int fd = open_connection(source);
    if (fd < 0) return -1;
    const char *path = paths[number / 4 % path_count];
    int result = 0;
    switch (number % 4) {
    case 0:
        result = ask(fd, path, false);
        reset(fd);
        break;
    case 1:
        result = ask(fd, path, true);
        if (result == 0) result = expect_fin(fd);
        break;
    case 2:
        result = send_all(fd, "GET / HTTP/1.1\r\nHost: chu");
        reset(fd);
        break;
    case 3:
        result = ask(fd, path, false);
        if (result == 0) result = ask(fd, path, false);
        break;
    }
    close(fd);
    return result;
}

static void *run(void *argument) {
    struct job *job = argument;
    for (long i = 0; i < job->count && !job->failed; i++)
        job->failed = one(i, job->source) < 0;
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    int threads = atoi(argv[3]);
    target = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    paths = argv + 4;
    path_count = argc - 4;
    struct job *jobs = calloc((size_t)threads, sizeof *jobs);
    if (!jobs) return 1;
    for (int i = 0; i < threads; i++) {
        jobs[i].source = (uint32_t)i + 2;
        jobs[i].count = atol(argv[2]) / threads;
        if (pthread_create(&jobs[i].thread, NULL, run, &jobs[i]) != 0) return 1;
    }
    bool failed = false;
    for (int i = 0; i < threads; i++) {
        pthread_join(jobs[i].thread, NULL);
        failed |= jobs[i].failed;
    }
    free(jobs);
    return failed;
}
