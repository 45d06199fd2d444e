/* kernel_call.c: the system calls that src/ makes on descriptors, wrapped by the linker
 * (-Wl,--wrap=NAME): those on descriptors of this kernel are answered here, others go through. */
#include "base/check.h"
#include "sim/kernel_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PIPE_DEFAULT 65536
#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#ifndef TCP_ULP
#define TCP_ULP 31
#endif
/* As in netinet/tcp.h, whose struct tcp_info is too short, and which does not go with the other. */
#define ESTABLISHED 1
#define CLOSE_WAIT 8
#define EPOCH_NS (1700000000 * SIM_SECOND) /* 2023-11-14, and on */

bool fd_is_ours(int fd) { return fd >= FD_BASE && fd < FD_BASE + FD_MAX; }

struct fd_entry *fd_entry(int fd) {
    return &kernel.fds[fd - FD_BASE];
}

int fd_install(struct fd_entry entry) {
    int fd = FD_BASE;
    while (fd_entry(fd)->kind != FD_NONE) {
        fd++;
        CHECK(fd < FD_BASE + FD_MAX);
    }
    *fd_entry(fd) = entry;
    if (entry.kind == FD_SOCK) {
        entry.sock->fd = fd;
        kernel.open_streams++;
    }
    return fd;
}

struct sock *fd_sock(int fd) {
    if (!fd_is_ours(fd) || fd_entry(fd)->kind != FD_SOCK) return NULL;
    return fd_entry(fd)->sock;
}

static int fail(int error) {
    errno = error;
    return -1;
}

/* A call on a descriptor that is not open is a bug of weir's: somebody else may have it soon. */
static struct sock *must_be_sock(int fd, const char *call) {
    struct sock *sock = fd_sock(fd);
    if (!sock) sim_fail(INVARIANT_DESCRIPTORS, "%s(%d): not an open socket", call, fd);
    return sock;
}

int __wrap_socket(int family, int type, int protocol);
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_listen(int fd, int backlog);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *size);
int __wrap_shutdown(int fd, int how);
ssize_t __wrap_send(int fd, const void *bytes, size_t size, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *size);
int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *size);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_close(int fd);
int __real_close(int fd);
int __wrap_fcntl(int fd, int command, ...);
int __real_fcntl(int fd, int command, ...);
int __wrap_pipe2(int fds[2], int flags);
ssize_t __wrap_splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t size,
                      unsigned flags);
long __wrap_syscall(long number, ...);
long __real_syscall(long number, ...);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);

int __wrap_socket(int family, int type, int protocol) {
    (void)protocol;
    CHECK(family == AF_INET && type & SOCK_STREAM);
    /* Before the first turn, at start, weir would just say so and end. */
    if (kernel.turns != 0 && sim_fault(FAULT_SOCKET_SHORT)) return fail(EMFILE);
    return fd_install((struct fd_entry){.kind = FD_SOCK, .sock = sock_new()});
}

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t size) {
    (void)size;
    must_be_sock(fd, "bind")->port =
        ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
    return 0;
}

int __wrap_listen(int fd, int backlog) {
    struct sock *sock = must_be_sock(fd, "listen");
    sock->state = SOCK_LISTENING;
    sock->backlog = (uint32_t)backlog;
    kernel.open_streams--; /* counted as a listener */
    return 0;
}

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    (void)flags;
    CHECK(!address && !size);
    struct sock *listener = must_be_sock(fd, "accept4");
    if (sim_fault(FAULT_ACCEPT_SHORT)) return fail(EMFILE);
    struct sock *sock = sock_accept(listener);
    if (!sock) return fail(EAGAIN);
    return fd_install((struct fd_entry){.kind = FD_SOCK, .sock = sock});
}

/* To nowhere: connections are made by the ring. */
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size) {
    struct sock *sock = must_be_sock(fd, "connect");
    CHECK(address->sa_family == AF_UNSPEC && size >= sizeof address->sa_family);
    if (sim_fault(FAULT_NO_DISSOLVE)) return fail(EBUSY);
    sim_note("dissolved", sock->number, 0, 0);
    sock_dissolve(sock);
    return 0;
}

