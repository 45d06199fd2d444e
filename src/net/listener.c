#include "net/listener.h"

#include "base/check.h"
#include "base/log.h"
#include "net/conn_ends.h"
#include "ring/op.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTENER_BACKOFF_MIN_MS 50
#define LISTENER_BACKOFF_MAX_MS 500
/* What handshakes under way get to end when a listener drains: a round trip, and some. */
#define LISTENER_DRAIN_MS 100
/* At most one line in this time about what may go on for hours. */
#define LISTENER_LOG_MS 10000
/* Connections one turn accepts by calls. */
#define LISTENER_TAKE_MAX 256
/* Errors of one connection each, with no success between: it is something else then. */
#define LISTENER_ERRORS_MAX 64

static int listener_set(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : -errno;
}

static int listener_configure(int fd, const struct listener_options *options) {
    int family = options->address->sa_family;
    if (family == AF_UNIX) return 0;
    int error = listener_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (error == 0 && !options->exclusive) error = listener_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    /* [::]:80 beside 0.0.0.0:80 works only when the former leaves IPv4 alone. */
    if (error == 0 && family == AF_INET6) error = listener_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    /* Accepted sockets inherit all of these. */
    if (error == 0 && options->nodelay) error = listener_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (error == 0 && options->recv_buffer != 0) {
        error = listener_set(fd, SOL_SOCKET, SO_RCVBUF, (int)options->recv_buffer);
    }
    if (error == 0 && options->send_buffer != 0) {
        error = listener_set(fd, SOL_SOCKET, SO_SNDBUF, (int)options->send_buffer);
    }
    if (error == 0 && options->ttl != 0) {
        bool v6 = family == AF_INET6;
        error = listener_set(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_UNICAST_HOPS : IP_TTL,
                             (int)options->ttl);
    }
    return error;
}

/* A socket file nobody listens on any more is left over from a crash: bind(2) would refuse it for
 * ever. */
static void listener_remove_stale(const struct listener_options *options) {
    const struct sockaddr_un *address = (const void *)options->address;
    struct stat status;
    /* What is no socket refuses connects as well, and is not ours. */
    if (lstat(address->sun_path, &status) < 0 || !S_ISSOCK(status.st_mode)) return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    if (connect(fd, options->address, options->address_size) < 0 && errno == ECONNREFUSED) {
        (void)unlink(address->sun_path); /* bind(2) reports it if it is still there */
    }
    (void)close(fd); /* only probed */
}

int listener_open(const struct listener_options *options) {
    int family = options->address->sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int error = listener_configure(fd, options);
    if (error == 0 && family == AF_UNIX) listener_remove_stale(options);
    if (error == 0 && bind(fd, options->address, options->address_size) < 0) error = -errno;
    if (error == 0 && listen(fd, (int)options->backlog) < 0) error = -errno;
    /* bind(2) or listen(2) has failed if somebody else listens there, also with SO_REUSEPORT: two
     * processes that start at once cannot both get here. From now on others may join. */
    if (error == 0 && options->exclusive && family != AF_UNIX)
        error = listener_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (error == 0) return fd;
    (void)close(fd); /* never used */
    return error;
}

static struct ring_token listener_token(const struct listener *listener) {
    return (struct ring_token){RING_ACCEPT, 0, listener->slot};
}

/* What may be asked of the kernel now. Near a limit it only says that somebody waits, and each one
 * is accepted by a call of its own: what a multishot accept brings cannot be given back. */
enum listener_want { LISTENER_NOTHING, LISTENER_SOME, LISTENER_ALL };

static enum listener_want listener_want(const struct listener *listener) {
    if (listener->resting || listener->stopped) return LISTENER_NOTHING;
    enum listener_want want = LISTENER_ALL;
    for (int i = 0; i < LISTENER_QUOTAS; i++) {
        const struct listener_quota *quota = listener->quotas[i];
        if (!quota) continue;
        if (quota->used >= quota->max) return LISTENER_NOTHING;
        if (quota->max - quota->used <= quota->backlogs) want = LISTENER_SOME;
    }
    if (!listener->limit) return want;
    uint32_t room = limit_rate_room(listener->limit, listener->net->now_ns);
    if (room == 0) return LISTENER_NOTHING;
    return room <= listener->backlog ? LISTENER_SOME : want;
}

/* Accepts nothing for a while. A draining or stopped listener has another use for its timer. */
static void listener_rest(struct listener *listener, uint64_t rest_ms, enum reason reason) {
    stat_bump(&listener->net->stats->accept_pauses[reason], 1);
    listener->resting = true;
    if (listener->draining || listener->stopped) return;
    wheel_arm(&listener->net->wheel, &listener->timer, listener->net->now_ms + rest_ms);
}

