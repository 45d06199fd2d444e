#include "proto/h1_internal.h"
#include "proto/h1_scan.h"

/* Names of all other fields are judged; those of known ones are valid as they are. */
static enum reason take_line_parts(const char *base, uint32_t line_at, uint32_t line_end,
                                   struct h1_span *span) {
    uint32_t colon = h1_scan_colon(base, line_at, line_end);
    uint32_t name_len = colon - line_at;
    if (colon == line_end || name_len == 0) return REASON_BAD_FIELD_NAME;
    if (name_len > UINT16_MAX) return REASON_HEAD_TOO_LARGE;
    struct bytes name = bytes_make(base + line_at, name_len);
    enum http_field_id id = http_field_id_of(name);
    if (id == HTTP_FIELD_OTHER && !http_bytes_are(name, HTTP_BYTE_TOKEN)) {
        return REASON_BAD_FIELD_NAME;
    }
    uint32_t from = colon + 1;
    uint32_t to = line_end;
    while (from < to && (base[from] == ' ' || base[from] == '\t'))
        from++;
    while (to > from && (base[to - 1] == ' ' || base[to - 1] == '\t'))
        to--;
    *span = (struct h1_span){
        .name_at = line_at,
        .value_at = from,
        .value_len = to - from,
        .name_len = (uint16_t)name_len,
        .id = (uint8_t)id,
    };
    return REASON_NONE;
}

/* RFC 9110 section 7.2: one Host, with an authority. An http URI has a host (section 4.2.1), so an
 * empty value is refused too. */
static enum reason take_host(struct h1_parser *parser, const char *base, struct h1_span *span) {
    if (parser->kind != H1_REQUEST) return REASON_NONE;
    if (parser->host_seen) return REASON_BAD_HOST;
    if (!http_authority_valid(h1_span_value(span, base))) return REASON_BAD_HOST;
    parser->host_seen = true;
    parser->host_at = span->value_at;
    parser->host_len = span->value_len;
    return REASON_NONE;
}

/* RFC 9112 section 6.3. Lists of equal values could be let pass (RFC 9110 section 8.6) and are not.
 * A length stays under 2^63, so that sums of sizes do not wrap. */
static enum reason take_content_length(struct h1_parser *parser, const char *base,
                                       struct h1_span *span) {
    uint64_t length;
    if (parser->length_seen) return REASON_BAD_CONTENT_LENGTH;
    if (!bytes_to_u64(h1_span_value(span, base), &length)) return REASON_BAD_CONTENT_LENGTH;
    if (length > INT64_MAX) return REASON_BAD_CONTENT_LENGTH;
    parser->length_seen = true;
    parser->body_length = length;
    return REASON_NONE;
}

/* One coding of Transfer-Encoding. `chunked` has no parameters (RFC 9112 section 7.1). */
static enum reason take_coding(struct h1_parser *parser, struct bytes coding) {
    if (parser->coding_seen) return REASON_BAD_TRANSFER_ENCODING; /* something behind chunked */
    if (bytes_equal_nocase(coding, BYTES("chunked"))) {
        parser->coding_seen = true;
        return REASON_NONE;
    }
    struct bytes name = bytes_trim(bytes_slice(coding, 0, bytes_find(coding, ';')));
    if (!http_token_valid(name) || bytes_equal_nocase(name, BYTES("chunked"))) {
        return REASON_BAD_TRANSFER_ENCODING;
    }
    return REASON_UNKNOWN_CODING;
}

/* RFC 9112 section 6.1: a message of HTTP/1.0 with this field is faulty. Since no coding but
 * chunked is known, any list that gets past here is "chunked". */
static enum reason take_transfer_encoding(struct h1_parser *parser, const char *base,
                                          struct h1_span *span) {
    if (parser->version_minor == 0 || span->value_len == 0) return REASON_BAD_TRANSFER_ENCODING;
    struct bytes rest = h1_span_value(span, base);
    struct bytes coding;
    while (bytes_split(&rest, ',', &coding)) {
        enum reason reason = take_coding(parser, coding);
        if (reason != REASON_NONE) return reason;
    }
    return REASON_NONE;
}

