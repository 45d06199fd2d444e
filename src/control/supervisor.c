#include "control/supervisor.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "control/admin.h"
#include "control/command.h"
#include "control/heap.h"
#include "control/memory.h"
#include "net/ktls.h"
#include "ring/mail.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* How often the main thread looks at draining workers. */
#define SUPERVISOR_POLL_MS 20
/* And at those that serve. */
#define SUPERVISOR_LOOK_MS 1000

struct supervisor {
    const struct config *config;
    struct worker **workers;
    struct admin admin;
    struct tls_store tls;
    struct ring ring; /* to send mail from */
    struct stat_block ring_stats;
    struct descriptors files;
    uint64_t file_max;
    struct limit **limits; /* by index of the listener; NULL: it has none */
    uint32_t started;      /* threads */
    bool ktls;
};

/* Raises RLIMIT_NOFILE to what max_connections needs, or lowers max_connections to what it allows.
 */
static int supervisor_plan_files(struct supervisor *supervisor) {
    const struct config *config = supervisor->config;
    struct descriptors *plan = &supervisor->files;
    unsigned long long wanted = descriptors_wanted(config).sum;
    unsigned long long limit = descriptors_raise(wanted);
    supervisor->file_max = descriptors_file_max();
    if (!descriptors_plan(config, limit, plan)) {
        log_error("RLIMIT_NOFILE allows %llu file descriptors, too few to serve anybody with %u "
                  "workers (raise the hard limit: ulimit -Hn, LimitNOFILE=)",
                  limit, config->workers);
        return -EMFILE;
    }
    if (limit >= wanted) return 0;
    log_warn("max_connections = %u needs %llu file descriptors and RLIMIT_NOFILE allows %llu: "
             "serving %u connections at most, keeping %u idle ones to servers (raise the hard "
             "limit: ulimit -Hn, LimitNOFILE=)",
             config->max_connections, wanted, limit, plan->clients, plan->idle);
    return 0;
}

static void supervisor_warn_of_share(const char *whose, const char *name, uint32_t limit,
                                     uint32_t workers) {
    if (limit == 0 || limit >= workers) return;
    log_warn("%s %s: max_connections = %u is less than there are workers: each of the %u may have "
             "one (set workers, or a larger limit)",
             whose, name, limit, workers);
}

/* A worker has at least one of everything: a limit may be too small to be divided. */
static void supervisor_warn_of_shares(const struct config *config) {
    uint32_t workers = config->workers;
    supervisor_warn_of_share("all", "listeners", config->max_connections, workers);
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        supervisor_warn_of_share("listener", listener->name, listener->max_connections, workers);
    }
    for (uint32_t i = 0; i < config->upstream_count; i++) {
        const struct config_upstream *upstream = &config->upstreams[i];
        for (uint32_t j = 0; j < upstream->server_count; j++) {
            const struct config_server *server = &upstream->servers[j];
            supervisor_warn_of_share("server", server->name, server->max_connections, workers);
        }
    }
}

/* What the workers count together, one for each listener that asks for it. */
static int supervisor_make_limits(struct supervisor *supervisor) {
    const struct config *config = supervisor->config;
    supervisor->limits = calloc(config->listener_count + 1, sizeof(struct limit *));
    if (!supervisor->limits) return -ENOMEM;
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        if (listener->max_connection_rate == 0 && listener->max_connections_per_ip == 0) continue;
        struct limit_options options = {.per_second = listener->max_connection_rate,
                                        .per_ip = listener->max_connections_per_ip,
                                        /* A worker has at least one, whatever its share. */
                                        .connections_max =
                                            supervisor->files.clients + config->workers,
                                        .seed = clock_now_ns() ^ (uint64_t)(uintptr_t)listener};
        supervisor->limits[i] = limit_new(&options);
        if (!supervisor->limits[i]) return -ENOMEM;
    }
    return 0;
}

static void supervisor_free_limits(struct supervisor *supervisor) {
    for (uint32_t i = 0; i < supervisor->config->listener_count; i++)
        limit_free(supervisor->limits[i]);
    free(supervisor->limits);
}

