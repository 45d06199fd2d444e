#include "proxy/queue.h"

#include "base/check.h"
#include "base/clock.h"

static struct queue_entry *queue_entry_of(struct list *node) {
    return LIST_OWNER(node, struct queue_entry, link);
}

static uint64_t queue_oldest_ns(const struct queue *queue) {
    return queue_entry_of(queue->waiting.next)->since_ns;
}

/* The entry that gets the next turn is the newest one. */
static bool queue_newest_first(const struct queue *queue) {
    if (queue->count == 0) return false;
    return queue->net->now_ns - queue_oldest_ns(queue) > queue->timeout_ms * 1000000 / 2;
}

/* Until the oldest is late. A timer that is armed fires earlier and looks again. */
static void queue_arm(struct queue *queue) {
    if (queue->count == 0) return;
    uint64_t late_ms = clock_ms(queue_oldest_ns(queue)) + queue->timeout_ms;
    if (wheel_timer_armed(&queue->timer) && queue->timer.deadline_ms <= late_ms) return;
    wheel_arm(&queue->net->wheel, &queue->timer, late_ms);
}

static void queue_on_timer(struct wheel_timer *timer, uint64_t now_ms) {
    struct queue *queue = LIST_OWNER(timer, struct queue, timer);
    while (queue->count != 0 && clock_ms(queue_oldest_ns(queue)) + queue->timeout_ms <= now_ms) {
        struct queue_entry *entry = queue_entry_of(queue->waiting.next);
        queue_leave(queue, entry);
        entry->on_timeout(entry);
    }
    queue_arm(queue);
}

/* Turns until what is free is used up. An entry touches no other in its turn, which the count
 * shows: so the one after it is still there. */
static void queue_run(struct net_task *task) {
    struct queue *queue = LIST_OWNER(task, struct queue, task);
    bool newest = queue_newest_first(queue);
    struct list *node = newest ? queue->waiting.prev : queue->waiting.next;
    for (uint32_t passes = 0; node != &queue->waiting && passes < QUEUE_PASSES_MAX;) {
        struct queue_entry *entry = queue_entry_of(node);
        uint32_t count = queue->count;
        node = newest ? node->prev : node->next;
        enum queue_turn turn = entry->on_turn(entry);
        CHECK(queue->count == count - (turn == QUEUE_TAKEN ? 1 : 0));
        if (turn == QUEUE_NOTHING) return;
        if (turn == QUEUE_PASSED) passes++;
    }
}

void queue_init(struct queue *queue, struct net *net, uint32_t max, uint64_t timeout_ms) {
    *queue = (struct queue){.net = net, .max = max, .timeout_ms = timeout_ms};
    list_init(&queue->waiting);
    wheel_timer_init(&queue->timer, queue_on_timer);
    net_task_init(&queue->task, queue_run);
}

void queue_fini(struct queue *queue) { CHECK(queue->count == 0); }

void queue_entry_init(struct queue_entry *entry, enum queue_turn (*on_turn)(struct queue_entry *),
                      void (*on_timeout)(struct queue_entry *)) {
    *entry = (struct queue_entry){.on_turn = on_turn, .on_timeout = on_timeout};
    list_init(&entry->link);
}

bool queue_must_wait(const struct queue *queue) {
    return queue->count != 0 && !queue_newest_first(queue);
}

/* What an entry that came at `since_ns` stands before. One that comes back was at the end where
 * turns are given: it is looked for from there. */
static struct list *queue_place(struct queue *queue, uint64_t since_ns) {
    struct list *node = &queue->waiting;
    if (queue_newest_first(queue)) {
        while (node->prev != &queue->waiting && queue_entry_of(node->prev)->since_ns > since_ns)
            node = node->prev;
        return node;
    }
    do
        node = node->next;
    while (node != &queue->waiting && queue_entry_of(node)->since_ns <= since_ns);
    return node;
}

bool queue_join(struct queue *queue, struct queue_entry *entry) {
    CHECK(!list_linked(&entry->link));
    if (queue->count >= queue->max) return false;
    struct list *before = &queue->waiting;
    entry->joined_ns = queue->net->now_ns;
    if (entry->since_ns == 0) {
        entry->since_ns = entry->joined_ns;
    } else {
        before = queue_place(queue, entry->since_ns);
    }
    list_push_back(before, &entry->link);
    queue->count++;
    queue_arm(queue);
    return true;
}

void queue_leave(struct queue *queue, struct queue_entry *entry) {
    if (!list_linked(&entry->link)) return;
    CHECK(queue->count != 0);
    list_remove(&entry->link);
    stat_observe_ns(queue->net->stats, STAT_HIST_UPSTREAM_QUEUE,
                    queue->net->now_ns - entry->joined_ns);
    if (--queue->count != 0) return;
    /* An empty queue holds nothing of the net's. */
    wheel_disarm(&queue->net->wheel, &queue->timer);
    net_task_cancel(&queue->task);
}
