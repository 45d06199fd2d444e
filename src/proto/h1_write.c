#include "proto/h1_write.h"

#include "base/check.h"

/* Start line, framing and Connection with the longest number, without what the message puts into
 * them. */
#define HEAD_SIZE_EXTRA 160
/* ": " and CRLF. */
#define FIELD_SIZE_EXTRA 4

/* Most pieces of a head are short, and a call to memcpy(3) costs more than they do: moves of fixed
 * size that overlap where the length is not a multiple. */
static inline char *put(char *to, struct bytes b) {
    const char *from = b.ptr;
    size_t len = b.len;
    if (len > 64) {
        memcpy(to, from, len);
    } else if (len >= 16) {
        for (size_t i = 0; i + 16 <= len; i += 16)
            memcpy(to + i, from + i, 16);
        memcpy(to + len - 16, from + len - 16, 16);
    } else if (len >= 8) {
        memcpy(to, from, 8);
        memcpy(to + len - 8, from + len - 8, 8);
    } else if (len >= 4) {
        memcpy(to, from, 4);
        memcpy(to + len - 4, from + len - 4, 4);
    } else if (len != 0) {
        to[0] = from[0];
        to[len / 2] = from[len / 2];
        to[len - 1] = from[len - 1];
    }
    return to + len;
}

#define PUT_LITERAL(to, literal)                                                                   \
    (memcpy((to), (literal), sizeof(literal) - 1), (to) + sizeof(literal) - 1)

/* Where the next `size` bytes go, or NULL when they do not fit. */
static inline char *reserve(struct writer *w, size_t size) {
    if (!w->full && size <= w->size - w->len) return w->ptr + w->len;
    w->full = true;
    return NULL;
}

static inline void commit(struct writer *w, const char *end) { w->len = (size_t)(end - w->ptr); }

static inline void put_field(struct writer *w, struct bytes name, struct bytes value) {
    char *at = reserve(w, name.len + value.len + FIELD_SIZE_EXTRA);
    if (at == NULL) return;
    at = put(at, name);
    at = PUT_LITERAL(at, ": ");
    at = put(at, value);
    commit(w, PUT_LITERAL(at, "\r\n"));
}

/* Whether there is a TE field: Connection must name it then (RFC 9110 section 10.1.4). */
static bool put_fields(struct writer *w, const struct http_fields *fields) {
    bool has_te = false;
    for (uint32_t i = 0; i < fields->count; i++) {
        const struct http_field *field = &fields->items[i];
        put_field(w, field->name, field->value);
        has_te |= field->id == HTTP_FIELD_TE;
    }
    return has_te;
}

static void put_content_length(struct writer *w, uint64_t length) {
    if (length == 0) {
        writer_put(w, BYTES("Content-Length: 0\r\n"));
        return;
    }
    writer_put(w, BYTES("Content-Length: "));
    writer_u64(w, length);
    writer_put(w, BYTES("\r\n"));
}

/* Upgrade outranks what is said of the connection: once it is done, there is no HTTP connection
 * left to speak of. */
static void put_connection(struct writer *w, const struct http_message *message,
                           const struct h1_framing *framing, bool has_te) {
    struct bytes option = BYTES_NONE;
    if (framing->upgrade) {
        option = BYTES("upgrade");
    } else if (!framing->keep_alive) {
        option = BYTES("close");
    } else if (framing->say_keep_alive) {
        option = BYTES("keep-alive");
    }
    if (option.len != 0 || has_te) {
        writer_put(w, BYTES("Connection: "));
        writer_put(w, option);
        if (has_te) writer_put(w, option.len != 0 ? BYTES(", te") : BYTES("te"));
        writer_put(w, BYTES("\r\n"));
    }
    if (framing->upgrade) put_field(w, BYTES("Upgrade"), message->upgrade);
}

size_t h1_head_size_max(const struct http_message *message) {
    /* The authority stands in the target of CONNECT and in Host. */
    size_t size = HEAD_SIZE_EXTRA + message->method_text.len + 2 * message->authority.len +
                  message->path.len + message->query.len + message->reason_phrase.len +
                  message->upgrade.len;
    for (uint32_t i = 0; i < message->fields.count; i++) {
        const struct http_field *field = &message->fields.items[i];
        size += field->name.len + field->value.len + FIELD_SIZE_EXTRA;
    }
    return size;
}

