/* h1_body.h: the bodies of HTTP/1.x messages, as they arrive (RFC 9112 sections 6 and 7).
 *
 * Works in place: h1_body_read takes received bytes and gives back the next slice of body inside
 * them. Chunk extensions are skipped (a chunk line has at most 256 bytes), the trailer section is
 * left to h1_parse with H1_TRAILERS. Input may be split at every byte; the result depends on the
 * bytes only.
 */
#ifndef WEIR_PROTO_H1_BODY_H
#define WEIR_PROTO_H1_BODY_H

#include "proto/h1_parse.h"

enum h1_body_event {
    H1_BODY_DATA,     /* *data is a slice of *input; more may follow */
    H1_BODY_MORE,     /* *input is used up */
    H1_BODY_TRAILERS, /* chunked: the last chunk was read; what is left of *input begins the trailer
                         section */
    H1_BODY_END,      /* body complete; *input is what follows it */
    H1_BODY_BAD /* REASON_BAD_CHUNK (the caller maps it to BAD_RESPONSE on the upstream side) */
};

struct h1_body {
    enum h1_body_kind kind;
    uint8_t state;      /* of the chunked reader */
    uint32_t line_size; /* bytes of the current chunk line: bounded */
    uint64_t left;      /* bytes left of the body (LENGTH) or of the chunk */
    uint64_t read;      /* body bytes given out so far */
};

void h1_body_init(struct h1_body *body, enum h1_body_kind kind, uint64_t length);
/* Consumes from the front of *input. Call until MORE, TRAILERS, END or BAD. After TRAILERS do not
 * call again. LENGTH 0 and NONE give END at once. UNTIL_CLOSE never ends by itself. */
enum h1_body_event h1_body_read(struct h1_body *body, struct bytes *input, struct bytes *data);
/* Bytes of a LENGTH (no more than are left) or UNTIL_CLOSE body that came another way. */
void h1_body_skip(struct h1_body *body, uint64_t bytes);
/* For LENGTH: the bytes still to come; HTTP_LENGTH_UNKNOWN for CHUNKED and UNTIL_CLOSE; 0 once
 * ended. */
uint64_t h1_body_left(const struct h1_body *body);

#endif