static enum h1_connection_option option_of(struct bytes option) {
    switch (option.len) {
    case 5:
        if (bytes_equal_nocase(option, BYTES("close"))) return H1_OPTION_CLOSE;
        break;
    case 7:
        if (bytes_equal_nocase(option, BYTES("upgrade"))) return H1_OPTION_UPGRADE;
        break;
    case 10:
        if (bytes_equal_nocase(option, BYTES("keep-alive"))) return H1_OPTION_KEEP_ALIVE;
        break;
    default:
        break;
    }
    return H1_OPTION_FIELD;
}

/* RFC 9110 section 7.6.1. An option names a field, so there may be as many as there may be fields:
 * that bounds the work of drop_named. */
static enum reason take_connection(struct h1_parser *parser, const char *base,
                                   struct h1_span *span) {
    struct bytes rest = h1_span_value(span, base);
    struct bytes option;
    while (bytes_split(&rest, ',', &option)) {
        if (option.len == 0) continue;
        if (parser->connection_count == parser->limits.fields_max) return REASON_TOO_MANY_FIELDS;
        parser->connection_count++;
        parser->connection_options |= (uint8_t)option_of(option);
    }
    return REASON_NONE;
}

/* RFC 9110 section 7.8. Repeated, a list or empty it asks for nothing we could hand on as one
 * value, and judge: what a list hides from us its reader would still find. Ignored, as is allowed.
 */
static enum reason take_upgrade(struct h1_parser *parser, const char *base, struct h1_span *span) {
    struct bytes value = h1_span_value(span, base);
    bool is_one = parser->upgrade_at == 0 && bytes_find(value, ',') == value.len;
    parser->upgrade_len = is_one ? span->value_len : 0;
    parser->upgrade_at = span->value_at;
    return REASON_NONE;
}

/* RFC 9110 section 10.1.1: an expectation in HTTP/1.0 is ignored, so nobody further on may see it
 * either. */
static enum reason take_expect(struct h1_parser *parser, const char *base, struct h1_span *span) {
    if (parser->version_minor == 0) {
        span->drop = true;
        return REASON_NONE;
    }
    bool is_continue = bytes_equal_nocase(h1_span_value(span, base), BYTES("100-continue"));
    if (is_continue && parser->kind == H1_REQUEST) parser->expect_continue = true;
    return REASON_NONE;
}

/* RFC 9110 section 10.1.4. Codings are between us and the client; that trailers are welcome may be
 * handed on. */
static enum reason take_te(struct h1_parser *parser, const char *base, struct h1_span *span) {
    (void)parser;
    span->drop = !bytes_equal_nocase(h1_span_value(span, base), BYTES("trailers"));
    return REASON_NONE;
}

/* What a head does with the fields that belong to the connection or to the framing. */
struct field_rule {
    enum reason (*take)(struct h1_parser *parser, const char *base, struct h1_span *span);
    bool drop;
};

static const struct field_rule field_rules[HTTP_FIELD_COUNT] = {
    [HTTP_FIELD_CONNECTION] = {take_connection, true},
    [HTTP_FIELD_CONTENT_LENGTH] = {take_content_length, true},
    [HTTP_FIELD_EXPECT] = {take_expect, false},
    [HTTP_FIELD_HOST] = {take_host, true},
    [HTTP_FIELD_KEEP_ALIVE] = {NULL, true},
    [HTTP_FIELD_PROXY_CONNECTION] = {NULL, true},
    [HTTP_FIELD_TE] = {take_te, false},
    [HTTP_FIELD_TRANSFER_ENCODING] = {take_transfer_encoding, true},
    [HTTP_FIELD_UPGRADE] = {take_upgrade, true},
};

