#include "control/command.h"
#include "control/descriptors.h"
#include "control/supervisor.h"
#include "control/tls_check.h"
#include "control/tls_files.h"
#include "control/worker.h"
#include "net/ktls.h"
#include "net/pipe.h"
#include "ring/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define KERNEL_MAJOR 6 /* DESIGN: what the ring needs came with 6.1 */
#define KERNEL_MINOR 1
#define MEMLOCK_MIN 65536

enum verdict { VERDICT_OK, VERDICT_WARN, VERDICT_FAIL };

struct doctor {
    const struct config *config; /* NULL: it has errors */
    uint32_t failures;
};

/* One line: verdict, what, and after a colon what it is and how to mend it. */
static void say(struct doctor *doctor, enum verdict verdict, const char *what, const char *format,
                ...) __attribute__((format(printf, 4, 5)));

static void say(struct doctor *doctor, enum verdict verdict, const char *what, const char *format,
                ...) {
    static const char *const words[] = {"ok", "warn", "fail"};
    printf("%-4s  %s: ", words[verdict], what);
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    if (verdict == VERDICT_FAIL) doctor->failures++;
}

/* Up to two numbers of a file in /proc/sys; returns how many there are. */
static int read_numbers(const char *file, uint64_t *first, uint64_t *second) {
    FILE *stream = fopen(file, "re");
    if (!stream) return 0;
    int count = fscanf(stream, "%" SCNu64 " %" SCNu64, first, second);
    (void)fclose(stream); /* nothing was written */
    return count < 0 ? 0 : count;
}

static bool read_number(const char *file, uint64_t *number) {
    uint64_t unused;
    return read_numbers(file, number, &unused) >= 1;
}

static void check_ring(struct doctor *doctor) {
    struct ring_features features;
    int error = ring_probe(&features);
    unsigned major = 0;
    unsigned minor = 0;
    /* The start of uname -r, "6.1.0-18-amd64"; what follows is the distribution's. */
    bool is_read = sscanf(features.kernel, "%u.%u", &major, &minor) == 2;
    bool is_new = major > KERNEL_MAJOR || (major == KERNEL_MAJOR && minor >= KERNEL_MINOR);
    if (is_read && is_new) {
        say(doctor, VERDICT_OK, "kernel", "%s", features.kernel);
    } else {
        say(doctor, VERDICT_FAIL, "kernel", "%s is older than %d.%d: install a newer one",
            features.kernel, KERNEL_MAJOR, KERNEL_MINOR);
    }
    uint64_t disabled = 0;
    if (read_number("/proc/sys/kernel/io_uring_disabled", &disabled) && disabled != 0) {
        /* 1 forbids it to processes without CAP_SYS_ADMIN that are not in io_uring_group
         * (sysctl/kernel.rst). */
        say(doctor, error == 0 ? VERDICT_WARN : VERDICT_FAIL, "kernel.io_uring_disabled",
            "%" PRIu64 ": sysctl -w kernel.io_uring_disabled=0", disabled);
    } else {
        say(doctor, VERDICT_OK, "kernel.io_uring_disabled", "0");
    }
    if (error == 0) {
        say(doctor, VERDICT_OK, "io_uring", "a ring can be made");
        return;
    }
    char text[512];
    ring_explain_error(error, text, sizeof text);
    say(doctor, VERDICT_FAIL, "io_uring", "%s", text);
}

