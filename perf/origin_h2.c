/* origin_h2.c: the HTTP/2 server behind the proxies that perf/bench measures, in clear by prior
 * knowledge. RFC 9113 and 7541, as much of them as those proxies use.
 *
 * The paths are those of origin.c (a stream with another one is reset), and bodies and counters are
 * those of origin_base.h. Like that one it has to cost far less than any proxy in front of it:
 * frames are read in place, all answers of a turn leave in one send, a short answer needs no
 * stream, and its header block is encoded only when it is another than the last one. nghttp2 does
 * HPACK, with dynamic tables in both directions, as common servers have them; 100 streams at a
 * time, which is nghttpd's limit, too.
 *
 * Use: origin_h2 PORT COUNTERS_FILE. Prints "ready" when it listens. Ends on SIGTERM.
 */
#include "origin_base.h"
#include "origin_h2_head.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define PREFACE_SIZE (sizeof PREFACE - 1)
#define FRAME_HEAD 9
#define FRAME_MAX 16384
#define STREAMS_MAX 100
#define INPUT_SIZE (64 * 1024)
/* From here on bodies wait, and twice that requests, until the proxy has taken some. */
#define OUTPUT_HIGH (256 * 1024)
#define WINDOW_START 65535
#define WINDOW_WIDE 0x40000000

/* A request whose body is to come, or whose answer has to wait for a time or for a window. */
struct stream {
    struct stream *next;
    uint32_t id;
    bool is_whole;   /* the request */
    bool is_checked; /* its body is compared with the pattern */
    bool is_damaged;
    uint64_t received;
    uint64_t due_ms; /* the answer waits for this time; 0: it does not */
    int64_t window;
    uint64_t at; /* of the answer's body */
    uint64_t size;
    char *text; /* that body; NULL: the pattern */
};

struct conn {
    int fd;
    struct conn *next; /* of all */
    struct conn *prev;
    bool is_greeted;  /* the preface has come */
    uint32_t watched; /* for which events */
    uint8_t *in;
    size_t in_size;
    uint8_t *out;
    size_t out_size;
    size_t out_sent;
    size_t out_capacity;
    struct h2_head head; /* HPACK, both ways */
    struct stream *streams;
    int64_t window;        /* what the proxy takes on the connection */
    int64_t stream_window; /* what it takes at first on a stream */
    uint64_t taken;        /* bytes of bodies since its window here was raised */
};

static struct conn **conns; /* by fd */
static struct conn *conn_first;

static void conn_free_stream(struct conn *conn, struct stream *stream) {
    struct stream **link = &conn->streams;
    while (*link != stream) {
        link = &(*link)->next;
    }
    *link = stream->next;
    counters->waiting -= stream->due_ms > 0;
    free(stream->text);
    free(stream);
}

/* By a reset, so that none stays in TIME_WAIT. */
static void conn_close(struct conn *conn) {
    while (conn->streams != NULL) {
        conn_free_stream(conn, conn->streams);
    }
    *(conn->prev != NULL ? &conn->prev->next : &conn_first) = conn->next;
    if (conn->next != NULL) {
        conn->next->prev = conn->prev;
    }
    conns[conn->fd] = NULL;
    origin_linger(conn->fd);
    close(conn->fd);
    h2_head_fini(&conn->head);
    free(conn->in);
    free(conn->out);
    free(conn);
    counters->open--;
}

static void conn_open(int fd) {
    struct conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL || (conn->in = malloc(INPUT_SIZE)) == NULL) {
        origin_die("malloc");
    }
    h2_head_init(&conn->head);
    conn->fd = fd;
    conn->window = conn->stream_window = WINDOW_START;
    conn->next = conn_first;
    if (conn_first != NULL) {
        conn_first->prev = conn;
    }
    conn_first = conns[fd] = conn;
    conn->watched = EPOLLIN;
    origin_watch(fd, EPOLLIN);
}

/* Room for `size` more bytes at the end of what is to be sent. */
static uint8_t *out_room(struct conn *conn, size_t size) {
    if (conn->out_size + size > conn->out_capacity) {
        conn->out_capacity = (conn->out_size + size) * 2;
        conn->out = realloc(conn->out, conn->out_capacity);
        if (conn->out == NULL) {
            origin_die("realloc");
        }
    }
    return conn->out + conn->out_size;
}