enum reason h1_take_field(struct h1_parser *parser, const char *base, uint32_t line_end) {
    if (parser->span_count == parser->limits.fields_max) return REASON_TOO_MANY_FIELDS;
    struct h1_span *span = &parser->spans[parser->span_count];
    enum reason reason = take_line_parts(base, parser->line_at, line_end, span);
    if (reason != REASON_NONE) return reason;
    parser->span_count++;
    if (parser->kind == H1_TRAILERS) {
        enum http_field_id id = (enum http_field_id)span->id;
        span->drop = http_trailer_forbidden(h1_span_name(span, base), id);
        return REASON_NONE;
    }
    const struct field_rule *rule = &field_rules[span->id];
    span->drop = rule->drop;
    return rule->take != NULL ? rule->take(parser, base, span) : REASON_NONE;
}

/* Drops the fields that `option` names. TE has its own rule: it is always named (RFC 9110
 * section 10.1.4). */
static void drop_named(struct h1_parser *parser, const char *base, struct bytes option) {
    if (option.len == 0) return;
    for (uint32_t i = 0; i < parser->span_count; i++) {
        struct h1_span *span = &parser->spans[i];
        if (span->name_len != option.len || span->id == HTTP_FIELD_TE) continue;
        if (bytes_equal_nocase(h1_span_name(span, base), option)) span->drop = true;
    }
}

static void drop_connection_fields(struct h1_parser *parser, const char *base) {
    for (uint32_t i = 0; i < parser->span_count; i++) {
        const struct h1_span *span = &parser->spans[i];
        if (span->id != HTTP_FIELD_CONNECTION) continue;
        struct bytes rest = h1_span_value(span, base);
        struct bytes option;
        while (bytes_split(&rest, ',', &option))
            drop_named(parser, base, option);
    }
}

static void frame_request(struct h1_parser *parser) {
    if (parser->coding_seen) {
        parser->body_kind = H1_BODY_CHUNKED;
    } else if (parser->length_seen && parser->body_length != 0) {
        parser->body_kind = H1_BODY_LENGTH;
    } else {
        parser->body_kind = H1_BODY_NONE;
    }
}

/* RFC 9112 section 6.3, rules 1, 2 and 4 to 8. */
static enum reason frame_response(struct h1_parser *parser) {
    bool framed = parser->coding_seen || parser->body_length != 0;
    bool interim = parser->status < 200;
    /* RFC 9110 section 8.6 forbids it, and where one of us takes a body for the next answer,
     * answers get mixed up. */
    if (interim && framed) return REASON_BAD_RESPONSE;
    if (parser->status == 204 && framed) parser->keep_alive = false;
    if (parser->status == 101 && !parser->upgrade_named) return REASON_BAD_RESPONSE;
    if (http_response_has_no_body(parser->request_method, parser->status)) {
        parser->body_kind = H1_BODY_NONE;
    } else if (parser->coding_seen || parser->length_seen) {
        frame_request(parser);
    } else {
        parser->body_kind = H1_BODY_UNTIL_CLOSE;
        parser->keep_alive = false;
    }
    return REASON_NONE;
}

enum reason h1_finish_head(struct h1_parser *parser, const char *base) {
    uint8_t options = parser->connection_options;
    bool is_request = parser->kind == H1_REQUEST;
    if (is_request && parser->version_minor == 1 && !parser->host_seen) return REASON_BAD_HOST;
    if (parser->coding_seen && parser->length_seen) return REASON_BAD_FRAMING;
    /* RFC 9112 section 9.3. */
    bool stays_open = parser->version_minor == 1 || (options & H1_OPTION_KEEP_ALIVE) != 0;
    parser->keep_alive = stays_open && (options & H1_OPTION_CLOSE) == 0;
    /* RFC 9110 section 7.8: not in HTTP/1.0. */
    parser->upgrade_named = (options & H1_OPTION_UPGRADE) != 0 && parser->upgrade_len != 0 &&
                            parser->version_minor == 1;
    if ((options & H1_OPTION_FIELD) != 0) drop_connection_fields(parser, base);
    if (!is_request) return frame_response(parser);
    frame_request(parser);
    return REASON_NONE;
}
