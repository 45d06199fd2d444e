/* bare.c: the least a TCP proxy can cost: bare FILE, which holds two ports: its own and the
 * origin's.
 *
 * One thread, epoll(7) edge-triggered. What comes is read and sent on, in one call each; where that
 * fills a buffer it is spliced, through one pipe of 256 KB for each direction, until little is
 * left. No timeouts, no limits, no counters, no failure handled: what a proxy costs beside this is
 * its own, and what this costs is the kernel's. For `make bench`, never for use.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PIPE_SIZE (256 * 1024)
#define BUFFER_SIZE (16 * 1024)
#define EVENTS_MAX 256

/* One end of a pair, and what comes from it. */
struct end {
    int fd;
    int pipe[2];
    size_t held; /* bytes in the pipe */
    bool stream; /* a read has filled the buffer, and no splice was small since */
    bool ended;  /* its FIN was passed on */
    struct end *other;
};

static int epoll_fd;

static _Noreturn void fail(const char *what) {
    perror(what);
    exit(1);
}

static struct sockaddr_in loopback(uint16_t port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static struct end *end_new(int fd) {
    struct end *end = calloc(1, sizeof *end);
    int on = 1;
    if (!end || pipe2(end->pipe, O_NONBLOCK | O_CLOEXEC) < 0) fail("pipe2");
    if (fcntl(end->pipe[1], F_SETPIPE_SZ, PIPE_SIZE) < 0) fail("F_SETPIPE_SZ");
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0) fail("TCP_NODELAY");
    end->fd = fd;
    return end;
}

static void end_watch(struct end *end) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = end};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, end->fd, &event) < 0) fail("epoll_ctl");
}

static void pair_accept(int listener, const struct sockaddr_in *origin) {
    int client_fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client_fd < 0) return; /* it has gone again */
    int origin_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (origin_fd < 0) fail("socket");
    if (connect(origin_fd, (const struct sockaddr *)origin, sizeof *origin) < 0) fail("connect");
    if (fcntl(origin_fd, F_SETFL, O_NONBLOCK) < 0) fail("O_NONBLOCK");
    struct end *client = end_new(client_fd);
    struct end *server = end_new(origin_fd);
    client->other = server;
    server->other = client;
    end_watch(client);
    end_watch(server);
}

/* Closed, not freed: other events of this batch may name it. A bench has few connections. */
static void end_close(struct end *end) {
    close(end->fd);
    close(end->pipe[0]);
    close(end->pipe[1]);
    end->fd = -1;
}

/* What the other side does not take at once waits in the pipe. */
static ssize_t end_copy(struct end *from) {
    static char buffer[BUFFER_SIZE];
    ssize_t got = recv(from->fd, buffer, sizeof buffer, 0);
    if (got <= 0) return got;
    ssize_t sent = send(from->other->fd, buffer, (size_t)got, 0);
    if (sent < 0 && errno != EAGAIN) return sent;
    size_t rest = (size_t)(got - (sent < 0 ? 0 : sent));
    if (rest != 0 && write(from->pipe[1], buffer + got - rest, rest) != (ssize_t)rest)
        fail("write");
    from->held = rest;
    from->stream = got == sizeof buffer;
    return got;
}

static ssize_t end_splice(struct end *from) {
    const unsigned flags = SPLICE_F_NONBLOCK | SPLICE_F_MOVE;
    if (from->held == 0) {
        ssize_t got = splice(from->fd, NULL, from->pipe[1], NULL, PIPE_SIZE, flags);
        if (got <= 0) return got;
        from->held = (size_t)got;
        from->stream = got >= BUFFER_SIZE;
    }
    ssize_t sent = splice(from->pipe[0], NULL, from->other->fd, NULL, from->held, flags);
    if (sent > 0) from->held -= (size_t)sent;
    return sent;
}

/* Moves bytes until one side waits; what little was read has emptied its socket. False: this
 * direction is over. */
static bool end_move(struct end *from) {
    for (;;) {
        bool splices = from->stream || from->held != 0;
        ssize_t moved = splices ? end_splice(from) : end_copy(from);
        if (moved <= 0) return moved < 0 && errno == EAGAIN;
        if (!splices && !from->stream && from->held == 0) return true;
    }
}

static void end_run(struct end *from) {
    if (from->fd < 0 || from->ended || end_move(from)) return;
    from->ended = true;
    shutdown(from->other->fd, SHUT_WR);
    if (!from->other->ended) return;
    end_close(from->other);
    end_close(from);
}

int main(int argc, char **argv) {
    uint16_t ports[2];
    FILE *file = argc == 2 ? fopen(argv[1], "re") : NULL;
    if (!file || fscanf(file, "%hu %hu", &ports[0], &ports[1]) != 2) {
        fprintf(stderr, "bare has no version: epoll and splice, nothing else; use: bare FILE\n");
        return 2;
    }
    fclose(file);
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in own = loopback(ports[0]);
    struct sockaddr_in origin = loopback(ports[1]);
    int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0) fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&own, sizeof own) < 0) fail("bind");
    if (listen(listener, SOMAXCONN) < 0) fail("listen");
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) < 0) fail("epoll");
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            struct end *end = events[i].data.ptr;
            if (!end) {
                pair_accept(listener, &origin);
                continue;
            }
            if (events[i].events & ~(unsigned)EPOLLOUT) end_run(end);
            if (events[i].events & EPOLLOUT && end->fd >= 0) end_run(end->other);
        }
    }
}
