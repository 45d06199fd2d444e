#include "control/metrics.h"

#include "base/clock.h"
#include "base/log.h"
#include "control/command.h"
#include "control/heap.h"
#include "control/memory.h"

#define PREFIX "weir_"

struct label {
    const char *name;
    const char *value;
};

/* Each one {name, value}. */
#define LABELS(...) ((const struct label[]){__VA_ARGS__, {NULL, NULL}})
#define NO_LABELS LABELS({NULL, NULL})

/* The classes of a status as upstream_code_class counts them. */
static const char *const codes[UPSTREAM_CODES] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};

/* One reading. */
struct scrape {
    const struct admin *admin;
    const struct config *config;
    struct page *page;
    struct stat_block total; /* of all workers */
};

/* What another thread writes, read whole. */
#define READ(cell) __atomic_load_n(&(cell), __ATOMIC_RELAXED)

static void write_about(struct page *page, const char *metric, const char *type, const char *help) {
    page_text(page, "# HELP " PREFIX);
    page_text(page, metric);
    page_text(page, " ");
    page_text(page, help);
    page_text(page, "\n# TYPE " PREFIX);
    page_text(page, metric);
    page_text(page, " ");
    page_text(page, type);
    page_text(page, "\n");
}

/* The format escapes backslash, quote and line feed; names of unix sockets may have them. */
static void write_escaped(struct page *page, const char *value) {
    for (; *value != '\0'; value++) {
        if (*value == '\n') {
            page_put(page, BYTES("\\n"));
            continue;
        }
        if (*value == '\\' || *value == '"') page_put(page, BYTES("\\"));
        page_put(page, bytes_make(value, 1));
    }
}

/* Up to where the value stands. `suffix` belongs to the name: "_bucket". */
static void write_name(struct page *page, const char *metric, const char *suffix,
                       const struct label *labels) {
    page_text(page, PREFIX);
    page_text(page, metric);
    page_text(page, suffix);
    for (const struct label *label = labels; label->name; label++) {
        page_text(page, label == labels ? "{" : ",");
        page_text(page, label->name);
        page_text(page, "=\"");
        write_escaped(page, label->value);
        page_text(page, "\"");
    }
    page_text(page, labels->name ? "} " : " ");
}

static void write_count(struct page *page, const char *metric, const struct label *labels,
                        uint64_t value) {
    write_name(page, metric, "", labels);
    page_u64(page, value);
    page_text(page, "\n");
}

static void write_double(struct page *page, const char *metric, const struct label *labels,
                         double value) {
    write_name(page, metric, "", labels);
    page_double(page, value);
    page_text(page, "\n");
}

static void write_process(const struct scrape *scrape) {
    struct page *page = scrape->page;
    write_about(page, "build_info", "gauge", "always 1; the version is its label");
    write_count(page, "build_info", LABELS({"version", WEIR_VERSION}), 1);
    write_about(page, "start_time_seconds", "gauge", "UNIX time at which the process started");
    write_double(page, "start_time_seconds", NO_LABELS, (double)scrape->admin->start_time_ms / 1e3);
    write_about(page, "log_dropped_total", "counter",
                "lines of the log that were lost: stderr was not read, or could not be written");
    write_count(page, "log_dropped_total", NO_LABELS, log_dropped());
}

static void write_listeners(const struct scrape *scrape, const char *metric, bool active) {
    for (uint32_t i = 0; i < scrape->config->listener_count; i++) {
        const struct config_listener *config = &scrape->config->listeners[i];
        uint64_t sum = 0;
        for (uint32_t j = 0; j < scrape->config->workers; j++) {
            const struct worker *worker = scrape->admin->workers[j];
            for (uint32_t k = 0; k < worker->opened; k++) {
                const struct worker_listener *listener = &worker->listeners[k];
                if (listener->front->config != config) continue;
                sum += active ? READ(listener->listener.conns) : READ(listener->accepted);
            }
        }
        write_count(scrape->page, metric, LABELS({"listener", config->name}), sum);
    }
}

