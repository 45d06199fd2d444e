/* load_echo.c: many connections, some of which send messages and want them back.
 *
 * Each connection exchanges one message before the load begins, so that the idle ones have been
 * served too. Then the active ones, spread evenly between them, have at most one message on its way
 * each. With a rate, each has its own turn in a fixed timetable, and a round trip is counted from
 * the time at which the message was due, not from when it could be sent: what an earlier message
 * has delayed is not hidden (coordinated omission). A message that comes back changed, or anything
 * said on an idle connection, is an error.
 */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_SIZE_MAX 65536
/* Connections that are being set up at one time: less than anyone's backlog. */
#define OPENING_MAX 256
/* Messages that come due within this time are sent together: less than a wake-up is worth. */
#define SLACK_NS 50000

struct conn {
    int fd; /* -1: failed; counted, and not tried again */
    bool is_waiting;
    uint64_t begin_ns; /* when the message on its way was due */
    uint64_t due_ns;   /* with a rate: when the next one is */
    uint64_t received;
    uint64_t number; /* of the message: its first bytes, so that no two are alike */
};

static struct conn *conns;
static char message[MESSAGE_SIZE_MAX];
static char input[MESSAGE_SIZE_MAX];
static uint64_t numbers;
static uint32_t opening; /* connections that have not had their first message back */
static uint32_t opened;
static bool is_timed; /* the load has begun: what comes back is counted */

static void conn_fail(struct conn *conn, uint64_t *counter) {
    (*counter)++;
    load_reset(conn->fd);
    conn->fd = -1;
    conn->is_waiting = false;
}

static void message_write(uint64_t number) { memcpy(message, &number, sizeof number); }

/* False: the socket is not connected yet. */
static bool conn_send(struct conn *conn, uint64_t begin_ns) {
    conn->number = ++numbers;
    message_write(conn->number);
    ssize_t done = send(conn->fd, message, (size_t)load_options.size, MSG_NOSIGNAL);
    if (done < 0 && errno == EAGAIN && !is_timed) {
        return false;
    }
    /* One message always fits: no other is in the socket. */
    if (done != (ssize_t)load_options.size) {
        conn_fail(conn, &load_figures.write_errors);
        return true;
    }
    conn->begin_ns = begin_ns;
    conn->received = 0;
    conn->is_waiting = true;
    return true;
}

static uint64_t interval_ns(void) { return 1000000000 / load_options.rate; }

/* With a rate: the next message's turn, which may have come and gone while the last was away. */
static void conn_send_due(struct conn *conn, uint64_t now_ns) {
    if (conn->fd >= 0 && !conn->is_waiting && conn->due_ns <= now_ns) {
        uint64_t due_ns = conn->due_ns;
        conn->due_ns += interval_ns() * load_options.active;
        conn_send(conn, due_ns);
    }
}

static void conn_end(struct conn *conn) {
    conn->is_waiting = false;
    if (!is_timed) {
        opening--;
        return;
    }
    load_count(conn->begin_ns, load_options.size);
    if (load_options.rate == 0) {
        conn_send(conn, load_now_ns());
    } else {
        conn_send_due(conn, load_now_ns());
    }
}

static void conn_read(struct conn *conn) {
    ssize_t size = recv(conn->fd, input, (size_t)load_options.size, 0);
    if (size < 0 && errno == EAGAIN) {
        return;
    }
    message_write(conn->number);
    if (size <= 0 || !conn->is_waiting || conn->received + (uint64_t)size > load_options.size ||
        memcmp(input, message + conn->received, (size_t)size) != 0) {
        conn_fail(conn, &load_figures.read_errors);
        return;
    }
    conn->received += (uint64_t)size;
    if (conn->received == load_options.size) {
        conn_end(conn);
    }
}

static void conn_on_event(struct conn *conn, uint32_t events) {
    if (!is_timed && !conn->is_waiting && (events & EPOLLOUT)) {
        if (conn_send(conn, load_now_ns()) && conn->fd >= 0) {
            load_rewatch(conn->fd, EPOLLIN, (uint32_t)(conn - conns));
        }
        return;
    }
    conn_read(conn);
}

static void turn(uint64_t wait_ns) {
    static struct epoll_event events[LOAD_EVENTS_MAX];
    struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000),
                            .tv_nsec = (long)(wait_ns % 1000000000)};
    int count = epoll_pwait2(load_poller, events, LOAD_EVENTS_MAX, &wait, NULL);
    for (int i = 0; i < count; i++) {
        conn_on_event(&conns[events[i].data.u32], events[i].events);
    }
}

/* Connects all of them, some at a time, and has one message back on each. Gives up at the first
 * error: it is reported, and the row is invalid anyway. */
static void open_all(void) {
    while (load_goes_on()) {
        while (opened < load_options.connections && opening < OPENING_MAX) {
            struct conn *conn = &conns[opened];
            conn->fd = load_connect();
            if (conn->fd >= 0) {
                load_watch(conn->fd, EPOLLIN | EPOLLOUT, opened);
                opening++;
            }
            opened++;
        }
        uint64_t failed =
            load_figures.read_errors + load_figures.write_errors + load_figures.connect_errors;
        if (failed > 0 || (opening == 0 && opened == load_options.connections)) {
            return;
        }
        turn(100000000);
    }
}

/* The active connection of that rank. */
static struct conn *active_conn(uint32_t rank) {
    return &conns[(uint64_t)rank * load_options.connections / load_options.active];
}

/* Each keeps one message on its way. */
static void run_closed(void) {
    for (uint32_t rank = 0; rank < load_options.active; rank++) {
        if (active_conn(rank)->fd >= 0) {
            conn_send(active_conn(rank), load_now_ns());
        }
    }
    while (load_goes_on()) {
        turn(100000000);
    }
}

/* The timetable: one of the active ones after the other, all alike far apart. */
static void run_at_rate(void) {
    uint64_t begin_ns = load_now_ns();
    for (uint32_t rank = 0; rank < load_options.active; rank++) {
        active_conn(rank)->due_ns = begin_ns + rank * interval_ns();
    }
    uint32_t next = 0;
    uint64_t next_ns = begin_ns; /* when the timetable comes to `next` */
    while (load_goes_on()) {
        uint64_t now_ns = load_now_ns();
        for (; next_ns <= now_ns; next = (next + 1) % load_options.active) {
            conn_send_due(active_conn(next), now_ns);
            next_ns += interval_ns();
        }
        uint64_t wait_ns = next_ns - now_ns;
        turn(wait_ns > SLACK_NS ? wait_ns : SLACK_NS);
    }
}

void load_run_echo(void) {
    conns = calloc(load_options.connections, sizeof *conns);
    if (conns == NULL) {
        load_die("calloc");
    }
    if (load_options.size < sizeof numbers || load_options.size > sizeof message ||
        load_options.active == 0 || load_options.active > load_options.connections ||
        load_options.rate > 1000000) {
        errno = EINVAL;
        load_die("SIZE is 8 to 65536, ACTIVE 1 to CONNECTIONS, RATE at most 1000000");
    }
    for (uint32_t i = 0; i < load_options.connections; i++) {
        conns[i].fd = -1;
    }
    memset(message, 'x', sizeof message);
    open_all();
    load_ready();
    is_timed = true;
    if (load_options.rate == 0) {
        run_closed();
    } else {
        run_at_rate();
    }
    for (uint32_t i = 0; i < load_options.connections; i++) {
        if (conns[i].fd >= 0 && conns[i].is_waiting) {
            load_count_left(conns[i].begin_ns);
        }
        if (conns[i].fd >= 0) {
            load_reset(conns[i].fd);
        }
    }
}
