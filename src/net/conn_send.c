#include "base/check.h"
#include "net/conn_filter.h"
#include "net/conn_internal.h"
#include "net/pump.h"
#include "ring/op.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

/* Pieces up to this many bytes are copied behind what is queued already: one contiguous send is
 * cheaper than a vector, and the receive buffer goes back while it is hot. */
#define CONN_COPY_MAX 2048

/* How long a socket that cannot be waited for is left alone; twice as long each time that it has
 * taken nothing, so many times. */
#define CONN_SEND_AGAIN_MS 10
#define CONN_SEND_TRIES_MAX 4

/* Where the user's bytes go. */
static struct conn_out *conn_user_out(struct conn *conn) {
    return conn->filter && !conn->filter->offloaded ? &conn->filter->plain : &conn->out;
}

char *conn_reserve(struct conn *conn, size_t size) {
    CHECK(conn->state == CONN_OPEN);
    return conn_out_reserve(conn->net, conn_user_out(conn), size);
}

void conn_commit(struct conn *conn, size_t size) {
    conn_out_commit(conn->net, conn_user_out(conn), size);
    conn_mark_dirty(conn);
}

bool conn_send_copy(struct conn *conn, struct bytes bytes) {
    conn_mark_dirty(conn);
    return conn_out_copy(conn->net, conn_user_out(conn), bytes);
}

/* A copy needs room behind what is queued, or a buffer. */
static bool conn_can_copy(const struct net *net, const struct conn_out *out, size_t size) {
    bool fits = out->lease && out->lease->size - out->used >= size;
    return fits || net->small.spare_count != 0;
}

/* A piece that is not copied holds all of its buffer. */
static uint32_t conn_copy_max(const struct net *net) {
    uint32_t half = net->small.buffer_size / 2;
    return net_is_short(net) && half > CONN_COPY_MAX ? half : CONN_COPY_MAX;
}

bool conn_send_lease(struct conn *conn, struct bytes bytes, struct lease *lease) {
    struct conn_out *out = conn_user_out(conn);
    conn_mark_dirty(conn);
    if (bytes.len <= conn_copy_max(conn->net) && conn_can_copy(conn->net, out, bytes.len)) {
        return conn_out_copy(conn->net, out, bytes);
    }
    return conn_out_append(conn->net, out, bytes, lease);
}

uint32_t conn_queued(const struct conn *conn) {
    return conn->filter ? conn->out.queued + conn->filter->plain.queued : conn->out.queued;
}

/* How much may be queued before its sender is paused. */
static uint32_t conn_queue_mark(const struct net *net) {
    return net_share(net, net->options.queue_mark);
}

bool conn_is_full(struct conn *conn) {
    uint32_t queued = conn_queued(conn);
    /* No share is less than a buffer, and to reckon one takes two divisions. */
    if (queued <= conn->net->small.buffer_size || queued <= conn_queue_mark(conn->net))
        return false;
    conn->told_full = true;
    return true;
}

bool conn_has_room(struct conn *conn) {
    const struct net *net = conn->net;
    if (conn_is_full(conn)) return false;
    if (net->small.spare_count != 0 && net->queues.used < net->queues.capacity) return true;
    conn->told_full = true;
    /* With nothing queued no send ends, after which it would be told. */
    if (conn_queued(conn) == 0) conn_send_again(conn);
    return false;
}

void conn_notify_sent(struct conn *conn) {
    conn->notify_sent = true;
    conn_mark_dirty(conn);
}

/* The next slices as a vector; returns how many. */
static size_t conn_gather(struct conn_queue *queue) {
    size_t count = 0;
    for (struct conn_queue *part = queue; part; part = part->next) {
        for (uint32_t i = part->first; i < part->count; i++) {
            const struct conn_slice *slice = &part->slices[i];
            queue->vector[count++] = (struct iovec){(void *)(uintptr_t)slice->ptr, slice->len};
            if (count == CONN_SEND_SLICES) return count;
        }
    }
    return count;
}

static enum op_send_mode conn_send_mode(const struct conn *conn) {
    if (conn->eof || conn->send_refused) return OP_SEND_NOW;
    return conn->filter && conn->filter->offloaded ? OP_SEND_SOME : OP_SEND_ALL;
}

