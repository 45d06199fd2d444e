#include "control/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "unit/control/world.h"

/* One page, read by a parser that forgives nothing. */
struct sample {
    char name[96];    /* without weir_ */
    char labels[256]; /* as they stand, without braces */
    double value;
};
struct metric {
    char name[96];
    char type[16];
};
static struct sample samples[2048];
static struct metric metrics[128];
static uint32_t sample_count, metric_count;
static struct world *world;

static int set_up(void **state) {
    (void)state;
    world = world_new();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    world_free(world);
    return 0;
}

/* The end of the name that begins at `at`. */
static const char *read_name(const char *at) {
    assert_true(islower((unsigned char)*at) || *at == '_');
    while (islower((unsigned char)*at) || isdigit((unsigned char)*at) || *at == '_')
        at++;
    return at;
}

static const char *copy(char *to, size_t size, const char *from, const char *end) {
    size_t len = (size_t)(end - from);
    assert_true(len < size);
    memcpy(to, from, len);
    to[len] = '\0';
    return end;
}

static const char *read_prefix(const char *at) {
    assert_memory_equal(at, "weir_", 5);
    return at + 5;
}

/* "# HELP name text" and then "# TYPE name type", once for a name. */
static const char *read_about(const char *line) {
    struct metric *metric = &metrics[metric_count++];
    assert_true(metric_count <= sizeof metrics / sizeof metrics[0]);
    assert_memory_equal(line, "# HELP ", 7);
    const char *at = read_prefix(line + 7);
    at = copy(metric->name, sizeof metric->name, at, read_name(at));
    assert_true(*at == ' ' && at[1] != '\n' && at[1] != ' ');
    const char *end = strchr(at, '\n');
    assert_null(memchr(at, '\\', (size_t)(end - at)));
    for (uint32_t i = 0; i + 1 < metric_count; i++)
        assert_string_not_equal(metrics[i].name, metric->name);
    at = end + 1;
    assert_memory_equal(at, "# TYPE ", 7);
    at = read_prefix(at + 7);
    size_t len = strlen(metric->name);
    assert_memory_equal(at, metric->name, len);
    assert_true(at[len] == ' ');
    at += len + 1;
    at = copy(metric->type, sizeof metric->type, at, strchr(at, '\n'));
    bool is_counter = strcmp(metric->type, "counter") == 0;
    assert_true(is_counter || strcmp(metric->type, "gauge") == 0 ||
                strcmp(metric->type, "histogram") == 0);
    bool is_total = len > 6 && strcmp(metric->name + len - 6, "_total") == 0;
    assert_true(is_total == is_counter);
    return at + 1;
}

/* Behind the labels' brace. */
static const char *read_labels(const char *at, struct sample *sample) {
    const char *begin = at;
    for (;;) {
        at = read_name(at);
        assert_true(at[0] == '=' && at[1] == '"');
        for (at += 2; *at != '"'; at++) {
            assert_true(*at != '\n' && *at != '\0');
            if (*at != '\\') continue;
            at++;
            assert_true(*at == '\\' || *at == '"' || *at == 'n');
        }
        at++;
        if (*at == '}') break;
        assert_true(*at == ',');
        at++;
    }
    copy(sample->labels, sizeof sample->labels, begin, at);
    return at + 1;
}

static bool belongs(const struct sample *sample, const struct metric *metric) {
    size_t len = strlen(metric->name);
    if (strncmp(sample->name, metric->name, len) != 0) return false;
    const char *rest = sample->name + len;
    if (strcmp(metric->type, "histogram") != 0) return *rest == '\0';
    return strcmp(rest, "_bucket") == 0 || strcmp(rest, "_sum") == 0 || strcmp(rest, "_count") == 0;
}

static const char *read_sample(const char *line) {
    struct sample *sample = &samples[sample_count++];
    assert_true(sample_count <= sizeof samples / sizeof samples[0]);
    *sample = (struct sample){0};
    const char *at = read_prefix(line);
    at = copy(sample->name, sizeof sample->name, at, read_name(at));
    if (*at == '{') at = read_labels(at + 1, sample);
    assert_true(at[0] == ' ' && isdigit((unsigned char)at[1]));
    char *end;
    sample->value = strtod(at + 1, &end);
    assert_true(*end == '\n');
    assert_true(metric_count > 0 && belongs(sample, &metrics[metric_count - 1]));
    for (uint32_t i = 0; i + 1 < sample_count; i++) {
        assert_false(strcmp(samples[i].name, sample->name) == 0 &&
                     strcmp(samples[i].labels, sample->labels) == 0);
    }
    return end + 1;
}

