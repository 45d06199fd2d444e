#include "net/net.h"

#include "base/check.h"
#include "base/clock.h"
#include "net/conn_internal.h"
#include "net/listener.h"
#include "net/pump.h"

/* What was used at no time between two passes, this far apart, goes back to the kernel: long enough
 * that a load which comes in waves keeps its memory. */
#define NET_TRIM_MS 2000
/* A pass stops after so many bytes, which take the kernel some 50 us, and lets connections have the
 * worker for so long. */
#define NET_TRIM_BYTES (1024 * 1024)
#define NET_TRIM_PAUSE_MS 5

/* A turn with fewer completions has little to share: a request and its answer bring two. With more
 * than the most of them a turn costs each so little that nobody is to wait for it. */
#define NET_GATHER_LEAST 16
#define NET_GATHER_MOST 48

/* Nothing is armed again when nothing is left to give back: a worker at rest sleeps. */
static void net_on_trim_timer(struct wheel_timer *timer, uint64_t now_ms) {
    struct net *net = LIST_OWNER(timer, struct net, trim_timer);
    size_t budget = NET_TRIM_BYTES;
    /* With DEFER_TASKRUN the kernel fills buffers in our enter only, and has told of them when it
     * returns: what is lent is empty exactly when all it has told is read. */
    if (ring_has_unread(&net->ring)) {
        wheel_arm(&net->wheel, timer, now_ms + NET_TRIM_PAUSE_MS);
        return;
    }
    for (; net->trim_slab < net->slab_count; net->trim_slab++) {
        bool done = slab_trim(net->slabs[net->trim_slab], &budget);
        if (done && budget != 0) continue;
        net->trim_slab += done;
        wheel_arm(&net->wheel, timer, now_ms + NET_TRIM_PAUSE_MS);
        return;
    }
    net->trim_slab = 0;
    buf_pool_calm(&net->small);
    buf_pool_calm(&net->bulk);
    for (uint32_t i = 0; i < net->slab_count; i++) {
        if (!net->slabs[i]->trim_later) continue;
        wheel_arm(&net->wheel, timer, now_ms + NET_TRIM_MS);
        return;
    }
}

void net_add_slab(struct net *net, struct slab *slab) {
    CHECK(net->slab_count < NET_SLABS_MAX);
    net->slabs[net->slab_count] = slab;
    /* Another worker's thread may be writing a page of metrics already. */
    __atomic_store_n(&net->slab_count, net->slab_count + 1, __ATOMIC_RELEASE);
}

int net_init(struct net *net, const struct net_options *options, struct stat_block *stats) {
    *net = (struct net){.options = *options, .stats = stats};
    if (options->dialled_max == 0) net->options.dialled_max = options->conns_max;
    list_init(&net->dirty);
    for (int i = 0; i < BUF_GROUP_COUNT; i++)
        list_init(&net->starved[i]);
    list_init(&net->tasks);
    list_init(&net->listeners);
    net->now_ns = clock_now_ns();
    net->now_ms = clock_ms(net->now_ns);
    wheel_init(&net->wheel, net->now_ms);
    wheel_timer_init(&net->trim_timer, net_on_trim_timer);
    wheel_timer_init(&net->dial_timer, conn_on_dial_timer);
    struct ring_options ring_options = {options->sq_entries, options->cq_entries};
    int error = ring_init(&net->ring, &ring_options, stats);
    if (error < 0) return error;
    error = conn_init_room(net);
    if (error < 0) {
        ring_fini(&net->ring);
        return error;
    }
    ring_handle(&net->ring, RING_ACCEPT, listener_on_accept, net);
    return 0;
}

int net_start(struct net *net) {
    const struct net_options *options = &net->options;
    int error = ring_enable(&net->ring);
    if (error == 0) {
        uint32_t entries = 1;
        /* A quarter of the buffers is lent at most: the others are for what has been received. */
        while (entries * 8 <= options->small_count && entries * 2 <= BUF_IDS_PER_GROUP)
            entries *= 2;
        error = buf_pool_init(&net->small, &net->ring, BUF_SMALL, options->small_size,
                              options->small_count, entries);
    }
    if (error == 0) {
        error = buf_pool_init(&net->bulk, &net->ring, BUF_BULK, options->bulk_size,
                              options->bulk_count, options->bulk_count);
    }
    if (error < 0) return error;
    net_add_slab(net, &net->small.slab);
    net_add_slab(net, &net->bulk.slab);
    buf_pool_refill(&net->small, false);
    buf_pool_refill(&net->bulk, false);
    return 0;
}

void net_fini(struct net *net) {
    CHECK(net->ring.ops_in_flight == 0 && net->dialled == 0);
    conn_fini_room(net);
    buf_pool_fini(&net->small);
    buf_pool_fini(&net->bulk);
    ring_fini(&net->ring);
}