static void put_u32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (24 - 8 * i));
    }
}

static uint32_t get_u32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Appends a frame and returns where its payload goes. RFC 9113 section 4.1. */
static uint8_t *out_frame(struct conn *conn, uint32_t head, uint32_t id, size_t size) {
    uint8_t *at = out_room(conn, FRAME_HEAD + size);
    at[0] = (uint8_t)(size >> 16);
    at[1] = (uint8_t)(size >> 8);
    at[2] = (uint8_t)size;
    at[3] = (uint8_t)(head >> 8); /* the type, and below it the flags */
    at[4] = (uint8_t)head;
    put_u32(at + 5, id);
    conn->out_size += FRAME_HEAD + size;
    return at + FRAME_HEAD;
}

static void out_number(struct conn *conn, uint32_t type, uint32_t id, uint32_t number) {
    put_u32(out_frame(conn, type << 8, id, 4), number);
}

/* Wide windows: an upload never waits for one. */
static void conn_greet(struct conn *conn) {
    uint8_t *at = out_frame(conn, NGHTTP2_SETTINGS << 8, 0, 12);
    at[0] = 0;
    at[1] = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS;
    put_u32(at + 2, STREAMS_MAX);
    at[6] = 0;
    at[7] = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE;
    put_u32(at + 8, WINDOW_WIDE);
    out_number(conn, NGHTTP2_WINDOW_UPDATE, 0, WINDOW_WIDE - WINDOW_START);
    conn->is_greeted = true;
}

static void answer_head(struct conn *conn, uint32_t id, uint64_t size) {
    h2_head_encode(&conn->head, size);
    uint32_t flags = NGHTTP2_FLAG_END_HEADERS | (size == 0 ? NGHTTP2_FLAG_END_STREAM : 0);
    memcpy(out_frame(conn, NGHTTP2_HEADERS << 8 | flags, id, conn->head.block_size),
           conn->head.block, conn->head.block_size);
    counters->requests += size == 0;
}

/* One frame of a body. `text` NULL: the pattern, of which `at` is the place. */
static void answer_bytes(struct conn *conn, struct stream *stream, size_t size) {
    bool is_last = stream->at + size == stream->size;
    uint8_t *to = out_frame(conn, is_last ? NGHTTP2_FLAG_END_STREAM : 0, stream->id, size);
    uint64_t at = stream->at % ORIGIN_PATTERN_SIZE;
    size_t run = ORIGIN_PATTERN_SIZE - at < size ? ORIGIN_PATTERN_SIZE - at : size;
    if (stream->text != NULL) {
        memcpy(to, stream->text + stream->at, size);
    } else {
        memcpy(to, origin_pattern + at, run);
        memcpy(to + run, origin_pattern, size - run);
    }
    stream->at += size;
    stream->window -= (int64_t)size;
    conn->window -= (int64_t)size;
    counters->requests += is_last;
}

/* Frames of bodies, as many as windows and output take, a frame of each stream in turn. */
static void conn_fill(struct conn *conn) {
    bool is_moving = conn->streams != NULL;
    while (is_moving) {
        is_moving = false;
        struct stream *next;
        for (struct stream *stream = conn->streams; stream != NULL; stream = next) {
            next = stream->next;
            int64_t size = (int64_t)(stream->size - stream->at);
            size = size < FRAME_MAX ? size : FRAME_MAX;
            size = size < stream->window ? size : stream->window;
            size = size < conn->window ? size : conn->window;
            if (!stream->is_whole || stream->due_ms > 0 || size <= 0 ||
                conn->out_size - conn->out_sent >= OUTPUT_HIGH) {
                continue;
            }
            is_moving = true;
            answer_bytes(conn, stream, (size_t)size);
            if (stream->at == stream->size) {
                conn_free_stream(conn, stream);
            }
        }
    }
}

