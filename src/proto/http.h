/* http.h: an HTTP message as every version speaks it (RFC 9110), and the table of its fields.
 *
 * A message is views into memory of its exchange's arena (or of a session, for the length of one
 * callback). What belongs to one connection (framing, hop-by-hop fields) has been taken out by the
 * session that received it and is put in by the session that sends it: proxy/ and service/ see
 * end-to-end fields only. Not thread-safe; no I/O.
 */
#ifndef WEIR_PROTO_HTTP_H
#define WEIR_PROTO_HTTP_H

#include "base/arena.h"
#include "base/bytes.h"

/* RFC 9110 section 9, RFC 5789. OTHER is any other token; http_message.method_text has it. */
enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_DELETE,
    HTTP_CONNECT,
    HTTP_OPTIONS,
    HTTP_TRACE,
    HTTP_PATCH,
    HTTP_OTHER,
    HTTP_METHOD_COUNT
};

/* Fields weir itself looks at; all others are HTTP_FIELD_OTHER. Names: see http.c's table. */
enum http_field_id {
    HTTP_FIELD_OTHER,
    HTTP_FIELD_ACCEPT_ENCODING,
    HTTP_FIELD_CACHE_CONTROL,
    HTTP_FIELD_CONNECTION,
    HTTP_FIELD_CONTENT_ENCODING,
    HTTP_FIELD_CONTENT_LENGTH,
    HTTP_FIELD_CONTENT_TYPE,
    HTTP_FIELD_COOKIE,
    HTTP_FIELD_DATE,
    HTTP_FIELD_EXPECT,
    HTTP_FIELD_FORWARDED,
    HTTP_FIELD_HOST,
    HTTP_FIELD_KEEP_ALIVE,
    HTTP_FIELD_LOCATION,
    HTTP_FIELD_PROXY_AUTHORIZATION,
    HTTP_FIELD_PROXY_CONNECTION,
    HTTP_FIELD_RETRY_AFTER,
    HTTP_FIELD_SERVER,
    HTTP_FIELD_SET_COOKIE,
    HTTP_FIELD_TE,
    HTTP_FIELD_TRAILER,
    HTTP_FIELD_TRANSFER_ENCODING,
    HTTP_FIELD_UPGRADE,
    HTTP_FIELD_USER_AGENT,
    HTTP_FIELD_VIA,
    HTTP_FIELD_X_FORWARDED_FOR,
    HTTP_FIELD_X_FORWARDED_HOST,
    HTTP_FIELD_X_FORWARDED_PROTO,
    HTTP_FIELD_X_REQUEST_ID,
    HTTP_FIELD_COUNT
};

struct http_field {
    struct bytes name; /* as received; compare with bytes_equal_nocase, or by id */
    struct bytes value;
    enum http_field_id id;
    bool never_indexed; /* its client or server said so (RFC 7541 section 7.1.3) */
};

struct http_fields {
    struct http_field *items;
    uint32_t count;
    uint32_t capacity; /* items there is room for */
};

/* How many body bytes follow, as far as the head tells. */
#define HTTP_LENGTH_UNKNOWN UINT64_MAX

