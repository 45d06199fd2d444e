#include "net/conn.h"

#include "base/check.h"
#include "net/conn_ends.h"
#include "net/conn_filter.h"
#include "net/conn_internal.h"
#include "net/conn_watch.h"
#include "net/listener.h"
#include "net/pump.h"
#include "ring/op.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* How long a closing side waits for the other's FIN: long enough for its last bytes to arrive, so
 * that no RST destroys ours. */
#define CONN_LINGER_MS 1000

/* What a multishot receive brings before it has to be asked for again, in small buffers, while all
 * are spare. It is the kernel that counts: a pause takes a turn to reach it, and in one turn a
 * socket may have more than there are buffers. */
#define CONN_RECV_BUFFERS 4

/* When a dial that had no descriptor is tried again, as for accepts. */
#define CONN_DIAL_AGAIN_MS 50

/* All that fits a token's 24 bits but 0. */
#define CONN_GENERATION_MAX 0xffffff

static void conn_on_timer(struct wheel_timer *timer, uint64_t now_ms);

void conn_mark_dirty(struct conn *conn) {
    if (!list_linked(&conn->dirty_link)) list_push_back(&conn->net->dirty, &conn->dirty_link);
}

_Static_assert(sizeof(struct conn) <= 256, "an idle connection has one slot of 256 bytes");

/* Rows: from; bits: to. The diagram of conn.h. */
static const uint8_t conn_transitions[] = {
    [CONN_CONNECTING] = 1 << CONN_OPEN | 1 << CONN_CLOSING,
    [CONN_OPEN] = 1 << CONN_FINISHING | 1 << CONN_CLOSING,
    [CONN_FINISHING] = 1 << CONN_LINGERING | 1 << CONN_CLOSING,
    [CONN_LINGERING] = 1 << CONN_CLOSING,
    [CONN_CLOSING] = 0,
};

static void conn_set_state(struct conn *conn, enum conn_state state) {
    CHECK(conn_transitions[conn->state] & 1 << state);
    if (!conn->is_client) {
        conn->net->dialled_finishing += state == CONN_FINISHING;
        conn->net->dialled_finishing -= conn->state == CONN_FINISHING;
    }
    conn->state = state;
}

/* What holds at every flush, as conn.h says it in words. */
static void conn_check(const struct conn *conn) {
    uint32_t ops = (uint32_t)conn->connect_armed + conn->recv_armed + conn->send_armed +
                   conn->poll_in_armed + conn->poll_out_armed + conn->watch_armed;
    bool attached = conn->state == CONN_CONNECTING || conn->state == CONN_OPEN;
    CHECK(conn->fd >= 0 && conn->ops_in_flight == ops);
    CHECK(!attached == !conn->events);
    CHECK(conn->connect_armed ? conn->state == CONN_CONNECTING || conn->state == CONN_CLOSING
                              : true);
    CHECK((conn->out.queued != 0) <= (conn->out.first != NULL));
    CHECK((conn->state == CONN_OPEN && !conn->filter) || !conn->pump_out);
    CHECK((conn->state == CONN_OPEN && (!conn->filter || conn->filter->offers)) || !conn->pump_in);
    CHECK(conn->recv_starved == list_linked(&conn->starved_link) || conn->state == CONN_CLOSING);
}

struct ring_token conn_token(const struct conn *conn, enum ring_kind kind) {
    return (struct ring_token){kind, conn->generation, slab_index(&conn->net->conns, conn)};
}

void conn_op_begin(struct conn *conn) {
    CHECK(conn->ops_in_flight < 5); /* a connect; or a receive, a send, two polls and a watch */
    conn->ops_in_flight++;
}

/* A new slot in state `state`; NULL when all are in use. */
static struct conn *conn_acquire(struct net *net, int fd, enum conn_state state) {
    struct conn *conn = slab_acquire(&net->conns);
    if (!conn) return NULL;
    net->generation = net->generation % CONN_GENERATION_MAX + 1;
    *conn = (struct conn){.net = net, .generation = net->generation, .fd = fd, .state = state};
    list_init(&conn->dirty_link);
    list_init(&conn->starved_link);
    wheel_timer_init(&conn->timer, conn_on_timer);
    wheel_timer_init(&conn->send_timer, conn_on_send_timer);
    stat_set(net->stats, STAT_CONN_SLOTS_USED, net->conns.used);
    return conn;
}