static int supervisor_probe(struct supervisor *supervisor) {
    struct ring_features features;
    int error = ring_probe(&features);
    if (error < 0) {
        char text[512];
        ring_explain_error(error, text, sizeof text);
        log_error("%s", text);
        return error;
    }
    log_info(
        "kernel %s: io_uring with single issuer and deferred task work; min wait %s, no iowait %s",
        features.kernel, features.min_wait ? "yes" : "no", features.no_iowait ? "yes" : "no");
    if (!worker_has_tls(supervisor->config)) return 0;
    supervisor->ktls = ktls_probe();
    log_info("kernel %s: kTLS %s", features.kernel,
             supervisor->ktls ? "yes, long bodies and streams over TLS are spliced"
                              : "no, what is sent over TLS is copied");
    return 0;
}

/* Who asked for another user believes that weir has few rights. */
static void supervisor_warn_of_user(const char *user) {
    const struct passwd *wanted = getpwnam(user);
    if (wanted && wanted->pw_uid == geteuid()) return;
    const struct passwd *own = getpwuid(geteuid());
    log_warn("global.user: not started by root, so it stays %s, not %s",
             own ? own->pw_name : "who it is", user);
}

/* What was asked for is there, and there is no way back: not where securebits (capabilities(7))
 * have kept what root may. */
static int supervisor_check_user(uid_t user, gid_t group) {
    uid_t users[3];
    gid_t groups[3];
    bool is_changed = getresuid(&users[0], &users[1], &users[2]) == 0 &&
                      getresgid(&groups[0], &groups[1], &groups[2]) == 0;
    for (int i = 0; is_changed && i < 3; i++)
        is_changed = users[i] == user && groups[i] == group;
    if (is_changed && (user == 0 || setuid(0) < 0)) return 0;
    log_error("global.user: the rights of root are still there after the change");
    return -EPERM;
}

static int supervisor_drop_privileges(const char *user) {
    if (!user) return 0;
    if (geteuid() != 0) {
        supervisor_warn_of_user(user);
        return 0;
    }
    const struct passwd *entry = getpwnam(user);
    if (!entry) {
        log_error("global.user: no user \"%s\"", user);
        return -ENOENT;
    }
    bool has_changed = setgid(entry->pw_gid) == 0 && initgroups(user, entry->pw_gid) == 0 &&
                       setuid(entry->pw_uid) == 0;
    if (!has_changed) {
        int error = errno;
        log_error("global.user: cannot become %s: %s%s", user, strerror(error),
                  error == EPERM ? " (it takes CAP_SETUID and CAP_SETGID)" : "");
        return -error;
    }
    return supervisor_check_user(entry->pw_uid, entry->pw_gid);
}

/* Where the first port is that everybody may have (ip-sysctl.rst). */
static unsigned supervisor_free_port(void) {
    unsigned port = 1024;
    FILE *stream = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "re");
    if (!stream) return port;
    if (fscanf(stream, "%u", &port) != 1) port = 1024;
    (void)fclose(stream); /* nothing was written */
    return port;
}

static bool supervisor_has_socket(const struct config_address *address) {
    const struct sockaddr_un *path = (const void *)&address->storage;
    struct stat status;
    return lstat(path->sun_path, &status) == 0 && S_ISSOCK(status.st_mode);
}

void supervisor_explain_bind(const struct config_address *address, int error, char *text,
                             size_t size) {
    bool is_unix = address->storage.ss_family == AF_UNIX;
    char hint[160] = "";
    if (error == -EADDRINUSE && is_unix && !supervisor_has_socket(address)) {
        (void)snprintf(hint, sizeof hint, " (a file that is no socket is there)");
    } else if (error == -EADDRINUSE) {
        (void)snprintf(hint, sizeof hint, " (does another weir, or somebody else, serve it?)");
    } else if (error == -ENOENT) {
        (void)snprintf(hint, sizeof hint, " (its folder must be made first)");
    } else if (error == -EACCES && is_unix) {
        (void)snprintf(hint, sizeof hint, " (its folder must be writable for who starts weir)");
    } else if (error == -EACCES) {
        (void)snprintf(hint, sizeof hint,
                       " (ports below %u are for root and CAP_NET_BIND_SERVICE, or lower "
                       "net.ipv4.ip_unprivileged_port_start)",
                       supervisor_free_port());
    } else if (error == -EAFNOSUPPORT || error == -EADDRNOTAVAIL) {
        (void)snprintf(hint, sizeof hint, " (no interface of this system has it)");
    }
    (void)snprintf(text, size, "%s%s", strerror(-error), hint); /* cut is fine */
}