struct http_message {
    /* Requests. */
    enum http_method method;
    struct bytes method_text;
    struct bytes scheme;    /* "http" or "https" */
    struct bytes authority; /* Host, or that of an absolute-form target; may have a port; "" in
                             * HTTP/1.0 without one */
    struct bytes path;      /* of the target; "*" for asterisk-form; "" for CONNECT */
    struct bytes query;     /* without "?"; ptr NULL when the target has no "?" */
    bool expect_continue;   /* Expect: 100-continue; the field itself stays in `fields` */
    /* Responses. */
    uint16_t status;            /* 100-599; 0 in a request */
    struct bytes reason_phrase; /* as received, may be empty; ptr NULL: the usual one is written */
    /* Both. */
    uint8_t version_minor; /* 0 or 1 of HTTP/1.x; 1 for later versions */
    bool is_h2;            /* it came over HTTP/2: for Via */
    /* The protocol asked for (request) or chosen (101), "" for none. An extended CONNECT of HTTP/2
     * (RFC 8441) is told as the GET that HTTP/1.1 would ask with, a 2xx to it as 101: each session
     * puts in and takes out what only its version has (Sec-WebSocket-Key and -Accept). */
    struct bytes upgrade;
    bool upgrade_only; /* a request that is nothing without its upgrade: an extended CONNECT */
    /* 0: no body; HTTP_LENGTH_UNKNOWN: streamed. In a response that has no body whatever its length
     * (http_response_has_no_body): what Content-Length says for HEAD and 304, UNKNOWN when it is
     * not there and for 2xx to CONNECT, 0 for 1xx and 204. */
    uint64_t body_length;
    /* End-to-end fields: never Connection, Transfer-Encoding, Content-Length, Host, Upgrade... */
    bool close_after; /* an answer after which its connection should take no more requests */
    struct http_fields fields;
};

/* Exact, case-sensitive (RFC 9110 section 9.1). */
enum http_method http_method_of(struct bytes text);
struct bytes http_method_text(enum http_method method); /* "OTHER" for HTTP_OTHER */
/* RFC 9110 section 9.2.2: GET HEAD PUT DELETE OPTIONS TRACE. */
bool http_method_is_idempotent(enum http_method method);
/* Case-insensitive; the other takes a name with a capital for none that it knows. */
enum http_field_id http_field_id_of(struct bytes name);
enum http_field_id http_field_id_of_lower(struct bytes name);
/* Its name in lower case, as HTTP/2 has it; BYTES_NONE for HTTP_FIELD_OTHER. Static. */
struct bytes http_field_name(enum http_field_id id);
/* "OK" for 200; "" for unknown. */
struct bytes http_reason_phrase(int status);
/* The upgrade is to "websocket". */
bool http_is_websocket(const struct http_message *message);
/* 204, 304, 1xx, any answer to HEAD, 2xx to CONNECT (RFC 9112 section 6.3). */
bool http_response_has_no_body(enum http_method request_method, int status);
bool http_token_valid(struct bytes b); /* RFC 9110 section 5.6.2, at least one byte */
/* RFC 9110 section 5.5: no CTL but HTAB; obs-text allowed. */
bool http_field_value_valid(struct bytes b);
/* reg-name, IPv4 or IPv6 in brackets, optional :port (which may be empty); RFC 3986 section 3.2,
 * but a host must be there and userinfo must not (RFC 9110 section 4.2.4). */
bool http_authority_valid(struct bytes b);
/* The authority without its port and without a trailing dot; brackets of an IP-literal stay. */
struct bytes http_authority_host(struct bytes authority);

/* A table with room for `capacity` fields; false when the arena is at its limit. */
bool http_fields_init(struct http_fields *fields, struct arena *arena, uint32_t capacity);
/* Appends, growing in the arena; name and value must live as long as the table. false at the
 * arena's limit. */
bool http_fields_add(struct http_fields *fields, struct arena *arena, struct bytes name,
                     struct bytes value);
/* Room for more; false at the arena's limit. */
bool http_fields_grow(struct http_fields *fields, struct arena *arena);
/* As add, where the field's id is known. */
static inline bool http_fields_put(struct http_fields *fields, struct arena *arena,
                                   struct http_field field) {
    if (fields->count == fields->capacity && !http_fields_grow(fields, arena)) return false;
    fields->items[fields->count++] = field;
    return true;
}
/* First match or NULL. By id, or by name when it has none. */
struct http_field *http_fields_find(const struct http_fields *fields, enum http_field_id id);
struct http_field *http_fields_find_name(const struct http_fields *fields, struct bytes name);
/* Removes all of that name, keeping the order of the rest; returns how many. */
uint32_t http_fields_remove(struct http_fields *fields, struct bytes name);

#endif
