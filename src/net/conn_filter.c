#include "net/conn_filter.h"

#include "base/check.h"
#include "base/stat.h"
#include "net/conn_internal.h"

#include <errno.h>

/* Less than this is sent sooner than the kernel has made ready for it. */
#define CONN_FILTER_OFFLOAD_MIN (256 * 1024)

/* How long the other side may acknowledge nothing of what the kernel still has to send. */
#define CONN_FILTER_HELD_MS 10000

void conn_set_filter(struct conn *conn, struct conn_filter *filter) {
    CHECK(!conn->filter && !conn->pump_in && !conn->pump_out);
    CHECK(conn->state == CONN_CONNECTING || (conn->state == CONN_OPEN && conn->out.queued == 0));
    filter->plain = (struct conn_out){0};
    filter->ended = filter->offers = filter->offloaded = false;
    conn->filter = filter;
}

void conn_drop_filter(struct conn *conn) {
    struct conn_filter *filter = conn->filter;
    conn_out_drop(conn->net, &filter->plain);
    conn->filter = NULL;
    filter->ops->on_released(filter);
}

void conn_fail(struct conn *conn, int error) { conn_lose(conn, error); }

bool conn_filter_put(struct conn *conn, struct bytes bytes) {
    conn_mark_dirty(conn);
    return conn_out_copy(conn->net, &conn->out, bytes);
}

char *conn_filter_reserve(struct conn *conn, size_t size, size_t *room) {
    struct conn_out *out = &conn->out;
    char *to = conn_out_reserve(conn->net, out, size);
    if (to) *room = out->lease->size - out->used;
    return to;
}

void conn_filter_commit(struct conn *conn, size_t size) {
    conn_mark_dirty(conn);
    conn_out_commit(conn->net, &conn->out, size);
}

size_t conn_filter_room(const struct conn *conn) {
    const struct net *net = conn->net;
    const struct conn_out *out = &conn->out;
    size_t started = out->lease ? out->lease->size - out->used : 0;
    /* Enough for any send; a queue block has more slices than a send. */
    uint32_t spare =
        net->small.spare_count < CONN_SEND_SLICES ? net->small.spare_count : CONN_SEND_SLICES;
    if (net->queues.used == net->queues.capacity) return 0;
    return started + (size_t)spare * net->small.buffer_size;
}

bool conn_filter_offload(struct conn *conn, struct bytes keys) {
    struct conn_filter *filter = conn->filter;
    CHECK(conn_queued(conn) == 0 && !conn->send_armed && !filter->offloaded);
    int error = ktls_start(&filter->kernel, conn->fd, keys, conn->sent_total);
    filter->offloaded = error == 0;
    stat_add(conn->net->stats, filter->offloaded ? STAT_KTLS_CONNECTIONS : STAT_KTLS_REFUSALS, 1);
    return filter->offloaded;
}

int conn_filter_say(struct conn *conn, uint8_t type, struct bytes bytes) {
    CHECK(conn->filter->offloaded);
    if (conn->out.queued != 0 || conn->send_armed || conn->pump_in) return -EAGAIN;
    return ktls_say(&conn->filter->kernel, conn->fd, type, bytes);
}

bool conn_filter_is_sent(const struct conn *conn) {
    return ktls_is_sent(&conn->filter->kernel, conn->fd, conn->sent_total);
}

bool conn_filter_lets_pump(const struct conn *to, uint64_t limit) {
    const struct conn_filter *filter = to->filter;
    return !filter || filter->offloaded || (filter->offers && limit >= CONN_FILTER_OFFLOAD_MIN);
}

bool conn_filter_begin_pump(struct conn *to) {
    struct conn_filter *filter = to->filter;
    if (!filter || filter->offloaded) return true;
    filter->offers = filter->ops->offload(to);
    return filter->offers;
}

/* Nothing follows what is queued. */
static bool conn_filter_ends(const struct conn *conn) {
    return conn->fin_wanted || conn->state == CONN_FINISHING;
}

bool conn_filter_is_done(const struct conn *conn) {
    const struct conn_filter *filter = conn->filter;
    return filter->plain.queued == 0 && (filter->ended || !conn_filter_ends(conn));
}

bool conn_filter_flush(struct conn *conn) {
    struct conn_filter *filter = conn->filter;
    if (conn_filter_is_done(conn)) return true;
    if (filter->offloaded && (conn->out.queued != 0 || conn->pump_in)) return true;
    if (!filter->ops->flush(conn, conn_filter_ends(conn))) {
        conn_lose(conn, ENOMEM);
        return false;
    }
    if (filter->plain.queued == 0) conn_out_drop(conn->net, &filter->plain);
    if (conn->out.queued == 0 && !conn_filter_is_done(conn)) conn_send_again(conn);
    return true;
}

/* What the kernel has not sent, or what is left of the end's mark when it has no room for that. */
static bool conn_filter_is_held(struct conn *conn) {
    if (conn->filter->offloaded)
        return conn->out.queued == 0 && !conn->send_armed && !conn_filter_is_sent(conn);
    if (conn->send_armed || conn_queued(conn) != 0) return false;
    conn_filter_say_last(conn);
    return conn->out.queued != 0;
}

bool conn_filter_closes_later(struct conn *conn) {
    if (conn->state != CONN_OPEN || !conn->filter || !conn_filter_is_held(conn)) return false;
    conn_finish(conn, CONN_FILTER_HELD_MS, true);
    return true;
}

void conn_filter_say_last(struct conn *conn) {
    struct conn_filter *filter = conn->filter;
    if (conn->abort || conn->state != CONN_OPEN || conn->send_armed) return;
    if (filter->offloaded && conn->out.queued != 0) return;
    if (filter->plain.queued == 0 && !filter->ended && !filter->ops->flush(conn, true)) return;
    struct bytes last = conn_out_front(&conn->out);
    if (last.len == 0 || last.len != conn->out.queued) return;
    ssize_t sent = send(conn->fd, last.ptr, last.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) conn_out_take(conn->net, &conn->out, (size_t)sent);
    bool waits = sent > 0 || errno == EAGAIN;
    if (!waits) conn_out_drop(conn->net, &conn->out); /* nobody is there to be told */
}