/* Rests when connections have come faster than they may. */
static void listener_keep_rate(struct listener *listener) {
    if (!listener->limit || listener->resting || listener->stopped) return;
    uint64_t wait_ns = limit_rate_wait_ns(listener->limit, listener->net->now_ns);
    if (wait_ns == 0) return;
    listener_rest(listener, (wait_ns + 999999) / 1000000, REASON_CONNECTION_RATE);
}

static void listener_cancel(struct listener *listener) {
    if (!listener->armed || listener->cancelling) return;
    listener->cancelling = true;
    op_cancel(&listener->net->ring, listener_token(listener));
}

/* Asks the kernel for what may be asked now: called after whatever has changed that. */
static void listener_settle(struct listener *listener) {
    listener_keep_rate(listener);
    enum listener_want want = listener_want(listener);
    if (listener->armed) {
        bool all = listener->armed_all;
        if (want == LISTENER_NOTHING || (want == LISTENER_SOME && all)) listener_cancel(listener);
        return;
    }
    if (want == LISTENER_NOTHING) return;
    listener->armed = true;
    listener->armed_all = want == LISTENER_ALL;
    listener->cancelling = false;
    struct ring *ring = &listener->net->ring;
    if (listener->armed_all) {
        op_accept(ring, listener_token(listener), listener->fd, true);
    } else {
        op_poll(ring, listener_token(listener), listener->fd, POLLIN);
    }
}

static bool listener_shares(const struct listener *listener, const struct listener_quota *quota) {
    for (int i = 0; i < LISTENER_QUOTAS; i++) {
        if (listener->quotas[i] == quota) return true;
    }
    return false;
}

/* A quota has come near its end, or has room again: that concerns all who share it. */
static void listener_settle_quota(struct net *net, const struct listener_quota *quota) {
    LIST_FOR_EACH(node, &net->listeners) {
        struct listener *listener = LIST_OWNER(node, struct listener, link);
        if (listener_shares(listener, quota)) listener_settle(listener);
    }
}

static void listener_on_timer(struct wheel_timer *timer, uint64_t now_ms) {
    (void)now_ms;
    struct listener *listener = LIST_OWNER(timer, struct listener, timer);
    if (listener->draining) {
        listener_stop(listener);
        return;
    }
    listener->resting = false;
    listener_settle(listener);
}

/* Whether it is time for one more line about the same thing. Every listener of every worker would
 * say it at once, so the process has one clock for each thing. */