static void check_descriptors(struct doctor *doctor) {
    uint64_t needed = descriptors_wanted(doctor->config).sum;
    struct rlimit limit = {0};
    /* Fails for a bad pointer or a bad name only (getrlimit(2)). */
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max >= needed || descriptors_can_raise(needed)) {
        say(doctor, VERDICT_OK, "RLIMIT_NOFILE", "%" PRIu64 " needed, %s", needed,
            limit.rlim_max >= needed ? "within the hard limit" : "the limit can be raised");
    } else {
        struct descriptors plan;
        bool serves = descriptors_plan(doctor->config, limit.rlim_max, &plan);
        say(doctor, VERDICT_FAIL, "RLIMIT_NOFILE",
            "%" PRIu64 " needed, %" PRIu64 " allowed, enough for %u clients: ulimit -Hn %" PRIu64
            " as root (LimitNOFILE=%" PRIu64 " in a unit), or a smaller max_connections",
            needed, (uint64_t)limit.rlim_max, serves ? plan.clients : 0, needed, needed);
    }
    static const char *const files[][2] = {
        {"fs.nr_open", "/proc/sys/fs/nr_open"},
        {"fs.file-max", "/proc/sys/fs/file-max"},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        uint64_t allowed = 0;
        bool is_known = read_number(files[i][1], &allowed);
        if (!is_known || allowed >= needed) {
            say(doctor, VERDICT_OK, files[i][0], "%" PRIu64 " needed", needed);
            continue;
        }
        say(doctor, VERDICT_FAIL, files[i][0],
            "%" PRIu64 " is below %" PRIu64 ": sysctl -w %s=%" PRIu64, allowed, needed, files[i][0],
            needed);
    }
}

/* As bind(2) would say it, which would leave the file. */
static int try_path(const char *path) {
    struct stat status;
    if (lstat(path, &status) == 0 && !S_ISSOCK(status.st_mode)) return -EADDRINUSE;
    char folder[sizeof((struct sockaddr_un *)0)->sun_path + 1];
    int size = (int)(strrchr(path, '/') - path); /* it is absolute */
    (void)snprintf(folder, sizeof folder, "%.*s/", size, path);
    return faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

/* Whether the system has it, and gives it to who asks; one in use is no fault: weir may serve. */
static int try_bind(const struct config_address *address) {
    const struct sockaddr_un *path = (const void *)&address->storage;
    if (path->sun_family == AF_UNIX) return try_path(path->sun_path);
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int error = bind(fd, (const void *)&address->storage, address->size) < 0 ? -errno : 0;
    (void)close(fd); /* never used */
    return error == -EADDRINUSE ? 0 : error;
}

static void check_addresses(struct doctor *doctor) {
    uint32_t good = 0;
    for (uint32_t i = 0; i < doctor->config->listener_count; i++) {
        const struct config_listener *listener = &doctor->config->listeners[i];
        for (uint32_t j = 0; j < listener->bind_count; j++) {
            const struct config_address *address = &listener->binds[j];
            int error = try_bind(address);
            good += error == 0;
            if (error == 0) continue;
            char why[256];
            supervisor_explain_bind(address, error, why, sizeof why);
            say(doctor, VERDICT_FAIL, address->text, "%s", why);
        }
    }
    if (good != 0) say(doctor, VERDICT_OK, "addresses", "%u can be listened on", good);
}

static void check_backlog(struct doctor *doctor) {
    uint32_t backlog = 0;
    for (uint32_t i = 0; i < doctor->config->listener_count; i++) {
        uint32_t wanted = doctor->config->listeners[i].backlog;
        if (wanted > backlog) backlog = wanted;
    }
    uint64_t allowed = 0;
    /* listen(2) cuts a longer backlog without a word. */
    if (!read_number("/proc/sys/net/core/somaxconn", &allowed) || allowed >= backlog) {
        say(doctor, VERDICT_OK, "net.core.somaxconn", "%" PRIu64 ", the longest backlog is %u",
            allowed, backlog);
        return;
    }
    say(doctor, VERDICT_WARN, "net.core.somaxconn",
        "%" PRIu64 " cuts backlog = %u: sysctl -w net.core.somaxconn=%u", allowed, backlog,
        backlog);
}

/* The most connections one server over TCP can be sent: each takes a local port of its own. Those
 * of HTTP/2 carry many requests. */
static uint64_t ports_needed(const struct config *config) {
    uint64_t needed = 0;
    for (uint32_t i = 0; i < config->upstream_count; i++) {
        const struct config_upstream *upstream = &config->upstreams[i];
        uint64_t share =
            (config->max_connections + upstream->server_count - 1) / upstream->server_count;
        for (uint32_t j = 0; j < upstream->server_count; j++) {
            const struct config_server *server = &upstream->servers[j];
            uint64_t most = share;
            if (server->address.storage.ss_family == AF_UNIX) most = 0;
            if (upstream->protocol == CONFIG_PROTOCOL_H2 && upstream->send_proxy == 0) most = 0;
            if (server->max_connections != 0 && server->max_connections < most) {
                most = server->max_connections;
            }
            if (most > needed) needed = most;
        }
    }
    return needed;
}

static void check_ports(struct doctor *doctor) {
    const char *name = "net.ipv4.ip_local_port_range";
    uint64_t needed = ports_needed(doctor->config);
    uint64_t first = 0;
    uint64_t last = 0;
    bool is_known = read_numbers("/proc/sys/net/ipv4/ip_local_port_range", &first, &last) == 2;
    uint64_t count = last - first + 1;
    if (!is_known || count >= needed) {
        say(doctor, VERDICT_OK, name, "at most %" PRIu64 " connections to one server", needed);
    } else if (needed <= 65535 - 1024 + 1) {
        say(doctor, VERDICT_WARN, name,
            "%" PRIu64 " ports are too few for %" PRIu64
            " connections to one server: sysctl -w %s=\"1024 65535\"",
            count, needed, name);
    } else {
        say(doctor, VERDICT_WARN, name,
            "no range is enough for %" PRIu64
            " connections to one server: add servers, or lower max_connections",
            needed);
    }
}

static bool is_local(const struct config_address *address) {
    const struct sockaddr_storage *storage = &address->storage;
    if (storage->ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, storage, sizeof in);
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    if (storage->ss_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, storage, sizeof in6);
        return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
    }
    return true;
}