void conn_flush_send(struct conn *conn) {
    if (conn->send_armed || wheel_timer_armed(&conn->send_timer)) return;
    if (conn->filter && !conn_filter_flush(conn)) return;
    struct conn_queue *queue = conn->out.first;
    if (conn->out.queued == 0) return;
    conn->send_armed = true;
    conn_op_begin(conn);
    enum op_send_mode mode = conn_send_mode(conn);
    struct ring *ring = &conn->net->ring;
    struct ring_token token = conn_token(conn, RING_SEND);
    const struct conn_slice *first = &queue->slices[queue->first];
    if (first->len == conn->out.queued) {
        op_send(ring, token, conn->fd, bytes_make(first->ptr, first->len), mode);
        return;
    }
    queue->message = (struct msghdr){.msg_iov = queue->vector, .msg_iovlen = conn_gather(queue)};
    op_sendmsg(ring, token, conn->fd, &queue->message, mode);
}

void conn_send_again(struct conn *conn) {
    uint64_t wait_ms = (uint64_t)CONN_SEND_AGAIN_MS << conn->send_tries;
    wheel_arm(&conn->net->wheel, &conn->send_timer, conn->net->now_ms + wait_ms);
}

/* Once the other side's FIN is there (EPOLLRDHUP), the kernel's wait for room to send ends at once
 * and for ever: after some rounds the send gives -EAGAIN. Such a connection is tried again and
 * again instead. */
void conn_send_later(struct conn *conn) {
    conn->send_refused = true;
    conn_send_again(conn);
    if (conn->send_tries < CONN_SEND_TRIES_MAX) conn->send_tries++;
}

static void conn_tell_drained(struct conn *conn) {
    if (!conn->told_full || conn->state != CONN_OPEN) return;
    if (conn_queued(conn) > conn_queue_mark(conn->net) / 2) return;
    conn->told_full = false;
    conn->events->on_drained(conn);
}

void conn_on_send_timer(struct wheel_timer *timer, uint64_t now_ms) {
    (void)now_ms;
    struct conn *conn = LIST_OWNER(timer, struct conn, send_timer);
    conn_mark_dirty(conn);
    if (conn->pump_in) conn_mark_dirty(conn->pump_in->from);
    conn_tell_drained(conn);
}

void conn_on_send(struct conn *conn, const struct ring_completion *completion) {
    conn->send_armed = false;
    if (conn->state == CONN_CLOSING) return;
    if (completion->result == -EAGAIN || completion->result == -EINTR) {
        conn_send_later(conn);
        return;
    }
    if (completion->result < 0) {
        conn_lose(conn, -completion->result);
        return;
    }
    conn->send_tries = 0;
    conn_out_take(conn->net, &conn->out, (size_t)completion->result);
    conn->sent_total += (uint64_t)completion->result;
    uint32_t queued = conn_queued(conn);
    if (conn->out.queued == 0) conn_out_drop(conn->net, &conn->out);
    if (queued == 0 && conn->pump_in) conn_mark_dirty(conn->pump_in->from);
    if (conn->is_client) {
        stat_add(conn->net->stats, STAT_CLIENT_BYTES_SENT, (uint64_t)completion->result);
    }
    if (queued != 0 || conn->notify_sent || conn->state != CONN_OPEN || conn->fin_wanted)
        conn_mark_dirty(conn);
    conn_tell_drained(conn);
}

/* TCP_INFO (tcp(7)) has the times. An acknowledgement is progress also where nothing is left to be
 * sent: a reader makes room by it for what its own kernel holds. But kernels acknowledge each
 * other's probes, too, where one has no room: then ours sends no data, or the other asks, because
 * we do not read. A unix socket tells only what its reader has not taken yet, and with the memory
 * that it lies in, as kTLS with its records: it may be more than was sent. */
struct conn_taken conn_taken(struct conn *conn) {
    struct tcp_info info;
    socklen_t size = sizeof info;
    int left = 0;
    if (ioctl(conn->fd, SIOCOUTQ, &left) < 0) left = 0; /* it has come to its end */
    uint64_t bytes = conn->sent_total - (uint64_t)left; /* modulo 2^64, it shows what moves */
    struct conn_taken taken = {.bytes = bytes <= conn->sent_total ? bytes : 0,
                               .ago_ms = UINT64_MAX};
    bool is_due = conn_is_sending(conn) || left > 0;
    if (getsockopt(conn->fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0) {
        bool is_probed = is_due || conn->paused || conn_is_held(conn);
        taken.ago_ms = info.tcpi_last_ack_recv;
        if (is_probed && info.tcpi_last_data_sent > taken.ago_ms)
            taken.ago_ms = info.tcpi_last_data_sent;
    } else if (is_due && (uint32_t)bytes != conn->taken) {
        taken.ago_ms = 0;
    }
    conn->taken = (uint32_t)bytes;
    return taken;
}
