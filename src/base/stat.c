#include "base/stat.h"

#include "base/check.h"

struct bound_table {
    uint64_t bounds[STAT_BUCKETS];
    const char *texts[STAT_BUCKETS];
};

/* One list per table, so that a bound and its text cannot drift apart. */
#define EACH_BOUND_SECONDS(BOUND)                                                                  \
    BOUND(100000, "0.0001")                                                                        \
    BOUND(250000, "0.00025")                                                                       \
    BOUND(500000, "0.0005")                                                                        \
    BOUND(1000000, "0.001")                                                                        \
    BOUND(2500000, "0.0025")                                                                       \
    BOUND(5000000, "0.005")                                                                        \
    BOUND(10000000, "0.01")                                                                        \
    BOUND(25000000, "0.025")                                                                       \
    BOUND(50000000, "0.05")                                                                        \
    BOUND(100000000, "0.1")                                                                        \
    BOUND(250000000, "0.25")                                                                       \
    BOUND(500000000, "0.5")                                                                        \
    BOUND(1000000000, "1")                                                                         \
    BOUND(2500000000, "2.5")                                                                       \
    BOUND(5000000000, "5")                                                                         \
    BOUND(10000000000, "10")

#define EACH_BOUND_COUNTS(BOUND)                                                                   \
    BOUND(1, "1")                                                                                  \
    BOUND(2, "2")                                                                                  \
    BOUND(4, "4")                                                                                  \
    BOUND(8, "8")                                                                                  \
    BOUND(16, "16")                                                                                \
    BOUND(32, "32")                                                                                \
    BOUND(64, "64")                                                                                \
    BOUND(128, "128")                                                                              \
    BOUND(256, "256")                                                                              \
    BOUND(512, "512")                                                                              \
    BOUND(1024, "1024")

#define BOUND_VALUE(value, text) value,
#define BOUND_TEXT(value, text) text,
#define BOUND_ONE(value, text) +1

#define COUNT_SECONDS (0 EACH_BOUND_SECONDS(BOUND_ONE))
#define COUNT_COUNTS (0 EACH_BOUND_COUNTS(BOUND_ONE))
#define UNIT_SECONDS 1e9
#define UNIT_COUNTS 1.0

_Static_assert(COUNT_SECONDS <= STAT_BUCKETS, "a bucket per bound");
_Static_assert(COUNT_COUNTS <= STAT_BUCKETS, "a bucket per bound");

static const struct bound_table table_SECONDS = {
    .bounds = {EACH_BOUND_SECONDS(BOUND_VALUE)},
    .texts = {EACH_BOUND_SECONDS(BOUND_TEXT)},
};
static const struct bound_table table_COUNTS = {
    .bounds = {EACH_BOUND_COUNTS(BOUND_VALUE)},
    .texts = {EACH_BOUND_COUNTS(BOUND_TEXT)},
};

static const struct stat_entry entries[STAT_COUNT] = {
#define STAT(name, kind, metric, labels, help)                                                     \
    [STAT_##name] = {metric, labels, help, STAT_KIND_##kind},
#include "base/stat.def"
};

static const struct stat_histogram_entry histograms[STAT_HIST_COUNT] = {
#define STAT_HISTOGRAM(name, table, metric, help)                                                  \
    [STAT_HIST_##name] = {                                                                         \
        metric, help, table_##table.bounds, table_##table.texts, COUNT_##table, UNIT_##table,      \
    },
#include "base/stat.def"
};

static const struct stat_by_reason_entry by_reason[STAT_BY_REASON_COUNT] = {
#define STAT_BY_REASON(name, metric, help)                                                         \
    [STAT_BY_REASON_##name] = {metric, help, offsetof(struct stat_block, name)},
#include "base/stat.def"
};

const struct stat_entry *stat_entry(enum stat_id id) {
    CHECK((unsigned)id < STAT_COUNT);
    return &entries[id];
}

const struct stat_histogram_entry *stat_histogram_entry(enum stat_histogram_id id) {
    CHECK((unsigned)id < STAT_HIST_COUNT);
    return &histograms[id];
}

const struct stat_by_reason_entry *stat_by_reason_entry(enum stat_by_reason_id id) {
    CHECK((unsigned)id < STAT_BY_REASON_COUNT);
    return &by_reason[id];
}

void stat_observe(struct stat_block *block, enum stat_histogram_id id, uint64_t value) {
    const struct stat_histogram_entry *entry = stat_histogram_entry(id);
    struct stat_histogram *histogram = &block->histogram[id];
    /* Most values fall into the first few buckets: a straight search beats halving. */
    uint32_t i = 0;
    while (i < entry->bound_count && value > entry->bounds[i])
        i++;
    stat_bump(&histogram->bucket[i], 1);
    stat_bump(&histogram->count, 1);
    stat_bump(&histogram->sum, value);
}

static uint64_t load(const uint64_t *cell) { return __atomic_load_n(cell, __ATOMIC_RELAXED); }

static void merge_histogram(struct stat_histogram *total, const struct stat_histogram *histogram) {
    for (uint32_t i = 0; i <= STAT_BUCKETS; i++) {
        uint64_t n = load(&histogram->bucket[i]);
        total->bucket[i] += n;
        total->count += n;
    }
    total->sum += load(&histogram->sum);
}

static void merge_reasons(uint64_t *total, const uint64_t *cells) {
    for (uint32_t i = 0; i < REASON_COUNT; i++)
        total[i] += load(&cells[i]);
}

void stat_merge(struct stat_block *total, const struct stat_block *block) {
    for (uint32_t i = 0; i < STAT_COUNT; i++)
        total->value[i] += load(&block->value[i]);
    for (uint32_t i = 0; i < STAT_HIST_COUNT; i++) {
        merge_histogram(&total->histogram[i], &block->histogram[i]);
    }
#define STAT_BY_REASON(name, metric, help) merge_reasons(total->name, block->name);
#include "base/stat.def"
}