static bool route_applies(const struct config_route *route,
                          const struct config_listener *listener) {
    if (route->listener_count == 0)
        return !listener->is_admin && listener->mode == CONFIG_MODE_HTTP;
    for (uint32_t i = 0; i < route->listener_count; i++) {
        if (route->listeners[i] == listener) return true;
    }
    return false;
}

/* Those of one protocol. */
static void write_codes(const struct scrape *scrape, const char *listener, const char *route,
                        const char *proto, uint64_t counts[][UPSTREAM_CODES]) {
    for (uint32_t j = 0; j < HTTP_METHOD_COUNT; j++) {
        /* "_OTHER" cannot be taken for a method that a client made up. */
        struct bytes text =
            j == HTTP_OTHER ? BYTES("_OTHER") : http_method_text((enum http_method)j);
        char method[16];
        struct writer writer = writer_make(method, sizeof method);
        writer_print(&writer, "%.*s", BYTES_FMT(text));
        for (uint32_t k = 0; k < UPSTREAM_CODES; k++) {
            if (counts[j][k] == 0) continue;
            write_count(scrape->page, "http_requests_total",
                        LABELS({"listener", listener}, {"route", route}, {"method", method},
                               {"code", codes[k]}, {"proto", proto}),
                        counts[j][k]);
        }
    }
}

/* Requests of one listener and route (NULL: none). */
static void write_series(const struct scrape *scrape, const struct config_listener *listener,
                         const struct config_route *route) {
    struct request_series sum = {0};
    const char *proto = "";
    for (uint32_t i = 0; i < scrape->config->workers; i++) {
        const struct proxy *proxy = &scrape->admin->workers[i]->proxy;
        const struct request_series *series = proxy_series(proxy, listener, route);
        proto = proxy->fronts[listener->index].session_ops->proto;
        for (uint32_t j = 0; j < HTTP_METHOD_COUNT; j++) {
            for (uint32_t k = 0; k < UPSTREAM_CODES; k++) {
                sum.count[j][k] += READ(series->count[j][k]);
                sum.h2[j][k] += READ(series->h2[j][k]);
                sum.ws[j][k] += READ(series->ws[j][k]);
            }
        }
    }
    const char *name = route ? route->name : "";
    write_codes(scrape, listener->name, name, proto, sum.count);
    write_codes(scrape, listener->name, name, session_h2.proto, sum.h2);
    write_codes(scrape, listener->name, name, "ws", sum.ws);
}

static void write_requests(const struct scrape *scrape) {
    const struct config *config = scrape->config;
    write_about(scrape->page, "http_requests_total", "counter",
                "requests that have ended, by what they were and how they were answered");
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        write_series(scrape, listener, NULL);
        for (uint32_t j = 0; j < config->route_count; j++) {
            if (route_applies(&config->routes[j], listener))
                write_series(scrape, listener, &config->routes[j]);
        }
    }
}

static void write_server(const struct scrape *scrape, const struct config_upstream *upstream,
                         const struct config_server *server) {
    for (uint32_t i = 0; i < UPSTREAM_CODES; i++) {
        uint64_t sum = 0;
        for (uint32_t j = 0; j < scrape->config->workers; j++) {
            const struct upstream *of =
                &scrape->admin->workers[j]->proxy.upstreams[upstream->index];
            sum += READ(of->servers[server->index].answers[i]);
        }
        if (sum == 0) continue;
        write_count(
            scrape->page, "upstream_requests_total",
            LABELS({"upstream", upstream->name}, {"server", server->name}, {"code", codes[i]}),
            sum);
    }
}

static void write_upstreams(const struct scrape *scrape) {
    const struct config *config = scrape->config;
    write_about(scrape->page, "upstream_up", "gauge",
                "1: the server may be given requests (nothing takes one out yet)");
    for (uint32_t i = 0; i < config->upstream_count; i++) {
        const struct config_upstream *upstream = &config->upstreams[i];
        for (uint32_t j = 0; j < upstream->server_count; j++) {
            write_count(scrape->page, "upstream_up",
                        LABELS({"upstream", upstream->name}, {"server", upstream->servers[j].name}),
                        1);
        }
    }
    write_about(scrape->page, "upstream_requests_total", "counter",
                "requests given to a server, by its answer; none: it gave no whole head");
    for (uint32_t i = 0; i < config->upstream_count; i++) {
        const struct config_upstream *upstream = &config->upstreams[i];
        for (uint32_t j = 0; j < upstream->server_count; j++)
            write_server(scrape, upstream, &upstream->servers[j]);
    }
}