static int supervisor_prepare_worker(struct supervisor *supervisor, uint32_t index) {
    const struct config *config = supervisor->config;
    struct worker *worker = aligned_alloc(_Alignof(struct worker), sizeof *worker);
    if (!worker) return -ENOMEM;
    memset(worker, 0, sizeof *worker);
    supervisor->workers[index] = worker;
    struct worker_options options = {.config = config,
                                     .index = index,
                                     .files = &supervisor->files,
                                     .file_max = supervisor->file_max,
                                     .limits = supervisor->limits,
                                     .ktls = supervisor->ktls,
                                     .admin = index == 0 ? &supervisor->admin.service : NULL};
    int error = worker_init(worker, &options);
    if (error < 0) {
        char text[512];
        ring_explain_error(error, text, sizeof text);
        log_error("worker %u: %s", index, text);
        return error;
    }
    error = tls_store_equip(&supervisor->tls, worker);
    if (error < 0) return error;
    const struct config_address *failed = NULL;
    error = worker_open_listeners(worker, supervisor->workers[0], &failed);
    if (error >= 0) return error;
    char why[256] = "no memory";
    if (failed) supervisor_explain_bind(failed, error, why, sizeof why);
    log_error("cannot listen on %s: %s", failed ? failed->text : "any address", why);
    return error;
}

static const char *supervisor_target(const struct config_listener *listener) {
    if (listener->is_admin) return "metrics, health";
    switch (listener->action.kind) {
    case CONFIG_ACTION_UPSTREAM:
        return listener->action.splits[0].upstream->name;
    case CONFIG_ACTION_SERVICE:
        return listener->action.service->name;
    case CONFIG_ACTION_NONE:
    case CONFIG_ACTION_REDIRECT:
    case CONFIG_ACTION_RESPOND:
        break;
    }
    return "routes";
}

/* Where curl would find the first listener that speaks HTTP. */
static void supervisor_print_listeners(const struct config *config) {
    const struct config_address *first = NULL;
    /* A certificate is hardly ever for the address. */
    const char *begin = "-i http";
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        for (uint32_t j = 0; j < listener->bind_count; j++) {
            bool is_tcp = listener->mode == CONFIG_MODE_TCP;
            const char *kind = listener->tls ? is_tcp ? " (tls, tcp)" : " (tls)"
                               : is_tcp      ? " (tcp)"
                                             : "";
            log_info("listener %s on %s -> %s%s", listener->name, listener->binds[j].text,
                     supervisor_target(listener), kind);
            /* curl sends no PROXY header of its own accord. */
            bool is_plain = listener->proxy_protocol == 0 && !listener->is_admin;
            bool is_tried = !first && !is_tcp && is_plain;
            if (!is_tried || listener->binds[j].storage.ss_family == AF_UNIX) continue;
            first = &listener->binds[j];
            if (listener->tls) begin = "-ik https";
        }
    }
    if (!first) return;
    const char *port = strrchr(first->text, ':');
    bool any_v6 = strncmp(first->text, "[::]:", 5) == 0; /* which leaves IPv4 alone */
    bool any = any_v6 || strncmp(first->text, "0.0.0.0:", 8) == 0;
    if (any && port) {
        log_info("try: curl %s://%s%s/", begin, any_v6 ? "[::1]" : "127.0.0.1", port);
    } else {
        log_info("try: curl %s://%s/", begin, first->text);
    }
}

/* The next signal, 0 after `wait_ms` (negative: for ever). */
static int supervisor_signal(const sigset_t *signals, int wait_ms) {
    struct timespec wait = {.tv_sec = wait_ms / 1000, .tv_nsec = wait_ms % 1000 * 1000000L};
    int signal = wait_ms < 0 ? sigwaitinfo(signals, NULL) : sigtimedwait(signals, NULL, &wait);
    return signal > 0 ? signal : 0;
}