static void scrape(void) {
    struct page page = {0};
    metrics_write(&page, &world->admin);
    assert_false(page.failed);
    page_put(&page, bytes_make("", 1));
    sample_count = metric_count = 0;
    const char *at = page.ptr;
    while (*at != '\0')
        at = *at == '#' ? read_about(at) : read_sample(at);
    assert_true(at == page.ptr + page.len - 1);
    page_fini(&page);
}

static const struct metric *find_metric(const char *name) {
    for (uint32_t i = 0; i < metric_count; i++) {
        if (strcmp(metrics[i].name, name) == 0) return &metrics[i];
    }
    return NULL;
}

static uint32_t count_series(const char *name) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < sample_count; i++)
        count += strcmp(samples[i].name, name) == 0;
    return count;
}

static double sum(const char *name) {
    double total = 0;
    for (uint32_t i = 0; i < sample_count; i++) {
        if (strcmp(samples[i].name, name) == 0) total += samples[i].value;
    }
    return total;
}

/* Of the one series with exactly these labels. */
static double value(const char *name, const char *labels) {
    for (uint32_t i = 0; i < sample_count; i++) {
        if (strcmp(samples[i].name, name) == 0 && strcmp(samples[i].labels, labels) == 0)
            return samples[i].value;
    }
    fail_msg("no series %s{%s}", name, labels);
    return 0;
}

static bool equal(double a, double b) { return a - b < 1e-9 && b - a < 1e-9; }

/* Gives every number there is another value in every worker. */
static void count_everything(void) {
    uint64_t n = 1;
    for (uint32_t i = 0; i < WORLD_WORKERS; i++) {
        struct stat_block *stats = &world->workers[i]->stats;
        for (uint32_t j = 0; j < STAT_COUNT; j++)
            stat_set(stats, (enum stat_id)j, n++);
        for (uint32_t j = 0; j < REASON_COUNT; j++) {
            stat_bump(&stats->reasons[j], n++);
            stat_bump(&stats->parse_errors[j], n++);
            stat_bump(&stats->rejected[j], n++);
            stat_bump(&stats->accept_pauses[j], n++);
            stat_bump(&stats->connect_failures[j], n++);
            stat_bump(&stats->retries[j], n++);
            stat_bump(&stats->relays[j], n++);
            stat_bump(&stats->tls_failures[j], n++);
            stat_bump(&stats->failed_calls[j], n++);
        }
        for (uint32_t j = 0; j < STAT_HIST_COUNT; j++) {
            for (uint64_t value = 1; value < 1000000000000; value *= 3)
                stat_observe(stats, (enum stat_histogram_id)j, value);
        }
        for (uint32_t j = 0; j < world->workers[i]->opened; j++) {
            world->workers[i]->listeners[j].listener.conns = (uint32_t)n++;
            stat_bump(&world->workers[i]->listeners[j].accepted, n++);
        }
        struct proxy *proxy = &world->workers[i]->proxy;
        size_t series = (size_t)world->config->listener_count * (world->config->route_count + 1);
        for (size_t j = 0; j < series; j++) {
            for (uint32_t k = 0; k < HTTP_METHOD_COUNT; k++)
                stat_bump(&proxy->series[j].count[k][k % UPSTREAM_CODES], n++);
        }
        for (uint32_t j = 0; j < 2; j++)
            stat_bump(&proxy->upstreams[0].servers[j].answers[2 + j], n++);
    }
}

static void a_page_of_nothing_counted_is_well_formed(void **state) {
    (void)state;
    scrape();
    assert_true(equal(value("build_info", "version=\"0.1.0\""), 1));
    assert_true(sum("start_time_seconds") > 1.7e9);
    assert_int_equal(count_series("http_requests_total"), 0);
    assert_string_equal(find_metric("http_requests_total")->type, "counter");
    assert_int_equal(count_series("upstream_retries_total"), 0);
    assert_string_equal(find_metric("upstream_retries_total")->type, "counter");
    assert_int_equal(count_series("worker_connections"), WORLD_WORKERS);
}