static void write_queues(const struct scrape *scrape) {
    const struct config *config = scrape->config;
    write_about(scrape->page, "upstream_queue_length", "gauge",
                "requests that wait for a server to have room");
    for (uint32_t i = 0; i < config->upstream_count; i++) {
        uint64_t sum = 0;
        for (uint32_t j = 0; j < config->workers; j++)
            sum += READ(scrape->admin->workers[j]->proxy.upstreams[i].queue.count);
        write_count(scrape->page, "upstream_queue_length",
                    LABELS({"upstream", config->upstreams[i].name}), sum);
    }
}

static double worker_clients(const struct scrape *scrape, const struct worker *worker) {
    (void)scrape; /* of the worker alone */
    uint64_t sum = 0;
    for (uint32_t i = 0; i < worker->opened; i++)
        sum += READ(worker->listeners[i].listener.conns);
    return (double)sum;
}

static double worker_busy_seconds(const struct scrape *scrape, const struct worker *worker) {
    (void)scrape; /* of the worker alone */
    return (double)stat_get(&worker->stats, STAT_WORKER_BUSY_NS) / 1e9;
}

static double worker_busy_ratio(const struct scrape *scrape, const struct worker *worker) {
    double elapsed = (double)(clock_now_ns() - scrape->admin->start_ns) / 1e9;
    double ratio = elapsed > 0 ? worker_busy_seconds(scrape, worker) / elapsed : 0;
    return ratio < 1 ? ratio : 1;
}

static void write_workers(const struct scrape *scrape) {
    static const struct {
        const char *metric;
        const char *type;
        const char *help;
        double (*value)(const struct scrape *scrape, const struct worker *worker);
    } rows[] = {
        {"worker_connections", "gauge", "client connections of a worker", worker_clients},
        {"worker_busy_seconds_total", "counter", "time a worker did not wait for the kernel",
         worker_busy_seconds},
        {"worker_busy_ratio", "gauge", "the same as a part of the time since the start",
         worker_busy_ratio},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_about(scrape->page, rows[i].metric, rows[i].type, rows[i].help);
        for (uint32_t j = 0; j < scrape->config->workers; j++) {
            char index[12];
            struct writer writer = writer_make(index, sizeof index);
            writer_print(&writer, "%u", j);
            write_double(scrape->page, rows[i].metric, LABELS({"worker", index}),
                         rows[i].value(scrape, scrape->admin->workers[j]));
        }
    }
}

/* Of all workers; each has the same pools in the same order. */
static uint32_t all_pools(const struct scrape *scrape, struct memory_pool sum[MEMORY_POOLS_MAX]) {
    uint32_t count = memory_pools(scrape->admin->workers[0], sum);
    for (uint32_t i = 1; i < scrape->config->workers; i++) {
        struct memory_pool pools[MEMORY_POOLS_MAX];
        uint32_t have = memory_pools(scrape->admin->workers[i], pools);
        for (uint32_t j = 0; j < count && j < have; j++) {
            sum[j].count += pools[j].count;
            sum[j].used += pools[j].used;
            sum[j].held += pools[j].held;
        }
    }
    return count;
}

enum pool_column { POOL_HELD, POOL_USED, POOL_CAPACITY };

static void write_pools(const struct scrape *scrape, const char *metric, enum pool_column column) {
    struct memory_pool pools[MEMORY_POOLS_MAX];
    uint32_t count = all_pools(scrape, pools);
    for (uint32_t i = 0; i < count; i++) {
        const struct memory_pool *pool = &pools[i];
        uint64_t objects = column == POOL_HELD   ? pool->held
                           : column == POOL_USED ? pool->used
                                                 : pool->count;
        write_count(scrape->page, metric, LABELS({"pool", pool->name}), objects * pool->size);
    }
}

