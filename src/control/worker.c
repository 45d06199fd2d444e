#include "control/worker.h"

#include "base/check.h"
#include "base/log.h"
#include "control/heap.h"
#include "proto/tls_library.h"
#include "ring/mail.h"
#include "service/echo.h"
#include "service/respond.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

/* Sizes of one worker's fixed parts. Small buffers hold nearly every head whole; a bulk buffer is
 * what one receive of a long body brings at most. The queue mark is how much may wait to be sent
 * before its sender is paused. */
#define WORKER_SQ_ENTRIES 2048
#define WORKER_CQ_ENTRIES 16384
#define WORKER_SMALL_SIZE 8192
#define WORKER_SMALL_MIN 4096 /* count */
#define WORKER_SMALL_PER_REQUEST 4
#define WORKER_BULK_SIZE (512 * 1024)
#define WORKER_BULK_COUNT 32
#define WORKER_QUEUE_MARK (64 * 1024)
/* Beside clients and servers: the admin's connections, so that clients cannot shut probes out,
 * those that are refused, those that are just closing, and what connections to servers may be more
 * than clients are. */
#define WORKER_CONNS_EXTRA                                                                         \
    (DESCRIPTORS_ADMINS_MAX + DESCRIPTORS_REFUSALS_MAX + 128 + DESCRIPTORS_SPARE_MAX)
/* Requests that HTTP/2 may add to one for each client: more wait on the other side. */
#define WORKER_STREAMS_MORE 16384
/* What nghttp2 may have for all HTTP/2 connections of a worker. */
#define WORKER_H2_MEMORY (1ull << 30)
/* What the answers of a cut get to be sent. */
#define WORKER_CUT_MS 1000

static void worker_on_mail(void *owner, const struct ring_completion *completion);
static void worker_on_drain_timeout(struct wheel_timer *timer, uint64_t now_ms);

/* This worker's part of what is for all of them: at least one, as the kernel gives each of them
 * connections. */
static uint32_t worker_share(const struct worker *worker, uint32_t whole) {
    uint32_t workers = worker->config->workers;
    uint32_t share = whole / workers + (worker->index < whole % workers);
    return share != 0 ? share : 1;
}

static bool worker_reads_pp(const struct config *config) {
    for (uint32_t i = 0; i < config->listener_count; i++)
        if (config->listeners[i].proxy_protocol != 0) return true;
    return false;
}

bool worker_has_tls(const struct config *config) {
    for (uint32_t i = 0; i < config->listener_count; i++)
        if (config->listeners[i].tls) return true;
    for (uint32_t i = 0; i < config->upstream_count; i++)
        if (config->upstreams[i].tls.on) return true;
    return false;
}

static bool worker_sends_pp(const struct config *config) {
    for (uint32_t i = 0; i < config->upstream_count; i++)
        if (config->upstreams[i].send_proxy != 0) return true;
    return false;
}

static struct net_options worker_net_options(const struct worker *worker,
                                             const struct descriptors *files,
                                             uint32_t requests_max) {
    uint32_t small = requests_max * WORKER_SMALL_PER_REQUEST;
    uint32_t servers = worker->clients_max + worker_share(worker, files->idle);
    uint32_t conns = worker->clients_max + servers + WORKER_CONNS_EXTRA;
    return (struct net_options){
        .conns_max = conns,
        .dialled_max = servers + files->spare,
        .ends_max = worker_reads_pp(worker->config) || worker_sends_pp(worker->config) ? conns : 0,
        .sq_entries = WORKER_SQ_ENTRIES,
        .cq_entries = WORKER_CQ_ENTRIES,
        .small_size = WORKER_SMALL_SIZE,
        .small_count = small > WORKER_SMALL_MIN ? small : WORKER_SMALL_MIN,
        .bulk_size = WORKER_BULK_SIZE,
        .bulk_count = WORKER_BULK_COUNT,
        .pipes_max = files->pipes,
        .queue_mark = WORKER_QUEUE_MARK,
    };
}

