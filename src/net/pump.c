#include "net/pump.h"

#include "base/check.h"
#include "net/conn_filter.h"
#include "net/conn_internal.h"
#include "net/pipe.h"
#include "ring/op.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

/* Pipefuls moved before others get their turn. */
#define PUMP_ROUNDS 4
/* A move of fewer bytes is a small one; after some in a row receiving and sending is cheaper. */
#define PUMP_SMALL 8192
#define PUMP_SMALL_MAX 4
/* A read this far below a pipeful has emptied the socket: waiting is cheaper than to ask again. */
#define PUMP_DRAINED (PIPE_SIZE / 2)

enum pump_step {
    PUMP_AGAIN,    /* there may be more at once */
    PUMP_WAIT_IN,  /* until `from` is readable */
    PUMP_WAIT_OUT, /* until `to` is writable */
    PUMP_ALL,      /* what may pass has passed */
    PUMP_EOF,
    PUMP_NO_PIPE,
    PUMP_ERROR_IN,
    PUMP_ERROR_OUT
};

bool pump_start(struct conn *from, struct conn *to) {
    CHECK(from->state == CONN_OPEN && !from->pump_out && to->state == CONN_OPEN && !to->pump_in);
    if (from->net->pipes.count == 0 || from->filter) return false;
    if (!conn_filter_lets_pump(to, from->events->pump_limit(from))) return false;
    struct pump *pump = slab_acquire(&from->net->pumps);
    if (!pump) return false;
    *pump = (struct pump){.from = from, .to = to};
    conn_expect_bulk(from, false);
    from->pump_out = to->pump_in = pump;
    from->pumped = true;
    conn_mark_dirty(from);
    return true;
}

void pump_stop(struct pump *pump) {
    struct conn *from = pump->from;
    struct net *net = from->net;
    CHECK(from->pump_out == pump && pump->to->pump_in == pump);
    if (pump->pipe) pipe_give(&net->pipes, pump->pipe);
    pump->to->pump_in = NULL;
    from->pump_out = NULL;
    /* It receives again, or ends. */
    conn_mark_dirty(from);
    slab_release(&net->pumps, pump);
}

