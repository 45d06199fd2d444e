/* kernel_internal.h: what the files of the simulated kernel share: sockets (kernel_sock.c),
 * operations (kernel_op.c), rings (kernel_ring.c), system calls (kernel_call.c). */
#ifndef WEIR_TESTS_SIM_KERNEL_INTERNAL_H
#define WEIR_TESTS_SIM_KERNEL_INTERNAL_H

#include "base/list.h"
#include "sim/kernel.h"

#include <liburing.h>
#include <sys/uio.h>

#define FD_BASE 100000 /* above whatever the process really has */
#define FD_MAX 8192
#define OP_SLICES_MAX 64
#define GROUPS_MAX 2

/* Bytes one way: the first `arrived` of `len` can be read. */
struct flow {
    char *bytes;
    uint32_t capacity;
    uint32_t head;
    uint32_t len;
    uint32_t arrived;
    uint32_t segment;  /* what arrives at once at most */
    uint64_t delay_ns; /* what a segment takes at most */
    uint64_t total;    /* bytes that arrived, ever */
    uint64_t moved_ns; /* when some last did */
    bool fin;          /* no more is written */
    bool fin_arrived;
    struct sim_event *transit;
    struct sock *reader;
};

enum sock_state { SOCK_FRESH, SOCK_LISTENING, SOCK_CONNECTING, SOCK_OPEN, SOCK_CLOSED };

struct sock {
    uint32_t number; /* for the trace */
    enum sock_state state;
    int fd; /* -1: an actor's, or not accepted yet */
    struct sock *peer;
    struct flow in; /* what this one reads */
    bool shut_read;
    bool shut_write;
    bool reset; /* RST has come, or the network has broken it */
    bool reset_seen;
    bool broken;            /* by the network */
    uint64_t reset_told_ns; /* when the application learns of it, from the first that failed */
    bool abort_on_close;
    bool breakable;  /* the network has not made up its mind yet */
    uint32_t client; /* whose it is: names the address */
    struct sock_actor actor;
    struct tls_end *tls;   /* an actor's who speaks TLS */
    bool ktls_asked;       /* TCP_ULP */
    struct ktls_out *ktls; /* weir's: the kernel makes the records */
    struct sim_event *actor_event;
    struct list ops; /* struct op.sock_link */
    /* Listening. */
    uint16_t port;
    uint32_t backlog;
    bool no_syn;
    struct list queue; /* struct sock.queue_link */
    struct list queue_link;
    struct list all_link;
};

struct fake_ring;

/* An operation that was submitted and has not posted its final completion. */
struct op {
    struct fake_ring *ring;
    struct io_uring_sqe sqe;
    struct sock *sock; /* NULL: none, or its descriptor was no socket */
    bool multishot;
    uint32_t limit; /* of a multishot receive: bytes until it ends, 0: none */
    bool tried;
    bool ended; /* the final completion is on its way */
    struct sim_event *attempt;
    struct sim_event *late_cancel;
    struct sim_event *fate; /* of a connect */
    uint64_t last_ns;       /* when its last completion is posted */
    size_t done;            /* bytes */
    size_t size;
    uint64_t sum; /* of what is to be sent, at submission */
    uint32_t slice_count;
    struct iovec slices[OP_SLICES_MAX];
    struct list sock_link;
    struct list ring_link;
};

/* A group of provided buffers. */
struct fake_group {
    struct io_uring_buf_ring *ring;
    uint32_t entries;
    uint16_t head;
    uint32_t flying; /* in completions that were not posted yet */
};

struct fake_ring {
    int fd;
    bool enabled;
    struct io_uring *uring;
    unsigned sq_head, sq_tail, sq_mask, sq_entries, sq_flags, sq_dropped;
    unsigned cq_head, cq_tail, cq_mask, cq_entries, cq_overflow;
    struct fake_group groups[GROUPS_MAX];
    struct list ops; /* struct op.ring_link */
    void (*on_turn)(void *owner);
    void *owner;
};

