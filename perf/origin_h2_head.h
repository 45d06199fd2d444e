/* origin_h2_head.h: the heads of perf/origin_h2.c: HPACK (RFC 7541) by nghttp2, in both directions
 * with a dynamic table, as common servers have them.
 */
#ifndef WEIR_PERF_ORIGIN_H2_HEAD_H
#define WEIR_PERF_ORIGIN_H2_HEAD_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define H2_HEADS_MAX (32 * 1024)

/* Of one connection. */
struct h2_head {
    nghttp2_hd_inflater *inflater;
    nghttp2_hd_deflater *deflater;
    uint8_t block[256]; /* the head of an answer, encoded last */
    size_t block_size;
    uint64_t block_length; /* the content-length it tells */
    time_t block_second;   /* the date it tells */
    bool is_repeatable;    /* encoding it again would change no table */
};

/* The request that was decoded last. */
struct h2_request {
    bool is_post;
    char path[128];
    size_t head_size;
    char head[H2_HEADS_MAX]; /* "name: value\r\n" for each field */
};

extern struct h2_request h2_request;

void h2_head_init(struct h2_head *head);
void h2_head_fini(struct h2_head *head);

/* Makes head->block the head of an answer of `size` bytes: to be sent now, and once. */
void h2_head_encode(struct h2_head *head, uint64_t size);

/* The other side has a smaller table: SETTINGS_HEADER_TABLE_SIZE. */
void h2_head_limit(struct h2_head *head, uint32_t table_size);

/* Decodes a whole header block into h2_request. False: it is none. */
bool h2_head_decode(struct h2_head *head, const uint8_t *block, size_t size);

#endif
