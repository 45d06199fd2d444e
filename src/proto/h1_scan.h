/* h1_scan.h: searches of a head, 16 bytes a step with SSE2, else one by one. Of proto/ only.
 *
 * All work on offsets: from `from` to `end`, in bytes readable from base to base + end. They return
 * the offset of the first hit, or `end`. Nothing outside these bytes is read: the last step
 * overlaps what was searched before.
 */
#ifndef WEIR_PROTO_H1_SCAN_H
#define WEIR_PROTO_H1_SCAN_H

#include "proto/http_internal.h"

#ifdef __SSE2__
#include <emmintrin.h>

/* One bit per byte that is a hit. */
typedef unsigned h1_hits_of_16(__m128i bytes);

static inline unsigned h1_control_hits(__m128i bytes) {
    __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
    __m128i tab = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\t'));
    __m128i del = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_andnot_si128(tab, low), del));
}
static inline unsigned h1_colon_hits(__m128i bytes) {
    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(':')));
}
/* Signed: obs-text is negative. DEL is left to h1_control_hits. */
static inline unsigned h1_not_target_hits(__m128i bytes) {
    __m128i visible = _mm_cmpgt_epi8(bytes, _mm_set1_epi8(' '));
    __m128i hash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('#'));
    return (unsigned)_mm_movemask_epi8(_mm_andnot_si128(hash, visible)) ^ 0xffffu;
}
#define H1_HITS(hits) hits,
#define H1_HITS_ARGUMENT h1_hits_of_16 hits,
#else
#define H1_HITS(hits)
#define H1_HITS_ARGUMENT
#endif

static inline bool h1_is_control(char c) { return !http_byte_is(c, HTTP_BYTE_VALUE); }
static inline bool h1_is_colon(char c) { return c == ':'; }
static inline bool h1_is_not_target(char c) { return !http_byte_is(c, HTTP_BYTE_TARGET); }

/* Inlined into each caller below, where both functions are constants. */
static inline __attribute__((always_inline)) uint32_t
h1_scan(const char *base, uint32_t from, uint32_t end, H1_HITS_ARGUMENT bool is_hit(char)) {
#ifdef __SSE2__
    while (end - from >= 16) {
        unsigned found = hits(_mm_loadu_si128((const void *)(base + from)));
        if (found != 0) return from + (uint32_t)__builtin_ctz(found);
        from += 16;
    }
    if (from < end && end >= 16) {
        unsigned found = hits(_mm_loadu_si128((const void *)(base + end - 16)));
        found >>= 16 - (end - from);
        return found != 0 ? from + (uint32_t)__builtin_ctz(found) : end;
    }
#endif
    while (from < end && !is_hit(base[from]))
        from++;
    return from;
}

/* A control byte other than HTAB: CR and LF among them. */
static inline uint32_t h1_scan_control(const char *base, uint32_t from, uint32_t end) {
    return h1_scan(base, from, end, H1_HITS(h1_control_hits) h1_is_control);
}
static inline uint32_t h1_scan_colon(const char *base, uint32_t from, uint32_t end) {
    return h1_scan(base, from, end, H1_HITS(h1_colon_hits) h1_is_colon);
}
/* A byte that a target may not hold, in bytes that hold no control byte. */
static inline uint32_t h1_scan_not_target(const char *base, uint32_t from, uint32_t end) {
    return h1_scan(base, from, end, H1_HITS(h1_not_target_hits) h1_is_not_target);
}

#endif
