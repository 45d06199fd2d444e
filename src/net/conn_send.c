#include "base/check.h"
#include "net/conn_internal.h"
#include "net/pump.h"
#include "ring/op.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

/* Pieces up to this many bytes are copied behind what is queued already: one contiguous send is
 * cheaper than a vector, and the receive buffer goes back while it is hot. */
#define CONN_COPY_MAX 2048

/* How long a socket that cannot be waited for is left alone. */
#define CONN_SEND_AGAIN_MS 10

/* Makes sure that the last queue block has a slice free. */
static bool conn_slice_room(struct conn *conn) {
    struct conn_queue *last = conn->queue_last;
    if (last && last->count < CONN_SLICES) return true;
    struct conn_queue *queue = slab_acquire(&conn->net->queues);
    if (!queue) return false;
    queue->next = NULL;
    queue->first = queue->count = 0;
    if (last) {
        last->next = queue;
    } else {
        conn->queue_first = queue;
    }
    conn->queue_last = queue;
    return true;
}

char *conn_reserve(struct conn *conn, size_t size) {
    CHECK(conn->state == CONN_OPEN && size <= conn->net->small.buffer_size);
    if (!conn_slice_room(conn)) return NULL;
    if (conn->out && conn->out->size - conn->out_used >= size)
        return conn->out->memory + conn->out_used;
    struct lease *lease = buf_take(&conn->net->small);
    if (!lease) return NULL;
    if (conn->out) lease_unref(conn->out);
    conn->out = lease;
    conn->out_used = 0;
    return lease->memory;
}

static bool conn_append(struct conn *conn, const char *ptr, size_t size, struct lease *lease) {
    struct conn_queue *last = conn->queue_last;
    if (last && last->count != 0) {
        struct conn_slice *tail = &last->slices[last->count - 1];
        if (tail->lease == lease && tail->ptr + tail->len == ptr) {
            /* Growing a slice in flight is safe: what is in flight was captured with its old
             * length. */
            tail->len += (uint32_t)size;
            conn->queued += (uint32_t)size;
            conn_mark_dirty(conn);
            return true;
        }
    }
    if (!conn_slice_room(conn)) return false;
    last = conn->queue_last;
    last->slices[last->count++] = (struct conn_slice){ptr, (uint32_t)size, lease};
    lease_ref(lease);
    conn->queued += (uint32_t)size;
    conn_mark_dirty(conn);
    return true;
}

void conn_commit(struct conn *conn, size_t size) {
    CHECK(conn->out && size <= conn->out->size - conn->out_used);
    if (size == 0) return;
    bool appended = conn_append(conn, conn->out->memory + conn->out_used, size, conn->out);
    CHECK(appended); /* conn_reserve made room for the slice */
    conn->out_used += (uint32_t)size;
}

bool conn_send_copy(struct conn *conn, struct bytes bytes) {
    while (bytes.len != 0) {
        size_t room = conn->out ? conn->out->size - conn->out_used : 0;
        if (room == 0) {
            if (!conn_reserve(conn, 1)) return false;
            room = conn->out->size;
        }
        size_t part = bytes.len < room ? bytes.len : room;
        char *to = conn->out->memory + conn->out_used;
        memcpy(to, bytes.ptr, part);
        if (!conn_append(conn, to, part, conn->out)) return false;
        conn->out_used += (uint32_t)part;
        bytes = bytes_slice(bytes, part, bytes.len - part);
    }
    return true;
}

/* A copy needs room behind what is queued, or a buffer. */
static bool conn_can_copy(const struct conn *conn, size_t size) {
    bool fits = conn->out && conn->out->size - conn->out_used >= size;
    return fits || conn->net->small.spare_count != 0;
}

bool conn_send_lease(struct conn *conn, struct bytes bytes, struct lease *lease) {
    if (bytes.len <= CONN_COPY_MAX && conn_can_copy(conn, bytes.len)) {
        return conn_send_copy(conn, bytes);
    }
    return conn_append(conn, bytes.ptr, bytes.len, lease);
}

/* How much may be queued before its sender is paused: less, the more buffers are in use, so that
 * many slow readers leave some for everybody else. By the square of what is free: with all clients
 * slow, about half of the buffers stay free. A buffer's worth is always right. */
static uint32_t conn_queue_mark(const struct net *net) {
    const struct buf_pool *pool = &net->small;
    uint64_t usable = pool->total - pool->kernel_count;
    uint64_t mark = net->options.queue_mark;
    if (usable != 0) mark = mark * pool->spare_count / usable * pool->spare_count / usable;
    return mark > pool->buffer_size ? (uint32_t)mark : pool->buffer_size;
}