static int set_ktls(struct sock *sock, int level, const void *value, socklen_t size) {
    if (sock->state != SOCK_OPEN || sock->reset) return fail(ENOTCONN);
    if (sim_fault(FAULT_NO_KTLS)) return fail(ENOMEM);
    if (level == SOL_TLS) {
        CHECK(sock->ktls_asked);
        ktls_begin(sock, value, size);
    }
    sock->ktls_asked = true;
    return 0;
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
    struct sock *sock = must_be_sock(fd, "setsockopt");
    if (level == SOL_TLS || (level == IPPROTO_TCP && name == TCP_ULP))
        return set_ktls(sock, level, value, size);
    if (level != SOL_SOCKET) return 0;
    if (name == SO_LINGER) {
        const struct linger *linger = value;
        sock->abort_on_close = linger->l_onoff && linger->l_linger == 0;
    } else if (name == SO_ATTACH_FILTER) {
        if (sim_fault(FAULT_NO_FILTER)) return fail(ENOMEM);
        sock->no_syn = true;
    }
    return 0;
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *size) {
    struct sock *sock = must_be_sock(fd, "getsockopt");
    if (level == SOL_SOCKET && name == SO_DOMAIN) {
        *(int *)value = AF_INET;
        return 0;
    }
    if (level == SOL_SOCKET && name == SO_ERROR) {
        *(int *)value = sock->reset ? ECONNRESET : 0;
        return 0;
    }
    if (level == SOL_TLS && sock->ktls) {
        ktls_tell_keys(sock, value, *size);
        return 0;
    }
    if (level == IPPROTO_TCP && name == TCP_INFO) {
        struct tcp_info info = {0};
        uint64_t moved_ns = sock->peer ? sock->peer->in.moved_ns : sim.now_ns;
        info.tcpi_last_ack_recv = (uint32_t)((sim.now_ns - moved_ns) / 1000000);
        info.tcpi_bytes_acked = sock->peer ? sock->peer->in.total : 0;
        info.tcpi_state = sock->in.fin_arrived ? CLOSE_WAIT : ESTABLISHED;
        info.tcpi_last_data_sent = info.tcpi_last_ack_recv;
        memcpy(value, &info, *size < sizeof info ? *size : sizeof info);
        return 0;
    }
    return fail(ENOPROTOOPT);
}

int __wrap_shutdown(int fd, int how) {
    struct sock *sock = must_be_sock(fd, "shutdown");
    if (sock->state == SOCK_LISTENING) {
        sock_end_listening(sock);
        return 0;
    }
    if (sock->state != SOCK_OPEN || sock->reset) return fail(ENOTCONN);
    sim_note("shutdown", sock->number, how, 0);
    if (how == SHUT_RDWR) sock->shut_read = true;
    sock_finish_writing(sock);
    sock_changed(sock);
    return 0;
}

/* At once, or not: the rest of it is lost. */
ssize_t __wrap_send(int fd, const void *bytes, size_t size, int flags) {
    struct sock *sock = must_be_sock(fd, "send");
    CHECK(flags & MSG_DONTWAIT);
    int error = sock_error(sock, true);
    if (error == 0 && sock->state != SOCK_OPEN) error = -ENOTCONN;
    if (error < 0) return fail(-error);
    if (sim_defect(DEFECT_SWALLOW_NOTICE)) return (ssize_t)size;
    uint32_t sent = sock_give(sock, bytes, (uint32_t)size);
    sim_note("sent at once", sock->number, sent, 0);
    return sent != 0 || size == 0 ? (ssize_t)sent : fail(EAGAIN);
}

/* A record of some type, by kTLS. */
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags) {
    struct sock *sock = must_be_sock(fd, "sendmsg");
    const struct cmsghdr *control = CMSG_FIRSTHDR(message);
    CHECK(sock->ktls && flags & MSG_DONTWAIT && message->msg_iovlen == 1);
    CHECK(control->cmsg_level == SOL_TLS && control->cmsg_type == TLS_SET_RECORD_TYPE);
    int error = sock_error(sock, true);
    if (error < 0) return fail(-error);
    const struct iovec *vector = message->msg_iov;
    uint32_t size =
        ktls_give(sock, *CMSG_DATA(control), vector->iov_base, (uint32_t)vector->iov_len);
    return size != 0 ? (ssize_t)size : fail(EAGAIN);
}

static void put_address(uint32_t host, uint16_t port, struct sockaddr *to, socklen_t *size) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(host)};
    memcpy(to, &address, *size < sizeof address ? *size : sizeof address);
    *size = sizeof address;
}

/* The network 10.0.0.0/8 has a host for every client. */
int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *size) {
    const struct sock *sock = must_be_sock(fd, "getpeername");
    if (sock->state != SOCK_OPEN || sock->reset) return fail(ENOTCONN);
    put_address(0x0a000000 + sock->client, (uint16_t)(1024 + sock->number % 60000), address, size);
    return 0;
}