static int supervisor_start_threads(struct supervisor *supervisor) {
    for (uint32_t i = 0; i < supervisor->config->workers; i++) {
        struct worker *worker = supervisor->workers[i];
        int error = pthread_create(&worker->thread, NULL, worker_run, worker);
        if (error != 0) {
            log_error("cannot start worker %u: %s", i, strerror(error));
            return -error;
        }
        supervisor->started++;
    }
    sigset_t nothing;
    sigemptyset(&nothing); /* only to wait */
    for (uint32_t i = 0; i < supervisor->started; i++) {
        struct worker *worker = supervisor->workers[i];
        while (worker_state(worker) == WORKER_STARTING)
            (void)supervisor_signal(&nothing, 1);
        if (worker_state(worker) != WORKER_FAILED) continue;
        char text[512];
        ring_explain_error(worker->error, text, sizeof text);
        log_error("worker %u: %s", i, text);
        return worker->error;
    }
    return 0;
}

static void supervisor_mail(struct supervisor *supervisor, enum mail_subject subject) {
    for (uint32_t i = 0; i < supervisor->started; i++) {
        enum worker_state state = worker_state(supervisor->workers[i]);
        if (state == WORKER_ENDED || state == WORKER_FAILED) continue;
        mail_send(&supervisor->ring, &supervisor->workers[i]->net.ring, subject, 0);
    }
    int error = ring_wait(&supervisor->ring, 0);
    if (error < 0) log_error("cannot reach the workers: %s", strerror(-error));
    (void)ring_run(&supervisor->ring); /* the completions of the mail */
}

static bool supervisor_any_in(const struct supervisor *supervisor, enum worker_state state) {
    for (uint32_t i = 0; i < supervisor->started; i++) {
        if (worker_state(supervisor->workers[i]) == state) return true;
    }
    return false;
}

static bool supervisor_is_end(int signal) {
    return signal == SIGTERM || signal == SIGINT || signal == SIGQUIT;
}

/* Signals that scripts for nginx and HAProxy send: unhandled they would end the process at once. */
static void supervisor_refuse_signal(int signal) {
    if (signal == SIGHUP)
        log_warn("SIGHUP: this version cannot reload; restart to read the configuration again");
    if (signal == SIGUSR1 || signal == SIGUSR2)
        log_warn("%s: means nothing to weir; SIGTERM drains and ends it",
                 signal == SIGUSR1 ? "SIGUSR1" : "SIGUSR2");
}

/* Waits for the signal that ends the process; false when a worker failed. */
static bool supervisor_serve(struct supervisor *supervisor, const sigset_t *signals) {
    for (;;) {
        uint64_t wait_ms = SUPERVISOR_LOOK_MS;
        if (tls_store_tick(&supervisor->tls, clock_ms(clock_now_ns()), &wait_ms)) {
            supervisor_mail(supervisor, MAIL_TLS);
            tls_store_count_told(&supervisor->tls);
        }
        for (uint32_t i = 0; i < supervisor->started; i++)
            heap_trim(__atomic_load_n(&supervisor->workers[i]->arena, __ATOMIC_RELAXED));
        int signal = supervisor_signal(signals, (int)wait_ms);
        if (supervisor_is_end(signal)) return true;
        supervisor_refuse_signal(signal);
        if (supervisor_any_in(supervisor, WORKER_FAILED)) {
            log_error("a worker has failed");
            return false;
        }
    }
}

/* While they still listen: as soon as they do not, a successor may have its own sockets there. */
static void supervisor_remove_sockets(const struct config *config, bool admin) {
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        if (listener->is_admin != admin) continue;
        for (uint32_t j = 0; j < listener->bind_count; j++) {
            const void *address = &listener->binds[j].storage;
            const struct sockaddr_un *path = address;
            if (path->sun_family == AF_UNIX)
                (void)unlink(path->sun_path); /* the next to bind there does it again */
        }
    }
}

/* Lets requests in flight finish; a second signal cuts them. */
static void supervisor_drain(struct supervisor *supervisor, const sigset_t *signals) {
    log_info("draining: no new connections; requests in flight have %llu ms",
             (unsigned long long)supervisor->config->drain_timeout_ms);
    supervisor_remove_sockets(supervisor->config, false);
    supervisor_mail(supervisor, MAIL_DRAIN);
    while (supervisor_any_in(supervisor, WORKER_RUNNING) ||
           supervisor_any_in(supervisor, WORKER_DRAINING)) {
        if (!supervisor_is_end(supervisor_signal(signals, SUPERVISOR_POLL_MS))) continue;
        log_info("second signal: ending now");
        supervisor_mail(supervisor, MAIL_CUT);
    }
    uint64_t cut = 0;
    for (uint32_t i = 0; i < supervisor->started; i++) {
        cut += __atomic_load_n(&supervisor->workers[i]->cut, __ATOMIC_RELAXED);
    }
    log_info("drained: %llu requests were cut", (unsigned long long)cut);
}