static void conn_tell_dial_room(struct net *net) {
    wheel_disarm(&net->wheel, &net->dial_timer);
    if (net->dial_refused && net->dial_room) net_defer(net, net->dial_room);
    net->dial_refused = false;
}

void conn_on_dial_timer(struct wheel_timer *timer, uint64_t now_ms) {
    (void)now_ms;
    conn_tell_dial_room(LIST_OWNER(timer, struct net, dial_timer));
}

/* Last of the three steps of a close: no operation is in flight any more. */
static void conn_release(struct conn *conn) {
    CHECK(conn->state == CONN_CLOSING && conn->ops_in_flight == 0);
    struct net *net = conn->net;
    conn_out_drop(net, &conn->out);
    if (conn->filter) conn_drop_filter(conn);
    list_remove(&conn->dirty_link);
    list_remove(&conn->starved_link);
    wheel_disarm(&net->wheel, &conn->timer);
    wheel_disarm(&net->wheel, &conn->send_timer);
    if (conn->ends) slab_release(&net->ends, conn->ends);
    (void)close(conn->fd); /* nothing can be done about an error, and the descriptor is gone anyway
                            */
    conn->generation = 0;
    net->dialled -= !conn->is_client;
    if (!conn->is_client) conn_tell_dial_room(net);
    if (conn->listener) listener_on_released(conn);
    slab_release(&net->conns, conn);
    stat_set(net->stats, STAT_CONN_SLOTS_USED, net->conns.used);
}

/* Second step: called by whatever may have been the last thing that held the conn. */
static void conn_join(struct conn *conn) {
    if (conn->ops_in_flight == 0) conn_release(conn);
}

static void conn_stop_pumps(struct conn *conn) {
    if (conn->pump_in) pump_stop(conn->pump_in);
    if (conn->pump_out) pump_stop(conn->pump_out);
}

static void conn_cancel_ops(struct conn *conn) {
    struct ring *ring = &conn->net->ring;
    if (conn->connect_armed) op_cancel(ring, conn_token(conn, RING_CONNECT));
    if (conn->recv_armed && !conn->recv_cancelling) op_cancel(ring, conn_token(conn, RING_RECV));
    if (conn->send_armed) op_cancel(ring, conn_token(conn, RING_SEND));
    if (conn->poll_in_armed) op_cancel(ring, conn_token(conn, RING_POLL_IN));
    if (conn->poll_out_armed) op_cancel(ring, conn_token(conn, RING_POLL_OUT));
}

/* Dissolving a TCP socket (connect(2), AF_UNSPEC) sends RST and ends its operations, in one call.
 * One that cannot be dissolved sends RST as it is closed, if it knows what that is. */
static void conn_end_by_reset(struct conn *conn) {
    const struct sockaddr none = {.sa_family = AF_UNSPEC};
    if (connect(conn->fd, &none, sizeof none) == 0) return;
    struct linger now = {.l_onoff = 1};
    (void)setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now); /* FIN instead of RST is
                                                                            no harm */
    conn_cancel_ops(conn);
}

/* First step. Idempotent. A closed descriptor would not end its operations, and no FIN would go out
 * while a receive is pending: shutdown(2) does both. A reset must not send FIN. */
static void conn_begin_close(struct conn *conn) {
    if (conn->state == CONN_CLOSING) return;
    bool connecting = conn->state == CONN_CONNECTING;
    conn_stop_pumps(conn);
    if (conn->filter) conn_filter_say_last(conn);
    conn_set_state(conn, CONN_CLOSING);
    conn->events = NULL;
    conn->user = NULL;
    wheel_disarm(&conn->net->wheel, &conn->timer);
    wheel_disarm(&conn->net->wheel, &conn->send_timer);
    list_remove(&conn->starved_link);
    if (conn->watch_armed) op_cancel(&conn->net->ring, conn_token(conn, RING_WATCH));
    if (connecting) {
        conn_cancel_ops(conn);
    } else if (conn->abort) {
        conn_end_by_reset(conn);
    } else if (conn->ops_in_flight != 0) {
        (void)shutdown(conn->fd, SHUT_RDWR); /* ENOTCONN: the operations end by themselves */
    }
    /* The release waits for the flush: the caller may still be using the conn. */
    conn_mark_dirty(conn);
}