/* Into the empty pipe. */
static enum pump_step pump_read(struct pump *pump, uint64_t most, int *error) {
    struct pipe *pipe = pump->pipe;
    size_t wanted = most < PIPE_SIZE ? (size_t)most : PIPE_SIZE;
    ssize_t got = splice(pump->from->fd, NULL, pipe->write_fd, NULL, wanted,
                         SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (got > 0) {
        pipe->len = (uint32_t)got;
        return PUMP_AGAIN;
    }
    if (got == 0) return PUMP_EOF;
    if (errno == EAGAIN || errno == EINTR) return PUMP_WAIT_IN;
    *error = errno;
    return PUMP_ERROR_IN;
}

static enum pump_step pump_write(struct pump *pump, int *error) {
    struct pipe *pipe = pump->pipe;
    ssize_t sent = splice(pipe->read_fd, NULL, pump->to->fd, NULL, pipe->len,
                          SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        *error = errno;
        return PUMP_ERROR_OUT;
    }
    if (sent > 0) pipe->len -= (uint32_t)sent;
    return pipe->len == 0 ? PUMP_AGAIN : PUMP_WAIT_OUT;
}

/* A pipeful in and out, as far as it goes; *moved grows by what reached `to`. */
static enum pump_step pump_move(struct pump *pump, uint64_t limit, uint64_t *moved, int *error) {
    struct pipe_pool *pipes = &pump->from->net->pipes;
    bool drained = false;
    if (!pump->pipe) {
        pump->pipe = pipe_take(pipes);
        if (!pump->pipe) return PUMP_NO_PIPE;
    }
    struct pipe *pipe = pump->pipe;
    enum pump_step step = PUMP_AGAIN;
    if (pipe->len == 0) {
        step = pump_read(pump, limit - *moved, error);
        drained = pipe->len < PUMP_DRAINED;
    }
    if (step == PUMP_AGAIN) {
        uint32_t before = pipe->len;
        step = pump_write(pump, error);
        *moved += before - pipe->len;
    }
    if (pipe->len == 0) {
        pump->pipe = NULL;
        pipe_give(pipes, pipe);
    }
    if (step != PUMP_AGAIN) return step;
    if (*moved == limit) return PUMP_ALL;
    return drained ? PUMP_WAIT_IN : PUMP_AGAIN;
}

static void pump_count(const struct pump *pump, uint64_t moved) {
    struct stat_block *stats = pump->from->net->stats;
    stat_add(stats, STAT_SPLICED_BYTES, moved);
    if (pump->from->is_client) stat_add(stats, STAT_CLIENT_BYTES_RECEIVED, moved);
    if (pump->to->is_client) stat_add(stats, STAT_CLIENT_BYTES_SENT, moved);
    pump->to->sent_total += moved;
    if (moved != 0) pump->to->send_tries = 0;
}

/* Like the sends of conn_send.c: once the other side's FIN is there (EPOLLRDHUP), every poll ends
 * at once. Such a connection is tried again and again instead. */
static bool pump_can_wait_out(const struct conn *to) { return !(to->eof || to->send_refused); }

static void pump_poll(struct conn *conn, enum ring_kind kind, bool *armed, uint32_t events) {
    if (*armed) return; /* one that an earlier pump left behind serves as well */
    *armed = true;
    conn_op_begin(conn);
    op_poll(&conn->net->ring, conn_token(conn, kind), conn->fd, events);
}

/* Each pump counts once a millisecond. */
static void pump_note_busy(struct pump *pump) {
    struct net *net = pump->from->net;
    if (pump->moved_ms == net->now_ms) return;
    pump->moved_ms = net->now_ms;
    if (net->pumped_ms != net->now_ms) {
        net->pumped_before = net->pumped_ms + 1 == net->now_ms ? net->pumped_count : 0;
        net->pumped_count = 0;
        net->pumped_ms = net->now_ms;
    }
    net->pumped_count++;
}

uint32_t pump_busy_count(const struct net *net) {
    if (net->pumped_ms + 1 < net->now_ms) return 0;
    bool has_ended = net->pumped_ms != net->now_ms;
    bool was_busier = net->pumped_before > net->pumped_count;
    return was_busier && !has_ended ? net->pumped_before : net->pumped_count;
}

/* What the step asks for; may end the pump. */
static void pump_go_on(struct pump *pump, enum pump_step step, uint64_t moved) {
    struct conn *from = pump->from;
    struct conn *to = pump->to;
    if (moved >= PUMP_SMALL) {
        pump->small_moves = 0;
        pump_note_busy(pump);
    }
    switch (step) {
    case PUMP_AGAIN:
        conn_mark_dirty(from);
        return;
    case PUMP_WAIT_IN:
        if (moved < PUMP_SMALL && ++pump->small_moves == PUMP_SMALL_MAX) {
            from->pumped = false;
            break;
        }
        pump->waits_in = true;
        pump_poll(from, RING_POLL_IN, &from->poll_in_armed, POLLIN | POLLRDHUP);
        return;
    case PUMP_WAIT_OUT:
        if (to->filter) ktls_push(to->fd);
        if (!pump_can_wait_out(to)) {
            conn_send_later(to);
            return;
        }
        pump->waits_out = true;
        pump_poll(to, RING_POLL_OUT, &to->poll_out_armed, POLLOUT);
        return;
    case PUMP_NO_PIPE:
        pump_stop(pump);
        conn_expect_bulk(from, true);
        return;
    case PUMP_ERROR_OUT:
        return; /* ends with `to`; until then the user sees what it holds */
    case PUMP_ALL:
    case PUMP_EOF:
    case PUMP_ERROR_IN:
        break;
    }
    pump_stop(pump);
}

void pump_run(struct pump *pump) {
    struct conn *from = pump->from;
    struct conn *to = pump->to;
    bool others_work = from->recv_armed || conn_queued(to) != 0 || to->send_armed ||
                       wheel_timer_armed(&to->send_timer);
    if (others_work || from->paused || pump->waits_in || pump->waits_out) return;
    uint64_t limit = from->events->pump_limit(from);
    if (limit != 0 && !conn_filter_begin_pump(to)) {
        pump_stop(pump);
        conn_expect_bulk(from, true);
        return;
    }
    uint64_t moved = 0;
    bool tell = !pump->begun;
    bool held = pump_holds(pump);
    int error = 0;
    enum pump_step step = limit == 0 ? PUMP_ALL : PUMP_AGAIN;
    for (int round = 0; round < PUMP_ROUNDS && step == PUMP_AGAIN; round++)
        step = pump_move(pump, limit, &moved, &error);
    pump_count(pump, moved);
    pump->begun = true;
    tell |= moved != 0 || held != pump_holds(pump);
    pump_go_on(pump, step, moved);
    if (tell) from->events->on_pumped(from, moved);
    if (step == PUMP_EOF) conn_end_of_stream(from);
    if (step == PUMP_ERROR_IN) conn_lose(from, error);
    if (step == PUMP_ERROR_OUT) conn_lose(to, error);
}

void pump_on_poll(struct conn *conn, const struct ring_completion *completion) {
    bool in = completion->token.kind == RING_POLL_IN;
    struct pump *pump = in ? conn->pump_out : conn->pump_in;
    *(in ? &conn->poll_in_armed : &conn->poll_out_armed) = false;
    if (!pump || conn->state == CONN_CLOSING) return;
    *(in ? &pump->waits_in : &pump->waits_out) = false;
    bool refused =
        !in && completion->result > 0 && (completion->result & (POLLOUT | POLLERR | POLLHUP)) == 0;
    if (refused) conn_send_later(conn);
    conn_mark_dirty(pump->from);
}
