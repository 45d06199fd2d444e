/* ring_internal.h: what only ring/ uses. */
#ifndef WEIR_RING_RING_INTERNAL_H
#define WEIR_RING_RING_INTERNAL_H

#include "base/check.h"
#include "ring/compat.h"
#include "ring/ring.h"

static inline uint64_t ring_pack(struct ring_token token) {
    CHECK(token.generation < (1U << 24));
    return (uint64_t)token.kind << 56 | (uint64_t)token.generation << 32 | token.slot;
}

static inline struct ring_token ring_unpack(uint64_t user_data) {
    return (struct ring_token){
        .kind = (enum ring_kind)(user_data >> 56),
        .generation = (uint32_t)(user_data >> 32) & 0xffffffU,
        .slot = (uint32_t)user_data,
    };
}

/* A zeroed submission entry; enters once to make room when the queue is full. Counts the operation
 * as in flight. */
struct io_uring_sqe *ring_sqe(struct ring *ring, struct ring_token token);

#endif