void conn_close(struct conn *conn) {
    CHECK(conn->state != CONN_CLOSING);
    if (!conn_filter_closes_later(conn)) conn_begin_close(conn);
}

void conn_reset(struct conn *conn) {
    CHECK(conn->state != CONN_CLOSING);
    conn->abort = true;
    conn_begin_close(conn);
}

void conn_lose(struct conn *conn, int error) {
    if (conn->state == CONN_CLOSING) return;
    const struct conn_events *events = conn->state <= CONN_OPEN ? conn->events : NULL;
    if (!events) {
        conn_begin_close(conn);
        return;
    }
    void (*on_lost)(struct conn *, int) = events->on_lost;
    /* The user still finds itself in conn->user. */
    on_lost(conn, error);
    conn_begin_close(conn);
}

void conn_abandon(struct conn *conn, int error) {
    conn->abort = true;
    conn_lose(conn, error);
}

void conn_send_fin(struct conn *conn) {
    CHECK(conn->state == CONN_OPEN && !conn->pump_in);
    conn->fin_wanted = true;
    conn_mark_dirty(conn);
}

void conn_finish(struct conn *conn, uint64_t flush_ms, bool linger) {
    CHECK(conn->state == CONN_OPEN);
    conn_stop_pumps(conn);
    conn_set_state(conn, CONN_FINISHING);
    conn->events = NULL;
    conn->user = NULL;
    conn->bulk = false;
    conn->linger = linger;
    conn->flush_ms = (uint32_t)flush_ms;
    /* What was taken before now is no progress; what is sent at once needs no look. */
    if (conn->send_armed) (void)conn_taken(conn);
    conn_deadline(conn, conn->net->now_ms + flush_ms);
    conn_mark_dirty(conn);
}

struct conn *conn_accept(struct net *net, int fd, const struct conn_events *events, void *user) {
    struct conn *conn = conn_acquire(net, fd, CONN_OPEN);
    if (!conn) return NULL;
    conn->is_client = true;
    conn->recv_first = true;
    conn_attach(conn, events, user);
    conn_mark_dirty(conn);
    return conn;
}

/* Descriptors, or the kernel's memory: what others give back shows only in another try. Not while
 * there is no connection to a server: then clients have all, and wait for nothing. */
static void conn_note_shortage(struct net *net, int error) {
    bool is_shortage = error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
    if (!is_shortage || net->dialled == 0) return;
    net->dial_refused = true;
    wheel_arm(&net->wheel, &net->dial_timer, net->now_ms + CONN_DIAL_AGAIN_MS);
}

struct conn *conn_dial(struct net *net, const struct conn_dial_options *options,
                       const struct conn_events *events, void *user, int *error) {
    *error = -ENOMEM;
    if (net->dialled >= net->options.dialled_max) {
        net->dial_refused = true;
        return NULL;
    }
    int family = options->address->sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        *error = -errno;
        conn_note_shortage(net, errno);
        return NULL;
    }
    int on = 1;
    if (options->nodelay && family != AF_UNIX) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* slower, not wrong,
                                                                           without */
    }
    struct conn *conn = conn_acquire(net, fd, CONN_CONNECTING);
    if (!conn) {
        (void)close(fd); /* never used */
        return NULL;
    }
    net->dialled++;
    if (options->pp_ends && !conn_set_ends(conn, options->pp_ends)) {
        conn_set_state(conn, CONN_CLOSING);
        conn_release(conn);
        return NULL;
    }
    conn_attach(conn, events, user);
    conn->pp_version = options->pp_version;
    conn->connect_armed = true;
    conn->recv_poll_first = true;
    conn_op_begin(conn);
    op_connect(&net->ring, conn_token(conn, RING_CONNECT), fd, options->address,
               options->address_size);
    conn_deadline(conn, options->deadline_ms);
    return conn;
}

