/* origin.c: the server behind the proxies that perf/bench measures.
 *
 * HTTP/1.1 with keep-alive, one thread, epoll, level-triggered. It has to cost far less than any
 * proxy in front of it, so the common request is one recv and one send without copying, and
 * everything else is kept simple. Bodies and counters are those of origin_base.h.
 *
 *   /              128 bytes
 *   /1m            1 MiB
 *   /bytes/N       N bytes
 *   /delay/MS/N    N bytes after MS milliseconds, at most 60000
 *   /head          the request head as it arrived
 *   /ws            101, a WebSocket for the key of RFC 6455 section 1.3; it stays silent
 *   POST, PUT      the body is discarded (Content-Length only), the answer is "received N\n"
 *   POST /check    the same, but a body that is not the one of /bytes/N is "damaged N\n"
 *
 * Use: origin PORT COUNTERS_FILE. Prints "ready" when it listens. Ends on SIGTERM.
 */
#include "origin_base.h"
#include "origin_request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define INPUT_SIZE (64 * 1024)
#define KEPT_SIZE_MAX (64 * 1024)
/* Longer than the longest delay, so that a slot holds only connections of one deadline. */
#define WHEEL_SLOTS 65536

enum conn_state {
    CONN_READ_HEAD, /* no request, or a part of its head in `kept` */
    CONN_READ_BODY, /* body_left bytes of the request's body to come */
    CONN_WAIT,      /* in the wheel until `due_ms` */
    CONN_WRITE      /* the socket was full: EPOLLOUT is set */
};

struct conn {
    int fd;
    enum conn_state state;
    bool close_after;
    char *kept; /* bytes received that no request has used yet; NULL: none */
    size_t kept_size;
    uint64_t body_left;
    uint64_t body_size; /* of the request */
    bool is_checked;    /* the request's body is compared with the pattern */
    bool is_damaged;
    char head[320]; /* of the answer */
    size_t head_size;
    const char *text; /* the answer's body; NULL: the pattern */
    char *text_owned;
    uint64_t total; /* head and body */
    uint64_t sent;
    uint64_t due_ms;
    struct conn *wheel_next;
    struct conn *wheel_prev;
};

static struct conn **conns; /* by fd */
static char input[INPUT_SIZE];
static struct conn *wheel[WHEEL_SLOTS];
static uint64_t wheel_ms; /* everything due up to here has been answered */

static void wheel_insert(struct conn *conn, uint64_t due_ms) {
    struct conn **slot = &wheel[due_ms % WHEEL_SLOTS];
    conn->due_ms = due_ms;
    conn->wheel_prev = NULL;
    conn->wheel_next = *slot;
    if (*slot != NULL) {
        (*slot)->wheel_prev = conn;
    }
    *slot = conn;
    counters->waiting++;
}

static void wheel_remove(struct conn *conn) {
    if (conn->wheel_prev != NULL) {
        conn->wheel_prev->wheel_next = conn->wheel_next;
    } else {
        wheel[conn->due_ms % WHEEL_SLOTS] = conn->wheel_next;
    }
    if (conn->wheel_next != NULL) {
        conn->wheel_next->wheel_prev = conn->wheel_prev;
    }
    counters->waiting--;
}

static void conn_close(struct conn *conn) {
    if (conn->state == CONN_WAIT) {
        wheel_remove(conn);
    }
    conns[conn->fd] = NULL;
    close(conn->fd);
    free(conn->kept);
    free(conn->text_owned);
    free(conn);
    counters->open--;
}

/* The next slices of the answer, at `sent`. */
static int answer_slices(const struct conn *conn, struct iovec slices[2]) {
    int count = 0;
    uint64_t at = 0;
    if (conn->sent < conn->head_size) {
        slices[count].iov_base = (char *)conn->head + conn->sent;
        slices[count].iov_len = conn->head_size - conn->sent;
        count++;
    } else {
        at = conn->sent - conn->head_size;
    }
    uint64_t left = conn->total - conn->head_size - at;
    if (left > 0) {
        const char *from =
            conn->text != NULL ? conn->text + at : origin_pattern + at % ORIGIN_PATTERN_SIZE;
        uint64_t run = conn->text != NULL ? left : ORIGIN_PATTERN_SIZE - at % ORIGIN_PATTERN_SIZE;
        slices[count].iov_base = (char *)from;
        slices[count].iov_len = run < left ? run : left;
        count++;
    }
    return count;
}

