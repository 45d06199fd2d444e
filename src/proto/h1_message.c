#include "proto/h1_internal.h"

/* Room in the table for what a proxy adds: Via, X-Forwarded-*, and a few of the configuration. */
#define SPARE_FIELDS 8

static void fill_fields(const struct h1_parser *parser, const char *copy,
                        struct http_fields *fields) {
    struct http_field *field = fields->items;
    for (uint32_t i = 0; i < parser->span_count; i++) {
        const struct h1_span *span = &parser->spans[i];
        if (span->drop) continue;
        field->name = h1_span_name(span, copy);
        field->value = h1_span_value(span, copy);
        field->id = (enum http_field_id)span->id;
        field->never_indexed = false;
        field++;
    }
    fields->count = (uint32_t)(field - fields->items);
}

static void fill_request(const struct h1_parser *parser, const char *copy, struct bytes scheme,
                         struct http_message *message) {
    struct bytes target = bytes_make(copy + parser->target_at, parser->target_len);
    struct h1_target split;
    /* Checked when the request line was. */
    (void)h1_target_split(parser->method, target, &split);
    message->method = parser->method;
    message->method_text = bytes_make(target.ptr - 1 - parser->method_len, parser->method_len);
    message->scheme = scheme;
    message->authority = bytes_make(copy + parser->host_at, parser->host_len);
    /* RFC 9112 section 3.2.2: the target's authority wins over Host. */
    if (split.authority.len != 0) message->authority = split.authority;
    message->path = split.path;
    message->query = split.query;
    message->expect_continue = parser->expect_continue;
}

static void fill_response(const struct h1_parser *parser, const char *copy,
                          struct http_message *message) {
    message->status = parser->status;
    message->reason_phrase = bytes_make(copy + parser->phrase_at, parser->phrase_len);
}

static uint64_t message_body_length(const struct h1_parser *parser) {
    switch (parser->body_kind) {
    case H1_BODY_LENGTH:
        return parser->body_length;
    case H1_BODY_CHUNKED:
    case H1_BODY_UNTIL_CLOSE:
        return HTTP_LENGTH_UNKNOWN;
    case H1_BODY_NONE:
        break;
    }
    if (parser->kind != H1_RESPONSE || parser->status < 200 || parser->status == 204) return 0;
    bool is_tunnel = parser->request_method == HTTP_CONNECT && parser->status < 300;
    if (is_tunnel) return HTTP_LENGTH_UNKNOWN;
    /* In a 304 or an answer to HEAD: what a GET would have had (RFC 9110 section 8.6). */
    return parser->length_seen ? parser->body_length : HTTP_LENGTH_UNKNOWN;
}

/* The head is copied as a whole: one copy costs less than one per piece, and what is dropped is
 * little. */
bool h1_message(const struct h1_parser *parser, struct bytes head, struct bytes scheme,
                struct arena *arena, struct http_message *message) {
    struct bytes copied;
    struct http_fields fields;
    uint32_t spare = parser->kind == H1_TRAILERS ? 0 : SPARE_FIELDS;
    if (!arena_copy(arena, bytes_make(head.ptr, parser->head_size), &copied)) return false;
    if (!http_fields_init(&fields, arena, parser->span_count + spare)) return false;
    const char *copy = copied.ptr;
    fill_fields(parser, copy, &fields);
    *message = (struct http_message){.version_minor = parser->version_minor, .fields = fields};
    if (parser->kind == H1_TRAILERS) return true;

    if (parser->kind == H1_REQUEST) {
        fill_request(parser, copy, scheme, message);
    } else {
        fill_response(parser, copy, message);
    }
    message->body_length = message_body_length(parser);
    bool upgrades = parser->kind == H1_REQUEST || parser->status == 101;
    if (parser->upgrade_named && upgrades) {
        message->upgrade = bytes_make(copy + parser->upgrade_at, parser->upgrade_len);
    }
    return true;
}
