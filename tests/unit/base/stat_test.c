#include "base/stat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "unit/base/death.h"

static struct stat_block block;

static int set_up(void **state) {
    (void)state;
    memset(&block, 0, sizeof block);
    return 0;
}

static void numbers_go_up_down_and_to_a_value(void **state) {
    (void)state;
    stat_add(&block, STAT_URING_CQE, 3);
    stat_add(&block, STAT_URING_CQE, 4);
    stat_add(&block, STAT_HTTP_REQUESTS_IN_FLIGHT, 2);
    stat_sub(&block, STAT_HTTP_REQUESTS_IN_FLIGHT, 1);
    stat_set(&block, STAT_URING_BUFFERS_KERNEL, 256);
    stat_bump(&block.retries[REASON_CONNECT_FAILED], 5);
    assert_int_equal(stat_get(&block, STAT_URING_CQE), 7);
    assert_int_equal(stat_get(&block, STAT_HTTP_REQUESTS_IN_FLIGHT), 1);
    assert_int_equal(stat_get(&block, STAT_URING_BUFFERS_KERNEL), 256);
    assert_int_equal(stat_get(&block, STAT_URING_SQE), 0);
    assert_int_equal(block.retries[REASON_CONNECT_FAILED], 5);
}

static void blocks_do_not_share_cache_lines(void **state) {
    (void)state;
    struct stat_block two[2];
    assert_int_equal((uintptr_t)&two[1] % 64, 0);
    assert_int_equal(sizeof two[0] % 64, 0);
}

static void a_bound_is_in_its_own_bucket(void **state) {
    (void)state;
    struct stat_histogram *histogram = &block.histogram[STAT_HIST_UPSTREAM_CONNECT];
    stat_observe_ns(&block, STAT_HIST_UPSTREAM_CONNECT, 0);
    stat_observe_ns(&block, STAT_HIST_UPSTREAM_CONNECT, 100000);
    stat_observe_ns(&block, STAT_HIST_UPSTREAM_CONNECT, 100001);
    stat_observe_ns(&block, STAT_HIST_UPSTREAM_CONNECT, 10000000000);
    stat_observe_ns(&block, STAT_HIST_UPSTREAM_CONNECT, 10000000001);
    assert_int_equal(histogram->bucket[0], 2);
    assert_int_equal(histogram->bucket[1], 1);
    assert_int_equal(histogram->bucket[15], 1);
    assert_int_equal(histogram->bucket[16], 1);
    assert_int_equal(histogram->count, 5);
    assert_true(histogram->sum == 20000200002);
}

static void counts_have_their_own_bounds(void **state) {
    (void)state;
    const struct stat_histogram_entry *entry = stat_histogram_entry(STAT_HIST_URING_CQE_PER_WAKE);
    assert_string_equal(entry->metric, "uring_cqe_per_wake");
    assert_int_equal(entry->bound_count, 11);
    assert_true(entry->unit == 1.0);
    stat_observe(&block, STAT_HIST_URING_CQE_PER_WAKE, 1);
    stat_observe(&block, STAT_HIST_URING_CQE_PER_WAKE, 3);
    stat_observe(&block, STAT_HIST_URING_CQE_PER_WAKE, 1025);
    const struct stat_histogram *histogram = &block.histogram[STAT_HIST_URING_CQE_PER_WAKE];
    assert_int_equal(histogram->bucket[0], 1);
    assert_int_equal(histogram->bucket[2], 1);
    assert_int_equal(histogram->bucket[11], 1);
    assert_int_equal(histogram->sum, 1029);
}

static void bounds_ascend_and_agree_with_their_text(void **state) {
    (void)state;
    for (unsigned id = 0; id < STAT_HIST_COUNT; id++) {
        const struct stat_histogram_entry *entry = stat_histogram_entry(id);
        assert_in_range(entry->bound_count, 1, STAT_BUCKETS);
        for (uint32_t i = 0; i < entry->bound_count; i++) {
            if (i > 0) assert_true(entry->bounds[i] > entry->bounds[i - 1]);
            double told = strtod(entry->bound_texts[i], NULL) * entry->unit;
            assert_true((uint64_t)(told + 0.5) == entry->bounds[i]);
        }
    }
}

/* Prometheus wants the rows of one metric together, of one type and under one help text. */
static void rows_of_one_metric_stand_together(void **state) {
    (void)state;
    for (unsigned i = 0; i < STAT_COUNT; i++) {
        const struct stat_entry *entry = stat_entry(i);
        assert_true(strlen(entry->help) > 0);
        if (entry->metric[0] == '\0') continue;
        for (unsigned j = 0; j < i; j++) {
            const struct stat_entry *other = stat_entry(j);
            if (strcmp(entry->metric, other->metric) != 0) continue;
            assert_string_equal(entry->metric, stat_entry(i - 1)->metric);
            assert_string_equal(entry->help, other->help);
            assert_int_equal(entry->kind, other->kind);
            assert_string_not_equal(entry->labels, other->labels);
        }
    }
}

