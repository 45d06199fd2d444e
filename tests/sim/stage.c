#include "sim/stage.h"

#include "base/check.h"
#include "base/log.h"
#include "control/worker.h"
#include "ring/mail.h"
#include "sim/actors.h"
#include "sim/frames.h"
#include "sim/tls_end.h"
#include "sim/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HTTP_PORT 8080
#define TCP_PORT 8081
#define ECHO_PORT 8082
#define HTTP_SERVERS 9001 /* their first port */
#define TCP_SERVERS 9101
#define SERVERS_MAX 3
#define TLS_ONE_IN 3    /* runs that have it on some side */
#define RENEWS_ONE_IN 4 /* of them: whose certificates are changed */
#define RENEWALS_MAX 4
/* weir's timeouts of a run, in its configuration; the longest of a request's is their sum. On one
 * connection of HTTP/2 many wait for each other, most of all on a slow network. */
#define TIMEOUT_MS 3000
#define TIMEOUT_H2_MS 12000
#define TIMEOUT_H2_SLOW_MS 40000
#define KEEPALIVE_MS 4000
#define DRAIN_MS 5000
/* After the drain: cuts, flushes, lingering. */
#define END_MS 20000

struct stage {
    struct worker *worker;
    struct config *config;
    struct limit *limits[4]; /* by index of the listener */
    struct tls_store tls;
    struct ring mail_ring; /* the main thread's */
    struct stat_block mail_stats;
    bool drain_sent;
    bool end_sent;
    uint64_t drain_ns;
};

static struct stage stage;

static uint64_t timeout_ms(void) { return world.timeout_ns / SIM_MS; }

/* control gives every worker the same sizes; other ones reach other edges. */
int __wrap_net_init(struct net *net, const struct net_options *options, struct stat_block *stats);
int __real_net_init(struct net *net, const struct net_options *options, struct stat_block *stats);
int __wrap_net_init(struct net *net, const struct net_options *options, struct stat_block *stats) {
    static const uint32_t small_sizes[] = {1024, 2048, 4096, 8192};
    bool tls = worker_has_tls(stage.config);
    static const uint32_t bulk_sizes[] = {4096, 65536, 512 * 1024};
    struct net_options sized = *options;
    sized.sq_entries = 4u << sim_below(8);
    sized.small_size = small_sizes[tls ? sim_between(2, 3) : sim_below(4)];
    sized.bulk_size = bulk_sizes[sim_below(3)];
    sized.small_count = sim_one_in(2) ? 4096 : 1024;
    sized.bulk_count = 1u << sim_below(6);
    sized.queue_mark = (uint32_t)sim_between(1, 65536);
    /* Each stream may keep some. */
    if (world.h2_clients || world.h2_servers) {
        sized.small_count = 16000;
        sized.bulk_count = 64;
    }
    if (sim_has(FAULT_FEW_SLOTS)) {
        sized.small_count = (uint32_t)sim_between(4, 60);
        sized.conns_max = (uint32_t)sim_between(3, 30);
    }
    return __real_net_init(net, &sized, stats);
}

static void put_upstream(FILE *file, const char *name, uint32_t servers, unsigned port) {
    static const char *const policies[] = {"round_robin", "least_conn", "p2c",  "random",
                                           "source_ip",   "maglev",     "first"};
    fprintf(file, "[upstream %s]\nbalance = %s\n", name, policies[sim_below(7)]);
    unsigned kept = (unsigned)(sim_one_in(3) ? sim_below(3) : 64);
    if (world.sends_proxy) {
        fprintf(file, "send_proxy = v1\n");
    } else if (strcmp(name, "raw") != 0) { /* its connections are one client's each */
        fprintf(file, "keepalive = %u\n", kept);
    }
    bool tls = world.tls_servers;
    if (strcmp(name, "raw") == 0) tls = world.tls_raw_servers && !world.tls_passes;
    if (tls) fprintf(file, "tls = on\nca = %s\n", tls_site_certificate());
    if (world.servers_limited && sim_one_in(2))
        fprintf(file, "queue = %u\n", (unsigned)sim_between(0, 10));
    for (uint32_t i = 0; i < servers; i++) {
        fprintf(file, "server = 127.0.0.1:%u weight=%u", port + i, (unsigned)sim_between(1, 3));
        if (world.servers_limited)
            fprintf(file, " max_connections=%u", (unsigned)sim_between(1, 4));
        fprintf(file, i != 0 && sim_one_in(5) ? " backup\n" : "\n");
    }
}

