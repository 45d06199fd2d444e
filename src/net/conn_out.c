#include "net/conn_out.h"

#include "base/check.h"
#include "net/conn_internal.h"

/* Makes sure that the last queue block has a slice free. */
static bool conn_out_slice_room(struct net *net, struct conn_out *out) {
    struct conn_queue *last = out->last;
    if (last && last->count < CONN_SLICES) return true;
    struct conn_queue *queue = slab_acquire(&net->queues);
    if (!queue) return false;
    queue->next = NULL;
    queue->first = queue->count = 0;
    if (last) {
        last->next = queue;
    } else {
        out->first = queue;
    }
    out->last = queue;
    return true;
}

char *conn_out_reserve(struct net *net, struct conn_out *out, size_t size) {
    CHECK(size <= net->small.buffer_size);
    if (!conn_out_slice_room(net, out)) return NULL;
    if (out->lease && out->lease->size - out->used >= size) return out->lease->memory + out->used;
    struct lease *lease = buf_take(&net->small);
    if (!lease) return NULL;
    if (out->lease) lease_unref(out->lease);
    out->lease = lease;
    out->used = 0;
    return lease->memory;
}

bool conn_out_append(struct net *net, struct conn_out *out, struct bytes bytes,
                     struct lease *lease) {
    struct conn_queue *last = out->last;
    if (last && last->count != 0) {
        struct conn_slice *tail = &last->slices[last->count - 1];
        if (tail->lease == lease && tail->ptr + tail->len == bytes.ptr) {
            /* Growing a slice in flight is safe: what is in flight was captured with its old
             * length. */
            tail->len += (uint32_t)bytes.len;
            out->queued += (uint32_t)bytes.len;
            return true;
        }
    }
    if (!conn_out_slice_room(net, out)) return false;
    last = out->last;
    last->slices[last->count++] = (struct conn_slice){bytes.ptr, (uint32_t)bytes.len, lease};
    lease_ref(lease);
    out->queued += (uint32_t)bytes.len;
    return true;
}

void conn_out_commit(struct net *net, struct conn_out *out, size_t size) {
    CHECK(out->lease && size <= out->lease->size - out->used);
    if (size == 0) return;
    struct bytes bytes = bytes_make(out->lease->memory + out->used, size);
    bool appended = conn_out_append(net, out, bytes, out->lease);
    CHECK(appended); /* conn_out_reserve made room for the slice */
    out->used += (uint32_t)size;
}

bool conn_out_copy(struct net *net, struct conn_out *out, struct bytes bytes) {
    while (bytes.len != 0) {
        size_t room = out->lease ? out->lease->size - out->used : 0;
        if (room == 0) {
            if (!conn_out_reserve(net, out, 1)) return false;
            room = out->lease->size;
        }
        size_t part = bytes.len < room ? bytes.len : room;
        char *to = out->lease->memory + out->used;
        memcpy(to, bytes.ptr, part);
        if (!conn_out_append(net, out, bytes_make(to, part), out->lease)) return false;
        out->used += (uint32_t)part;
        bytes = bytes_make(bytes.ptr + part, bytes.len - part);
    }
    return true;
}

struct bytes conn_out_front(const struct conn_out *out) {
    if (out->queued == 0) return BYTES_NONE;
    const struct conn_slice *slice = &out->first->slices[out->first->first];
    return bytes_make(slice->ptr, slice->len);
}

size_t conn_out_peek(const struct conn_out *out, char *to, size_t size) {
    size_t len = 0;
    for (const struct conn_queue *queue = out->first; queue; queue = queue->next) {
        for (uint32_t i = queue->first; i < queue->count && len < size; i++) {
            const struct conn_slice *slice = &queue->slices[i];
            size_t part = slice->len < size - len ? slice->len : size - len;
            memcpy(to + len, slice->ptr, part);
            len += part;
        }
    }
    return len;
}

static void conn_out_pop(struct net *net, struct conn_out *out) {
    struct conn_queue *queue = out->first;
    out->first = queue->next;
    if (!out->first) out->last = NULL;
    slab_release(&net->queues, queue);
}

void conn_out_take(struct net *net, struct conn_out *out, size_t size) {
    CHECK(size <= out->queued);
    out->queued -= (uint32_t)size;
    while (size != 0) {
        struct conn_queue *queue = out->first;
        struct conn_slice *slice = &queue->slices[queue->first];
        uint32_t part = size < slice->len ? (uint32_t)size : slice->len;
        slice->ptr += part;
        slice->len -= part;
        size -= part;
        if (slice->len != 0) return;
        lease_unref(slice->lease);
        if (++queue->first == queue->count) conn_out_pop(net, out);
    }
}

void conn_out_drop(struct net *net, struct conn_out *out) {
    while (out->first) {
        struct conn_queue *queue = out->first;
        for (uint32_t i = queue->first; i < queue->count; i++)
            lease_unref(queue->slices[i].lease);
        conn_out_pop(net, out);
    }
    out->queued = 0;
    if (out->lease) lease_unref(out->lease);
    out->lease = NULL;
}