/* Sends what there is. False: the connection is gone. */
static bool conn_flush(struct conn *conn) {
    for (;;) {
        conn_fill(conn);
        if (conn->out_sent == conn->out_size) {
            break;
        }
        ssize_t done = send(conn->fd, conn->out + conn->out_sent, conn->out_size - conn->out_sent,
                            MSG_NOSIGNAL);
        if (done < 0 && errno == EAGAIN) {
            break;
        }
        if (done < 0) {
            conn_close(conn);
            return false;
        }
        conn->out_sent += (size_t)done;
        counters->bytes_sent += (uint64_t)done;
        if (conn->out_sent == conn->out_size) {
            conn->out_sent = conn->out_size = 0;
        }
    }
    size_t left = conn->out_size - conn->out_sent;
    uint32_t wanted = (left > 0 ? EPOLLOUT : 0u) | (left < 2 * OUTPUT_HIGH ? EPOLLIN : 0u);
    if (wanted != conn->watched) {
        conn->watched = wanted;
        origin_rewatch(conn->fd, wanted);
    }
    return true;
}

static struct stream *stream_new(struct conn *conn, uint32_t id) {
    struct stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) {
        origin_die("calloc");
    }
    stream->id = id;
    stream->window = conn->stream_window;
    /* At the end: those that came first are answered first. */
    struct stream **link = &conn->streams;
    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = stream;
    return stream;
}

static struct stream *stream_find(struct conn *conn, uint32_t id) {
    struct stream *stream = conn->streams;
    while (stream != NULL && stream->id != id) {
        stream = stream->next;
    }
    return stream;
}

/* The answer of a whole request: its head now, its body by conn_fill. */
static void stream_answer(struct conn *conn, struct stream *stream, uint64_t size, char *text) {
    stream->is_whole = true;
    stream->size = size;
    stream->text = text;
    answer_head(conn, stream->id, size);
    if (size == 0) {
        conn_free_stream(conn, stream);
    }
}

static void stream_answer_text(struct conn *conn, struct stream *stream, const char *text,
                               size_t size) {
    char *copy = malloc(size + 1);
    if (copy == NULL) {
        origin_die("malloc");
    }
    memcpy(copy, text, size);
    stream_answer(conn, stream, size, copy);
}

static void stream_answer_received(struct conn *conn, struct stream *stream) {
    char text[48];
    int size = snprintf(text, sizeof text, "%s %llu\n", stream->is_damaged ? "damaged" : "received",
                        (unsigned long long)stream->received);
    stream_answer_text(conn, stream, text, (size_t)size);
}

static void conn_answer(struct conn *conn, uint32_t id) {
    uint64_t size = strcmp(h2_request.path, "/") == 0 ? 128 : 0;
    if (strcmp(h2_request.path, "/1m") == 0) {
        size = ORIGIN_PATTERN_SIZE;
    } else if (strncmp(h2_request.path, "/bytes/", 7) == 0) {
        size = strtoull(h2_request.path + 7, NULL, 10);
    }
    if (size > 0 && size <= FRAME_MAX && conn->streams == NULL && conn->window >= (int64_t)size &&
        conn->stream_window >= (int64_t)size) {
        struct stream brief = {.id = id, .size = size};
        answer_head(conn, id, size);
        answer_bytes(conn, &brief, (size_t)size);
        return;
    }
    struct stream *stream = stream_new(conn, id);
    if (strncmp(h2_request.path, "/delay/", 7) == 0) {
        char *end;
        uint64_t delay_ms = strtoull(h2_request.path + 7, &end, 10);
        stream->size = *end == '/' ? strtoull(end + 1, NULL, 10) : 0;
        stream->due_ms =
            origin_now_ms() + 1 + (delay_ms < ORIGIN_DELAY_MS_MAX ? delay_ms : ORIGIN_DELAY_MS_MAX);
        stream->is_whole = true;
        counters->waiting++;
    } else if (strcmp(h2_request.path, "/head") == 0) {
        stream_answer_text(conn, stream, h2_request.head, h2_request.head_size);
    } else if (size > 0 || strcmp(h2_request.path, "/bytes/0") == 0) {
        stream_answer(conn, stream, size, NULL);
    } else {
        conn_free_stream(conn, stream);
        out_number(conn, NGHTTP2_RST_STREAM, id, NGHTTP2_PROTOCOL_ERROR);
    }
}