/* Pages of files without the rings, which are pools. Kernels before 6.10 do not count these as
 * resident: then the sum is still right, and the program looks smaller by them. */
static uint64_t program_bytes(const struct scrape *scrape, const struct memory_process *process) {
    uint64_t rings = 0;
    for (uint32_t i = 0; i < scrape->config->workers; i++)
        rings += scrape->admin->workers[i]->net.ring.mapped_size;
    return process->files > rings ? process->files - rings : 0;
}

/* Without what the workers' own arenas have: that is in pools. */
static uint64_t shared_heap(const struct scrape *scrape, const struct heap *heap) {
    uint64_t arenas = 0;
    for (uint32_t i = 0; i < scrape->config->workers; i++) {
        struct heap_arena use;
        if (heap_read_arena(READ(scrape->admin->workers[i]->arena), &use)) arenas += use.active;
    }
    return heap->active > arenas ? heap->active - arenas : 0;
}

static void write_heap(struct page *page, const struct heap *heap) {
    write_count(page, "heap_bytes", LABELS({"state", "allocated"}), heap->allocated);
    write_count(page, "heap_bytes", LABELS({"state", "active"}), heap->active);
    write_count(page, "heap_bytes", LABELS({"state", "metadata"}), heap->metadata);
    write_count(page, "heap_bytes", LABELS({"state", "resident"}), heap->resident);
    write_count(page, "heap_bytes", LABELS({"state", "mapped"}), heap->mapped);
}

static void write_memory(const struct scrape *scrape) {
    struct page *page = scrape->page;
    struct heap heap = {0};
    struct memory_process process = {0};
    bool heap_known = heap_read(&heap);
    bool process_known = memory_process(&process);
    write_about(page, "memory_bytes", "gauge",
                "memory held: of the pools, the heap, the program; their sum is about the next");
    write_pools(scrape, "memory_bytes", POOL_HELD);
    if (heap_known)
        write_count(page, "memory_bytes", LABELS({"pool", "heap"}), shared_heap(scrape, &heap));
    if (process_known)
        write_count(page, "memory_bytes", LABELS({"pool", "program"}),
                    program_bytes(scrape, &process));
    write_about(page, "memory_resident_bytes", "gauge",
                "memory of the process, as the kernel counts it");
    if (process_known) write_count(page, "memory_resident_bytes", NO_LABELS, process.resident);
    write_about(page, "memory_used_bytes", "gauge", "what of a pool is in use now");
    write_pools(scrape, "memory_used_bytes", POOL_USED);
    write_about(page, "memory_capacity_bytes", "gauge", "what a pool can grow to");
    write_pools(scrape, "memory_capacity_bytes", POOL_CAPACITY);
    write_about(page, "heap_bytes", "gauge", "the heap of the process, as jemalloc counts it");
    if (heap_known) write_heap(page, &heap);
    uint64_t buffers = 0;
    for (uint32_t i = 0; i < scrape->config->workers; i++) {
        const struct net *net = &scrape->admin->workers[i]->net;
        buffers += (uint64_t)READ(net->small.total) + READ(net->bulk.total);
    }
    write_about(page, "buffers_capacity", "gauge", "receive buffers there are");
    write_count(page, "buffers_capacity", NO_LABELS, buffers);
}

static void write_expiry(const struct scrape *scrape, const struct tls_source *source) {
    const struct tls_subject *subject = &source->subject;
    bool is_section = subject->tls != NULL;
    const char *name = is_section ? subject->tls->name : subject->upstream->name;
    for (uint32_t i = 0; i < subject->certificate_count; i++) {
        struct label of = {is_section ? "tls" : "upstream", name};
        struct label file = {"certificate", subject->certificates[i].file.text};
        write_double(scrape->page, "tls_cert_not_after_seconds", LABELS(of, file),
                     (double)READ(source->not_after[i]));
    }
}