static void a_page_of_everything_counted_is_well_formed(void **state) {
    (void)state;
    count_everything();
    scrape();
    for (uint32_t i = 0; i < metric_count; i++) {
        bool is_histogram = strcmp(metrics[i].type, "histogram") == 0;
        char name[128];
        (void)snprintf(name, sizeof name, "%s%s", metrics[i].name, is_histogram ? "_count" : "");
#ifdef WEIR_NO_JEMALLOC
        if (strcmp(name, "heap_bytes") == 0) continue; /* nobody counts it there */
#endif
        if (count_series(name) == 0) fail_msg("%s has no series", name);
    }
}

static void workers_are_added_up(void **state) {
    (void)state;
    count_everything();
    scrape();
    for (uint32_t i = 0; i < STAT_COUNT; i++) {
        const struct stat_entry *entry = stat_entry((enum stat_id)i);
        if (entry->metric[0] == '\0') continue;
        uint64_t both = stat_get(&world->workers[0]->stats, (enum stat_id)i) +
                        stat_get(&world->workers[1]->stats, (enum stat_id)i);
        assert_true(equal(value(entry->metric, entry->labels), (double)both));
    }
    uint64_t old = world->workers[0]->stats.retries[REASON_CONNECT_FAILED] +
                   world->workers[1]->stats.retries[REASON_CONNECT_FAILED];
    assert_true(equal(value("upstream_retries_total", "reason=\"connect_failed\""), (double)old));
}

static void requests_are_labelled_and_sum_to_all_that_were_counted(void **state) {
    (void)state;
    const struct config_listener *web = &world->config->listeners[0];
    const struct config_route *old = &world->config->routes[1];
    struct proxy *first = &world->workers[0]->proxy;
    struct proxy *second = &world->workers[1]->proxy;
    stat_bump(&proxy_series(first, web, NULL)->count[HTTP_GET][2], 3);
    stat_bump(&proxy_series(second, web, NULL)->count[HTTP_GET][2], 4);
    stat_bump(&proxy_series(second, web, old)->count[HTTP_OTHER][3], 5);
    stat_bump(&proxy_series(first, web, NULL)->count[HTTP_POST][0], 6);
    stat_bump(&proxy_series(first, &world->config->listeners[1], NULL)->count[HTTP_HEAD][5], 7);
    stat_bump(&world->workers[0]->stats.reasons[REASON_NONE], 16);
    stat_bump(&world->workers[1]->stats.reasons[REASON_CLIENT_CLOSED], 9);
    scrape();
    static const char *const labels[] = {
        "listener=\"web\",route=\"\",method=\"GET\",code=\"2xx\",proto=\"h1\"",
        "listener=\"web\",route=\"old\",method=\"_OTHER\",code=\"3xx\",proto=\"h1\"",
        "listener=\"web\",route=\"\",method=\"POST\",code=\"none\",proto=\"h1\"",
        "listener=\"admin\",route=\"\",method=\"HEAD\",code=\"5xx\",proto=\"h1\"",
    };
    static const double values[] = {7, 5, 6, 7};
    for (uint32_t i = 0; i < 4; i++)
        assert_true(equal(value("http_requests_total", labels[i]), values[i]));
    assert_int_equal(count_series("http_requests_total"), 4);
    assert_true(equal(sum("http_requests_total"), sum("http_exchanges_ended_total")));
}

static void connections_are_the_same_by_listener_and_by_worker(void **state) {
    (void)state;
    struct worker_listener *first = world->workers[0]->listeners;
    struct worker_listener *second = world->workers[1]->listeners;
    assert_int_equal(world->workers[0]->opened, 3);
    assert_int_equal(world->workers[1]->opened, 2);
    first[0].listener.conns = 10;
    first[1].listener.conns = 20;
    first[2].listener.conns = 1; /* the admin's */
    second[0].listener.conns = 300;
    stat_bump(&first[0].accepted, 1000);
    stat_bump(&second[1].accepted, 2000);
    scrape();
    assert_true(equal(value("listener_connections_active", "listener=\"web\""), 330));
    assert_true(equal(value("listener_connections_active", "listener=\"admin\""), 1));
    assert_true(equal(value("listener_connections_total", "listener=\"web\""), 3000));
    assert_true(equal(value("listener_connections_total", "listener=\"admin\""), 0));
    assert_true(equal(value("worker_connections", "worker=\"0\""), 31));
    assert_true(equal(value("worker_connections", "worker=\"1\""), 300));
    assert_true(equal(sum("worker_connections"), sum("listener_connections_active")));
}