/* One frame at a time: what the functions below are given. */
struct frame {
    uint8_t type;
    uint8_t flags;
    uint32_t id;
    const uint8_t *payload;
    size_t size;
};

/* Takes padding and priority off. False: they are longer than the frame. */
static bool frame_trim(struct frame *frame) {
    size_t before = 0, after = 0;
    if (frame->flags & NGHTTP2_FLAG_PADDED && frame->size > 0) {
        before = 1;
        after = frame->payload[0];
    }
    if (frame->type == NGHTTP2_HEADERS && frame->flags & NGHTTP2_FLAG_PRIORITY) {
        before += 5;
    }
    if (before + after > frame->size) {
        return false;
    }
    frame->payload += before;
    frame->size -= before + after;
    return true;
}

/* A head of a proxy under test fits one frame: CONTINUATION is not known here. Trailers end a
 * request whose body has come. */
static bool on_headers(struct conn *conn, struct frame *frame) {
    if ((frame->flags & NGHTTP2_FLAG_END_HEADERS) == 0 || !frame_trim(frame) ||
        !h2_head_decode(&conn->head, frame->payload, frame->size)) {
        return false;
    }
    struct stream *stream = stream_find(conn, frame->id);
    if (stream != NULL) {
        stream_answer_received(conn, stream);
    } else if ((frame->flags & NGHTTP2_FLAG_END_STREAM) == 0) {
        stream_new(conn, frame->id)->is_checked = strcmp(h2_request.path, "/check") == 0;
    } else if (h2_request.is_post) {
        stream_answer_received(conn, stream_new(conn, frame->id));
    } else {
        conn_answer(conn, frame->id);
    }
    return true;
}

static bool on_bytes(struct conn *conn, struct frame *frame) {
    conn->taken += frame->size;
    if (conn->taken > WINDOW_WIDE / 2) {
        out_number(conn, NGHTTP2_WINDOW_UPDATE, 0, (uint32_t)conn->taken);
        conn->taken = 0;
    }
    struct stream *stream = stream_find(conn, frame->id);
    if (!frame_trim(frame) || (stream != NULL && stream->is_whole)) {
        return false;
    }
    if (stream == NULL) {
        return true; /* reset while its body was on its way */
    }
    if (stream->is_checked && !origin_pattern_is(stream->received, frame->payload, frame->size)) {
        stream->is_damaged = true;
    }
    stream->received += frame->size;
    counters->body_bytes_received += frame->size;
    if (frame->flags & NGHTTP2_FLAG_END_STREAM) {
        stream_answer_received(conn, stream);
    }
    return true;
}

static bool on_settings(struct conn *conn, struct frame *frame) {
    if (frame->flags & NGHTTP2_FLAG_ACK) {
        return true;
    }
    for (size_t at = 0; at + 6 <= frame->size; at += 6) {
        uint32_t value = get_u32(frame->payload + at + 2);
        if (frame->payload[at + 1] == NGHTTP2_SETTINGS_HEADER_TABLE_SIZE) {
            h2_head_limit(&conn->head, value);
        } else if (frame->payload[at + 1] == NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE) {
            for (struct stream *stream = conn->streams; stream != NULL; stream = stream->next) {
                stream->window += (int64_t)value - conn->stream_window;
            }
            conn->stream_window = value;
        }
    }
    out_frame(conn, NGHTTP2_SETTINGS << 8 | NGHTTP2_FLAG_ACK, 0, 0);
    return true;
}

static void on_window_update(struct conn *conn, const struct frame *frame) {
    uint32_t more = get_u32(frame->payload) & 0x7fffffff;
    struct stream *stream = stream_find(conn, frame->id);
    if (frame->id == 0) {
        conn->window += more;
    } else if (stream != NULL) {
        stream->window += more;
    }
}

