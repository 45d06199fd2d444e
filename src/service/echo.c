#include "service/echo.h"

#include "base/check.h"
#include "net/net.h"

#include <stdlib.h>

struct echo {
    struct service service;
    struct slab *streams; /* struct echo_stream; of all echo services of the worker */
};

/* One connection. Pieces wait in the order of their arrival, each in a lease of its own: until the
 * end of the turn or, while the client takes none, longer. With the second piece it is paused, to
 * go on when all have been taken: what it does not take stands in its own queue, and hardly more.
 */
struct echo_stream {
    struct stream stream;
    struct echo *echo;
    struct net *net;
    struct net_task task;
    struct lease *first;
    struct lease *last;
    bool paused;     /* by the user */
    bool told_full;  /* data said STREAM_FULL: on_drained is owed */
    bool end_wanted; /* FIN came: on_end follows the last piece */
    bool ended;
    bool *closed; /* set by close while an event is given */
};

static struct echo_stream *echo_of(struct stream *stream) {
    return LIST_OWNER(stream, struct echo_stream, stream);
}

static struct lease *echo_pop(struct echo_stream *echo) {
    struct lease *lease = echo->first;
    if (!lease) return NULL;
    echo->first = lease->next;
    if (!echo->first) echo->last = NULL;
    return lease;
}

static enum stream_room echo_data(struct stream *stream, struct bytes data, struct lease *lease,
                                  bool end) {
    struct echo_stream *echo = echo_of(stream);
    /* Raw bytes come from a receive, one piece a lease: its fields for a queue are free. */
    CHECK(lease && !echo->end_wanted && lease != echo->last);
    lease_ref(lease);
    lease->at = (uint32_t)(data.ptr - lease->memory);
    lease->len = (uint32_t)data.len;
    lease->next = NULL;
    bool first = !echo->first && !echo->paused;
    if (echo->last) {
        echo->last->next = lease;
    } else {
        echo->first = lease;
    }
    echo->last = lease;
    echo->end_wanted = end;
    net_defer(echo->net, &echo->task);
    if (first) return STREAM_ROOM;
    echo->told_full = true;
    return STREAM_FULL;
}

static void echo_end(struct stream *stream, const struct http_fields *trailers) {
    (void)trailers; /* bytes have none */
    struct echo_stream *echo = echo_of(stream);
    echo->end_wanted = true;
    net_defer(echo->net, &echo->task);
}

static void echo_pause(struct stream *stream) { echo_of(stream)->paused = true; }

static void echo_resume(struct stream *stream) {
    struct echo_stream *echo = echo_of(stream);
    echo->paused = false;
    net_defer(echo->net, &echo->task);
}

static void echo_tunnel(struct stream *stream, uint64_t idle_ms) {
    (void)stream;
    (void)idle_ms; /* the client's side sees every byte twice, and keeps the time */
}

static void echo_close(struct stream *stream, enum reason reason) {
    (void)reason; /* there is no connection to reset */
    struct echo_stream *echo = echo_of(stream);
    for (struct lease *lease; (lease = echo_pop(echo));)
        lease_unref(lease);
    net_task_cancel(&echo->task);
    if (echo->closed) *echo->closed = true;
    slab_release(echo->echo->streams, echo);
}

/* Gives pieces back as far as they are wanted; the user may close in each event. */
static void echo_send(struct echo_stream *echo, bool *closed) {
    struct stream *stream = &echo->stream;
    for (struct lease *lease; !echo->paused && (lease = echo_pop(echo));) {
        struct bytes data = bytes_make(lease->memory + lease->at, lease->len);
        stream->events->on_data(stream, data, lease);
        lease_unref(lease);
        if (*closed) return;
    }
    if (echo->told_full && !echo->paused) {
        echo->told_full = false;
        stream->events->on_drained(stream);
        if (*closed) return;
    }
    if (echo->first || !echo->end_wanted || echo->ended) return;
    echo->ended = true;
    stream->events->on_end(stream, NULL);
}

static void echo_run(struct net_task *task) {
    struct echo_stream *echo = LIST_OWNER(task, struct echo_stream, task);
    bool closed = false;
    echo->closed = &closed;
    echo_send(echo, &closed);
    if (!closed) echo->closed = NULL;
}

/* `head` is never called: there are no messages. */
static const struct stream_ops echo_stream_ops = {
    .data = echo_data,
    .end = echo_end,
    .pause = echo_pause,
    .resume = echo_resume,
    .tunnel = echo_tunnel,
    .close = echo_close,
};

static struct stream *echo_open(struct service *service, struct net *net, struct arena *arena) {
    (void)arena; /* no message is ever built */
    struct echo *echo = LIST_OWNER(service, struct echo, service);
    struct echo_stream *stream = slab_acquire(echo->streams);
    if (!stream) return NULL;
    *stream = (struct echo_stream){.stream = {.ops = &echo_stream_ops}, .echo = echo, .net = net};
    net_task_init(&stream->task, echo_run);
    return &stream->stream;
}

static const struct service_ops echo_ops = {.type = "echo", .open = echo_open};

int echo_room_init(struct slab *streams, struct net *net, uint32_t streams_max) {
    int error = slab_init(streams, "echo", sizeof(struct echo_stream), streams_max);
    if (error == 0) net_add_slab(net, streams);
    return error;
}

struct service *echo_new(struct slab *streams) {
    struct echo *echo = calloc(1, sizeof *echo);
    if (!echo) return NULL;
    *echo = (struct echo){.service = {.ops = &echo_ops}, .streams = streams};
    return &echo->service;
}

void echo_free(struct service *service) {
    if (service) free(LIST_OWNER(service, struct echo, service));
}