static bool all_servers_local(const struct config *config) {
    for (uint32_t i = 0; i < config->upstream_count; i++) {
        const struct config_upstream *upstream = &config->upstreams[i];
        for (uint32_t j = 0; j < upstream->server_count; j++) {
            if (!is_local(&upstream->servers[j].address)) return false;
        }
    }
    return true;
}

/* Ports in TIME-WAIT that connect(2) may take again: 0 none, 1 all, 2 those of loopback (tcp(7),
 * ip-sysctl.rst). */
static void check_reuse(struct doctor *doctor) {
    uint64_t reuse = 1;
    bool is_known = read_number("/proc/sys/net/ipv4/tcp_tw_reuse", &reuse);
    bool is_fine = !is_known || reuse == 1 || (reuse == 2 && all_servers_local(doctor->config));
    say(doctor, is_fine ? VERDICT_OK : VERDICT_WARN, "net.ipv4.tcp_tw_reuse", "%" PRIu64 "%s",
        reuse, is_fine ? "" : ": sysctl -w net.ipv4.tcp_tw_reuse=1");
}

static void check_memlock(struct doctor *doctor) {
    struct rlimit limit = {0};
    (void)getrlimit(RLIMIT_MEMLOCK, &limit); /* as above */
    if (limit.rlim_cur >= MEMLOCK_MIN || geteuid() == 0) {
        say(doctor, VERDICT_OK, "RLIMIT_MEMLOCK", "rings need next to none since Linux 5.12");
        return;
    }
    say(doctor, VERDICT_WARN, "RLIMIT_MEMLOCK", "%" PRIu64 " bytes: ulimit -l 8192",
        (uint64_t)limit.rlim_cur);
}

/* Pages of the pipes for splice(2). Users without CAP_SYS_RESOURCE get smaller ones beyond this,
 * which weir does not take (pipe(7)). */
static void check_pipes(struct doctor *doctor) {
    const char *name = "fs.pipe-user-pages-soft";
    uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t needed = (uint64_t)doctor->config->workers * PIPES_MAX * (PIPE_SIZE / page_size);
    bool is_root = geteuid() == 0 && !doctor->config->user;
    uint64_t allowed = 0; /* it means no limit */
    bool is_known = read_number("/proc/sys/fs/pipe-user-pages-soft", &allowed);
    if (!is_known || allowed == 0 || allowed >= needed || is_root) {
        say(doctor, VERDICT_OK, name, "%" PRIu64 " pages needed%s", needed,
            is_root ? ", root has no limit" : "");
        return;
    }
    say(doctor, VERDICT_WARN, name,
        "%" PRIu64 " is below %" PRIu64 ", long bodies will be copied when many are under way: "
        "sysctl -w %s=%" PRIu64,
        allowed, needed, name, needed);
}