static void servers_have_their_answers(void **state) {
    (void)state;
    stat_bump(&world->workers[0]->proxy.upstreams[0].servers[1].answers[2], 8);
    stat_bump(&world->workers[1]->proxy.upstreams[0].servers[1].answers[2], 9);
    stat_bump(&world->workers[1]->proxy.upstreams[0].servers[0].answers[0], 1);
    scrape();
    const char *name = "upstream_requests_total";
    assert_int_equal(count_series(name), 2);
    assert_true(equal(value(name, "upstream=\"app\",server=\"127.0.0.1:9002\",code=\"2xx\""), 17));
    assert_true(equal(value(name, "upstream=\"app\",server=\"127.0.0.1:9001\",code=\"none\""), 1));
    assert_int_equal(count_series("upstream_up"), 2);
    assert_true(equal(value("upstream_up", "upstream=\"app\",server=\"127.0.0.1:9001\""), 1));
}

static void label_values_are_escaped(void **state) {
    (void)state;
    struct config_server *server = &world->config->upstreams[0].servers[0];
    char *name = server->name;
    char odd[] = "unix:/a\"b\\c\nd}";
    server->name = odd;
    scrape();
    server->name = name;
    assert_true(
        equal(value("upstream_up", "upstream=\"app\",server=\"unix:/a\\\"b\\\\c\\nd}\""), 1));
}

static void histograms_are_cumulative_and_in_seconds(void **state) {
    (void)state;
    stat_observe_ns(&world->workers[0]->stats, STAT_HIST_UPSTREAM_CONNECT, 100000);
    stat_observe_ns(&world->workers[1]->stats, STAT_HIST_UPSTREAM_CONNECT, 1500000);
    stat_observe_ns(&world->workers[1]->stats, STAT_HIST_UPSTREAM_CONNECT, 20000000000);
    stat_observe(&world->workers[1]->stats, STAT_HIST_URING_CQE_PER_WAKE, 30);
    scrape();
    const char *bucket = "upstream_connect_seconds_bucket";
    assert_true(equal(value(bucket, "le=\"0.0001\""), 1));
    assert_true(equal(value(bucket, "le=\"0.001\""), 1));
    assert_true(equal(value(bucket, "le=\"0.0025\""), 2));
    assert_true(equal(value(bucket, "le=\"10\""), 2));
    assert_true(equal(value(bucket, "le=\"+Inf\""), 3));
    assert_true(equal(value("upstream_connect_seconds_count", ""), 3));
    assert_true(equal(value("upstream_connect_seconds_sum", ""), 20.0016));
    assert_true(equal(value("uring_cqe_per_wake_sum", ""), 30));
    assert_int_equal(count_series(bucket), 17);
}

