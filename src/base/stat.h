/* stat.h: everything a worker counts, in one block per worker (the rows: stat.def).
 *
 * Only the owning worker writes its block; any thread may read it. So an update is a relaxed load
 * and a relaxed store, without a lock prefix, and a reader sees each number whole but not all of
 * them at one instant. Gauges are per worker as well: the process's value is the sum. Blocks live
 * as long as the process and are aligned to cache lines, so that no two workers write to one line.
 * A block begins zeroed. What holds one on the heap comes from aligned_alloc(3): calloc(3) aligns
 * to 16 only.
 */
#ifndef WEIR_BASE_STAT_H
#define WEIR_BASE_STAT_H

#include "base/reason.h"

#include <stddef.h>
#include <stdint.h>

enum stat_id {
#define STAT(name, kind, metric, labels, help) STAT_##name,
#include "base/stat.def"
    STAT_COUNT
};

enum stat_histogram_id {
#define STAT_HISTOGRAM(name, table, metric, help) STAT_HIST_##name,
#include "base/stat.def"
    STAT_HIST_COUNT
};

enum stat_by_reason_id {
#define STAT_BY_REASON(name, metric, help) STAT_BY_REASON_##name,
#include "base/stat.def"
    STAT_BY_REASON_COUNT
};

enum stat_kind { STAT_KIND_COUNTER, STAT_KIND_GAUGE };

/* The longest table of bounds. */
#define STAT_BUCKETS 16

struct stat_histogram {
    uint64_t bucket[STAT_BUCKETS + 1]; /* not cumulative; the one after the last bound is +Inf */
    uint64_t count;
    uint64_t sum; /* in the unit observed: ns for the SECONDS table */
};

struct stat_block {
    _Alignas(64) uint64_t value[STAT_COUNT];
    struct stat_histogram histogram[STAT_HIST_COUNT];
#define STAT_BY_REASON(name, metric, help) uint64_t name[REASON_COUNT];
#include "base/stat.def"
};

struct stat_entry {
    const char *metric; /* without the prefix weir_; "": not printed as it stands */
    const char *labels; /* without braces, "" for none */
    const char *help;
    enum stat_kind kind;
};

struct stat_histogram_entry {
    const char *metric;
    const char *help;
    const uint64_t *bounds;         /* inclusive upper ones, ascending, in the unit observed */
    const char *const *bound_texts; /* as the label `le` */
    uint32_t bound_count;
    double unit; /* what `sum` is divided by for printing: 1e9 for SECONDS, 1 for COUNTS */
};

struct stat_by_reason_entry {
    const char *metric;
    const char *help;
    size_t offset; /* of the uint64_t[REASON_COUNT] in struct stat_block */
};

/* Any counter cell of one's own block: stat_bump(&block->retries[reason], 1). */
static inline void stat_bump(uint64_t *cell, uint64_t n) {
    __atomic_store_n(cell, __atomic_load_n(cell, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}
static inline void stat_add(struct stat_block *block, enum stat_id id, uint64_t n) {
    stat_bump(&block->value[id], n);
}
/* Gauges only. */
static inline void stat_sub(struct stat_block *block, enum stat_id id, uint64_t n) {
    stat_bump(&block->value[id], -n);
}
static inline void stat_set(struct stat_block *block, enum stat_id id, uint64_t n) {
    __atomic_store_n(&block->value[id], n, __ATOMIC_RELAXED);
}
static inline uint64_t stat_get(const struct stat_block *block, enum stat_id id) {
    return __atomic_load_n(&block->value[id], __ATOMIC_RELAXED);
}
/* `value` in the unit of the histogram's table. */
void stat_observe(struct stat_block *block, enum stat_histogram_id id, uint64_t value);
/* For histograms of the SECONDS table. */
static inline void stat_observe_ns(struct stat_block *block, enum stat_histogram_id id,
                                   uint64_t ns) {
    stat_observe(block, id, ns);
}

/* Adds all of `block` (which its worker may be writing to) to `total` (the caller's own, zeroed
 * before the first). The count of a histogram in `total` is the sum of its buckets, also when they
 * were moving. */
void stat_merge(struct stat_block *total, const struct stat_block *block);

/* Never NULL; they CHECK the id. */
const struct stat_entry *stat_entry(enum stat_id id);
const struct stat_histogram_entry *stat_histogram_entry(enum stat_histogram_id id);
const struct stat_by_reason_entry *stat_by_reason_entry(enum stat_by_reason_id id);
/* The cells of one such row, for reading with relaxed loads (or from a merged total). */
static inline const uint64_t *stat_by_reason(const struct stat_block *block,
                                             enum stat_by_reason_id id) {
    return (const uint64_t *)(const void *)((const char *)block + stat_by_reason_entry(id)->offset);
}

#endif
