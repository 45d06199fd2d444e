/* kernel_sock.c: connections: bytes on their way, FIN, RST, listening. */
#include "sim/kernel_internal.h"

#include "base/check.h"
#include "sim/actors.h"
#include "sim/tls_end.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TLS_TYPE_DATA 23 /* RFC 8446 section 5.1 */

struct kernel kernel;

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

void kernel_init(void) {
    kernel = (struct kernel){0};
    list_init(&kernel.socks);
    list_init(&kernel.postings);
}

void kernel_serve(struct kernel_server *server) {
    server->next = kernel.servers;
    kernel.servers = server;
}

struct sock *sock_new(void) {
    struct sock *sock = calloc(1, sizeof *sock);
    CHECK(sock);
    sock->number = ++kernel.sock_count;
    sock->fd = -1;
    list_init(&sock->ops);
    list_init(&sock->queue);
    list_init(&sock->queue_link);
    list_push_back(&kernel.socks, &sock->all_link);
    return sock;
}

static void flow_init(struct flow *flow, struct sock *reader) {
    flow->reader = reader;
    if (sim_has(FAULT_SLOW_NETWORK)) {
        flow->segment = (uint32_t)(sim_one_in(4) ? sim_between(1, 8) : sim_between(9, 200));
        flow->capacity = (uint32_t)(200 + sim_skewed(2000));
        flow->delay_ns = least(flow->segment, 100) * SIM_MS / 10;
    } else {
        flow->segment = (uint32_t)sim_between(500, 65536);
        flow->capacity =
            (uint32_t)(sim_one_in(4) ? sim_between(500, 4000) : sim_between(4000, 300000));
        flow->delay_ns = sim_between(1, 500) * 1000;
    }
    flow->bytes = malloc(flow->capacity);
    CHECK(flow->bytes);
}

void sock_pair(struct sock *one, struct sock *other) {
    one->peer = other;
    other->peer = one;
    one->state = other->state = SOCK_OPEN;
    flow_init(&one->in, one);
    flow_init(&other->in, other);
}

static void on_actor(void *owner, uint64_t argument) {
    (void)argument;
    struct sock *sock = owner;
    if (sock->tls) tls_end_step(sock->tls);
    if (sock->actor.on_change) sock->actor.on_change(sock->actor.owner);
}

void sock_changed(struct sock *sock) {
    LIST_FOR_EACH(node, &sock->ops) { op_look_again(LIST_OWNER(node, struct op, sock_link)); }
    bool is_actors = sock->actor.on_change || (sock->tls && sock->state != SOCK_CLOSED);
    if (is_actors && !sock->actor_event) {
        sim_event(sim.now_ns + sim_below(2000), on_actor, sock, &sock->actor_event);
    }
}

static void on_break(void *owner, uint64_t argument) {
    (void)argument;
    struct sock *sock = owner;
    if (sock->state == SOCK_OPEN && sock->peer->state == SOCK_OPEN) sock_break(sock);
}

/* The network may break a connection after some of what it has to carry. */
static void sock_maybe_break(struct sock *sock) {
    bool is_client = sock->client != 0 || sock->peer->client != 0;
    if (!sock->breakable || !sim_fault(is_client ? FAULT_CLIENT_RESET : FAULT_SERVER_RESET)) return;
    sock->breakable = false;
    sim_at(sim.now_ns + sim_skewed(20 * SIM_MS), on_break, sock, 0);
}

static void flow_lose_byte(struct flow *flow, uint32_t at) {
    for (; at + 1 < flow->len; at++) {
        char *to = &flow->bytes[(flow->head + at) % flow->capacity];
        *to = flow->bytes[(flow->head + at + 1) % flow->capacity];
    }
    flow->len--;
}

static void flow_schedule(struct flow *flow);

static void flow_on_transit(void *owner, uint64_t argument) {
    (void)argument;
    struct flow *flow = owner;
    struct sock *reader = flow->reader;
    uint32_t part = least(flow->len - flow->arrived, (uint32_t)sim_between(1, flow->segment));
    if (part != 0 && reader->state == SOCK_CLOSED) {
        /* Nobody will read it: RST answers (RFC 9293 section 3.10.7.1). */
        flow->len = flow->arrived;
        sock_send_reset(reader);
        return;
    }
    if (part > 2000 && sim_defect(DEFECT_DROP_BYTE)) {
        flow_lose_byte(flow, flow->arrived + part / 2);
        part--;
    }
    flow->arrived += part;
    flow->total += part;
    if (part != 0) flow->moved_ns = sim.now_ns;
    if (flow->arrived == flow->len && flow->fin) flow->fin_arrived = true;
    sim_note("arrives", reader->number, part, flow->fin_arrived);
    flow_schedule(flow);
    sock_changed(reader);
    if (reader->peer) sock_maybe_break(reader);
}