bool conn_is_full(struct conn *conn) {
    if (conn->queued <= conn_queue_mark(conn->net)) return false;
    conn->told_full = true;
    return true;
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

void conn_flush_send(struct conn *conn) {
    struct conn_queue *queue = conn->queue_first;
    if (conn->send_armed || conn->queued == 0 || wheel_timer_armed(&conn->send_timer)) return;
    conn->send_armed = true;
    conn_op_begin(conn);
    enum op_send_mode mode = conn->eof || conn->send_refused ? OP_SEND_NOW : OP_SEND_ALL;
    struct ring *ring = &conn->net->ring;
    struct ring_token token = conn_token(conn, RING_SEND);
    const struct conn_slice *first = &queue->slices[queue->first];
    if (first->len == conn->queued) {
        op_send(ring, token, conn->fd, bytes_make(first->ptr, first->len), mode);
        return;
    }
    queue->message = (struct msghdr){.msg_iov = queue->vector, .msg_iovlen = conn_gather(queue)};
    op_sendmsg(ring, token, conn->fd, &queue->message, mode);
}

/* Once the other side's FIN is there (EPOLLRDHUP), the kernel's wait for room to send ends at once
 * and for ever: after some rounds the send gives -EAGAIN. Such a connection is tried again and
 * again instead. */
void conn_send_later(struct conn *conn) {
    conn->send_refused = true;
    wheel_arm(&conn->net->wheel, &conn->send_timer, conn->net->now_ms + CONN_SEND_AGAIN_MS);
}

void conn_on_send_timer(struct wheel_timer *timer, uint64_t now_ms) {
    (void)now_ms;
    struct conn *conn = LIST_OWNER(timer, struct conn, send_timer);
    conn_mark_dirty(conn);
    if (conn->pump_in) conn_mark_dirty(conn->pump_in->from);
}

static void conn_queue_pop(struct conn *conn) {
    struct conn_queue *queue = conn->queue_first;
    conn->queue_first = queue->next;
    if (!conn->queue_first) conn->queue_last = NULL;
    slab_release(&conn->net->queues, queue);
}

/* Takes `sent` bytes off the front and gives their leases back. */
static void conn_consume(struct conn *conn, uint32_t sent) {
    CHECK(sent <= conn->queued);
    conn->queued -= sent;
    conn->sent_total += sent;
    while (sent != 0) {
        struct conn_queue *queue = conn->queue_first;
        struct conn_slice *slice = &queue->slices[queue->first];
        uint32_t part = sent < slice->len ? sent : slice->len;
        slice->ptr += part;
        slice->len -= part;
        sent -= part;
        if (slice->len != 0) return;
        lease_unref(slice->lease);
        if (++queue->first == queue->count) conn_queue_pop(conn);
    }
}

void conn_queue_drop(struct conn *conn) {
    CHECK(!conn->send_armed);
    while (conn->queue_first) {
        struct conn_queue *queue = conn->queue_first;
        for (uint32_t i = queue->first; i < queue->count; i++)
            lease_unref(queue->slices[i].lease);
        conn_queue_pop(conn);
    }
    conn->queued = 0;
    if (conn->out) lease_unref(conn->out);
    conn->out = NULL;
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
    conn_consume(conn, (uint32_t)completion->result);
    if (conn->queued == 0) conn_queue_drop(conn);
    if (conn->queued == 0 && conn->pump_in) conn_mark_dirty(conn->pump_in->from);
    if (conn->is_client) {
        stat_add(conn->net->stats, STAT_CLIENT_BYTES_SENT, (uint64_t)completion->result);
    }
    if (conn->queued != 0 || conn->notify_sent || conn->state != CONN_OPEN || conn->fin_wanted)
        conn_mark_dirty(conn);
    if (conn->told_full && conn->queued <= conn_queue_mark(conn->net) / 2 &&
        conn->state == CONN_OPEN) {
        conn->told_full = false;
        conn->events->on_drained(conn);
    }
}

bool conn_send_progressed(struct conn *conn) {
    uint64_t acked = conn->sent_total;
    struct tcp_info info;
    socklen_t size = sizeof info;
    int unread;
    if (getsockopt(conn->fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0) {
        acked = info.tcpi_bytes_acked;
    } else if (ioctl(conn->fd, SIOCOUTQ, &unread) == 0) {
        /* A unix socket tells only what its reader has not taken yet. */
        acked -= (uint64_t)(unread > 0 ? unread : 0);
    }
    bool progressed = acked != conn->acked;
    conn->acked = acked;
    return progressed;
}