static bool listener_may_log(uint64_t *next_ms, uint64_t now_ms) {
    uint64_t next = __atomic_load_n(next_ms, __ATOMIC_RELAXED);
    return now_ms >= next && __atomic_compare_exchange_n(next_ms, &next, now_ms + LISTENER_LOG_MS,
                                                         false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static enum reason listener_reason(int error) {
    if (error == EMFILE || error == ENFILE) return REASON_NO_DESCRIPTORS;
    if (error == ENOBUFS || error == ENOMEM) return REASON_NO_MEMORY;
    return REASON_ACCEPT_FAILED;
}

static void listener_log_pause(const struct listener *listener, int error) {
    static uint64_t next_ms;
    if (!listener_may_log(&next_ms, listener->net->now_ms)) return;
    struct rlimit files = {0};
    (void)getrlimit(RLIMIT_NOFILE, &files); /* only for the message */
    const char *fix = "this should not happen";
    if (error == EMFILE) fix = "raise RLIMIT_NOFILE, or lower max_connections";
    if (error == ENFILE) fix = "raise fs.file-max, or lower max_connections";
    if (error == ENOBUFS || error == ENOMEM)
        fix = "the kernel has no memory for sockets: raise net.ipv4.tcp_mem or the cgroup's limit, "
              "or lower max_connections";
    log_warn("%s: cannot accept: %s; waiting (%s; RLIMIT_NOFILE is %llu of at most %llu, "
             "fs.file-max was %llu)",
             listener->address_text, strerror(error), fix, (unsigned long long)files.rlim_cur,
             (unsigned long long)files.rlim_max, (unsigned long long)listener->file_max);
}

/* An accept would fail again at once. */
static void listener_pause(struct listener *listener, int error) {
    uint32_t backoff_ms = listener->backoff_ms * 2;
    if (backoff_ms < LISTENER_BACKOFF_MIN_MS) backoff_ms = LISTENER_BACKOFF_MIN_MS;
    if (backoff_ms > LISTENER_BACKOFF_MAX_MS) backoff_ms = LISTENER_BACKOFF_MAX_MS;
    if (listener->backoff_ms == 0) listener_log_pause(listener, error);
    listener->backoff_ms = backoff_ms;
    listener_rest(listener, backoff_ms, listener_reason(error));
}

/* accept(2): errors of the connection that was next, which is gone with them. */
static bool listener_is_of_one(int error) {
    static const int errors[] = {EINTR,     EAGAIN, ECONNABORTED, EPROTO,      EPERM,
                                 ENETDOWN,  ENONET, ENOPROTOOPT,  EHOSTDOWN,   EHOSTUNREACH,
                                 ETIMEDOUT, ENOSR,  EOPNOTSUPP,   ENETUNREACH, ECONNRESET};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (errors[i] == error) return true;
    }
    return false;
}

static void listener_on_error(struct listener *listener, int error) {
    if (listener->stopped || error == ECANCELED) return;
    /* A rule that denies every accept leaves the connection where it is: that must not spin. */
    if (listener_is_of_one(error) && ++listener->errors_in_row < LISTENER_ERRORS_MAX) return;
    listener->errors_in_row = 0;
    listener_pause(listener, error);
}

static bool listener_is_full(const struct listener *listener) {
    for (int i = 0; i < LISTENER_QUOTAS; i++) {
        const struct listener_quota *quota = listener->quotas[i];
        if (quota && quota->used >= quota->max) return true;
    }
    return false;
}

static void listener_on_full(struct listener *listener, const struct listener_quota *quota) {
    static uint64_t next_ms;
    stat_bump(&listener->net->stats->accept_pauses[REASON_MAX_CONNECTIONS], 1);
    if (!listener_may_log(&next_ms, listener->net->now_ms)) return;
    log_warn("%s: the limit of %u connections in this worker is reached: clients wait in the "
             "backlog",
             listener->address_text, quota->max);
}

static void listener_enter(struct listener *listener, struct conn *conn) {
    conn->in_quota = true;
    listener->conns++;
    for (int i = 0; i < LISTENER_QUOTAS; i++) {
        struct listener_quota *quota = listener->quotas[i];
        if (!quota) continue;
        quota->used++;
        CHECK(quota->used <= quota->max);
        if (quota->used == quota->max) listener_on_full(listener, quota);
        if (quota->max - quota->used <= quota->backlogs)
            listener_settle_quota(listener->net, quota);
    }
}

static void listener_leave(struct listener *listener) {
    CHECK(listener->conns > 0);
    listener->conns--;
    for (int i = 0; i < LISTENER_QUOTAS; i++) {
        struct listener_quota *quota = listener->quotas[i];
        if (!quota) continue;
        CHECK(quota->used > 0);
        if (quota->used-- == quota->max) listener_settle_quota(listener->net, quota);
    }
}

void listener_refuse(struct conn *conn, enum reason reason) {
    struct listener *listener = conn->listener;
    stat_bump(&listener->net->stats->rejected[reason], 1);
    conn_log_refused(conn, reason);
    /* With the place goes that of its address: who counts has a place, so the table is large
     * enough. */
    if (conn->ip_counted) limit_ip_leave(listener->limit, conn->ip_key);
    conn->ip_counted = false;
    if (conn->in_quota) {
        conn->in_quota = false;
        listener_leave(listener);
    }
    listener->refused++;
    if (++listener->refusals->used > listener->refusals->max) {
        conn_reset(conn);
    } else {
        listener->on_refused(listener->user, conn, reason);
    }
}

bool listener_admit(struct conn *conn) {
    struct listener *listener = conn->listener;
    if (!listener->limit || !limit_is_per_ip(listener->limit)) return true;
    CHECK(conn->in_quota && !conn->ip_counted);
    union addr address;
    /* Gone already: it ends by itself. */
    if (!conn_source(conn, &address) || !limit_ip_key(&address.any, &conn->ip_key)) return true;
    conn->ip_counted = limit_ip_enter(listener->limit, conn->ip_key);
    if (!conn->ip_counted) listener_refuse(conn, REASON_MAX_CONNECTIONS_PER_IP);
    return conn->ip_counted;
}

/* Accepted, and every slot is in use. By RST, as for all who are refused without a word: a FIN
 * would look like an answer where only FIN ends one. */
static void listener_turn_away(struct listener *listener, int fd) {
    static uint64_t next_ms;
    struct linger now = {.l_onoff = 1};
    stat_bump(&listener->net->stats->rejected[REASON_NO_MEMORY], 1);
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now); /* FIN instead is no harm */
    (void)close(fd);                                               /* never used */
    /* The slots are held by others, whose ends this listener is not told of. */
    listener_rest(listener, LISTENER_BACKOFF_MIN_MS, REASON_NO_MEMORY);
    if (!listener_may_log(&next_ms, listener->net->now_ms)) return;
    log_warn("%s: all %u connections of this worker are in use: a client was reset (those to "
             "servers may outlive their clients: lower timeout_tunnel and timeout_server, or raise "
             "max_connections)",
             listener->address_text, listener->net->conns.capacity);
}

