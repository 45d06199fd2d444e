/* queue.h: who waits until a server of one upstream may take one more: one queue per upstream and
 * worker.
 *
 * A waiter embeds a queue_entry. When a server has room again (queue_poke), the queue asks its
 * entries from a task of the net, never from within the call that made the room: on_turn tries to
 * take a server, as every request does, by the upstream's policy. The queue knows neither servers
 * nor exchanges, so whatever takes servers by balance_pick and pool_take can wait here.
 *
 * The order is first come, first served, until the oldest has waited for over half of the timeout.
 * From then on the newest comes first (adaptive LIFO): more arrives than is served, and in their
 * order all would be answered just before their timeout, when many a client has given up, and the
 * servers would work for nobody. The newest are those whose clients still wait. What is old then
 * gets the room that is left, or ends at the timeout; once that backlog is gone, the order is that
 * of arrival again.
 *
 * Entries stand in the order of their arrival whatever the order of service, so the first is always
 * the next one to be late, and one timer does. One that comes back, because the server it was given
 * could not be reached, gets its old place, and its time goes on. Joining and leaving is O(1) but
 * for those; a turn asks at most QUEUE_PASSES_MAX entries that cannot use what is free (they have
 * tried that server).
 */
#ifndef WEIR_PROXY_QUEUE_H
#define WEIR_PROXY_QUEUE_H

#include "net/net.h"

#define QUEUE_PASSES_MAX 16

/* What an entry did with its turn. */
enum queue_turn {
    QUEUE_TAKEN,  /* it has left, or has ended: it must not be touched */
    QUEUE_PASSED, /* what is free is not for it: it stays, the next one is asked */
    QUEUE_NOTHING /* nothing is free: it stays, and so do all others */
};

struct queue_entry {
    /* Set by queue_entry_init. */
    enum queue_turn (*on_turn)(struct queue_entry *entry); /* calls queue_leave before TAKEN */
    void (*on_timeout)(struct queue_entry *entry);         /* it has left the queue */
    /* The queue's. */
    struct list link;
    uint64_t since_ns;  /* when it came first; 0: it has not waited yet */
    uint64_t joined_ns; /* when it came last */
};

struct queue {
    /* Fixed after init. */
    struct net *net;
    uint64_t timeout_ms;
    uint32_t max; /* entries; 0: nobody waits */
    /* Changes in routine work. */
    uint32_t count;           /* read by other threads */
    struct list waiting;      /* the oldest first */
    struct wheel_timer timer; /* fires when the oldest is late, or before, and looks again */
    struct net_task task;
};

void queue_init(struct queue *queue, struct net *net, uint32_t max, uint64_t timeout_ms);
/* CHECKs that nobody waits. Harmless on a queue that is all zeroes. */
void queue_fini(struct queue *queue);
void queue_entry_init(struct queue_entry *entry, enum queue_turn (*on_turn)(struct queue_entry *),
                      void (*on_timeout)(struct queue_entry *));

/* Whether one that comes now has to join, though there may be room: it would overtake others. */
bool queue_must_wait(const struct queue *queue);
/* false: the queue is full. */
bool queue_join(struct queue *queue, struct queue_entry *entry);
/* Takes the entry out; harmless when it is in no queue. */
void queue_leave(struct queue *queue, struct queue_entry *entry);
/* There may be room: entries get their turn soon. Never calls back. */
static inline void queue_poke(struct queue *queue) {
    if (queue->count != 0) net_defer(queue->net, &queue->task);
}

#endif