static void worker_limits(const struct config *config, uint32_t *header_size, uint32_t *headers) {
    *header_size = (uint32_t)config->defaults.max_header_size;
    *headers = (uint32_t)config->defaults.max_headers;
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct config_limits *limits = &config->listeners[i].limits;
        if (limits->max_header_size > *header_size)
            *header_size = (uint32_t)limits->max_header_size;
        if (limits->max_headers > *headers) *headers = (uint32_t)limits->max_headers;
    }
}

/* Requests beyond one for each client: those of HTTP/2. */
static uint32_t worker_more_streams(const struct worker *worker) {
    uint64_t more = 0;
    for (uint32_t i = 0; i < worker->config->listener_count; i++) {
        const struct config_listener *listener = &worker->config->listeners[i];
        if (listener->speaks_h2 && listener->limits.h2_max_streams - 1 > more)
            more = listener->limits.h2_max_streams - 1;
    }
    more *= worker->clients_max;
    return more < WORKER_STREAMS_MORE ? (uint32_t)more : WORKER_STREAMS_MORE;
}

/* Beside the admin. */
static bool worker_has_http(const struct config *config) {
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        if (listener->mode == CONFIG_MODE_HTTP && !listener->is_admin) return true;
    }
    return false;
}

/* On either side. */
static bool worker_has_h2(const struct config *config) {
    for (uint32_t i = 0; i < config->listener_count; i++)
        if (config->listeners[i].speaks_h2) return true;
    for (uint32_t i = 0; i < config->upstream_count; i++)
        if (config->upstreams[i].protocol == CONFIG_PROTOCOL_H2) return true;
    return false;
}

static bool worker_has_tcp(const struct config *config) {
    for (uint32_t i = 0; i < config->listener_count; i++) {
        if (config->listeners[i].mode == CONFIG_MODE_TCP) return true;
    }
    return false;
}

static struct service *worker_make_service(struct worker *worker,
                                           const struct config_service *config) {
    switch (config->type) {
    case CONFIG_SERVICE_RESPOND:
        return respond_new(config);
    case CONFIG_SERVICE_ECHO:
        return echo_new(&worker->echoes);
    }
    return NULL;
}

static void worker_free_services(struct worker *worker) {
    for (uint32_t i = 0; i < worker->config->service_count; i++) {
        if (worker->config->services[i].type == CONFIG_SERVICE_ECHO) {
            echo_free(worker->services[i]);
        } else {
            respond_free(worker->services[i]);
        }
    }
    free(worker->services);
    slab_fini(&worker->echoes);
}

static int worker_make_services(struct worker *worker) {
    const struct config *config = worker->config;
    worker->services = calloc(config->service_count + 1, sizeof(struct service *));
    if (!worker->services) return -ENOMEM;
    bool has_echo = false;
    for (uint32_t i = 0; i < config->service_count; i++)
        has_echo |= config->services[i].type == CONFIG_SERVICE_ECHO;
    int error = has_echo ? echo_room_init(&worker->echoes, &worker->net, worker->clients_max) : 0;
    if (error < 0) return error;
    for (uint32_t i = 0; i < config->service_count; i++) {
        worker->services[i] = worker_make_service(worker, &config->services[i]);
        if (!worker->services[i]) return -ENOMEM;
    }
    return 0;
}

static int worker_make_quotas(struct worker *worker, const struct descriptors *files) {
    const struct config *config = worker->config;
    worker->clients_max = worker_share(worker, files->clients);
    worker->clients.max = worker->clients_max;
    worker->admins.max = files->admins;
    worker->refusals.max = files->refusals;
    worker->own_quotas = calloc(config->listener_count + 1, sizeof *worker->own_quotas);
    if (!worker->own_quotas) return -ENOMEM;
    for (uint32_t i = 0; i < config->listener_count; i++)
        worker->own_quotas[i].max = worker_share(worker, config->listeners[i].max_connections);
    return 0;
}