static void check_cpus(struct doctor *doctor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return; /* over 1,024 CPUs: no reason to worry */
    uint32_t cpus = (uint32_t)CPU_COUNT(&set);
    uint32_t workers = doctor->config->workers;
    if (workers <= cpus) {
        say(doctor, VERDICT_OK, "CPUs", "%u for %u workers", cpus, workers);
        return;
    }
    say(doctor, VERDICT_WARN, "CPUs", "%u for %u workers: set workers = auto", cpus, workers);
}

static void check_certificates(struct doctor *doctor, const struct tls_subject *subject) {
    char title[128] = "";
    struct writer w = writer_make(title, sizeof title - 1);
    tls_subject_write(subject, &w);
    struct tls_fault fault;
    struct tls_context *context = tls_subject_context(subject, &fault);
    if (!context) { /* it was there when the configuration was read */
        say(doctor, VERDICT_FAIL, title, "%s", fault.text);
        return;
    }
    for (uint32_t i = 0; i < subject->certificate_count; i++) {
        const char *file = subject->certificates[i].file.text;
        int64_t left_s = tls_context_validity(context, i).not_after - (int64_t)time(NULL);
        int64_t days = left_s / (24 * 3600);
        if (left_s <= 0) {
            say(doctor, VERDICT_WARN, title, "%s has expired: renew it", file);
        } else if (days < TLS_CHECK_DAYS) {
            say(doctor, VERDICT_WARN, title, "%s expires in %" PRId64 " days: renew it", file,
                days);
        } else {
            say(doctor, VERDICT_OK, title, "%s is valid for %" PRId64 " days", file, days);
        }
    }
    tls_context_free(context);
}

static void check_ktls(struct doctor *doctor) {
    if (!worker_has_tls(doctor->config)) return;
    if (ktls_probe()) {
        say(doctor, VERDICT_OK, "kTLS", "long bodies and streams over TLS are spliced");
    } else {
        say(doctor, VERDICT_WARN, "kTLS",
            "not in this kernel, so what is sent over TLS is copied: modprobe tls (CONFIG_TLS)");
    }
}

static void check_tls(struct doctor *doctor) {
    const struct config *config = doctor->config;
    uint32_t count = config->tls_count;
    for (uint32_t i = 0; i < config->tls_count; i++) {
        struct tls_subject subject = tls_subject_of_section(&config->tls[i]);
        check_certificates(doctor, &subject);
    }
    for (uint32_t i = 0; i < config->upstream_count; i++) {
        if (!config->upstreams[i].tls.on) continue;
        struct tls_subject subject = tls_subject_of_upstream(&config->upstreams[i]);
        check_certificates(doctor, &subject);
        count++;
    }
    if (count != 0) say(doctor, VERDICT_OK, "TLS", "%s", OpenSSL_version(OPENSSL_VERSION));
}

int command_doctor(const char *file) {
    struct config *config = command_load(file);
    struct doctor doctor = {.config = config};
    if (config) {
        say(&doctor, VERDICT_OK, "configuration", "%s", file);
    } else {
        say(&doctor, VERDICT_FAIL, "configuration", "%s has errors: weir -c %s check", file, file);
    }
    check_ring(&doctor);
    check_memlock(&doctor);
    if (config) {
        check_descriptors(&doctor);
        check_addresses(&doctor);
        check_backlog(&doctor);
        check_ports(&doctor);
        check_reuse(&doctor);
        check_pipes(&doctor);
        check_cpus(&doctor);
        check_tls(&doctor);
        check_ktls(&doctor);
    }
    config_free(config);
    return doctor.failures == 0 ? 0 : 1;
}
