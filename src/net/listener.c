#include "net/listener.h"

#include "base/check.h"
#include "base/log.h"
#include "ring/op.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTENER_BACKOFF_MIN_MS 50
#define LISTENER_BACKOFF_MAX_MS 500
/* What handshakes under way get to end when a listener drains: a round trip, and some. */
#define LISTENER_DRAIN_MS 100

static int listener_set(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : -errno;
}

static int listener_configure(int fd, const struct listener_options *options) {
    int family = options->address->sa_family;
    if (family == AF_UNIX) return 0;
    int error = listener_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (error == 0) error = listener_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
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
    if (error == 0) return fd;
    (void)close(fd); /* never used */
    return error;
}

static struct ring_token listener_token(const struct listener *listener) {
    return (struct ring_token){RING_ACCEPT, 0, listener->slot};
}

static bool listener_is_full(const struct listener *listener) {
    return listener->quota->used >= listener->quota->max;
}

static void listener_arm(struct listener *listener) {
    bool wanted = !listener_is_full(listener) && !listener->short_of && !listener->stopped;
    if (listener->armed || !wanted) return;
    listener->armed = true;
    listener->cancelling = false;
    /* Near the limit one by one: what a multishot accept brings cannot be given back. */
    bool multishot = listener->quota->max - listener->quota->used > listener->backlog;
    op_accept(&listener->net->ring, listener_token(listener), listener->fd, multishot);
}

static void listener_disarm(struct listener *listener) {
    if (!listener->armed || listener->cancelling) return;
    listener->cancelling = true;
    op_cancel(&listener->net->ring, listener_token(listener));
}

/* A quota was used up, or is so no more: that concerns all who share it. */
static void listener_quota_turned(struct listener *listener) {
    bool full = listener_is_full(listener);
    LIST_FOR_EACH(node, &listener->net->listeners) {
        struct listener *other = LIST_OWNER(node, struct listener, link);
        if (other->quota != listener->quota) continue;
        if (full) {
            listener_disarm(other);
        } else {
            listener_arm(other);
        }
    }
}

static void listener_on_timer(struct wheel_timer *timer, uint64_t now_ms) {
    (void)now_ms;
    struct listener *listener = LIST_OWNER(timer, struct listener, timer);
    if (listener->draining) {
        listener_stop(listener);
        return;
    }
    listener->short_of = false;
    listener_arm(listener);
}

/* Accepts nothing for a while. A draining or stopped listener has another use for its timer. */
static void listener_rest(struct listener *listener, uint32_t rest_ms) {
    listener->short_of = true;
    if (listener->draining || listener->stopped) return;
    wheel_arm(&listener->net->wheel, &listener->timer, listener->net->now_ms + rest_ms);
}

/* Out of descriptors or memory: an accept would fail again at once. */
static void listener_pause(struct listener *listener, int error) {
    struct rlimit files = {0};
    (void)getrlimit(RLIMIT_NOFILE, &files); /* only for the message */
    uint32_t backoff_ms = listener->backoff_ms * 2;
    if (backoff_ms < LISTENER_BACKOFF_MIN_MS) backoff_ms = LISTENER_BACKOFF_MIN_MS;
    if (backoff_ms > LISTENER_BACKOFF_MAX_MS) backoff_ms = LISTENER_BACKOFF_MAX_MS;
    if (listener->backoff_ms == 0) {
        log_warn("%s: cannot accept: %s; waiting (RLIMIT_NOFILE is %llu: raise it, or lower "
                 "max_connections)",
                 listener->address_text, strerror(error), (unsigned long long)files.rlim_cur);
    }
    listener->backoff_ms = backoff_ms;
    listener_rest(listener, backoff_ms);
}

static void listener_take(struct listener *listener, int fd) {
    listener->backoff_ms = 0;
    struct conn *conn = conn_accept(listener->net, fd, NULL, NULL);
    if (!conn) {
        /* Accepted before the pause took effect, with every slot in use. */
        stat_bump(&listener->net->stats->rejected[REASON_NO_MEMORY], 1);
        (void)close(fd); /* never used */
        /* The slots are held by others, whose ends this listener is not told of. */
        listener_rest(listener, LISTENER_BACKOFF_MIN_MS);
        listener_disarm(listener);
        return;
    }
    conn->listener = listener;
    listener->conns++;
    struct listener_quota *quota = listener->quota;
    if (++quota->used == quota->max) listener_quota_turned(listener);
    /* From multishot to one by one. */
    if (quota->used + listener->backlog >= quota->max) listener_disarm(listener);
    listener->on_conn(listener->user, conn);
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
    int result = completion->result;
    if (result >= 0) {
        listener_take(listener, result);
    } else if (result == -EMFILE || result == -ENFILE || result == -ENOBUFS || result == -ENOMEM) {
        listener_pause(listener, -result);
    }
    /* Any other error is that of one connection, or the end of the multishot: go on. */
    listener_arm(listener);
}

void listener_start(struct listener *listener, struct net *net, int fd) {
    listener->net = net;
    listener->fd = fd;
    wheel_timer_init(&listener->timer, listener_on_timer);
    list_push_back(&net->listeners, &listener->link);
    listener_arm(listener);
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
    listener_disarm(listener);
    /* The accept in flight keeps the socket alive until it ends; shutdown(2) refuses newcomers from
     * now on. */
    (void)shutdown(listener->fd, SHUT_RDWR);
    (void)close(listener->fd); /* nothing more is done with it */
    listener->fd = -1;
}

void listener_on_released(struct listener *listener) {
    CHECK(listener->conns > 0 && listener->quota->used > 0);
    listener->conns--;
    if (listener->quota->used-- == listener->quota->max) listener_quota_turned(listener);
}
