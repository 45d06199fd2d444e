/* h2_head.h: the header section of an HTTP/2 message, field by field as it is decompressed (RFC
 * 9113 section 8), judged and made a struct http_message.
 *
 * The owner gives a head the memory for its limits and feeds it fields in their order; the head
 * copies them. The first fault decides the reason; what comes after it is counted and dropped, so
 * that a head's work and memory are bounded however long it is. Nothing here may be forwarded of a
 * head that has a reason. The limits are those of HTTP/1: each field counts as its line would, and
 * every crumb of a cookie is a field; the crumbs are joined only when all have been counted.
 */
#ifndef WEIR_PROTO_H2_HEAD_H
#define WEIR_PROTO_H2_HEAD_H

#include "base/reason.h"
#include "proto/http.h"

enum h2_head_kind { H2_REQUEST, H2_RESPONSE, H2_TRAILERS };

struct h2_head_limits {
    uint32_t head_size_max;
    uint32_t fields_max;
    uint32_t target_size_max;
};

enum h2_pseudo {
    H2_PSEUDO_METHOD,
    H2_PSEUDO_SCHEME,
    H2_PSEUDO_AUTHORITY,
    H2_PSEUDO_PATH,
    H2_PSEUDO_PROTOCOL,
    H2_PSEUDO_STATUS,
    H2_PSEUDO_COUNT
};

struct h2_head {
    /* Fixed by h2_head_init. */
    enum h2_head_kind kind;
    struct h2_head_limits limits;
    /* While fields come. */
    enum reason reason; /* of the first fault; NONE: none so far */
    uint64_t size;      /* bytes seen, dropped ones too */
    uint32_t count;     /* fields seen, dropped ones and crumbs too */
    uint32_t text_len;
    uint32_t field_count; /* kept in `fields` */
    uint32_t crumbs;
    bool regular_seen;
    bool host_seen;
    bool length_seen;
    bool expect_continue;
    uint64_t length; /* of content-length, under 2^63 */
    struct bytes host;
    struct bytes pseudo[H2_PSEUDO_COUNT]; /* ptr NULL: not there */
    struct http_field *fields;            /* limits.fields_max, behind the head */
    char *text;                           /* limits.head_size_max, behind the fields */
};

/* Bytes of a head's memory for these limits. */
size_t h2_head_memory(const struct h2_head_limits *limits);
/* `head` has the memory of limits that are at least these. */
void h2_head_init(struct h2_head *head, enum h2_head_kind kind,
                  const struct h2_head_limits *limits);
/* `secret`: a literal that is never to be indexed. Who sends it on keeps to that. */
void h2_head_add(struct h2_head *head, struct bytes name, struct bytes value, bool secret);
/* Once all fields are there: the reason of the first fault, of a field or of the head as a whole.
 * `end`: no body follows. */
enum reason h2_head_finish(struct h2_head *head, bool end);
/* Whether a client that is refused for `reason` is told so by an answer: what it sent is well
 * formed, but too much. Else its stream is reset. */
bool h2_reason_is_limit(enum reason reason);

/* After h2_head_finish without a reason. The message lives in `arena`, `scheme` is that of the
 * connection. An extended CONNECT (RFC 8441) is told as HTTP/1 would ask: GET with `upgrade`. NULL
 * when the arena is at its limit. */
struct http_message *h2_head_request(const struct h2_head *head, struct bytes scheme,
                                     struct arena *arena);
/* The message lives as long as the head's contents. body_length is for an answer to `method`;
 * `end` as above. */
void h2_head_response(const struct h2_head *head, enum http_method method, bool end,
                      struct http_message *message);
/* Trailers, without fields that trailers must not hold, in `arena`; false at its limit. */
bool h2_head_trailers(const struct h2_head *head, struct arena *arena, struct http_fields *fields);

#endif