uint32_t net_share(const struct net *net, uint32_t most) {
    const struct buf_pool *pool = &net->small;
    uint64_t usable = pool->total - pool->kernel_count;
    uint64_t share = most;
    if (usable != 0) share = share * pool->spare_count / usable * pool->spare_count / usable;
    return share > pool->buffer_size ? (uint32_t)share : pool->buffer_size;
}

void net_defer(struct net *net, struct net_task *task) {
    if (!list_linked(&task->link)) list_push_back(&net->tasks, &task->link);
}

/* Lends what came back, and lets as many waiting connections try again as there are buffers. */
static void net_feed_starved(struct net *net, struct buf_pool *pool) {
    struct list *starved = &net->starved[pool->group];
    /* The bulk target stays: few hot buffers are the point of it. */
    buf_pool_refill(pool, !list_empty(starved) && pool->group == BUF_SMALL);
    if (!list_empty(starved)) conn_rearm_starved(net, pool);
}

/* Tasks may touch connections, and flushing a connection may defer tasks. Each step takes what is
 * there when it begins; what comes later in it waits for the next turn, which does not sleep then.
 */
static void net_flush(struct net *net) {
    struct list batch;
    list_init(&batch);
    list_take_all(&batch, &net->tasks);
    for (struct list *node; (node = list_pop_front(&batch));) {
        struct net_task *task = LIST_OWNER(node, struct net_task, link);
        task->run(task);
    }
    list_take_all(&batch, &net->dirty);
    for (struct list *node; (node = list_pop_front(&batch));) {
        conn_flush(LIST_OWNER(node, struct conn, dirty_link));
    }
    net_feed_starved(net, &net->small);
    net_feed_starved(net, &net->bulk);
}

static void net_publish_gauges(struct net *net) {
    struct stat_block *stats = net->stats;
    stat_set(stats, STAT_URING_OPS_IN_FLIGHT, net->ring.ops_in_flight);
    stat_set(stats, STAT_URING_BUFFERS_KERNEL,
             (uint64_t)net->small.kernel_count + net->bulk.kernel_count);
    stat_set(stats, STAT_URING_BUFFERS_SPARE,
             (uint64_t)net->small.spare_count + net->bulk.spare_count);
    stat_set(stats, STAT_URING_BUFFERS_LEASED,
             (uint64_t)buf_pool_leased(&net->small) + buf_pool_leased(&net->bulk));
}

/* Those who were given the right to a buffer may have had no bytes to put there: then nobody takes
 * the buffer, nor tells, and it is for the next ones who wait. */
static bool net_feeds_more(const struct net *net, const struct buf_pool *pool) {
    return pool->kernel_count != 0 && !list_empty(&net->starved[pool->group]);
}

/* How long this turn may sleep. */
static int64_t net_wait_ns(const struct net *net) {
    if (!list_empty(&net->tasks) || !list_empty(&net->dirty)) return 0;
    if (net_feeds_more(net, &net->small) || net_feeds_more(net, &net->bulk)) return 0;
    int64_t wait_ms = wheel_next_ms(&net->wheel);
    if (wait_ms < 0) return -1;
    return wait_ms == 0 ? 0 : wait_ms * 1000000;
}

/* How many completions this turn waits a moment for. */
static uint32_t net_gather_count(const struct net *net) {
    uint32_t pumps = pump_busy_count(net);
    if (!net->gathers || net->run_count < NET_GATHER_LEAST) return pumps;
    uint32_t most = net->run_count - net->run_count / 4;
    if (most > NET_GATHER_MOST) most = NET_GATHER_MOST;
    return most > pumps ? most : pumps;
}

int net_turn(struct net *net) {
    int64_t wait_ns = net_wait_ns(net);
    net_publish_gauges(net);
    ring_gather(&net->ring, net_gather_count(net));
    net->gathers = false;
    uint64_t began_ns = clock_now_ns();
    int error = ring_wait(&net->ring, wait_ns);
    if (error < 0) return error;
    /* Busy since the last wake-up; a sleep is not counted, so that it need not end to be seen. */
    stat_add(net->stats, STAT_WORKER_BUSY_NS, began_ns - net->now_ns);
    net->now_ns = clock_now_ns();
    net->now_ms = clock_ms(net->now_ns);
    net->run_count = ring_run(&net->ring);
    stat_observe(net->stats, STAT_HIST_URING_CQE_PER_WAKE, net->run_count);
    if (net->run_count != 0 && !wheel_timer_armed(&net->trim_timer))
        wheel_arm(&net->wheel, &net->trim_timer, net->now_ms + NET_TRIM_MS);
    wheel_advance(&net->wheel, net->now_ms);
    net_flush(net);
    return 0;
}