static bool ends_with(const char *text, const char *end) {
    size_t len = strlen(text);
    size_t end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

static void counters_and_only_counters_are_totals(void **state) {
    (void)state;
    for (unsigned i = 0; i < STAT_COUNT; i++) {
        const struct stat_entry *entry = stat_entry(i);
        if (entry->metric[0] == '\0') continue;
        assert_int_equal(ends_with(entry->metric, "_total"), entry->kind == STAT_KIND_COUNTER);
    }
    for (unsigned i = 0; i < STAT_BY_REASON_COUNT; i++)
        assert_true(ends_with(stat_by_reason_entry(i)->metric, "_total"));
}

static void by_reason_finds_the_field(void **state) {
    (void)state;
    stat_bump(&block.reasons[REASON_NO_ROUTE], 1);
    stat_bump(&block.parse_errors[REASON_BAD_HOST], 2);
    stat_bump(&block.rejected[REASON_NO_MEMORY], 3);
    stat_bump(&block.connect_failures[REASON_CONNECT_TIMEOUT], 4);
    stat_bump(&block.retries[REASON_SERVER_RESET], 5);
    assert_int_equal(stat_by_reason(&block, STAT_BY_REASON_reasons)[REASON_NO_ROUTE], 1);
    assert_int_equal(stat_by_reason(&block, STAT_BY_REASON_parse_errors)[REASON_BAD_HOST], 2);
    assert_int_equal(stat_by_reason(&block, STAT_BY_REASON_rejected)[REASON_NO_MEMORY], 3);
    assert_int_equal(
        stat_by_reason(&block, STAT_BY_REASON_connect_failures)[REASON_CONNECT_TIMEOUT], 4);
    assert_int_equal(stat_by_reason(&block, STAT_BY_REASON_retries)[REASON_SERVER_RESET], 5);
    assert_string_equal(stat_by_reason_entry(STAT_BY_REASON_retries)->metric,
                        "upstream_retries_total");
}

static void merge_adds_every_number(void **state) {
    (void)state;
    /* Each cell of the block gets a number of its own, and the total gets it twice. */
    uint64_t *cells = (uint64_t *)(void *)&block;
    struct stat_block total = {0};
    const uint64_t *sums = (const uint64_t *)(const void *)&total;
    for (size_t i = 0; i < sizeof block / 8; i++)
        cells[i] = i + 1;
    for (int i = 0; i < STAT_HIST_COUNT; i++) {
        block.histogram[i].count = 0;
        for (int bucket = 0; bucket <= STAT_BUCKETS; bucket++)
            block.histogram[i].count += block.histogram[i].bucket[bucket];
    }
    stat_merge(&total, &block);
    stat_merge(&total, &block);
    size_t end = (offsetof(struct stat_block, retries) + sizeof block.retries) / 8;
    for (size_t i = 0; i < end; i++)
        assert_true(sums[i] == 2 * cells[i]);
}

static bool stop;

static void *count_up(void *unused) {
    (void)unused;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        stat_observe_ns(&block, STAT_HIST_UPSTREAM_RESPONSE, 1000000);
        stat_add(&block, STAT_URING_SQE, 1);
    }
    return NULL;
}

static void a_reader_sees_counters_grow_and_counts_that_fit_their_buckets(void **state) {
    (void)state;
    stop = false;
    pthread_t writer;
    assert_int_equal(pthread_create(&writer, NULL, count_up, NULL), 0);
    uint64_t last = 0;
    for (int i = 0; i < 2000; i++) {
        struct stat_block total = {0};
        stat_merge(&total, &block);
        assert_true(total.value[STAT_URING_SQE] >= last);
        last = total.value[STAT_URING_SQE];
        const struct stat_histogram *histogram = &total.histogram[STAT_HIST_UPSTREAM_RESPONSE];
        uint64_t sum = 0;
        for (int bucket = 0; bucket <= STAT_BUCKETS; bucket++)
            sum += histogram->bucket[bucket];
        assert_true(histogram->count == sum);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    assert_int_equal(pthread_join(writer, NULL), 0);
}

static void ask_past_the_values(void) { (void)stat_entry(STAT_COUNT); }
static void ask_past_the_histograms(void) { (void)stat_histogram_entry(STAT_HIST_COUNT); }
static void ask_past_the_reasons(void) { (void)stat_by_reason_entry(STAT_BY_REASON_COUNT); }

static void unknown_ids_are_caught(void **state) {
    (void)state;
    assert_true(death_by_abort(ask_past_the_values, NULL, 0));
    assert_true(death_by_abort(ask_past_the_histograms, NULL, 0));
    assert_true(death_by_abort(ask_past_the_reasons, NULL, 0));
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(numbers_go_up_down_and_to_a_value),
        TEST(blocks_do_not_share_cache_lines),
        TEST(a_bound_is_in_its_own_bucket),
        TEST(counts_have_their_own_bounds),
        TEST(bounds_ascend_and_agree_with_their_text),
        TEST(rows_of_one_metric_stand_together),
        TEST(counters_and_only_counters_are_totals),
        TEST(by_reason_finds_the_field),
        TEST(merge_adds_every_number),
        TEST(a_reader_sees_counters_grow_and_counts_that_fit_their_buckets),
        TEST(unknown_ids_are_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