static void flow_schedule(struct flow *flow) {
    bool more = flow->arrived < flow->len || (flow->fin && !flow->fin_arrived);
    if (!more || flow->transit) return;
    sim_event(sim.now_ns + sim_below(flow->delay_ns + 1), flow_on_transit, flow, &flow->transit);
}

uint32_t sock_room_raw(const struct sock *sock) {
    const struct flow *out = &sock->peer->in;
    return out->capacity - out->len;
}

/* What a writer may write now. */
uint32_t sock_room(const struct sock *sock) {
    return sock->ktls ? ktls_room(sock) : sock_room_raw(sock);
}

/* A part of the ring of bytes goes around its end, so it is copied in one piece or two. */
static void flow_put(struct flow *flow, const char *from, uint32_t size) {
    uint32_t start = (flow->head + flow->len) % flow->capacity;
    uint32_t first = least(size, flow->capacity - start);
    memcpy(flow->bytes + start, from, first);
    memcpy(flow->bytes, from + first, size - first);
    flow->len += size;
}

static void flow_get(struct flow *flow, char *to, uint32_t size) {
    uint32_t first = least(size, flow->capacity - flow->head);
    memcpy(to, flow->bytes + flow->head, first);
    memcpy(to + first, flow->bytes, size - first);
    flow->head = (flow->head + size) % flow->capacity;
    flow->len -= size;
    flow->arrived -= size;
}

uint32_t sock_give(struct sock *sock, const char *from, uint32_t size) {
    return sock->ktls ? ktls_give(sock, TLS_TYPE_DATA, from, size)
                      : sock_give_raw(sock, from, size);
}

uint32_t sock_give_raw(struct sock *sock, const char *from, uint32_t size) {
    struct flow *out = &sock->peer->in;
    size = least(size, sock_room_raw(sock));
    if (size == 0) return 0;
    flow_put(out, from, size);
    /* Heads are small: a byte in the middle of more is one of a body. */
    if (size > 2000 && sim_defect(DEFECT_FLIP_BYTE)) {
        out->bytes[(out->head + out->len - size / 2) % out->capacity] ^= 0x10;
    }
    flow_schedule(out);
    return size;
}

uint32_t sock_take(struct sock *sock, char *to, uint32_t size) {
    struct flow *in = &sock->in;
    size = least(size, in->arrived);
    if (size == 0) return 0;
    flow_get(in, to, size);
    if (sock->peer->ktls) ktls_push_held(sock->peer);
    sock_changed(sock->peer);
    return size;
}

int sock_error(struct sock *sock, bool writing) {
    if (!sock->reset) return writing && sock->shut_write ? -EPIPE : 0;
    if (sock->reset_seen) return writing ? -EPIPE : 0;
    sock->reset_seen = true;
    return -ECONNRESET;
}

void sock_finish_writing(struct sock *sock) {
    if (sock->shut_write || !sock->peer) return;
    sock->shut_write = true;
    sock->peer->in.fin = true;
    flow_schedule(&sock->peer->in);
}

static void sock_hit(struct sock *sock) {
    if (sock->reset) return;
    sock->reset = true;
    struct flow *out = &sock->peer->in;
    out->len = out->arrived; /* what was on its way back is dropped as well */
    sim_note("reset arrives", sock->number, 0, 0);
    sock_changed(sock);
}

static void on_reset(void *owner, uint64_t argument) {
    (void)argument;
    sock_hit(owner);
}

void sock_send_reset(struct sock *sock) {
    struct flow *out = &sock->peer->in;
    out->len = out->arrived;
    out->fin = false;
    sim_at(sim.now_ns + sim_below(out->delay_ns + 1), on_reset, sock->peer, 0);
}

void sock_dissolve(struct sock *sock) {
    if (sock->state != SOCK_OPEN || sock->reset) return;
    sock_send_reset(sock);
    sock_hit(sock);
}

void sock_break(struct sock *sock) {
    sim_note("breaks", sock->number, sock->peer->number, 0);
    sock->broken = sock->peer->broken = true;
    sock->breakable = sock->peer->breakable = false;
    sock_hit(sock);
    sock_hit(sock->peer);
}

void sock_end(struct sock *sock) {
    enum sock_state before = sock->state;
    sock->state = SOCK_CLOSED;
    sock->actor = (struct sock_actor){0};
    sim_cancel(&sock->actor_event);
    if (before != SOCK_OPEN || sock->reset) return;
    if (sock->abort_on_close || sock->in.arrived != 0) {
        sock_send_reset(sock);
    } else {
        sock_finish_writing(sock);
    }
}

void sock_end_listening(struct sock *sock) {
    sock->shut_read = true;
    for (struct list *node; (node = list_pop_front(&sock->queue));) {
        struct sock *waiting = LIST_OWNER(node, struct sock, queue_link);
        waiting->abort_on_close = true;
        sock_end(waiting);
    }
    sock_changed(sock);
}

struct sock *sock_accept(struct sock *listener) {
    struct list *node = list_pop_front(&listener->queue);
    return node ? LIST_OWNER(node, struct sock, queue_link) : NULL;
}