enum fd_kind { FD_NONE, FD_SOCK, FD_RING, FD_PIPE_READ, FD_PIPE_WRITE };

struct fake_pipe {
    char *bytes;
    uint32_t capacity, head, len;
    bool read_open, write_open;
};

struct fd_entry {
    enum fd_kind kind;
    union {
        struct sock *sock;
        struct fake_ring *ring;
        struct fake_pipe *pipe;
    };
};

struct kernel {
    struct fd_entry fds[FD_MAX];
    struct list socks;
    struct list postings; /* completions on their way */
    struct kernel_server *servers;
    uint32_t sock_count;
    uint32_t open_streams; /* with a descriptor */
    uint64_t turns;
    bool at_once; /* what is submitted now is done, and told of, before the call returns */
};
extern struct kernel kernel;

/* kernel_call.c */
bool fd_is_ours(int fd);
struct fd_entry *fd_entry(int fd);
/* The lowest free one. */
int fd_install(struct fd_entry entry);
struct sock *fd_sock(int fd); /* NULL: none */

/* kernel_sock.c */
struct sock *sock_new(void);
/* Connects two ends; both are open then. */
void sock_pair(struct sock *one, struct sock *other);
uint32_t sock_room(const struct sock *sock);
/* As sock_read and sock_write; they do not look at errors. */
uint32_t sock_take(struct sock *sock, char *to, uint32_t size);
uint32_t sock_give(struct sock *sock, const char *from, uint32_t size);
/* As they are without kTLS. */
uint32_t sock_room_raw(const struct sock *sock);
uint32_t sock_give_raw(struct sock *sock, const char *from, uint32_t size);
/* 0, or the error that a call finds now (-ECONNRESET once, then -EPIPE for writing, 0 else). */
int sock_error(struct sock *sock, bool writing);
void sock_finish_writing(struct sock *sock);
/* sock_read and sock_write as they are without TLS. */
ssize_t sock_read_raw(struct sock *sock, void *to, size_t size);
ssize_t sock_write_raw(struct sock *sock, const void *from, size_t size);
void sock_send_reset(struct sock *sock);
/* As the end of one side: the other is told by a reset, and operations of this one end. */
void sock_dissolve(struct sock *sock);
/* The last step of a close, by a descriptor or an actor. */
void sock_end(struct sock *sock);
void sock_end_listening(struct sock *sock);
/* Whoever waits for it looks again. */
void sock_changed(struct sock *sock);
struct sock *sock_accept(struct sock *listener);

/* kernel_ktls.c: of sockets with keys */
void ktls_begin(struct sock *sock, const void *keys, size_t size);
/* With the number of the next record. */
void ktls_tell_keys(const struct sock *sock, void *keys, size_t size);
uint32_t ktls_room(const struct sock *sock);
/* One record of that type at most; returns how many bytes are in it. */
uint32_t ktls_give(struct sock *sock, uint8_t type, const char *from, uint32_t size);
/* There may be room for what waits. */
void ktls_push_held(struct sock *sock);
void ktls_free(struct ktls_out *out);

/* kernel_op.c */
void op_submit(struct fake_ring *ring, const struct io_uring_sqe *sqe);
void op_look_again(struct op *op);
void op_free(struct op *op);

/* kernel_ring.c */
/* Posts an operation's completion, when its time has come; the last ends it. Returns the time. */
uint64_t ring_post(struct op *op, int32_t result, uint32_t flags);
/* The same for `result` bytes, which are *to's when it is posted; takes them. */
uint64_t ring_post_bytes(struct op *op, int32_t result, uint32_t flags, char *to, char *bytes);
void ring_post_mail(struct fake_ring *to, uint64_t user_data, int32_t value);
bool ring_take_buffer(struct fake_ring *ring, uint32_t group, struct io_uring_buf *buffer);
struct fake_ring *ring_of_fd(int fd);
/* At the end of the run: mail that never arrived. */
void ring_drop_postings(void);

#endif