/* Sends what is left of the answer. False: the connection is gone. */
static bool conn_push(struct conn *conn) {
    while (conn->sent < conn->total) {
        struct iovec slices[2];
        struct msghdr message = {.msg_iov = slices};
        message.msg_iovlen = (size_t)answer_slices(conn, slices);
        ssize_t done = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
        if (done < 0 && errno == EAGAIN) {
            if (conn->state != CONN_WRITE) {
                conn->state = CONN_WRITE;
                origin_rewatch(conn->fd, EPOLLOUT);
            }
            return true;
        }
        if (done < 0) {
            conn_close(conn);
            return false;
        }
        conn->sent += (uint64_t)done;
        counters->bytes_sent += (uint64_t)done;
    }
    counters->requests++;
    free(conn->text_owned);
    conn->text_owned = NULL;
    if (conn->close_after) {
        conn_close(conn);
        return false;
    }
    if (conn->state == CONN_WRITE) {
        origin_rewatch(conn->fd, EPOLLIN);
    }
    conn->state = CONN_READ_HEAD;
    return true;
}

/* Writes the answer's head and makes it ready to be pushed. `text` NULL: the pattern. */
static void answer_prepare(struct conn *conn, const char *status, uint64_t size, const char *text) {
    int written = snprintf(conn->head, sizeof conn->head,
                           "HTTP/1.1 %s\r\nServer: origin\r\nDate: %s\r\n"
                           "Content-Type: text/plain\r\nContent-Length: %llu\r\n%s\r\n",
                           status, origin_date, (unsigned long long)size,
                           conn->close_after ? "Connection: close\r\n" : "");
    conn->head_size = (size_t)written;
    conn->text = text;
    conn->total = conn->head_size + size;
    conn->sent = 0;
}

/* The common answer. Its head is the same as the last one's until the size or the second changes,
 * and snprintf would be a tenth of a request's cost. */
static void answer_prepare_pattern(struct conn *conn, uint64_t size) {
    static char last_head[sizeof conn->head];
    static size_t last_head_size;
    static uint64_t last_size;
    static time_t last_second;
    if (conn->close_after) {
        answer_prepare(conn, "200 OK", size, NULL);
        return;
    }
    if (size != last_size || origin_date_second != last_second) {
        answer_prepare(conn, "200 OK", size, NULL);
        memcpy(last_head, conn->head, conn->head_size);
        last_head_size = conn->head_size;
        last_size = size;
        last_second = origin_date_second;
        return;
    }
    memcpy(conn->head, last_head, last_head_size);
    conn->head_size = last_head_size;
    conn->text = NULL;
    conn->total = conn->head_size + size;
    conn->sent = 0;
}

static bool answer_text(struct conn *conn, const char *status, const char *text, size_t size) {
    conn->text_owned = malloc(size);
    if (conn->text_owned == NULL) {
        origin_die("malloc");
    }
    memcpy(conn->text_owned, text, size);
    answer_prepare(conn, status, size, conn->text_owned);
    return conn_push(conn);
}