int __wrap_getsockname(int fd, struct sockaddr *address, socklen_t *size) {
    const struct sock *sock = must_be_sock(fd, "getsockname");
    put_address(0x7f000001, sock->port, address, size);
    return 0;
}

int __wrap_ioctl(int fd, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    int *value = va_arg(arguments, int *);
    va_end(arguments);
    if (!fd_is_ours(fd)) return __real_ioctl(fd, request, value);
    if (fd_entry(fd)->kind == FD_PIPE_READ && request == FIONREAD) {
        *value = (int)fd_entry(fd)->pipe->len;
        return 0;
    }
    const struct sock *sock = must_be_sock(fd, "ioctl");
    if (request == SIOCINQ) {
        *value = (int)sock->in.arrived;
    } else if (request == SIOCOUTQ) {
        *value = sock->peer ? (int)(sock->peer->in.len - sock->peer->in.arrived) : 0;
    } else {
        return fail(ENOTTY);
    }
    return 0;
}

static int close_sock(struct fd_entry *entry, int fd) {
    struct sock *sock = entry->sock;
    bool listening = sock->state == SOCK_LISTENING;
    /* The accept in flight keeps a listener alive; it was shut down before. */
    if (!list_empty(&sock->ops) && !(listening && sock->shut_read)) {
        sim_fail(INVARIANT_DESCRIPTORS, "close(%d) with an operation in flight on socket %u", fd,
                 sock->number);
    }
    sim_note("closes", sock->number, fd, 0);
    if (!listening) {
        kernel.open_streams--;
        sock_end(sock);
    } else {
        sock->state = SOCK_CLOSED;
    }
    sock->fd = -1;
    *entry = (struct fd_entry){0};
    return 0;
}

static int close_pipe(struct fd_entry *entry) {
    struct fake_pipe *pipe = entry->pipe;
    if (entry->kind == FD_PIPE_READ) pipe->read_open = false;
    if (entry->kind == FD_PIPE_WRITE) pipe->write_open = false;
    if (!pipe->read_open && !pipe->write_open) {
        free(pipe->bytes);
        free(pipe);
    }
    *entry = (struct fd_entry){0};
    return 0;
}

int __wrap_close(int fd) {
    if (!fd_is_ours(fd)) return __real_close(fd);
    struct fd_entry *entry = fd_entry(fd);
    switch (entry->kind) {
    case FD_SOCK:
        return close_sock(entry, fd);
    case FD_PIPE_READ:
    case FD_PIPE_WRITE:
        return close_pipe(entry);
    case FD_NONE:
    case FD_RING:
        break;
    }
    sim_fail(INVARIANT_DESCRIPTORS, "close(%d): not open", fd);
}

static struct fake_pipe *fd_pipe(int fd, enum fd_kind kind) {
    if (!fd_is_ours(fd) || fd_entry(fd)->kind != kind) return NULL;
    return fd_entry(fd)->pipe;
}

int __wrap_fcntl(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    long value = va_arg(arguments, long);
    va_end(arguments);
    if (!fd_is_ours(fd)) return __real_fcntl(fd, command, value);
    struct fake_pipe *pipe = fd_pipe(fd, FD_PIPE_READ);
    if (!pipe) pipe = fd_pipe(fd, FD_PIPE_WRITE);
    if (command == F_GETPIPE_SZ && pipe) return (int)pipe->capacity;
    if (command != F_SETPIPE_SZ || !pipe) return 0;
    if (sim_fault(FAULT_NO_PIPES)) return fail(EPERM);
    CHECK(pipe->len == 0 && value > 0);
    free(pipe->bytes);
    pipe->capacity = (uint32_t)value;
    pipe->bytes = malloc(pipe->capacity);
    CHECK(pipe->bytes);
    return (int)pipe->capacity;
}

int __wrap_pipe2(int fds[2], int flags) {
    (void)flags;
    if (sim_fault(FAULT_NO_PIPES)) return fail(EMFILE);
    struct fake_pipe *pipe = calloc(1, sizeof *pipe);
    CHECK(pipe);
    pipe->capacity = PIPE_DEFAULT;
    pipe->bytes = malloc(pipe->capacity);
    CHECK(pipe->bytes);
    pipe->read_open = pipe->write_open = true;
    fds[0] = fd_install((struct fd_entry){.kind = FD_PIPE_READ, .pipe = pipe});
    fds[1] = fd_install((struct fd_entry){.kind = FD_PIPE_WRITE, .pipe = pipe});
    return 0;
}