/* Where control puts the contexts of TLS. */
static int worker_make_seats(struct worker *worker) {
    const struct config *config = worker->config;
    struct proxy *proxy = &worker->proxy;
    worker->seat_count = config->listener_count + config->upstream_count;
    worker->seats = calloc(worker->seat_count, sizeof *worker->seats);
    if (worker_has_tls(config)) worker->library = tls_library_new();
    if (!worker->seats || (worker_has_tls(config) && !worker->library)) return -ENOMEM;
    for (uint32_t i = 0; i < config->listener_count; i++)
        worker->seats[i].place = &proxy->fronts[i].options.tls;
    for (uint32_t i = 0; i < config->upstream_count; i++)
        worker->seats[config->listener_count + i].place = &proxy->upstreams[i].options.tls;
    return 0;
}

static void worker_free_seats(struct worker *worker) {
    for (uint32_t i = 0; i < worker->seat_count; i++) {
        tls_context_free(worker->seats[i].next);
        tls_context_free(worker->seats[i].current);
    }
    free(worker->seats);
}

int worker_init(struct worker *worker, const struct worker_options *options) {
    const struct config *config = options->config;
    worker->index = options->index;
    worker->config = config;
    worker->cpu = config->cpus ? config->cpus[options->index] : -1;
    worker->limits = options->limits;
    worker->file_max = options->file_max;
    int error = worker_make_quotas(worker, options->files);
    if (error < 0) return error;
    uint32_t more = worker_more_streams(worker);
    uint32_t exchanges_max = worker->clients_max + DESCRIPTORS_ADMINS_MAX + more;
    struct net_options net_options = worker_net_options(worker, options->files, exchanges_max);
    uint32_t sessions_max = net_options.conns_max;
    if (!worker_has_http(config)) { /* the admin's, and as many again that are just closing */
        exchanges_max = DESCRIPTORS_ADMINS_MAX;
        sessions_max = 2 * DESCRIPTORS_ADMINS_MAX;
    }
    error = net_init(&worker->net, &net_options, &worker->stats);
    if (error < 0) return error;
    ring_handle(&worker->net.ring, RING_MAIL, worker_on_mail, worker);
    error = pp_gate_room_init(&worker->gates, &worker->net,
                              worker_reads_pp(config) ? worker->clients_max : 0);
    if (error < 0) return error;
    bool has_tcp = worker_has_tcp(config);
    struct session_room_options room_options = {
        .sessions_max = sessions_max,
        .h2_sessions_max = worker_has_h2(config) ? sessions_max : 0,
        .tcp_max = has_tcp ? net_options.conns_max : 0,
        .wires_max = worker_has_tls(config) ? net_options.conns_max : 0,
        .handshakes_max = config->max_handshakes,
        .ktls = options->ktls,
        .exchanges_max = exchanges_max,
        .streams_more = more,
        .h2_memory_max = WORKER_H2_MEMORY};
    worker_limits(config, &room_options.max_header_size, &room_options.max_headers);
    error = session_room_init(&worker->room, &worker->net, &room_options);
    if (error < 0) return error;
    error = worker_make_services(worker);
    if (error < 0) return error;
    struct proxy_options proxy_options = {.config = config,
                                          .worker = worker->index,
                                          .net = &worker->net,
                                          .room = &worker->room,
                                          .client_ops = &session_h1,
                                          .upstream_ops = &session_h1,
                                          .h2_ops = &session_h2,
                                          .tcp_ops = &session_tcp,
                                          .services = worker->services,
                                          .admin = options->admin,
                                          .idle_max = worker_share(worker, options->files->idle),
                                          .exchanges_max = exchanges_max,
                                          .relays_max = has_tcp ? worker->clients_max : 0};
    wheel_timer_init(&worker->drain_timer, worker_on_drain_timeout);
    error = proxy_init(&worker->proxy, &proxy_options);
    return error == 0 ? worker_make_seats(worker) : error;
}