/* On which sides TLS is spoken. */
static void choose_tls(void) {
    bool some = sim_one_in(TLS_ONE_IN);
    if (sim.options.tls != SIM_TLS_ANY) some = sim.options.tls == SIM_TLS_ON;
    world.tls_clients = some && !sim_one_in(3);
    world.tls_raw_clients = some && sim_one_in(2);
    world.tls_servers = some && sim_one_in(2);
    world.tls_raw_servers = some && sim_one_in(2);
    world.tls_passes = some && sim_one_in(6);
    if (world.tls_passes) world.tls_raw_clients = world.tls_raw_servers = true;
    bool of_clients = world.tls_clients || (world.tls_raw_clients && !world.tls_passes);
    world.handshakes_limited = of_clients && sim_one_in(4);
}

static void put_tls(FILE *file) {
    static const char *const asks[] = {"", "optional", "require"};
    if (world.tls_passes)
        fprintf(file, "[route names]\nlistener = raw\nsni = sim\nupstream = raw\n");
    if (!world.tls_clients && !world.tls_raw_clients) return;
    fprintf(file, "[tls site]\ncertificate = %s\nkey = %s\nsession_tickets = %s\n",
            tls_site_certificate(), tls_site_key(), sim_one_in(4) ? "off" : "on");
    if (sim_one_in(4)) fprintf(file, "strict_sni = on\n");
    const char *asked = sim_one_in(2) ? "" : asks[sim_below(3)];
    if (*asked) fprintf(file, "client_auth = %s\nca = %s\n", asked, tls_site_certificate());
}

static void put_config(FILE *file, uint32_t servers) {
    world.clients_limited = sim_one_in(4);
    world.servers_limited = sim_one_in(6);
    world.sends_proxy = sim_one_in(4);
    world.takes_proxy = sim_one_in(4);
    world.checks_frames = sim_one_in(2);
    choose_tls();
    const char *raw_tls = world.tls_raw_clients && !world.tls_passes ? "tls = site\n" : "";
    if (world.checks_frames && sim_one_in(2)) world.ping_ns = world.timeout_ns / 4;
    const char *header =
        world.takes_proxy ? "proxy_protocol = any\ntrusted_proxies = 10.0.0.0/16\n" : "";
    fprintf(file,
            "[global]\nworkers = 1\ncpu_affinity = off\nmax_connections = %u\n"
            "drain_timeout = %dms\nmax_handshakes = %u\n",
            world.clients_limited ? (unsigned)sim_between(1, 10) : 1000, DRAIN_MS,
            world.handshakes_limited ? (unsigned)sim_between(1, 4) : 1000);
    unsigned ms = (unsigned)timeout_ms();
    fprintf(file,
            "[defaults]\ntimeout_request = %ums\ntimeout_client = %ums\n"
            "timeout_keepalive = %dms\ntimeout_connect = %ums\ntimeout_server = %ums\n"
            "timeout_tunnel = %ums\ntimeout_queue = %ums\ntimeout_handshake = %ums\n"
            "min_read_rate = %u\n",
            ms, ms, KEEPALIVE_MS, ms, ms, ms, ms, ms, world.h2_clients ? 0 : 500);
    if (world.checks_frames && sim.options.defect != DEFECT_PASS_FRAMES)
        fprintf(file, "websocket = checked\nwebsocket_max_message = %d\nwebsocket_ping = %ums\n",
                FRAMES_MESSAGE_MAX, (unsigned)(world.ping_ns / SIM_MS));
    put_tls(file);
    fprintf(file, "[listener web]\nbind = 127.0.0.1:%d\nupstream = app\nbacklog = %u\n%s%s",
            HTTP_PORT, (unsigned)sim_between(1, 64), header,
            world.tls_clients ? "tls = site\n" : "");
    if (sim_one_in(6)) fprintf(file, "max_connection_rate = %u/s\n", (unsigned)sim_between(5, 500));
    fprintf(file,
            "[listener raw]\nbind = 127.0.0.1:%d\nmode = tcp\nupstream = raw\nbacklog = %u\n%s%s",
            TCP_PORT, (unsigned)sim_between(1, 64), header, raw_tls);
    fprintf(file,
            "[listener echo]\nbind = 127.0.0.1:%d\nmode = tcp\nservice = echo\nbacklog = %u\n%s%s"
            "[service echo]\ntype = echo\n",
            ECHO_PORT, (unsigned)sim_between(1, 64), header, raw_tls);
    fprintf(file, "[route local]\npath = /local/\nrespond = 200 from weir\n");
    fprintf(file, "[route tunnels]\nmethod = CONNECT\nconnect = on\nupstream = app\n");
    put_upstream(file, "app", servers, HTTP_SERVERS);
    if (world.h2_servers) fprintf(file, "protocol = h2\n");
    put_upstream(file, "raw", servers, TCP_SERVERS);
}

