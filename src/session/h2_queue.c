#include "session/h2_queue.h"

#include "base/check.h"

/* Where something waits already, pieces up to this many bytes are copied: they would hold a whole
 * buffer each, and who reads slowly makes many of them. */
#define H2_COPY_MAX 2048

static struct h2_block *h2_block_room(struct h2_room *room, struct h2_queue *queue) {
    struct h2_block *last = queue->last;
    if (last && last->count < H2_BLOCK_SLICES) return last;
    struct h2_block *block = slab_acquire(&room->blocks);
    if (!block) return NULL;
    block->next = NULL;
    block->first = block->count = 0;
    if (last) {
        last->next = block;
    } else {
        queue->first = block;
    }
    queue->last = block;
    return block;
}

static bool h2_queue_append(struct h2_room *room, struct h2_queue *queue, struct bytes bytes,
                            struct lease *lease) {
    struct h2_block *block = queue->last;
    struct h2_slice *tail =
        block && block->count != block->first ? &block->slices[block->count - 1] : NULL;
    if (tail && tail->lease == lease && tail->ptr + tail->len == bytes.ptr) {
        tail->len += (uint32_t)bytes.len;
    } else {
        block = h2_block_room(room, queue);
        if (!block) return false;
        block->slices[block->count++] = (struct h2_slice){bytes.ptr, lease, (uint32_t)bytes.len};
        lease_ref(lease);
    }
    queue->bytes += (uint32_t)bytes.len;
    return true;
}

static void h2_drop_copy(struct h2_room *room) {
    if (room->copy) lease_unref(room->copy);
    room->copy = NULL;
}

static void h2_on_copy_task(struct net_task *task) {
    h2_drop_copy(LIST_OWNER(task, struct h2_room, copy_task));
}

void h2_queue_init(struct h2_room *room) { net_task_init(&room->copy_task, h2_on_copy_task); }

void h2_queue_fini(struct h2_room *room) {
    net_task_cancel(&room->copy_task);
    h2_drop_copy(room);
}

/* The first bytes of a queue, which fit a buffer. */
static bool h2_copy_first(struct h2_room *room, struct h2_queue *queue, struct bytes bytes) {
    if (room->copy && room->copy->size - room->copy_used < bytes.len) h2_drop_copy(room);
    if (!room->copy) {
        room->copy = buf_take(&room->net->small);
        room->copy_used = 0;
        if (!room->copy) return false;
        net_defer(room->net, &room->copy_task);
    }
    char *to = room->copy->memory + room->copy_used;
    memcpy(to, bytes.ptr, bytes.len);
    room->copy_used += (uint32_t)bytes.len;
    return h2_queue_append(room, queue, bytes_make(to, bytes.len), room->copy);
}

bool h2_queue_copy(struct h2_room *room, struct h2_queue *queue, struct bytes bytes) {
    if (bytes.len == 0) return true;
    if (queue->bytes == 0 && bytes.len <= room->net->small.buffer_size)
        return h2_copy_first(room, queue, bytes);
    while (bytes.len != 0) {
        size_t left = queue->copy ? queue->copy->size - queue->copy_used : 0;
        if (left == 0) {
            if (queue->copy) lease_unref(queue->copy);
            queue->copy = buf_take(&room->net->small);
            queue->copy_used = 0;
            if (!queue->copy) return false;
            left = queue->copy->size;
        }
        size_t part = bytes.len < left ? bytes.len : left;
        char *to = queue->copy->memory + queue->copy_used;
        memcpy(to, bytes.ptr, part);
        if (!h2_queue_append(room, queue, bytes_make(to, part), queue->copy)) return false;
        queue->copy_used += (uint32_t)part;
        bytes = bytes_slice(bytes, part, SIZE_MAX);
    }
    return true;
}

bool h2_queue_add(struct h2_room *room, struct h2_queue *queue, struct bytes bytes,
                  struct lease *lease) {
    /* The first of a stream as well, when buffers are short: its window may be shut for long. */
    bool waits = queue->bytes != 0 || net_is_short(room->net);
    bool copy = waits && bytes.len <= H2_COPY_MAX;
    bool fits = queue->copy && queue->copy->size - queue->copy_used >= bytes.len;
    if (copy && (fits || room->net->small.spare_count != 0))
        return h2_queue_copy(room, queue, bytes);
    return h2_queue_append(room, queue, bytes, lease);
}

bool h2_queue_is_full(const struct h2_room *room, const struct h2_queue *queue) {
    /* A buffer's worth is always right: most answers are no longer. */
    if (queue->bytes <= room->net->small.buffer_size) return false;
    return queue->bytes > net_share(room->net, H2_STREAM_MARK);
}

bool h2_queue_is_low(const struct h2_room *room, const struct h2_queue *queue) {
    return queue->bytes <= net_share(room->net, H2_STREAM_MARK) / 2;
}

struct h2_slice h2_queue_front(const struct h2_queue *queue, uint32_t max) {
    CHECK(queue->bytes != 0);
    struct h2_slice slice = queue->first->slices[queue->first->first];
    if (slice.len > max) slice.len = max;
    return slice;
}

void h2_queue_drop(struct h2_room *room, struct h2_queue *queue, uint32_t bytes) {
    CHECK(bytes <= queue->bytes);
    queue->bytes -= bytes;
    while (bytes != 0) {
        struct h2_block *block = queue->first;
        struct h2_slice *slice = &block->slices[block->first];
        uint32_t part = bytes < slice->len ? bytes : slice->len;
        slice->ptr += part;
        slice->len -= part;
        bytes -= part;
        if (slice->len != 0) return;
        lease_unref(slice->lease);
        if (++block->first < block->count) continue;
        queue->first = block->next;
        if (!queue->first) queue->last = NULL;
        slab_release(&room->blocks, block);
    }
    if (queue->bytes != 0 || !queue->copy) return;
    lease_unref(queue->copy);
    queue->copy = NULL;
}

void h2_queue_clear(struct h2_room *room, struct h2_queue *queue) {
    if (queue->bytes != 0) h2_queue_drop(room, queue, queue->bytes);
    if (queue->copy) lease_unref(queue->copy);
    *queue = (struct h2_queue){0};
}