/* What clients may choose by ALPN (RFC 7301); who chooses nothing gets what the listener speaks. */
static const struct {
    struct bytes name;
    const struct session_ops *ops;
} worker_protocols[] = {
    {BYTES("h2"), &session_h2},
    {BYTES("http/1.1"), &session_h1},
};

static const struct session_ops *worker_choose(const struct front *front, const struct conn *conn) {
    struct bytes chosen = wire_alpn(conn);
    if (chosen.len == 0 || front->config->mode == CONFIG_MODE_TCP) return front->session_ops;
    for (size_t i = 0; i < sizeof worker_protocols / sizeof worker_protocols[0]; i++) {
        if (bytes_equal(chosen, worker_protocols[i].name)) return worker_protocols[i].ops;
    }
    return front->session_ops;
}

/* For log_level = debug. */
static void worker_log_client(const struct front *front, struct session *session) {
    char memory[512];
    struct writer secured = writer_make(memory, sizeof memory);
    const struct tls *tls = wire_tls(session->conn);
    if (tls) tls_describe(tls, &secured);
    struct bytes client = session_client_ip(session);
    log_debug("listener %s: client %.*s port %u: connected, %s%.*s", front->config->name,
              BYTES_FMT(client), session->client_port, session->ops->proto,
              BYTES_FMT(writer_bytes(&secured)));
}

static void worker_begin_session(void *user, struct conn *conn) {
    struct worker_listener *from = user;
    struct front *front = from->front;
    stat_bump(&from->accepted, 1);
    struct session *session =
        worker_choose(front, conn)->accept(&from->worker->room, conn, &front->options, front->host);
    if (session) {
        session->user = front;
        if (log_is_on(LOG_DEBUG)) worker_log_client(front, session);
        return;
    }
    stat_bump(&from->worker->stats.rejected[REASON_NO_MEMORY], 1);
    conn_reset(conn);
}

/* The connection begins, or has been told by a PROXY header whose it is. A handshake is work that
 * is done, and a place that is held, for somebody: it counts. */
static void worker_secure(void *user, struct conn *conn) {
    struct worker_listener *from = user;
    if (!listener_admit(conn)) return;
    if (from->front->options.tls) {
        wire_enter(&from->worker->room.wires, conn, &from->wire);
    } else {
        worker_begin_session(from, conn);
    }
}

static void worker_on_conn(void *user, struct conn *conn) {
    struct worker_listener *from = user;
    if (from->gate.versions != 0) {
        pp_gate_enter(&from->worker->gates, conn, &from->gate);
    } else {
        worker_secure(from, conn);
    }
}

static void worker_on_refused(void *user, struct conn *conn, enum reason reason) {
    struct worker_listener *from = user;
    const struct session_ops *ops = from->front->session_ops;
    /* Before a handshake nothing in clear is understood, but by who speaks in clear. */
    bool is_secret = from->front->options.tls && reason != REASON_TLS_PLAIN_HTTP;
    if (ops->refuse && !is_secret) {
        ops->refuse(&from->worker->room, conn, reason);
    } else {
        conn_reset(conn);
    }
}