/* False: the proxy breaks the protocol, or uses a part of it that is not known here. */
static bool conn_on_frame(struct conn *conn, struct frame *frame) {
    if (frame->type == NGHTTP2_HEADERS) {
        return on_headers(conn, frame);
    }
    if (frame->type == NGHTTP2_DATA) {
        return on_bytes(conn, frame);
    }
    if (frame->type == NGHTTP2_SETTINGS) {
        return on_settings(conn, frame);
    }
    if (frame->type == NGHTTP2_WINDOW_UPDATE && frame->size == 4) {
        on_window_update(conn, frame);
    } else if (frame->type == NGHTTP2_PING && (frame->flags & NGHTTP2_FLAG_ACK) == 0) {
        memcpy(out_frame(conn, NGHTTP2_PING << 8 | NGHTTP2_FLAG_ACK, 0, frame->size),
               frame->payload, frame->size);
    } else if (frame->type == NGHTTP2_RST_STREAM) {
        struct stream *stream = stream_find(conn, frame->id);
        if (stream != NULL) {
            conn_free_stream(conn, stream);
        }
    }
    return frame->type != NGHTTP2_CONTINUATION;
}

/* Uses up the whole frames of the input. False: there is something else. */
static bool conn_consume(struct conn *conn) {
    size_t at = 0;
    if (!conn->is_greeted) {
        if (conn->in_size < PREFACE_SIZE) {
            return true;
        }
        if (memcmp(conn->in, PREFACE, PREFACE_SIZE) != 0) {
            return false;
        }
        conn_greet(conn);
        at = PREFACE_SIZE;
    }
    while (conn->in_size - at >= FRAME_HEAD) {
        const uint8_t *head = conn->in + at;
        size_t size = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        struct frame frame = {head[3], head[4], get_u32(head + 5) & 0x7fffffff, head + FRAME_HEAD,
                              size};
        if (size > FRAME_MAX) {
            return false;
        }
        if (conn->in_size - at < FRAME_HEAD + size) {
            break;
        }
        if (!conn_on_frame(conn, &frame)) {
            return false;
        }
        at += FRAME_HEAD + size;
    }
    memmove(conn->in, conn->in + at, conn->in_size - at);
    conn->in_size -= at;
    return true;
}

static void conn_readable(struct conn *conn) {
    ssize_t size = recv(conn->fd, conn->in + conn->in_size, INPUT_SIZE - conn->in_size, 0);
    if (size < 0 && errno == EAGAIN) {
        return;
    }
    if (size <= 0) {
        conn_close(conn);
        return;
    }
    conn->in_size += (size_t)size;
    if (!conn_consume(conn)) {
        fprintf(stderr, "origin_h2: a frame that is not understood here\n");
        conn_close(conn);
        return;
    }
    (void)conn_flush(conn); /* a connection that is gone needs nothing more */
}

/* Answers whose time has come. There are few of them: only the checks before a load wait. */
static void answer_due(void) {
    uint64_t now_ms = origin_now_ms();
    struct conn *next_conn;
    for (struct conn *conn = conn_first; conn != NULL; conn = next_conn) {
        next_conn = conn->next;
        struct stream *next;
        for (struct stream *stream = conn->streams; stream != NULL; stream = next) {
            next = stream->next;
            if (stream->due_ms > 0 && stream->due_ms <= now_ms) {
                stream->due_ms = 0;
                counters->waiting--;
                stream_answer(conn, stream, stream->size, NULL);
            }
        }
        (void)conn_flush(conn);
    }
}

static void conn_on_event(struct conn *conn, uint32_t events) {
    if (events & EPOLLOUT && !conn_flush(conn)) {
        return;
    }
    if (events & ~(uint32_t)EPOLLOUT && conn->watched & EPOLLIN) {
        conn_readable(conn);
    }
}

int main(int argc, char **argv) {
    int listener = origin_start(argc, argv);
    conns = calloc(origin_files_max(), sizeof *conns);
    if (conns == NULL) {
        origin_die("calloc");
    }
    static struct epoll_event events[ORIGIN_EVENTS_MAX];
    while (origin_goes_on()) {
        int count =
            epoll_wait(origin_poller, events, ORIGIN_EVENTS_MAX, counters->waiting > 0 ? 1 : 1000);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                for (int accepted; (accepted = origin_accept(listener)) >= 0;) {
                    conn_open(accepted);
                }
            } else if (conns[fd] != NULL) {
                conn_on_event(conns[fd], events[i].events);
            }
        }
        if (counters->waiting > 0) {
            answer_due();
        }
    }
    return 0;
}