static struct config *make_config(uint32_t servers) {
    char path[] = "/tmp/weir-sim-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    FILE *file = fdopen(fd, "w");
    CHECK(file);
    put_config(file, servers);
    fclose(file);
    struct config_errors errors = {0};
    struct config *config = config_load(path, &errors);
    if (errors.text) fprintf(stderr, "%s", errors.text);
    CHECK(errors.count == 0);
    config_errors_fini(&errors);
    unlink(path);
    return config;
}

static void on_mail_sent(void *owner, const struct ring_completion *completion) {
    (void)owner;
    CHECK(completion->result == 0);
}

static void send_mail(enum mail_subject subject) {
    mail_send(&stage.mail_ring, &stage.worker->net.ring, subject, 0);
    CHECK(ring_wait(&stage.mail_ring, 0) == 0);
    ring_run(&stage.mail_ring);
    sim_note("mail", subject, 0, 0);
}

/* What the main thread does: it begins the drain, and ends the worker when it is drained. */
static void on_supervise(void *owner, uint64_t argument) {
    (void)owner;
    (void)argument;
    if (!stage.drain_sent && (world.clients_left == 0 || sim.now_ns >= stage.drain_ns)) {
        stage.drain_sent = true;
        stage.drain_ns = sim.now_ns;
        world.draining = true;
        bool lost = sim.options.defect == DEFECT_LOSE_DRAIN;
        if (!lost) send_mail(MAIL_DRAIN);
        /* As a second signal does. */
        if (!lost && sim_one_in(8)) send_mail(MAIL_CUT);
    }
    if (!stage.end_sent && worker_state(stage.worker) == WORKER_DRAINED) {
        stage.end_sent = true;
        send_mail(MAIL_END);
    }
    if (stage.drain_sent &&
        sim.now_ns > stage.drain_ns + (DRAIN_MS + END_MS + timeout_ms()) * SIM_MS) {
        sim_fail(INVARIANT_TIME, "the worker has not ended %.1f s after the drain began",
                 (double)(sim.now_ns - stage.drain_ns) / 1e9);
    }
    sim_at(sim.now_ns + 20 * SIM_MS, on_supervise, NULL, 0);
}

/* New certificates for what begins from now on, or other keys of tickets. */
static void on_renew(void *owner, uint64_t times_left) {
    (void)owner;
    for (uint32_t i = 0; i < stage.tls.source_count; i++) {
        struct tls_tickets *tickets = stage.tls.sources[i].tickets;
        if (tickets && sim_one_in(2)) CHECK(tls_tickets_rotate(tickets));
    }
    if (sim_one_in(2)) CHECK(tls_store_equip(&stage.tls, stage.worker) == 0);
    sim_note("certificates", (int64_t)times_left, 0, 0);
    if (times_left == 0) return;
    sim_at(sim.now_ns + 10 * SIM_MS + sim_skewed(2 * SIM_SECOND), on_renew, NULL, times_left - 1);
}

static void on_turn(void *owner) { watch_turn(owner); }

/* As the supervisor does. */
static void stage_make_limits(uint32_t clients) {
    for (uint32_t i = 0; i < stage.config->listener_count; i++) {
        struct limit_options options = {.per_second =
                                            stage.config->listeners[i].max_connection_rate,
                                        .connections_max = clients + 1,
                                        .seed = sim_below(UINT64_MAX)};
        if (options.per_second == 0) continue;
        stage.limits[i] = limit_new(&options);
        CHECK(stage.limits[i]);
    }
}

static void stage_build(uint32_t servers) {
    stage.config = make_config(servers);
    stage.worker = aligned_alloc(64, (sizeof *stage.worker + 63) / 64 * 64);
    CHECK(stage.worker);
    memset(stage.worker, 0, sizeof *stage.worker);
    struct descriptors files = descriptors_wanted(stage.config);
    stage_make_limits(files.clients);
    struct worker_options options = {
        .config = stage.config, .files = &files, .limits = stage.limits, .ktls = sim_one_in(2)};
    CHECK(worker_init(stage.worker, &options) == 0);
    CHECK(tls_store_init(&stage.tls, stage.config, &stage.worker) == 0);
    CHECK(tls_store_equip(&stage.tls, stage.worker) == 0);
    const struct config_address *failed;
    CHECK(worker_open_listeners(stage.worker, stage.worker, &failed) == 0);
    struct ring_options ring_options = {8, 64};
    CHECK(ring_init(&stage.mail_ring, &ring_options, &stage.mail_stats) == 0);
    ring_handle(&stage.mail_ring, RING_MAIL_SENT, on_mail_sent, NULL);
    CHECK(ring_enable(&stage.mail_ring) == 0);
}