static void listener_take(struct listener *listener, int fd) {
    listener->backoff_ms = 0;
    listener->errors_in_row = 0;
    if (listener->limit) limit_rate_take(listener->limit, listener->net->now_ns);
    struct conn *conn = conn_accept(listener->net, fd, NULL, NULL);
    if (!conn) {
        listener_turn_away(listener, fd);
        return;
    }
    conn->listener = listener;
    if (listener_is_full(listener)) {
        listener_refuse(conn, REASON_MAX_CONNECTIONS);
        return;
    }
    listener_enter(listener, conn);
    listener->on_conn(listener->user, conn);
}

/* Somebody waits: as many as there is room for, and as a turn should take. */
static void listener_take_some(struct listener *listener) {
    for (int i = 0; i < LISTENER_TAKE_MAX; i++) {
        if (listener_want(listener) == LISTENER_NOTHING) return;
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno != EAGAIN) listener_on_error(listener, errno);
            return;
        }
        listener_take(listener, fd);
    }
}

static struct listener *listener_find(struct net *net, uint32_t slot) {
    LIST_FOR_EACH(node, &net->listeners) {
        struct listener *listener = LIST_OWNER(node, struct listener, link);
        if (listener->slot == slot) return listener;
    }
    return NULL;
}

void listener_on_accept(void *owner, const struct ring_completion *completion) {
    struct listener *listener = listener_find(owner, completion->token.slot);
    CHECK(listener);
    if (!completion->more) listener->armed = listener->cancelling = false;
    if (completion->result < 0) {
        listener_on_error(listener, -completion->result);
    } else if (listener->armed_all) {
        listener_take(listener, completion->result);
    } else {
        listener_take_some(listener);
    }
    listener_settle(listener);
}

void listener_start(struct listener *listener, struct net *net, int fd) {
    listener->net = net;
    listener->fd = fd;
    wheel_timer_init(&listener->timer, listener_on_timer);
    list_push_back(&net->listeners, &listener->link);
    for (int i = 0; i < LISTENER_QUOTAS; i++) {
        if (listener->quotas[i]) listener->quotas[i]->backlogs += listener->backlog;
    }
    listener_settle(listener);
}

static bool listener_is_unix(const struct listener *listener) {
    int family = AF_UNSPEC;
    socklen_t size = sizeof family;
    /* Cannot fail for a socket (socket(7)). */
    (void)getsockopt(listener->fd, SOL_SOCKET, SO_DOMAIN, &family, &size);
    return family == AF_UNIX;
}

/* Closing the socket resets what it has of handshakes, and a client whose handshake that was has
 * sent its request. So SYNs are dropped first: whoever sends one tries again after a second and is
 * refused then. A filter of a TCP socket sees packets from the TCP header on, flags are byte 13. */
void listener_drain(struct listener *listener) {
    static struct sock_filter no_syn[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x02, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    struct sock_fprog filter = {.len = sizeof no_syn / sizeof no_syn[0], .filter = no_syn};
    if (listener->stopped || listener->draining) return;
    if (listener_is_unix(listener) ||
        setsockopt(listener->fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) < 0) {
        listener_stop(listener);
        return;
    }
    listener->draining = true;
    wheel_arm(&listener->net->wheel, &listener->timer, listener->net->now_ms + LISTENER_DRAIN_MS);
}

void listener_stop(struct listener *listener) {
    if (listener->stopped) return;
    /* From here on a unix socket refuses newcomers, and keeps what is in its queue. */
    if (listener_is_unix(listener)) (void)shutdown(listener->fd, SHUT_RDWR);
    /* Connections whose handshake is done wait in the queue; closing the socket would reset them.
     */
    for (int fd; (fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        listener_take(listener, fd);
    }
    listener->stopped = true;
    wheel_disarm(&listener->net->wheel, &listener->timer);
    listener_cancel(listener);
    /* The accept in flight keeps the socket alive until it ends; shutdown(2) refuses newcomers from
     * now on. */
    (void)shutdown(listener->fd, SHUT_RDWR);
    (void)close(listener->fd); /* nothing more is done with it */
    listener->fd = -1;
}

void listener_on_released(const struct conn *conn) {
    struct listener *listener = conn->listener;
    if (conn->ip_counted) limit_ip_leave(listener->limit, conn->ip_key);
    if (conn->in_quota) {
        listener_leave(listener);
        return;
    }
    CHECK(listener->refused > 0 && listener->refusals->used > 0);
    listener->refused--;
    listener->refusals->used--;
}