void conn_pause(struct conn *conn) {
    if (conn->paused) return;
    conn->paused = true;
    conn_mark_dirty(conn);
}

void conn_resume(struct conn *conn) {
    if (!conn->paused) return;
    conn->paused = false;
    conn_mark_dirty(conn);
}

void conn_expect_bulk(struct conn *conn, bool bulk) {
    if (conn->pump_out) return;
    if (!bulk) conn->pumped = false;
    if (conn->bulk == bulk) return;
    conn->bulk = bulk;
    conn->bulk_switch = bulk && conn->net->bulk.kernel_count != 0;
    conn_mark_dirty(conn);
}

void conn_deadline(struct conn *conn, uint64_t deadline_ms) {
    conn->deadline_ms = deadline_ms;
    if (deadline_ms == 0) return;
    if (wheel_timer_armed(&conn->timer) && conn->timer.deadline_ms <= deadline_ms) return;
    wheel_arm(&conn->net->wheel, &conn->timer, deadline_ms);
}

static void conn_on_late_flush(struct conn *conn) {
    uint64_t ago_ms = conn_taken(conn).ago_ms;
    if (ago_ms < conn->flush_ms) {
        conn_deadline(conn, conn->net->now_ms + conn->flush_ms - ago_ms);
    } else {
        conn_reset(conn); /* not all was sent: a FIN would make it look whole */
    }
}

static void conn_on_timer(struct wheel_timer *timer, uint64_t now_ms) {
    struct conn *conn = LIST_OWNER(timer, struct conn, timer);
    if (conn->deadline_ms == 0) return;
    if (conn->deadline_ms > now_ms) {
        wheel_arm(&conn->net->wheel, timer, conn->deadline_ms);
        return;
    }
    conn->deadline_ms = 0;
    if (conn->state == CONN_FINISHING) {
        conn_on_late_flush(conn);
    } else if (conn->state == CONN_LINGERING) {
        conn_close(conn);
    } else {
        conn->events->on_deadline(conn);
    }
}

/* Until a buffer of the group comes back (conn_rearm_starved). */
static void conn_starve(struct conn *conn, enum buf_group group) {
    conn->recv_starved = true;
    if (!list_linked(&conn->starved_link)) {
        list_push_back(&conn->net->starved[group], &conn->starved_link);
    }
}

/* The receive goes by what is wanted: small buffers over and over, or one big buffer at a time
 * while a stream is expected, so that the next is asked for only when this one has gone on. */
static void conn_flush_recv(struct conn *conn) {
    struct net *net = conn->net;
    bool wanted = !conn->paused && !conn->eof && !conn->pump_out;
    if (conn->recv_armed) {
        bool wrong_kind = conn->bulk_switch && !conn->recv_bulk_armed;
        conn->bulk_switch = false;
        if ((wanted && !wrong_kind) || conn->recv_cancelling || conn->eof) return;
        if (conn->recv_bulk_armed && !wanted)
            return; /* at most one more buffer: cheaper than a cancel */
        conn->recv_cancelling = true;
        op_cancel(&net->ring, conn_token(conn, RING_RECV));
        return;
    }
    if (!wanted || conn->recv_starved) return;
    bool bulk = conn->bulk && net->bulk.kernel_count + net->bulk.spare_count != 0;
    if (bulk && net->bulk.kernel_count == 0) {
        conn_starve(conn, BUF_BULK);
        return;
    }
    /* Where the kernel cannot count, buffers that are short are asked for one by one. */
    bool may_repeat = !net->recv_unlimited || !net_is_short(net);
    struct op_recv_options options = {.group = bulk ? BUF_BULK : BUF_SMALL,
                                      .multishot =
                                          !bulk && !conn->recv_first && !conn->pumped && may_repeat,
                                      .poll_first = conn->recv_poll_first};
    conn->recv_limited = options.multishot && !net->recv_unlimited;
    if (conn->recv_limited)
        options.limit = net_share(net, CONN_RECV_BUFFERS * net->options.small_size);
    conn->recv_armed = true;
    conn->recv_bulk_armed = bulk;
    conn->recv_cancelling = false;
    conn->recv_first = conn->recv_poll_first = false;
    conn_op_begin(conn);
    op_recv(&net->ring, conn_token(conn, RING_RECV), conn->fd, &options);
}