static void stage_free(void) {
    while (stage.mail_ring.ops_in_flight != 0) {
        sim.now_ns = sim_next_ns();
        sim_run_due();
        CHECK(ring_wait(&stage.mail_ring, 0) == 0);
        ring_run(&stage.mail_ring);
    }
    ring_fini(&stage.mail_ring);
    worker_fini(stage.worker);
    tls_store_fini(&stage.tls);
    free(stage.worker);
    for (uint32_t i = 0; i < stage.config->listener_count; i++)
        limit_free(stage.limits[i]);
    config_free(stage.config);
    stage.worker = NULL;
}

/* Who speaks HTTP/2: nobody, clients, servers, both. */
static void stage_choose_kind(const struct sim_options *options) {
    enum sim_kind kind = (enum sim_kind)(SIM_KIND_H1 + sim_below(4));
    if (options->kind != SIM_KIND_ANY) kind = options->kind;
    world.h2_clients = kind == SIM_KIND_H2_CLIENTS || kind == SIM_KIND_H2;
    world.h2_servers = kind == SIM_KIND_H2_SERVERS || kind == SIM_KIND_H2;
    bool h2 = kind != SIM_KIND_H1;
    bool slow = h2 && sim_has(FAULT_SLOW_NETWORK);
    world.timeout_ns = (slow ? TIMEOUT_H2_SLOW_MS : h2 ? TIMEOUT_H2_MS : TIMEOUT_MS) * SIM_MS;
}

struct stage_result stage_run(const struct sim_options *options) {
    sim_init(options);
    tls_site_begin(options->seed);
    kernel_init();
    plan_init();
    world = (struct world){.http_port = HTTP_PORT, .tcp_port = TCP_PORT, .echo_port = ECHO_PORT};
    watch_h2_begin();
    stage_choose_kind(options);
    stage = (struct stage){0};
    log_set_level(options->verbose ? LOG_DEBUG : LOG_ERROR);
    uint32_t servers = (uint32_t)sim_between(1, SERVERS_MAX);
    for (uint32_t i = 0; i < servers; i++) {
        server_start((uint16_t)(HTTP_SERVERS + i), false);
        server_start((uint16_t)(TCP_SERVERS + i), true);
    }
    stage_build(servers);
    world.client_limit_ns = (timeout_ms() * (8 + 2 * servers) + KEEPALIVE_MS + DRAIN_MS) * SIM_MS;
    uint32_t clients = (uint32_t)sim_between(1, CLIENTS_MAX);
    uint64_t window_ns = sim_skewed(3 * SIM_SECOND);
    for (uint32_t i = 1; i <= clients; i++)
        client_start(i, sim.now_ns + SIM_MS + sim_below(window_ns + 1));
    stage.drain_ns =
        sim_has(FAULT_DRAIN) ? sim.now_ns + 20 * SIM_MS + sim_skewed(4 * SIM_SECOND) : UINT64_MAX;
    sim_at(sim.now_ns + SIM_MS, on_supervise, NULL, 0);
    if (stage.tls.source_count != 0 && sim_one_in(RENEWS_ONE_IN))
        sim_at(sim.now_ns + sim_skewed(SIM_SECOND), on_renew, NULL, RENEWALS_MAX);
    kernel_on_turn(&stage.worker->net.ring, on_turn, stage.worker);
    worker_run(stage.worker);
    CHECK(worker_state(stage.worker) == WORKER_ENDED);
    watch_end(stage.worker);
    stage_free();
    struct stage_result result = {.hash = sim.hash,
                                  .turns = kernel_turns(),
                                  .answers = world.answers,
                                  .errors = world.errors,
                                  .unanswered = world.unanswered,
                                  .notes = sim.notes,
                                  .virtual_seconds =
                                      (double)(sim.now_ns - 1000 * SIM_SECOND) / SIM_SECOND};
    tls_site_end();
    frames_free_all();
    client_free_all();
    server_free_all();
    sim_fini();
    kernel_fini();
    return result;
}