/* Nothing is said on it afterwards. */
static bool answer_switch(struct conn *conn) {
    int written = snprintf(conn->head, sizeof conn->head,
                           "HTTP/1.1 101 Switching Protocols\r\nServer: origin\r\n"
                           "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                           "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    conn->head_size = (size_t)written;
    conn->total = conn->head_size;
    conn->text = NULL;
    conn->sent = 0;
    return conn_push(conn);
}

static bool prefix_is(const struct request *request, const char *prefix) {
    size_t size = strlen(prefix);
    return request->target_size > size && memcmp(request->target, prefix, size) == 0;
}

/* Answers a complete request; `head` is all of it. False: the connection is gone. */
static bool conn_answer(struct conn *conn, const struct request *request, const char *head,
                        size_t head_size) {
    uint64_t size = 0;
    if (request->target_size == 1 && request->target[0] == '/') {
        size = 128;
    } else if (request->target_size == 3 && memcmp(request->target, "/1m", 3) == 0) {
        size = ORIGIN_PATTERN_SIZE;
    } else if (prefix_is(request, "/bytes/")) {
        size = strtoull(request->target + 7, NULL, 10);
    } else if (prefix_is(request, "/delay/")) {
        char *end;
        uint64_t delay_ms = strtoull(request->target + 7, &end, 10);
        size = *end == '/' ? strtoull(end + 1, NULL, 10) : 0;
        answer_prepare_pattern(conn, size);
        conn->state = CONN_WAIT;
        wheel_insert(conn, origin_now_ms() + 1 +
                               (delay_ms < ORIGIN_DELAY_MS_MAX ? delay_ms : ORIGIN_DELAY_MS_MAX));
        return true;
    } else if (request->target_size == 5 && memcmp(request->target, "/head", 5) == 0) {
        return answer_text(conn, "200 OK", head, head_size);
    } else if (request->target_size == 3 && memcmp(request->target, "/ws", 3) == 0) {
        return answer_switch(conn);
    } else {
        return answer_text(conn, "404 Not Found", "not here\n", 9);
    }
    answer_prepare_pattern(conn, size);
    if (request->is_head) {
        conn->total = conn->head_size;
    }
    return conn_push(conn);
}

static bool answer_received(struct conn *conn) {
    char text[48];
    int size = snprintf(text, sizeof text, "%s %llu\n", conn->is_damaged ? "damaged" : "received",
                        (unsigned long long)conn->body_size);
    return answer_text(conn, "200 OK", text, (size_t)size);
}

static void conn_keep(struct conn *conn, const char *bytes, size_t size) {
    if (size == 0) {
        return;
    }
    char *grown = realloc(conn->kept, conn->kept_size + size);
    if (grown == NULL) {
        origin_die("realloc");
    }
    memcpy(grown + conn->kept_size, bytes, size);
    conn->kept = grown;
    conn->kept_size += size;
}

/* One request's head at `bytes`, complete up to `head_size`. False: the connection is gone. */
static bool conn_begin(struct conn *conn, const char *bytes, size_t head_size) {
    struct request request;
    if (!request_read(&request, bytes, head_size)) {
        conn->close_after = true;
        return answer_text(conn, "400 Bad Request", "bad\n", 4);
    }
    conn->close_after = request.wants_close;
    if (request.is_chunked) {
        conn->close_after = true;
        return answer_text(conn, "411 Length Required", "no chunks here\n", 15);
    }
    if (request.body_size > 0) {
        conn->state = CONN_READ_BODY;
        conn->body_size = request.body_size;
        conn->body_left = request.body_size;
        conn->is_checked = request.target_size == 6 && memcmp(request.target, "/check", 6) == 0;
        conn->is_damaged = false;
        return true;
    }
    return conn_answer(conn, &request, bytes, head_size);
}

/* `size` bytes of the body have come. False: the connection is gone. */
static bool body_advance(struct conn *conn, uint64_t size) {
    conn->body_left -= size;
    counters->body_bytes_received += size;
    if (conn->body_left > 0) {
        return true;
    }
    conn->state = CONN_READ_HEAD;
    return answer_received(conn);
}

/* Uses up bytes from the client; what the present request leaves over is kept. */
static void conn_consume(struct conn *conn, const char *bytes, size_t size) {
    while (size > 0) {
        if (conn->state == CONN_READ_BODY) {
            uint64_t used = conn->body_left < size ? conn->body_left : size;
            if (conn->is_checked) {
                conn->is_damaged |=
                    !origin_pattern_is(conn->body_size - conn->body_left, bytes, used);
            }
            bytes += used;
            size -= used;
            if (!body_advance(conn, used)) {
                return;
            }
            continue;
        }
        const char *blank = NULL;
        if (conn->state == CONN_READ_HEAD) {
            blank = memmem(bytes, size, "\r\n\r\n", 4);
        }
        if (blank == NULL) {
            conn_keep(conn, bytes, size);
            return;
        }
        size_t head_size = (size_t)(blank - bytes) + 4;
        if (!conn_begin(conn, bytes, head_size)) {
            return;
        }
        bytes += head_size;
        size -= head_size;
    }
}

/* After an answer: requests that arrived before it was sent. */
static void conn_resume(struct conn *conn) {
    if (conn->kept == NULL || conn->state != CONN_READ_HEAD) {
        return;
    }
    char *kept = conn->kept;
    size_t size = conn->kept_size;
    conn->kept = NULL;
    conn->kept_size = 0;
    conn_consume(conn, kept, size);
    free(kept);
}

/* A connection that the proxy has given up ends by a reset, so that none stays in TIME_WAIT: with
 * a connection for each request there would soon be no port left, and no two rows alike. */
static void conn_reset(struct conn *conn) {
    origin_linger(conn->fd);
    conn_close(conn);
}

/* MSG_TRUNC takes the bytes off the socket without copying them: tcp(7). */
static void conn_discard(struct conn *conn) {
    ssize_t size = recv(conn->fd, NULL, (size_t)conn->body_left, MSG_TRUNC);
    if (size < 0 && errno == EAGAIN) {
        return;
    }
    if (size <= 0) {
        conn_reset(conn);
        return;
    }
    body_advance(conn, (uint64_t)size);
}

static void conn_readable(struct conn *conn) {
    if (conn->state == CONN_READ_BODY && !conn->is_checked) {
        conn_discard(conn);
        return;
    }
    ssize_t size = recv(conn->fd, input, sizeof input, 0);
    if (size < 0 && errno == EAGAIN) {
        return;
    }
    if (size <= 0 || conn->kept_size > KEPT_SIZE_MAX) {
        conn_reset(conn);
        return;
    }
    if (conn->kept == NULL) {
        conn_consume(conn, input, (size_t)size);
        return;
    }
    conn_keep(conn, input, (size_t)size);
    conn_resume(conn);
}

static void conn_writable(struct conn *conn) {
    if (conn_push(conn)) {
        conn_resume(conn);
    }
}

static void listener_accept(int listener) {
    for (int fd; (fd = origin_accept(listener)) >= 0;) {
        struct conn *conn = calloc(1, sizeof *conn);
        if (conn == NULL) {
            origin_die("calloc");
        }
        conn->fd = fd;
        conns[fd] = conn;
        origin_watch(fd, EPOLLIN);
    }
}

static void wheel_advance(void) {
    uint64_t now = origin_now_ms();
    if (counters->waiting == 0) {
        wheel_ms = now;
        return;
    }
    for (; wheel_ms < now; wheel_ms++) {
        struct conn *next;
        for (struct conn *conn = wheel[wheel_ms % WHEEL_SLOTS]; conn != NULL; conn = next) {
            next = conn->wheel_next;
            wheel_remove(conn);
            conn->state = CONN_READ_HEAD;
            if (conn_push(conn)) {
                conn_resume(conn);
            }
        }
    }
}

static void run(int listener) {
    static struct epoll_event events[ORIGIN_EVENTS_MAX];
    while (origin_goes_on()) {
        int count =
            epoll_wait(origin_poller, events, ORIGIN_EVENTS_MAX, counters->waiting > 0 ? 1 : 1000);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener) {
                listener_accept(listener);
                continue;
            }
            struct conn *conn = conns[events[i].data.fd];
            if (conn == NULL) {
                continue; /* closed by an earlier event of this turn */
            }
            if (conn->state == CONN_WRITE) {
                conn_writable(conn);
            } else {
                conn_readable(conn);
            }
        }
        wheel_advance();
    }
}

int main(int argc, char **argv) {
    int listener = origin_start(argc, argv);
    conns = calloc(origin_files_max(), sizeof *conns);
    if (conns == NULL) {
        origin_die("calloc");
    }
    wheel_ms = origin_now_ms();
    run(listener);
    return 0;
}