/* How much one splice moves of what it could. */
static uint32_t splice_size(size_t wanted, uint32_t there, uint32_t room) {
    uint32_t size = there < room ? there : room;
    if (wanted < size) size = (uint32_t)wanted;
    if (size != 0 && sim_fault(FAULT_SPLICE_SHORT)) size = (uint32_t)sim_below(size + 1ull);
    return size;
}

/* As sock_error; an operation has not told yet what it took: the kernel posts what it knows before
 * the application runs on. */
static int splice_error(struct sock *sock, bool writing) {
    if (sock->reset && sim.now_ns < sock->reset_told_ns) return -ECONNRESET;
    return sock_error(sock, writing);
}

static ssize_t splice_in(struct sock *sock, struct fake_pipe *pipe, size_t wanted) {
    LIST_FOR_EACH(node, &sock->ops) {
        const struct op *op = LIST_OWNER(node, struct op, sock_link);
        if (op->sqe.opcode == IORING_OP_RECV) {
            sim_fail(INVARIANT_BYTES, "splice from socket %u with a receive in flight",
                     sock->number);
        }
    }
    if (sock->in.arrived == 0) {
        int error = splice_error(sock, false);
        if (error < 0) return fail(-error);
        if (sock->in.fin_arrived || sock->shut_read || sock->reset) return 0;
        return fail(EAGAIN);
    }
    uint32_t size = splice_size(wanted, sock->in.arrived, pipe->capacity - pipe->len);
    if (size == 0) return fail(EAGAIN);
    for (uint32_t left = size; left != 0;) {
        uint32_t at = (pipe->head + pipe->len) % pipe->capacity;
        uint32_t part = pipe->capacity - at < left ? pipe->capacity - at : left;
        sock_take(sock, pipe->bytes + at, part);
        pipe->len += part;
        left -= part;
    }
    return size;
}

static ssize_t splice_out(struct fake_pipe *pipe, struct sock *sock, size_t wanted) {
    int error = splice_error(sock, true);
    if (error < 0) return fail(-error);
    if (pipe->len == 0) return pipe->write_open ? fail(EAGAIN) : 0;
    uint32_t size = splice_size(wanted, pipe->len, sock_room(sock));
    if (size == 0) return fail(EAGAIN);
    uint32_t left = size;
    while (left != 0) {
        uint32_t part = pipe->capacity - pipe->head < left ? pipe->capacity - pipe->head : left;
        part = sock_give(sock, pipe->bytes + pipe->head, part);
        if (part == 0) break; /* kTLS makes records, and may have no room for another */
        pipe->head = (pipe->head + part) % pipe->capacity;
        pipe->len -= part;
        left -= part;
    }
    return size - left;
}

ssize_t __wrap_splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t size,
                      unsigned flags) {
    CHECK(!in_at && !out_at && flags & SPLICE_F_NONBLOCK);
    struct fake_pipe *from = fd_pipe(in, FD_PIPE_READ);
    struct fake_pipe *to = fd_pipe(out, FD_PIPE_WRITE);
    if (to && !from) return splice_in(must_be_sock(in, "splice"), to, size);
    if (from && !to) return splice_out(from, must_be_sock(out, "splice"), size);
    return fail(EINVAL);
}

/* Registering with a ring goes by number: liburing 2.3 lacks the function. */
long __wrap_syscall(long number, ...) {
    long words[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        words[i] = va_arg(arguments, long);
    va_end(arguments);
    struct fake_ring *ring = number == __NR_io_uring_register ? ring_of_fd((int)words[0]) : NULL;
    if (!ring) {
        return __real_syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]);
    }
    CHECK((int)words[1] == IORING_REGISTER_ENABLE_RINGS);
    ring->enabled = true;
    return 0;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *time) {
    static uint64_t stopped_ns;
    uint64_t now_ns = sim.now_ns;
    if (sim.options.defect == DEFECT_STOP_CLOCK) {
        if (sim.defects == 0 && sim_defect(DEFECT_STOP_CLOCK)) stopped_ns = now_ns;
        if (sim.defects != 0) now_ns = stopped_ns;
    }
    if (clock == CLOCK_REALTIME) now_ns += EPOCH_NS;
    time->tv_sec = (time_t)(now_ns / SIM_SECOND);
    time->tv_nsec = (long)(now_ns % SIM_SECOND);
    return 0;
}

/* OpenSSL's, of sessions and certificates: it comes from outside, so it is not wrapped. */
time_t time(time_t *to) {
    time_t now = (time_t)((sim.now_ns + EPOCH_NS) / SIM_SECOND);
    if (to) *to = now;
    return now;
}