static void memory_is_held_used_and_bounded_by_pool(void **state) {
    (void)state;
    struct worker *worker = world->workers[1];
    void *conns[] = {slab_acquire(&worker->net.conns), slab_acquire(&worker->net.conns)};
    void *conn = slab_acquire(&world->workers[0]->net.conns);
    slab_release(&worker->net.conns, conns[1]);
    worker->net.small.total = 100;
    worker->net.bulk.total = 32;
    void *leases[10];
    for (int i = 0; i < 10; i++)
        leases[i] = slab_acquire(&worker->net.small.slab);
    worker->net.small.kernel_count = 4;
    worker->net.bulk.kernel_count = 1; /* one that was moving while it was read */
    scrape();
    assert_true(equal(value("memory_bytes", "pool=\"conn\""), 3 * 64));
    assert_true(equal(value("memory_used_bytes", "pool=\"conn\""), 2 * 64));
    assert_true(equal(value("memory_capacity_bytes", "pool=\"conn\""), 16 * 64));
    assert_true(equal(value("memory_bytes", "pool=\"arena_large\""), 0));
    assert_true(equal(value("memory_bytes", "pool=\"buffer_small\""), 10 * 8256));
    assert_true(equal(value("memory_used_bytes", "pool=\"buffer_small\""), 6 * 8256));
    assert_true(equal(value("memory_capacity_bytes", "pool=\"buffer_small\""), 200 * 8256));
    assert_true(equal(value("memory_used_bytes", "pool=\"buffer_bulk\""), 0));
    assert_true(equal(value("buffers_capacity", ""), 132));
    assert_true(value("memory_resident_bytes", "") > 1e6);
    for (int i = 0; i < 10; i++)
        slab_release(&worker->net.small.slab, leases[i]);
    slab_release(&worker->net.conns, conns[0]);
    slab_release(&world->workers[0]->net.conns, conn);
}

#ifndef WEIR_NO_JEMALLOC
static void the_heap_is_as_its_allocator_counts_it(void **state) {
    (void)state;
    scrape();
    double before = value("heap_bytes", "state=\"allocated\"");
    void *much = malloc(32 << 20);
    assert_non_null(much);
    scrape();
    free(much);
    assert_true(value("heap_bytes", "state=\"allocated\"") >= before + (32 << 20));
    assert_true(value("heap_bytes", "state=\"active\"") <=
                value("heap_bytes", "state=\"resident\""));
    assert_true(value("heap_bytes", "state=\"resident\"") <=
                value("heap_bytes", "state=\"mapped\""));
    assert_true(
        equal(value("memory_bytes", "pool=\"heap\""), value("heap_bytes", "state=\"active\"")));
}
#endif

static void a_worker_is_busy_for_a_part_of_the_time(void **state) {
    (void)state;
    world->admin.start_ns -= 10000000000; /* ten seconds ago */
    stat_add(&world->workers[0]->stats, STAT_WORKER_BUSY_NS, 2500000000);
    stat_add(&world->workers[1]->stats, STAT_WORKER_BUSY_NS, 2500000000000);
    scrape();
    double ratio = value("worker_busy_ratio", "worker=\"0\"");
    assert_true(ratio > 0.15 && ratio <= 0.25);
    assert_true(equal(value("worker_busy_ratio", "worker=\"1\""), 1));
    assert_true(equal(value("worker_busy_seconds_total", "worker=\"0\""), 2.5));
}

/* Rows of etc/METRICS.md: | `name` | type | labels | meaning |; tests run at the top of the tree.
 */
static void the_manual_has_every_metric_and_no_other(void **state) {
    (void)state;
    char line[512];
    uint32_t rows = 0;
    count_everything();
    scrape();
    FILE *stream = fopen("etc/METRICS.md", "re");
    if (!stream) skip();
    while (fgets(line, sizeof line, stream)) {
        char name[96], type[16];
        if (sscanf(line, "| `%95[a-z0-9_]` | %15[a-z] |", name, type) != 2) continue;
        const struct metric *metric = find_metric(name);
        rows++;
        if (!metric) fail_msg("etc/METRICS.md has %s, which is not there", name);
        assert_string_equal(metric->type, type);
    }
    assert_int_equal(fclose(stream), 0);
    assert_int_equal(rows, metric_count);
}

int main(void) {
#define TEST(claim) cmocka_unit_test_setup_teardown(claim, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_page_of_nothing_counted_is_well_formed),
        TEST(a_page_of_everything_counted_is_well_formed),
        TEST(workers_are_added_up),
        TEST(requests_are_labelled_and_sum_to_all_that_were_counted),
        TEST(connections_are_the_same_by_listener_and_by_worker),
        TEST(servers_have_their_answers),
        TEST(label_values_are_escaped),
        TEST(histograms_are_cumulative_and_in_seconds),
        TEST(memory_is_held_used_and_bounded_by_pool),
#ifndef WEIR_NO_JEMALLOC
        TEST(the_heap_is_as_its_allocator_counts_it),
#endif
        TEST(a_worker_is_busy_for_a_part_of_the_time),
        TEST(the_manual_has_every_metric_and_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
