#include "service/answer.h"

#include "base/check.h"

static struct answer *answer_of(struct stream *stream) {
    return LIST_OWNER(stream, struct answer, stream);
}

static void answer_head(struct stream *stream, const struct http_message *request, bool end) {
    (void)end; /* the answer does not depend on the body */
    struct answer *answer = answer_of(stream);
    struct http_message message = {.version_minor = 1};
    answer->failed = !answer->make(answer, request, &message, &answer->body);
    message.body_length = answer->body.len;
    answer->message = message;
    answer->no_body = request->method == HTTP_HEAD || answer->body.len == 0;
    net_defer(answer->net, &answer->task);
}

static enum stream_room answer_data(struct stream *stream, struct bytes data, struct lease *lease,
                                    bool end) {
    (void)stream; /* a request's body is dropped */
    (void)data;
    (void)lease;
    (void)end;
    return STREAM_ROOM;
}

static void answer_end(struct stream *stream, const struct http_fields *trailers) {
    (void)stream; /* as its body */
    (void)trailers;
}

static void answer_pause(struct stream *stream) { answer_of(stream)->paused = true; }

static void answer_resume(struct stream *stream) {
    struct answer *answer = answer_of(stream);
    if (!answer->paused) return;
    answer->paused = false;
    net_defer(answer->net, &answer->task);
}

static void answer_tunnel(struct stream *stream, uint64_t idle_ms) {
    (void)stream;
    (void)idle_ms;
    CHECK(false); /* follows a 101 only, and no answer is one */
}

static void answer_close(struct stream *stream, enum reason reason) {
    (void)reason; /* there is no connection to judge */
    struct answer *answer = answer_of(stream);
    net_task_cancel(&answer->task);
    if (answer->closed) *answer->closed = true;
    if (answer->done) answer->done(answer);
}

/* The exchange may close the stream in any event, and its arena goes with it. */
static void answer_send(struct answer *answer, bool *closed) {
    struct stream *stream = &answer->stream;
    if (!answer->begun) {
        answer->begun = true;
        stream->events->on_head(stream, &answer->message, answer->no_body);
        if (*closed) return;
        answer->ended = answer->no_body;
    }
    /* A client may read what it was given while its request still comes. */
    if (answer->ended) return;
    while (answer->body.len != 0 && !answer->paused) {
        struct bytes piece = bytes_slice(answer->body, 0, STREAM_COPY_MAX);
        answer->body = bytes_slice(answer->body, piece.len, SIZE_MAX);
        stream->events->on_data(stream, piece, NULL);
        if (*closed) return;
    }
    if (answer->body.len != 0) return;
    answer->ended = true;
    stream->events->on_end(stream, NULL);
}

static void answer_run(struct net_task *task) {
    struct answer *answer = LIST_OWNER(task, struct answer, task);
    bool closed = false;
    if (answer->failed) {
        answer->stream.events->on_reset(&answer->stream, REASON_NO_MEMORY);
        return;
    }
    answer->closed = &closed;
    answer_send(answer, &closed);
    if (!closed) answer->closed = NULL;
}

static const struct stream_ops answer_ops = {
    .head = answer_head,
    .data = answer_data,
    .end = answer_end,
    .pause = answer_pause,
    .resume = answer_resume,
    .tunnel = answer_tunnel,
    .close = answer_close,
};

struct answer *answer_open(struct net *net, struct arena *arena) {
    struct answer *answer = arena_alloc(arena, sizeof *answer);
    if (!answer) return NULL;
    *answer = (struct answer){.stream = {.ops = &answer_ops, .arena = arena}, .net = net};
    net_task_init(&answer->task, answer_run);
    return answer;
}
