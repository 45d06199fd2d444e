/* load_http.c: downloads, uploads, and a connection for each request.
 *
 * It shares a core with the origin and must cost less than any proxy. So the bytes of an answer's
 * body are discarded where they are: recv with MSG_TRUNC takes them off the socket without copying
 * (tcp(7)). Only heads are looked at: the status has to be 200 and Content-Length is believed. That
 * bodies arrive unchanged is checked before each measurement, by benchlib/programs.py.
 */
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_SIZE 1024
#define BODY_RUN (1024 * 1024)

enum conn_state {
    CONN_SEND, /* `sent` bytes of the request are on their way */
    CONN_HEAD, /* the answer's head is awaited, or a part of it has come */
    CONN_BODY  /* `left` bytes of its body are to come */
};

struct conn {
    int fd; /* -1: failed; counted, and not tried again */
    enum conn_state state;
    uint64_t begin_ns;
    uint64_t sent;
    uint64_t left;
    uint64_t body_size; /* of the answer */
    size_t head_size;
    char head[HEAD_SIZE];
};

static struct conn *conns;
static char request[512];
static size_t request_size;
static char body[BODY_RUN];
static bool is_connect; /* a connection for each request */

/* One error makes the row invalid: no other connection takes this one's place. */
static void conn_fail(struct conn *conn, uint64_t *counter) {
    (*counter)++;
    load_reset(conn->fd);
    conn->fd = -1;
}

/* Sends what is left of the request. */
static void conn_push(struct conn *conn) {
    uint64_t total = request_size + load_options.size;
    while (conn->sent < total) {
        const char *from = request + conn->sent;
        uint64_t size = request_size - conn->sent;
        int more = load_options.size > 0 ? MSG_MORE : 0;
        if (conn->sent >= request_size) {
            from = body;
            size = total - conn->sent < BODY_RUN ? total - conn->sent : BODY_RUN;
            more = 0;
        }
        ssize_t done = send(conn->fd, from, (size_t)size, MSG_NOSIGNAL | more);
        if (done < 0 && errno == EAGAIN) {
            if (conn->state != CONN_SEND) {
                conn->state = CONN_SEND;
                load_rewatch(conn->fd, EPOLLIN | EPOLLOUT, (uint32_t)(conn - conns));
            }
            return;
        }
        if (done < 0) {
            conn_fail(conn, &load_figures.write_errors);
            return;
        }
        conn->sent += (uint64_t)done;
    }
    if (conn->state == CONN_SEND) {
        load_rewatch(conn->fd, EPOLLIN, (uint32_t)(conn - conns));
    }
    conn->state = CONN_HEAD;
}

static void conn_begin(struct conn *conn) {
    conn->begin_ns = load_now_ns();
    conn->sent = 0;
    conn->head_size = 0;
    conn_push(conn);
}

/* On loopback the handshake is over when connect returns, and the request can go at once. */
static void conn_open(struct conn *conn) {
    uint64_t begin_ns = load_now_ns();
    conn->state = CONN_HEAD;
    conn->fd = load_connect();
    if (conn->fd < 0) {
        return;
    }
    load_watch(conn->fd, EPOLLIN, (uint32_t)(conn - conns));
    conn_begin(conn);
    conn->begin_ns = begin_ns;
}

static void conn_end(struct conn *conn) {
    load_count(conn->begin_ns, conn->body_size);
    if (is_connect) {
        load_reset(conn->fd);
        conn_open(conn);
    } else {
        conn_begin(conn);
    }
}

static void conn_read_head(struct conn *conn) {
    ssize_t size = recv(conn->fd, conn->head + conn->head_size, HEAD_SIZE - 1 - conn->head_size, 0);
    if (size < 0 && errno == EAGAIN) {
        return;
    }
    if (size <= 0) {
        conn_fail(conn, &load_figures.read_errors);
        return;
    }
    conn->head_size += (size_t)size;
    conn->head[conn->head_size] = '\0';
    const char *blank = strstr(conn->head, "\r\n\r\n");
    if (blank == NULL && conn->head_size < HEAD_SIZE - 1) {
        return;
    }
    if (blank == NULL || !load_head_read(conn->head, &conn->body_size)) {
        conn_fail(conn, &load_figures.status_errors);
        return;
    }
    uint64_t extra = conn->head_size - (uint64_t)(blank + 4 - conn->head);
    if (extra > conn->body_size) {
        conn_fail(conn, &load_figures.read_errors);
        return;
    }
    conn->left = conn->body_size - extra;
    conn->state = CONN_BODY;
    if (conn->left == 0) {
        conn_end(conn);
    }
}

static void conn_discard(struct conn *conn) {
    ssize_t size = recv(conn->fd, NULL, (size_t)conn->left, MSG_TRUNC);
    if (size < 0 && errno == EAGAIN) {
        return;
    }
    if (size <= 0) {
        conn_fail(conn, &load_figures.read_errors);
        return;
    }
    conn->left -= (uint64_t)size;
    if (conn->left == 0) {
        conn_end(conn);
    }
}

static void conn_on_event(struct conn *conn, uint32_t events) {
    if (conn->state == CONN_BODY) {
        conn_discard(conn);
    } else if (conn->state == CONN_HEAD) {
        conn_read_head(conn);
    } else if (events & ~(uint32_t)EPOLLOUT) {
        /* An answer before the request is whole is none that the origin gives. */
        conn_fail(conn, &load_figures.read_errors);
    } else {
        conn_push(conn);
    }
}

static void run(const char *method) {
    char length[48] = "";
    if (load_options.size > 0) {
        snprintf(length, sizeof length, "Content-Length: %llu\r\n",
                 (unsigned long long)load_options.size);
    }
    int written =
        snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n%s\r\n", method,
                 load_options.path, load_options.port, length);
    request_size = (size_t)written;
    conns = calloc(load_options.connections, sizeof *conns);
    if (conns == NULL || request_size >= sizeof request) {
        load_die("start");
    }
    memset(body, 'x', sizeof body);
    for (uint32_t i = 0; i < load_options.connections; i++) {
        conn_open(&conns[i]);
    }
    load_ready();
    static struct epoll_event events[LOAD_EVENTS_MAX];
    while (load_goes_on()) {
        int count = epoll_wait(load_poller, events, LOAD_EVENTS_MAX, 100);
        for (int i = 0; i < count; i++) {
            conn_on_event(&conns[events[i].data.u32], events[i].events);
        }
    }
    for (uint32_t i = 0; i < load_options.connections; i++) {
        if (conns[i].fd >= 0) {
            load_count_left(conns[i].begin_ns);
        }
    }
}

void load_run_get(void) { run("GET"); }

void load_run_post(void) { run("POST"); }

void load_run_connect(void) {
    is_connect = true;
    run("GET");
}