/* RFC 9112 section 3. */
static void put_request_line(struct writer *w, const struct http_message *message) {
    bool is_connect = message->method == HTTP_CONNECT;
    struct bytes path = is_connect ? message->authority : message->path;
    if (path.len == 0) path = BYTES("/");
    bool has_query = message->query.ptr != NULL && !is_connect;
    struct bytes query = has_query ? message->query : BYTES_NONE;
    struct bytes method = message->method_text;
    struct bytes authority = message->authority;

    size_t literals = sizeof(" ? HTTP/1.1\r\nHost: \r\n") - 1;
    char *at = reserve(w, method.len + path.len + query.len + authority.len + literals);
    if (at == NULL) return;
    at = put(at, method);
    *at++ = ' ';
    at = put(at, path);
    if (has_query) *at++ = '?';
    at = put(at, query);
    at = PUT_LITERAL(at, " HTTP/1.1\r\nHost: ");
    at = put(at, authority);
    commit(w, PUT_LITERAL(at, "\r\n"));
}

/* RFC 9110 section 8.6: these expect content, so that there is none is said. */
static bool method_expects_content(enum http_method method) {
    return method == HTTP_POST || method == HTTP_PUT || method == HTTP_PATCH;
}

void h1_write_request(struct writer *w, const struct http_message *message,
                      const struct h1_framing *framing) {
    CHECK(framing->body_kind != H1_BODY_UNTIL_CLOSE);
    put_request_line(w, message);
    bool has_te = put_fields(w, &message->fields);
    switch (framing->body_kind) {
    case H1_BODY_CHUNKED:
        writer_put(w, BYTES("Transfer-Encoding: chunked\r\n"));
        break;
    case H1_BODY_LENGTH:
        put_content_length(w, framing->body_length);
        break;
    case H1_BODY_NONE:
        if (method_expects_content(message->method)) put_content_length(w, 0);
        break;
    case H1_BODY_UNTIL_CLOSE:
        break;
    }
    put_connection(w, message, framing, has_te);
    writer_put(w, BYTES("\r\n"));
}

/* RFC 9112 section 4. */
static void put_status_line(struct writer *w, const struct http_message *message) {
    struct bytes phrase = message->reason_phrase;
    if (phrase.ptr == NULL) phrase = http_reason_phrase(message->status);
    unsigned status = message->status;
    CHECK(status >= 100 && status <= 999);
    char *at = reserve(w, sizeof("HTTP/1.1 200 \r\n") - 1 + phrase.len);
    if (at == NULL) return;
    at = PUT_LITERAL(at, "HTTP/1.1 ");
    *at++ = (char)('0' + status / 100);
    *at++ = (char)('0' + status / 10 % 10);
    *at++ = (char)('0' + status % 10);
    *at++ = ' ';
    at = put(at, phrase);
    commit(w, PUT_LITERAL(at, "\r\n"));
}

/* RFC 9110 section 8.6, RFC 9112 section 6.1. */
static void put_response_framing(struct writer *w, int status, const struct h1_framing *framing) {
    if (status == 204) return;
    switch (framing->body_kind) {
    case H1_BODY_CHUNKED:
        writer_put(w, BYTES("Transfer-Encoding: chunked\r\n"));
        break;
    case H1_BODY_LENGTH:
        put_content_length(w, framing->body_length);
        break;
    case H1_BODY_NONE:
        if (framing->body_length == HTTP_LENGTH_UNKNOWN) break;
        if (framing->length_is_known) {
            put_content_length(w, framing->body_length);
        } else if (status != 304) {
            put_content_length(w, 0);
        }
        break;
    case H1_BODY_UNTIL_CLOSE:
        break;
    }
}

void h1_write_response(struct writer *w, const struct http_message *message,
                       const struct h1_framing *framing) {
    int status = message->status;
    put_status_line(w, message);
    bool has_te = put_fields(w, &message->fields);
    if (status >= 200) {
        put_response_framing(w, status, framing);
        put_connection(w, message, framing, has_te);
    } else if (status == 101) {
        put_connection(w, message, framing, has_te);
    }
    writer_put(w, BYTES("\r\n"));
}

void h1_write_chunk_head(struct writer *w, uint64_t size) {
    writer_hex(w, size);
    writer_put(w, BYTES("\r\n"));
}

void h1_write_last_chunk(struct writer *w, const struct http_fields *trailers) {
    writer_put(w, BYTES("0\r\n"));
    if (trailers != NULL) (void)put_fields(w, trailers);
    writer_put(w, BYTES("\r\n"));
}