static void write_certificates(const struct scrape *scrape) {
    const struct tls_store *tls = scrape->admin->tls;
    struct page *page = scrape->page;
    write_about(page, "tls_cert_not_after_seconds", "gauge",
                "UNIX time at which a certificate in use runs out");
    for (uint32_t i = 0; i < tls->source_count; i++)
        write_expiry(scrape, &tls->sources[i]);
    write_about(page, "tls_cert_reloads_total", "counter",
                "changes of files of TLS that were seen, by what came of them");
    write_count(page, "tls_cert_reloads_total", LABELS({"result", "ok"}), READ(tls->reloads));
    write_count(page, "tls_cert_reloads_total", LABELS({"result", "failed"}),
                READ(tls->reloads_failed));
}

/* Rows of stat.def, those of one metric side by side. */
static void write_stats(const struct scrape *scrape) {
    struct page *page = scrape->page;
    const char *before = "";
    for (uint32_t i = 0; i < STAT_COUNT; i++) {
        const struct stat_entry *entry = stat_entry((enum stat_id)i);
        if (entry->metric[0] == '\0') continue;
        if (strcmp(entry->metric, before) != 0) {
            bool is_gauge = entry->kind == STAT_KIND_GAUGE;
            write_about(page, entry->metric, is_gauge ? "gauge" : "counter", entry->help);
        }
        before = entry->metric;
        page_text(page, PREFIX);
        page_text(page, entry->metric);
        page_text(page, entry->labels[0] != '\0' ? "{" : "");
        page_text(page, entry->labels);
        page_text(page, entry->labels[0] != '\0' ? "} " : " ");
        page_u64(page, scrape->total.value[i]);
        page_text(page, "\n");
    }
}

static void write_reasons(const struct scrape *scrape) {
    for (uint32_t i = 0; i < STAT_BY_REASON_COUNT; i++) {
        const struct stat_by_reason_entry *entry = stat_by_reason_entry((enum stat_by_reason_id)i);
        const uint64_t *cells = stat_by_reason(&scrape->total, (enum stat_by_reason_id)i);
        write_about(scrape->page, entry->metric, "counter", entry->help);
        for (uint32_t j = 0; j < REASON_COUNT; j++) {
            if (cells[j] == 0) continue;
            const char *reason = reason_entry((enum reason)j)->name;
            write_count(scrape->page, entry->metric, LABELS({"reason", reason}), cells[j]);
        }
    }
}

/* Buckets of the format are cumulative. */
static void write_histogram(struct page *page, const struct stat_histogram_entry *entry,
                            const struct stat_histogram *histogram) {
    uint64_t sum = 0;
    write_about(page, entry->metric, "histogram", entry->help);
    for (uint32_t i = 0; i <= entry->bound_count; i++) {
        const char *bound = i < entry->bound_count ? entry->bound_texts[i] : "+Inf";
        sum += histogram->bucket[i];
        write_name(page, entry->metric, "_bucket", LABELS({"le", bound}));
        page_u64(page, sum);
        page_text(page, "\n");
    }
    write_name(page, entry->metric, "_sum", NO_LABELS);
    page_double(page, (double)histogram->sum / entry->unit);
    page_text(page, "\n");
    write_name(page, entry->metric, "_count", NO_LABELS);
    page_u64(page, histogram->count);
    page_text(page, "\n");
}

void metrics_write(struct page *page, const struct admin *admin) {
    struct scrape scrape = {.admin = admin, .config = admin->config, .page = page};
    for (uint32_t i = 0; i < admin->config->workers; i++)
        stat_merge(&scrape.total, &admin->workers[i]->stats);
    write_process(&scrape);
    write_about(page, "listener_connections_active", "gauge", "client connections now");
    write_listeners(&scrape, "listener_connections_active", true);
    write_about(page, "listener_connections_total", "counter", "client connections accepted");
    write_listeners(&scrape, "listener_connections_total", false);
    write_requests(&scrape);
    write_upstreams(&scrape);
    write_queues(&scrape);
    write_certificates(&scrape);
    write_workers(&scrape);
    write_memory(&scrape);
    write_stats(&scrape);
    write_reasons(&scrape);
    for (uint32_t i = 0; i < STAT_HIST_COUNT; i++) {
        write_histogram(page, stat_histogram_entry((enum stat_histogram_id)i),
                        &scrape.total.histogram[i]);
    }
}