static int worker_open(struct worker *worker, const struct config_listener *config,
                       const struct config_address *address, int shared_fd) {
    struct listener_options options = {.address = (const struct sockaddr *)&address->storage,
                                       .address_size = address->size,
                                       .address_text = address->text,
                                       .backlog = config->backlog,
                                       .nodelay = config->nodelay,
                                       .ttl = config->ttl,
                                       .recv_buffer = config->recv_buffer,
                                       .send_buffer = config->send_buffer,
                                       .exclusive = shared_fd < 0};
    /* Unix sockets have no SO_REUSEPORT: the workers share one. */
    bool share = address->storage.ss_family == AF_UNIX && shared_fd >= 0;
    int fd = share ? dup(shared_fd) : listener_open(&options);
    if (fd < 0) return share ? -errno : fd;
    struct worker_listener *to = &worker->listeners[worker->opened];
    to->worker = worker;
    to->front = &worker->proxy.fronts[config->index];
    to->gate = (struct pp_gate_options){.versions = config->proxy_protocol,
                                        .timeout_ms = config->limits.timeout_handshake_ms,
                                        .trusted = config->trusted,
                                        .on_conn = worker_secure,
                                        .user = to};
    to->wire = (struct wire_gate){
        .options = &to->front->options, .on_conn = worker_begin_session, .user = to};
    to->fd = fd;
    to->listener =
        (struct listener){.slot = worker->opened,
                          .address_text = address->text,
                          .quotas = {config->is_admin ? &worker->admins : &worker->clients},
                          .refusals = &worker->refusals,
                          .limit = worker->limits[config->index],
                          .backlog = config->backlog,
                          .file_max = worker->file_max,
                          .on_conn = worker_on_conn,
                          .on_refused = worker_on_refused,
                          .user = to};
    if (config->max_connections != 0) to->listener.quotas[1] = &worker->own_quotas[config->index];
    worker->opened++;
    return 0;
}

int worker_open_listeners(struct worker *worker, const struct worker *first,
                          const struct config_address **failed) {
    const struct config *config = worker->config;
    uint32_t count = 0;
    for (uint32_t i = 0; i < config->listener_count; i++)
        count += config->listeners[i].bind_count;
    worker->listeners = calloc(count + 1, sizeof *worker->listeners);
    if (!worker->listeners) return -ENOMEM;
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        if (listener->is_admin && worker != first) continue;
        for (uint32_t j = 0; j < listener->bind_count; j++) {
            int shared_fd = worker == first ? -1 : first->listeners[worker->opened].fd;
            int error = worker_open(worker, listener, &listener->binds[j], shared_fd);
            if (error < 0) {
                *failed = &listener->binds[j];
                return error;
            }
        }
    }
    return 0;
}

static void worker_set_state(struct worker *worker, enum worker_state state) {
    __atomic_store_n(&worker->state, state, __ATOMIC_RELEASE);
}

static bool worker_is_admin(const struct worker_listener *listener) {
    return listener->front->config->is_admin;
}

static void worker_for_listeners(struct worker *worker, bool admin,
                                 void (*act)(struct listener *)) {
    for (uint32_t i = 0; i < worker->opened; i++) {
        if (worker_is_admin(&worker->listeners[i]) == admin) act(&worker->listeners[i].listener);
    }
}

/* Ends what is left, and again later: a client that does not read leaves its 503 unsent. */
static void worker_cut(struct worker *worker) {
    if (worker->state != WORKER_DRAINING) return;
    worker_for_listeners(worker, false, listener_stop);
    worker->proxy.cut += conn_close_finishing(&worker->net);
    pp_gate_cut(&worker->gates);
    worker->proxy.cut += session_room_cut(&worker->room);
    wheel_arm(&worker->net.wheel, &worker->drain_timer, worker->net.now_ms + WORKER_CUT_MS);
}

static void worker_on_drain_timeout(struct wheel_timer *timer, uint64_t now_ms) {
    (void)now_ms;
    worker_cut(LIST_OWNER(timer, struct worker, drain_timer));
}

static void worker_drain(struct worker *worker) {
    if (worker->state != WORKER_RUNNING) return;
    worker_set_state(worker, WORKER_DRAINING);
    worker_for_listeners(worker, false, listener_drain);
    pp_gate_drain(&worker->gates);
    session_room_drain(&worker->room);
    proxy_drain(&worker->proxy);
    wheel_arm(&worker->net.wheel, &worker->drain_timer,
              worker->net.now_ms + worker->config->drain_timeout_ms);
}