/* A client's connect arrives at the listener. */
static void on_connected(void *owner, uint64_t port) {
    struct sock *sock = owner;
    if (sock->state != SOCK_CONNECTING) return;
    struct sock *listener = NULL;
    LIST_FOR_EACH(node, &kernel.socks) {
        struct sock *other = LIST_OWNER(node, struct sock, all_link);
        bool listens = other->state == SOCK_LISTENING && !other->shut_read;
        if (listens && other->port == port) listener = other;
    }
    if (listener && listener->no_syn) return; /* no answer */
    if (!listener) {
        sock->reset = true;
        sock_changed(sock);
        return;
    }
    struct sock *accepted = sock_new();
    sock_pair(sock, accepted);
    accepted->client = sock->client;
    sock->breakable = accepted->breakable = true;
    list_push_back(&listener->queue, &accepted->queue_link);
    sim_note("client connects", sock->client, accepted->number, sock->number);
    sock_changed(sock);
    sock_changed(listener);
}

struct sock *sock_connect(uint16_t port, uint32_t client, struct sock_actor actor) {
    struct sock *sock = sock_new();
    sock->state = SOCK_CONNECTING;
    sock->client = client;
    sock->actor = actor;
    sim_at(sim.now_ns + sim_below(SIM_MS), on_connected, sock, port);
    return sock;
}

void sock_set_actor(struct sock *sock, struct sock_actor actor) { sock->actor = actor; }

uint32_t sock_number(const struct sock *sock) { return sock->number; }

bool sock_is_open(const struct sock *sock) { return sock->state == SOCK_OPEN; }

bool sock_is_accepted(const struct sock *sock) {
    return sock->peer && !list_linked(&sock->peer->queue_link);
}

bool sock_is_dead(const struct sock *sock) { return sock->reset; }

bool sock_is_broken(const struct sock *sock) { return sock->broken; }

bool sock_is_over(const struct sock *sock) { return sock->reset || sock->in.fin_arrived; }

ssize_t sock_read_raw(struct sock *sock, void *to, size_t size) {
    if (sock->state != SOCK_OPEN) return sock->reset ? -ECONNRESET : -EAGAIN;
    uint32_t part = sock_take(sock, to, (uint32_t)size);
    if (part != 0) return part;
    if (sock->reset) return -ECONNRESET;
    return sock->in.fin_arrived ? 0 : -EAGAIN;
}

ssize_t sock_write_raw(struct sock *sock, const void *from, size_t size) {
    if (sock->reset) return -ECONNRESET;
    if (sock->state != SOCK_OPEN) return -EAGAIN;
    uint32_t part = sock_give(sock, from, (uint32_t)size);
    return part != 0 ? (ssize_t)part : -EAGAIN;
}

ssize_t sock_read(struct sock *sock, void *to, size_t size) {
    return sock->tls ? tls_end_read(sock->tls, to, size) : sock_read_raw(sock, to, size);
}

ssize_t sock_write(struct sock *sock, const void *from, size_t size) {
    return sock->tls ? tls_end_write(sock->tls, from, size) : sock_write_raw(sock, from, size);
}

/* What a client says is whole without a word about its end, too. */
static bool says_end(const struct sock *sock) {
    if (sock->client == 0 && sim_defect(DEFECT_LOSE_NOTICE)) return false;
    return sock->client == 0 || world.tls_passes || !sim_fault(FAULT_CLIENT_CUTS);
}

void sock_shutdown(struct sock *sock) {
    if (sock->tls) {
        tls_end_shutdown(sock->tls, says_end(sock));
    } else if (sock->state == SOCK_OPEN && !sock->reset) {
        sock_finish_writing(sock);
    }
}

void sock_close(struct sock *sock) {
    if (sock->tls) {
        tls_end_close(sock->tls, says_end(sock));
    } else {
        sock_end(sock);
    }
}

void sock_cut(struct sock *sock) {
    CHECK(sock->tls);
    sim_note("tls cut", sock->number, 0, 0);
    tls_end_close(sock->tls, false);
}

void sock_abort(struct sock *sock) {
    sock->abort_on_close = true;
    sock_end(sock);
}

uint32_t kernel_open_socks(void) { return kernel.open_streams; }

uint64_t kernel_turns(void) { return kernel.turns; }

void kernel_fini(void) {
    ring_drop_postings();
    if (kernel.open_streams != 0) {
        sim_fail(INVARIANT_REST, "%u sockets were never closed", kernel.open_streams);
    }
    for (struct list *node; (node = list_pop_front(&kernel.socks));) {
        struct sock *sock = LIST_OWNER(node, struct sock, all_link);
        if (!list_empty(&sock->ops)) {
            sim_fail(INVARIANT_REST, "socket %u still has operations", sock->number);
        }
        free(sock->in.bytes);
        tls_end_free(sock->tls);
        ktls_free(sock->ktls);
        free(sock);
    }
}