static void on_mail_sent(void *owner, const struct ring_completion *completion) {
    (void)owner;
    /* The worker's ring cannot be gone: it ends only by mail, or has failed and will be seen. */
    if (completion->result < 0) log_error("mail to a worker: %s", strerror(-completion->result));
}

static int supervisor_prepare(struct supervisor *supervisor) {
    const struct config *config = supervisor->config;
    int error = supervisor_probe(supervisor);
    if (error < 0) return error;
    error = supervisor_plan_files(supervisor);
    if (error == 0) error = supervisor_make_limits(supervisor);
    if (error < 0) return error;
    supervisor_warn_of_shares(config);
    struct ring_options options = {.sq_entries = 64, .cq_entries = 128};
    error = ring_init(&supervisor->ring, &options, &supervisor->ring_stats);
    if (error == 0) error = ring_enable(&supervisor->ring);
    if (error < 0) return error;
    ring_handle(&supervisor->ring, RING_MAIL_SENT, on_mail_sent, NULL);
    supervisor->workers = calloc(config->workers, sizeof(struct worker *));
    if (!supervisor->workers) return -ENOMEM;
    admin_init(&supervisor->admin, config, supervisor->workers, &supervisor->tls);
    error = tls_store_init(&supervisor->tls, config, supervisor->workers);
    for (uint32_t i = 0; error == 0 && i < config->workers; i++)
        error = supervisor_prepare_worker(supervisor, i);
    if (error == 0) error = supervisor_drop_privileges(config->user);
    if (error == 0) tls_store_check_rights(&supervisor->tls);
    return error;
}

static bool supervisor_serve_and_end(struct supervisor *supervisor, const sigset_t *signals) {
    bool served = supervisor_serve(supervisor, signals);
    if (!served)
        return false; /* the workers' rings are not to be trusted: the process ends as it is */
    supervisor_drain(supervisor, signals);
    supervisor_remove_sockets(supervisor->config, true);
    supervisor_mail(supervisor, MAIL_END);
    for (uint32_t i = 0; i < supervisor->started; i++) {
        (void)pthread_join(supervisor->workers[i]->thread, NULL); /* EINVAL, ESRCH: cannot be */
    }
    for (uint32_t i = 0; i < supervisor->config->workers; i++) {
        worker_fini(supervisor->workers[i]);
        free(supervisor->workers[i]);
    }
    tls_store_fini(&supervisor->tls);
    supervisor_free_limits(supervisor);
    ring_fini(&supervisor->ring);
    free(supervisor->workers);
    return true;
}

static bool supervisor_work(struct supervisor *supervisor, const sigset_t *signals) {
    const struct config *config = supervisor->config;
    supervisor_print_listeners(config);
    if (supervisor_start_threads(supervisor) < 0) return false;
    memory_print_budget(supervisor->workers[0], config->workers);
    log_info("ready: %u worker%s", config->workers, config->workers == 1 ? "" : "s");
    return supervisor_serve_and_end(supervisor, signals);
}

int supervisor_run(const struct config *config) {
    static struct supervisor supervisor;
    supervisor.config = config;
    log_set_level(config->log_level);
    /* Blocked in all threads (they inherit it); taken by sigwaitinfo(2) here. */
    static const int taken[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2};
    sigset_t signals;
    sigemptyset(&signals);
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++)
        sigaddset(&signals, taken[i]);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL); /* a valid set */
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &ignore, NULL); /* a valid signal */
    int error = supervisor_prepare(&supervisor);
    if (error < 0) {
        bool no_ring = error == -ENOSYS || error == -EPERM || error == -EINVAL;
        return no_ring && !supervisor.workers ? SUPERVISOR_EXIT_NO_RING : SUPERVISOR_EXIT_FAILED;
    }
    /* From here on nobody waits for whoever reads the log. */
    error = log_start();
    if (error < 0) {
        log_error("cannot start the thread of the log: %s", strerror(-error));
        return SUPERVISOR_EXIT_FAILED;
    }
    bool has_served = supervisor_work(&supervisor, &signals);
    log_stop();
    return has_served ? 0 : SUPERVISOR_EXIT_FAILED;
}