/* A socket with unread bytes answers close(2) with RST, which may destroy what was sent last. */
static bool conn_has_unread(const struct conn *conn) {
    int unread = 0;
    return ioctl(conn->fd, SIOCINQ, &unread) < 0 || unread != 0;
}

static void conn_flush_end(struct conn *conn) {
    if (conn->out.queued != 0 || conn->send_armed) return;
    if (conn->filter && !conn_filter_is_done(conn)) return;
    if (conn->state == CONN_FINISHING) {
        if (conn->eof || !(conn->linger || conn->recv_armed || conn_has_unread(conn))) {
            conn_close(conn);
            return;
        }
        conn_set_state(conn, CONN_LINGERING);
        conn->paused = false;
        conn_deadline(conn, conn->net->now_ms + CONN_LINGER_MS);
        conn->fin_wanted = true;
    }
    if (conn->fin_wanted && !conn->fin_sent) {
        conn->fin_sent = true;
        (void)shutdown(conn->fd, SHUT_WR); /* an error shows in the receive as well */
    }
}

void conn_flush(struct conn *conn) {
    conn_check(conn);
    switch (conn->state) {
    case CONN_CONNECTING:
        return;
    case CONN_OPEN:
        conn_flush_send(conn);
        if (conn->state != CONN_OPEN) break;
        if (conn->notify_sent && conn_queued(conn) == 0) {
            conn->notify_sent = false;
            conn->events->on_sent(conn);
            if (conn->state == CONN_CLOSING) break;
            if (conn->state != CONN_OPEN) return; /* finished, and dirty */
        }
        conn_flush_end(conn);
        conn_flush_recv(conn);
        if (conn->pump_out) pump_run(conn->pump_out);
        return;
    case CONN_FINISHING:
    case CONN_LINGERING:
        conn_flush_send(conn);
        if (conn->state != CONN_CLOSING) conn_flush_end(conn);
        if (conn->state == CONN_CLOSING) break;
        if (conn->state == CONN_LINGERING) conn_flush_recv(conn);
        return;
    case CONN_CLOSING:
        break;
    }
    conn_join(conn);
}

static void conn_on_bytes(struct conn *conn, const struct ring_completion *completion) {
    struct bytes bytes = bytes_make(completion->lease->memory, (size_t)completion->result);
    if (conn->is_client) stat_add(conn->net->stats, STAT_CLIENT_BYTES_RECEIVED, bytes.len);
    if (conn->state != CONN_OPEN) {
        lease_unref(completion->lease); /* finishing: nobody reads any more */
        return;
    }
    conn_receive(conn, bytes, completion->lease);
}

void conn_receive(struct conn *conn, struct bytes bytes, struct lease *lease) {
    if (conn->filter) {
        conn->filter->ops->on_bytes(conn, bytes, lease);
    } else {
        conn->events->on_bytes(conn, bytes, lease);
    }
}

bool conn_is_sending(const struct conn *conn) {
    return conn_queued(conn) != 0 || pump_holds(conn->pump_in);
}

bool conn_is_held(const struct conn *conn) {
    const struct pump *pump = conn->pump_out;
    return pump_holds(pump) ||
           (pump && !pump->begun && !conn->recv_armed && conn_queued(pump->to) != 0);
}

void conn_end_of_stream(struct conn *conn) {
    if (conn->state == CONN_CLOSING) return;
    conn->eof = true;
    if (conn->state == CONN_OPEN) {
        /* A receive was still under way when it was started: it has not begun. */
        CHECK(!pump_holds(conn->pump_out));
        if (conn->pump_out) pump_stop(conn->pump_out);
        if (conn->filter) {
            conn->filter->ops->on_eof(conn);
        } else {
            conn->events->on_eof(conn);
        }
    } else if (conn->state == CONN_LINGERING) {
        conn_close(conn);
    }
}

