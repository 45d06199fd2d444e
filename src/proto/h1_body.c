#include "proto/h1_body.h"

#include "base/check.h"
#include "proto/http_internal.h"

/* A chunk line: size, extensions and CRLF. Nobody sends extensions, so what is longer is an attempt
 * to keep us busy. */
#define CHUNK_LINE_SIZE_MAX 256

/* h1_body.state, of the chunked reader (RFC 9112 section 7.1). Only CHUNK_DATA has bytes of the
 * body. */
enum chunk_state {
    CHUNK_SIZE_FIRST, /* a hex digit must come */
    CHUNK_SIZE,
    CHUNK_SIZE_BLANK, /* white space behind the size: only an extension may follow */
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_LAST, /* the last chunk line was read */
    CHUNK_BAD
};

void h1_body_init(struct h1_body *body, enum h1_body_kind kind, uint64_t length) {
    *body = (struct h1_body){.kind = kind, .left = kind == H1_BODY_LENGTH ? length : 0};
}

static void skip(struct bytes *input, size_t size) {
    input->ptr += size;
    input->len -= size;
}

/* Gives out at most `left` bytes of the input. */
static enum h1_body_event give(struct h1_body *body, uint64_t left, struct bytes *input,
                               struct bytes *data) {
    if (input->len == 0) return H1_BODY_MORE;
    *data = bytes_make(input->ptr, left < input->len ? (size_t)left : input->len);
    body->read += data->len;
    skip(input, data->len);
    return H1_BODY_DATA;
}

static uint8_t hex_value(char c) {
    if (c <= '9') return (uint8_t)(c - '0');
    return (uint8_t)((c | 0x20) - 'a' + 10);
}

/* One more digit. A chunk stays under 2^63, so that sums of sizes do not wrap. */
static enum chunk_state take_digit(struct h1_body *body, char c) {
    if (body->left > (uint64_t)INT64_MAX >> 4) return CHUNK_BAD;
    body->left = body->left << 4 | hex_value(c);
    return CHUNK_SIZE;
}

static enum chunk_state after_size_line(const struct h1_body *body) {
    return body->left != 0 ? CHUNK_DATA : CHUNK_LAST;
}

/* One byte of what is around the data. Line ends are CRLF exactly, in extensions too: where one
 * reader takes a bare LF for an end and another one does not, a request can be hidden. */
static enum chunk_state take_byte(struct h1_body *body, char c) {
    switch ((enum chunk_state)body->state) {
    case CHUNK_SIZE_FIRST:
        return http_byte_is(c, HTTP_BYTE_HEX) ? take_digit(body, c) : CHUNK_BAD;
    case CHUNK_SIZE:
        if (http_byte_is(c, HTTP_BYTE_HEX)) return take_digit(body, c);
        if (c == '\r') return CHUNK_SIZE_LF;
        if (c == ';') return CHUNK_EXTENSION;
        return c == ' ' || c == '\t' ? CHUNK_SIZE_BLANK : CHUNK_BAD;
    case CHUNK_SIZE_BLANK:
        if (c == ';') return CHUNK_EXTENSION;
        return c == ' ' || c == '\t' ? CHUNK_SIZE_BLANK : CHUNK_BAD;
    case CHUNK_EXTENSION:
        if (c == '\r') return CHUNK_SIZE_LF;
        return http_byte_is(c, HTTP_BYTE_VALUE) ? CHUNK_EXTENSION : CHUNK_BAD;
    case CHUNK_SIZE_LF:
        return c == '\n' ? after_size_line(body) : CHUNK_BAD;
    case CHUNK_DATA_CR:
        return c == '\r' ? CHUNK_DATA_LF : CHUNK_BAD;
    case CHUNK_DATA_LF:
        return c == '\n' ? CHUNK_SIZE_FIRST : CHUNK_BAD;
    case CHUNK_DATA:
    case CHUNK_LAST:
    case CHUNK_BAD:
        break;
    }
    return CHUNK_BAD;
}

static enum h1_body_event read_chunk_data(struct h1_body *body, struct bytes *input,
                                          struct bytes *data) {
    enum h1_body_event event = give(body, body->left, input, data);
    if (event != H1_BODY_DATA) return event;
    body->left -= data->len;
    if (body->left == 0) {
        body->state = CHUNK_DATA_CR;
        body->line_size = 0;
    }
    return event;
}

static enum h1_body_event read_chunked(struct h1_body *body, struct bytes *input,
                                       struct bytes *data) {
    for (;;) {
        if (body->state == CHUNK_BAD) return H1_BODY_BAD;
        if (body->state == CHUNK_LAST) return H1_BODY_TRAILERS;
        if (body->state == CHUNK_DATA) return read_chunk_data(body, input, data);
        if (input->len == 0) return H1_BODY_MORE;
        bool fits = body->line_size++ < CHUNK_LINE_SIZE_MAX;
        body->state = (uint8_t)(fits ? take_byte(body, input->ptr[0]) : CHUNK_BAD);
        skip(input, 1);
    }
}

enum h1_body_event h1_body_read(struct h1_body *body, struct bytes *input, struct bytes *data) {
    switch (body->kind) {
    case H1_BODY_NONE:
        return H1_BODY_END;
    case H1_BODY_CHUNKED:
        return read_chunked(body, input, data);
    case H1_BODY_UNTIL_CLOSE:
        return give(body, UINT64_MAX, input, data);
    case H1_BODY_LENGTH:
        break;
    }
    if (body->left == 0) return H1_BODY_END;
    enum h1_body_event event = give(body, body->left, input, data);
    if (event == H1_BODY_DATA) body->left -= data->len;
    return event;
}

void h1_body_skip(struct h1_body *body, uint64_t bytes) {
    CHECK(body->kind == H1_BODY_UNTIL_CLOSE ||
          (body->kind == H1_BODY_LENGTH && bytes <= body->left));
    if (body->kind == H1_BODY_LENGTH) body->left -= bytes;
    body->read += bytes;
}

uint64_t h1_body_left(const struct h1_body *body) {
    switch (body->kind) {
    case H1_BODY_LENGTH:
        return body->left;
    case H1_BODY_CHUNKED:
        return body->state == CHUNK_LAST ? 0 : HTTP_LENGTH_UNKNOWN;
    case H1_BODY_UNTIL_CLOSE:
        return HTTP_LENGTH_UNKNOWN;
    case H1_BODY_NONE:
        break;
    }
    return 0;
}