static void worker_on_mail(void *owner, const struct ring_completion *completion) {
    struct worker *worker = owner;
    switch ((enum mail_subject)completion->token.slot) {
    case MAIL_DRAIN:
        worker_drain(worker);
        return;
    case MAIL_CUT:
        worker_drain(worker);
        worker_cut(worker);
        return;
    case MAIL_TLS:
        tls_seats_take(worker->seats, worker->seat_count);
        return;
    case MAIL_END:
        CHECK(worker->state == WORKER_DRAINED);
        worker_set_state(worker, WORKER_ENDED);
        worker_for_listeners(worker, true, listener_stop);
        (void)session_room_cut(&worker->room); /* the admin's are not counted */
        conn_close_all(&worker->net);
        return;
    }
}

/* No client of any listener but the admin's is left, none can come, and servers have what clients
 * sent. */
static bool worker_clients_gone(const struct worker *worker) {
    if (worker->room.tcp.used != 0) return false;
    for (uint32_t i = 0; i < worker->opened; i++) {
        const struct worker_listener *listener = &worker->listeners[i];
        if (worker_is_admin(listener)) continue;
        const struct listener *clients = &listener->listener;
        if (!clients->stopped || clients->conns != 0 || clients->refused != 0) return false;
    }
    /* The end of a tunnel, after an upgrade. */
    return worker->net.dialled_finishing == 0;
}

static bool worker_all_gone(const struct worker *worker) {
    const struct net *net = &worker->net;
    return net->conns.used == 0 && session_room_used(&worker->room) == 0 &&
           net->ring.ops_in_flight == 0;
}

static int worker_begin_heap(struct worker *worker) {
    uint32_t arena = HEAP_NO_ARENA;
    int error = heap_begin_arena(&arena);
    __atomic_store_n(&worker->arena, arena, __ATOMIC_RELAXED);
    worker->heap_allocated = heap_thread_allocated();
    return error;
}

static int worker_start(struct worker *worker) {
    if (worker->cpu >= 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET((size_t)worker->cpu, &cpus);
        int error = pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
        if (error != 0)
            log_warn("worker %u: cannot run on CPU %d alone: %s", worker->index, worker->cpu,
                     strerror(error));
    }
    int error = worker_begin_heap(worker);
    if (error == 0) error = net_start(&worker->net);
    if (error < 0) return error;
    for (uint32_t i = 0; i < worker->opened; i++) {
        listener_start(&worker->listeners[i].listener, &worker->net, worker->listeners[i].fd);
    }
    return 0;
}

static int worker_turn(struct worker *worker) {
    int error = net_turn(&worker->net);
    if (net_is_spent(&worker->net)) session_room_relieve(&worker->room);
    if (worker->heap_allocated)
        stat_set(&worker->stats, STAT_HEAP_ALLOCATED, *worker->heap_allocated);
    if (worker->state == WORKER_DRAINING && worker_clients_gone(worker)) {
        wheel_disarm(&worker->net.wheel, &worker->drain_timer);
        __atomic_store_n(&worker->cut, worker->proxy.cut, __ATOMIC_RELAXED);
        worker_set_state(worker, WORKER_DRAINED);
    }
    return error;
}

void *worker_run(void *argument) {
    struct worker *worker = argument;
    int error = worker_start(worker);
    if (error == 0) worker_set_state(worker, WORKER_RUNNING);
    while (error == 0 && !(worker->state == WORKER_ENDED && worker_all_gone(worker)))
        error = worker_turn(worker);
    if (error < 0) {
        worker->error = error;
        worker_set_state(worker, WORKER_FAILED);
    }
    return NULL;
}

void worker_fini(struct worker *worker) {
    proxy_fini(&worker->proxy);
    worker_free_seats(worker);
    worker_free_services(worker);
    pp_gate_room_fini(&worker->gates);
    session_room_fini(&worker->room);
    net_fini(&worker->net);
    tls_library_free(worker->library);
    free(worker->listeners);
    free(worker->own_quotas);
}