/* A RST ends both directions, and its error is told once: not at all by a send that has got rid of
 * some bytes before, which gives their count (MSG_WAITALL). Then a receive ends as by a FIN. */
static bool conn_is_dead(const struct conn *conn) {
    struct tcp_info info;
    socklen_t size = sizeof info;
    return conn_is_sending(conn) &&
           getsockopt(conn->fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
           info.tcpi_state == TCP_CLOSE;
}

/* Receives end for many reasons that are no errors: re-arm at the flush. */
static void conn_on_recv(struct conn *conn, const struct ring_completion *completion) {
    struct lease *lease = completion->lease;
    int result = completion->result;
    if (!completion->more) conn->recv_armed = conn->recv_cancelling = false;
    if (conn->state == CONN_CLOSING) {
        if (lease) lease_unref(lease);
        return;
    }
    if (!completion->more) conn_mark_dirty(conn);
    if (result > 0) {
        CHECK(lease);
        conn_on_bytes(conn, completion);
        return;
    }
    if (lease) lease_unref(lease);
    if (result == 0 && conn_is_dead(conn)) {
        conn_lose(conn, ECONNRESET);
    } else if (result == 0) {
        conn_end_of_stream(conn);
    } else if (result == -ENOBUFS) {
        stat_add(conn->net->stats, STAT_URING_ENOBUFS, 1);
        conn_starve(conn, conn->recv_bulk_armed ? BUF_BULK : BUF_SMALL);
    } else if (result == -EINVAL && conn->recv_limited) {
        conn->net->recv_unlimited = true; /* before Linux 6.17 */
    } else if (result != -ECANCELED && result != -EINTR && result != -EAGAIN) {
        conn_lose(conn, -result);
    }
}

static void conn_on_connect(struct conn *conn, const struct ring_completion *completion) {
    conn->connect_armed = false;
    if (conn->state == CONN_CLOSING) return;
    if (completion->result < 0) {
        conn_lose(conn, -completion->result);
        return;
    }
    conn_set_state(conn, CONN_OPEN);
    conn_mark_dirty(conn);
    if (conn->pp_version != 0 && !conn_send_pp(conn)) {
        conn_lose(conn, ENOMEM);
        return;
    }
    if (conn->filter) {
        conn->filter->ops->on_open(conn);
    } else {
        conn->events->on_open(conn);
    }
}

void conn_on_completion(void *owner, const struct ring_completion *completion) {
    struct net *net = owner;
    struct conn *conn = slab_at(&net->conns, completion->token.slot);
    CHECK(conn->generation == completion->token.generation);
    if (!completion->more) {
        CHECK(conn->ops_in_flight > 0);
        conn->ops_in_flight--;
    }
    if (completion->token.kind == RING_RECV) {
        conn_on_recv(conn, completion);
    } else if (completion->token.kind == RING_SEND) {
        conn_on_send(conn, completion);
    } else if (completion->token.kind == RING_CONNECT) {
        conn_on_connect(conn, completion);
    } else if (completion->token.kind == RING_WATCH) {
        conn_on_watch(conn, completion);
    } else {
        pump_on_poll(conn, completion);
    }
    if (conn->state == CONN_CLOSING) conn_mark_dirty(conn);
}

void conn_rearm_starved(struct net *net, struct buf_pool *pool) {
    struct list *starved = &net->starved[pool->group];
    uint32_t count = pool->kernel_count;
    /* With all bulk buffers held by slow readers the small ones have to do. */
    if (pool->group == BUF_BULK && pool->spare_count == 0 && count == 0) count = UINT32_MAX;
    struct list batch;
    list_init(&batch);
    list_take_all(&batch, starved);
    for (struct list *node; count != 0 && (node = list_pop_front(&batch));) {
        struct conn *conn = LIST_OWNER(node, struct conn, starved_link);
        conn->recv_starved = false;
        conn_flush_recv(conn);
        /* One that reads nothing now leaves the buffer to the next. */
        count -= conn->recv_armed;
    }
    /* Those left keep their turn. */
    list_take_all(&batch, starved);
    list_take_all(starved, &batch);
}
