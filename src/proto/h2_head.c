#include "proto/h2_head.h"

#include "base/check.h"
#include "proto/h1_scan.h"
#include "proto/http_internal.h"

/* What a field counts beside its name and value: ": " and CRLF of its line in HTTP/1. */
#define FIELD_SIZE_EXTRA 4
/* Room in the table for what a proxy adds: Via, X-Forwarded-*, and a few of the configuration. */
#define SPARE_FIELDS 8
#define CRUMB_SEPARATOR "; "

static const struct bytes pseudo_names[H2_PSEUDO_COUNT] = {
    [H2_PSEUDO_METHOD] = HTTP_TEXT(":method"),       [H2_PSEUDO_SCHEME] = HTTP_TEXT(":scheme"),
    [H2_PSEUDO_AUTHORITY] = HTTP_TEXT(":authority"), [H2_PSEUDO_PATH] = HTTP_TEXT(":path"),
    [H2_PSEUDO_PROTOCOL] = HTTP_TEXT(":protocol"),   [H2_PSEUDO_STATUS] = HTTP_TEXT(":status"),
};

size_t h2_head_memory(const struct h2_head_limits *limits) {
    return sizeof(struct h2_head) + limits->fields_max * sizeof(struct http_field) +
           limits->head_size_max;
}

void h2_head_init(struct h2_head *head, enum h2_head_kind kind,
                  const struct h2_head_limits *limits) {
    struct http_field *fields = (struct http_field *)(head + 1);
    *head = (struct h2_head){.kind = kind,
                             .limits = *limits,
                             .fields = fields,
                             .text = (char *)(fields + limits->fields_max)};
}

bool h2_reason_is_limit(enum reason reason) {
    return reason == REASON_HEAD_TOO_LARGE || reason == REASON_TOO_MANY_FIELDS ||
           reason == REASON_TARGET_TOO_LONG || reason == REASON_BODY_TOO_LARGE ||
           reason == REASON_NO_MEMORY;
}

/* There is room: `size` is under its limit. */
static struct bytes h2_keep(struct h2_head *head, struct bytes b) {
    CHECK(b.len <= head->limits.head_size_max - head->text_len);
    char *to = head->text + head->text_len;
    if (b.len != 0) memcpy(to, b.ptr, b.len);
    head->text_len += (uint32_t)b.len;
    return bytes_make(to, b.len);
}

/* RFC 9113 section 8.2.1: a token in lower case. */
static bool h2_name_valid(struct bytes name, enum http_field_id id) {
    if (id != HTTP_FIELD_OTHER) return true;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (!http_byte_is(c, HTTP_BYTE_TOKEN) || (c >= 'A' && c <= 'Z')) return false;
    }
    return name.len != 0;
}

static bool h2_is_blank(char c) { return c == ' ' || c == '\t'; }

/* RFC 9113 section 8.2.1: no white space at either end; control bytes are nobody's business, as in
 * HTTP/1. */
static bool h2_value_valid(struct bytes value) {
    if (value.len == 0) return true;
    if (h2_is_blank(value.ptr[0]) || h2_is_blank(value.ptr[value.len - 1])) return false;
    return h1_scan_control(value.ptr, 0, (uint32_t)value.len) == value.len;
}

/* RFC 9113 sections 8.3.1 and 8.3.2: before all others, once, known, and of this kind. */
static enum reason h2_take_pseudo(struct h2_head *head, struct bytes name, struct bytes value) {
    /* A response has but one: the last. */
    int which = head->kind == H2_RESPONSE ? H2_PSEUDO_STATUS : 0;
    while (which < H2_PSEUDO_COUNT && !bytes_equal(name, pseudo_names[which]))
        which++;
    bool of_response = which == H2_PSEUDO_STATUS;
    if (which == H2_PSEUDO_COUNT || head->regular_seen || head->pseudo[which].ptr ||
        head->kind == H2_TRAILERS || of_response != (head->kind == H2_RESPONSE)) {
        return REASON_BAD_PSEUDO_FIELD;
    }
    if (which == H2_PSEUDO_PATH && value.len > head->limits.target_size_max)
        return REASON_TARGET_TOO_LONG;
    head->pseudo[which] = h2_keep(head, value);
    return REASON_NONE;
}

/* As in HTTP/1: once, digits, under 2^63. */
static enum reason h2_take_length(struct h2_head *head, struct bytes value) {
    uint64_t length;
    if (head->length_seen || !bytes_to_u64(value, &length) || length > INT64_MAX)
        return REASON_BAD_CONTENT_LENGTH;
    head->length_seen = true;
    head->length = length;
    return REASON_NONE;
}

static enum reason h2_take_host(struct h2_head *head, struct bytes value) {
    if (head->kind == H2_RESPONSE) return REASON_NONE;
    if (head->host_seen) return REASON_BAD_HOST;
    head->host_seen = true;
    head->host = h2_keep(head, value);
    return REASON_NONE;
}

/* What a field means for its message. *keep: it goes on with the others. */
static enum reason h2_judge_field(struct h2_head *head, enum http_field_id id, struct bytes value,
                                  bool *keep) {
    switch ((int)id) {
    case HTTP_FIELD_CONNECTION:
    case HTTP_FIELD_KEEP_ALIVE:
    case HTTP_FIELD_PROXY_CONNECTION:
    case HTTP_FIELD_TRANSFER_ENCODING:
    case HTTP_FIELD_UPGRADE:
        return REASON_BAD_CONNECTION_FIELD; /* RFC 9113 section 8.2.2 */
    case HTTP_FIELD_TE:
        if (!bytes_equal_nocase(value, BYTES("trailers"))) return REASON_BAD_CONNECTION_FIELD;
        return REASON_NONE;
    case HTTP_FIELD_CONTENT_LENGTH:
        *keep = false;
        return head->kind == H2_TRAILERS ? REASON_NONE : h2_take_length(head, value);
    case HTTP_FIELD_HOST:
        *keep = false;
        return head->kind == H2_TRAILERS ? REASON_NONE : h2_take_host(head, value);
    case HTTP_FIELD_COOKIE:
        head->crumbs++;
        return REASON_NONE;
    case HTTP_FIELD_EXPECT:
        head->expect_continue |= bytes_equal_nocase(value, BYTES("100-continue"));
        return REASON_NONE;
    default:
        return REASON_NONE;
    }
}

static enum reason h2_take_field(struct h2_head *head, struct bytes name, struct bytes value) {
    head->regular_seen = true;
    enum http_field_id id = http_field_id_of_lower(name);
    if (!h2_name_valid(name, id)) return REASON_BAD_FIELD_NAME;
    bool keep = true;
    enum reason reason = h2_judge_field(head, id, value, &keep);
    if (reason != REASON_NONE || !keep) return reason;
    if (head->kind == H2_TRAILERS && http_trailer_forbidden(name, id)) return REASON_NONE;
    struct http_field *field = &head->fields[head->field_count++];
    field->name = id != HTTP_FIELD_OTHER ? http_field_name(id) : h2_keep(head, name);
    field->value = h2_keep(head, value);
    field->id = id;
    field->never_indexed = false;
    return REASON_NONE;
}

static enum reason h2_take(struct h2_head *head, struct bytes name, struct bytes value,
                           bool is_pseudo) {
    if (head->size > head->limits.head_size_max) return REASON_HEAD_TOO_LARGE;
    if (!is_pseudo && head->count > head->limits.fields_max) return REASON_TOO_MANY_FIELDS;
    if (!h2_value_valid(value)) return REASON_BAD_FIELD_VALUE;
    return is_pseudo ? h2_take_pseudo(head, name, value) : h2_take_field(head, name, value);
}

void h2_head_add(struct h2_head *head, struct bytes name, struct bytes value, bool secret) {
    bool is_pseudo = name.len != 0 && name.ptr[0] == ':';
    uint32_t index = head->field_count;
    head->size += name.len + value.len + FIELD_SIZE_EXTRA;
    head->count += !is_pseudo;
    if (head->reason == REASON_NONE) head->reason = h2_take(head, name, value, is_pseudo);
    if (secret && head->field_count != index) head->fields[index].never_indexed = true;
}

/* The target of CONNECT: a host and a port (RFC 9110 section 9.3.6). */
static bool h2_has_port(struct bytes authority) {
    if (!http_authority_valid(authority)) return false;
    size_t colon = authority.len;
    while (colon != 0 && authority.ptr[colon - 1] != ':' && authority.ptr[colon - 1] != ']')
        colon--;
    return colon != 0 && colon != authority.len && authority.ptr[colon - 1] == ':';
}

/* RFC 9113 section 8.5: nothing but the two. */
static enum reason h2_check_connect(const struct h2_head *head) {
    const struct bytes *pseudo = head->pseudo;
    if (pseudo[H2_PSEUDO_SCHEME].ptr || pseudo[H2_PSEUDO_PATH].ptr) return REASON_BAD_PSEUDO_FIELD;
    if (!pseudo[H2_PSEUDO_AUTHORITY].ptr) return REASON_BAD_PSEUDO_FIELD;
    return h2_has_port(pseudo[H2_PSEUDO_AUTHORITY]) ? REASON_NONE : REASON_BAD_TARGET;
}

/* RFC 9113 section 8.3.1. */
static enum reason h2_check_target(const struct h2_head *head) {
    struct bytes scheme = head->pseudo[H2_PSEUDO_SCHEME];
    struct bytes path = head->pseudo[H2_PSEUDO_PATH];
    if (!scheme.ptr || !path.ptr) return REASON_BAD_PSEUDO_FIELD;
    if (!bytes_equal_nocase(scheme, BYTES("http")) && !bytes_equal_nocase(scheme, BYTES("https")))
        return REASON_BAD_TARGET;
    if (path.len == 0 || !http_bytes_are(path, HTTP_BYTE_TARGET)) return REASON_BAD_TARGET;
    bool asterisk = bytes_equal(path, BYTES("*")) &&
                    bytes_equal(head->pseudo[H2_PSEUDO_METHOD], BYTES("OPTIONS"));
    return path.ptr[0] == '/' || asterisk ? REASON_NONE : REASON_BAD_TARGET;
}

/* Who says one thing in :authority and another in Host is understood differently by two readers. */
static enum reason h2_check_authority(const struct h2_head *head) {
    struct bytes authority = head->pseudo[H2_PSEUDO_AUTHORITY];
    if (!authority.ptr && !head->host_seen) return REASON_BAD_HOST;
    if (authority.ptr && !http_authority_valid(authority)) return REASON_BAD_HOST;
    if (head->host_seen && !http_authority_valid(head->host)) return REASON_BAD_HOST;
    bool both = authority.ptr && head->host_seen;
    return both && !bytes_equal_nocase(authority, head->host) ? REASON_BAD_HOST : REASON_NONE;
}

/* RFC 8441 section 4. HTTP/2 within itself is none: no route would see its requests. */
static bool h2_protocol_valid(const struct h2_head *head) {
    struct bytes protocol = head->pseudo[H2_PSEUDO_PROTOCOL];
    return http_token_valid(protocol) && !bytes_equal_nocase(protocol, BYTES("h2c"));
}

static enum reason h2_finish_request(const struct h2_head *head, bool end) {
    const struct bytes *pseudo = head->pseudo;
    bool is_connect = bytes_equal(pseudo[H2_PSEUDO_METHOD], BYTES("CONNECT"));
    if (!pseudo[H2_PSEUDO_METHOD].ptr) return REASON_BAD_PSEUDO_FIELD;
    if (!http_token_valid(pseudo[H2_PSEUDO_METHOD])) return REASON_BAD_REQUEST_LINE;
    if (pseudo[H2_PSEUDO_PROTOCOL].ptr && !(is_connect && h2_protocol_valid(head)))
        return REASON_BAD_PSEUDO_FIELD;
    bool extended = pseudo[H2_PSEUDO_PROTOCOL].ptr != NULL;
    enum reason reason = is_connect && !extended ? h2_check_connect(head) : h2_check_target(head);
    if (reason == REASON_NONE) reason = h2_check_authority(head);
    if (reason != REASON_NONE) return reason;
    bool no_body = end || is_connect;
    return no_body && head->length != 0 ? REASON_BAD_BODY_LENGTH : REASON_NONE;
}

/* Three digits; 101 has no meaning here (RFC 9113 section 8.6). 0: none. */
static uint16_t h2_status(const struct h2_head *head) {
    struct bytes text = head->pseudo[H2_PSEUDO_STATUS];
    uint64_t status = 0;
    if (text.len != 3 || !bytes_to_u64(text, &status)) return 0;
    return status >= 100 && status <= 599 && status != 101 ? (uint16_t)status : 0;
}

enum reason h2_head_finish(struct h2_head *head, bool end) {
    if (head->reason == REASON_NONE) {
        switch (head->kind) {
        case H2_REQUEST:
            head->reason = h2_finish_request(head, end);
            break;
        case H2_RESPONSE:
            if (h2_status(head) == 0 || (end && h2_status(head) < 200))
                head->reason = REASON_BAD_RESPONSE;
            break;
        case H2_TRAILERS:
            if (!end) head->reason = REASON_BAD_PSEUDO_FIELD;
            break;
        }
    }
    return head->reason;
}

/* One field of all crumbs (RFC 9113 section 8.2.3), where the first one stood. */
static bool h2_join_cookies(struct http_fields *fields, struct arena *arena) {
    size_t size = 0;
    for (uint32_t i = 0; i < fields->count; i++) {
        if (fields->items[i].id == HTTP_FIELD_COOKIE)
            size += fields->items[i].value.len + sizeof CRUMB_SEPARATOR - 1;
    }
    char *memory = arena_alloc(arena, size);
    if (!memory) return false;
    struct writer text = writer_make(memory, size);
    struct http_field *first = NULL;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < fields->count; i++) {
        struct http_field *field = &fields->items[i];
        bool is_cookie = field->id == HTTP_FIELD_COOKIE;
        if (is_cookie) {
            if (first) writer_put(&text, BYTES(CRUMB_SEPARATOR));
            writer_put(&text, field->value);
        }
        if (is_cookie && first) {
            first->never_indexed |= field->never_indexed;
            continue;
        }
        fields->items[kept] = *field;
        if (is_cookie) first = &fields->items[kept];
        kept++;
    }
    CHECK(first && !text.full);
    first->value = writer_bytes(&text);
    fields->count = kept;
    return true;
}

/* The fields with their text, out of the head's memory. */
static bool h2_copy_fields(const struct h2_head *head, struct arena *arena, const char *text,
                           struct http_fields *fields) {
    uint32_t spare = head->kind == H2_TRAILERS ? 0 : SPARE_FIELDS;
    if (!http_fields_init(fields, arena, head->field_count + spare)) return false;
    for (uint32_t i = 0; i < head->field_count; i++) {
        struct http_field field = head->fields[i];
        if (field.id == HTTP_FIELD_OTHER) field.name.ptr = text + (field.name.ptr - head->text);
        field.value.ptr = text + (field.value.ptr - head->text);
        fields->items[i] = field;
    }
    fields->count = head->field_count;
    return true;
}

static struct bytes h2_moved(const struct h2_head *head, struct bytes b, const char *text) {
    return b.ptr ? bytes_make(text + (b.ptr - head->text), b.len) : BYTES_NONE;
}

static void h2_fill_request(const struct h2_head *head, const char *text,
                            struct http_message *message) {
    const struct bytes *pseudo = head->pseudo;
    struct bytes target = h2_moved(head, pseudo[H2_PSEUDO_PATH], text);
    size_t mark = bytes_find(target, '?');
    message->method_text = h2_moved(head, pseudo[H2_PSEUDO_METHOD], text);
    message->method = http_method_of(message->method_text);
    message->authority = h2_moved(
        head, pseudo[H2_PSEUDO_AUTHORITY].ptr ? pseudo[H2_PSEUDO_AUTHORITY] : head->host, text);
    message->path = bytes_make(target.ptr, mark);
    if (mark != target.len)
        message->query = bytes_make(target.ptr + mark + 1, target.len - mark - 1);
    message->expect_continue = head->expect_continue;
    if (!pseudo[H2_PSEUDO_PROTOCOL].ptr) return;
    message->method = HTTP_GET;
    message->method_text = http_method_text(HTTP_GET);
    message->upgrade = h2_moved(head, pseudo[H2_PSEUDO_PROTOCOL], text);
    message->upgrade_only = true;
}

struct http_message *h2_head_request(const struct h2_head *head, struct bytes scheme,
                                     struct arena *arena) {
    CHECK(head->kind == H2_REQUEST && head->reason == REASON_NONE);
    struct http_message *message = arena_alloc(arena, sizeof *message);
    struct bytes text;
    if (!message || !arena_copy(arena, bytes_make(head->text, head->text_len), &text)) return NULL;
    *message = (struct http_message){.version_minor = 1, .is_h2 = true, .scheme = scheme};
    if (!h2_copy_fields(head, arena, text.ptr, &message->fields)) return NULL;
    if (head->crumbs > 1 && !h2_join_cookies(&message->fields, arena)) return NULL;
    h2_fill_request(head, text.ptr, message);
    return message;
}

void h2_head_response(const struct h2_head *head, enum http_method method, bool end,
                      struct http_message *message) {
    CHECK(head->kind == H2_RESPONSE && head->reason == REASON_NONE);
    uint16_t status = h2_status(head);
    uint64_t length = head->length_seen ? head->length : HTTP_LENGTH_UNKNOWN;
    if (status < 200 || status == 204) {
        length = 0;
    } else if (method == HTTP_CONNECT && status < 300) {
        length = HTTP_LENGTH_UNKNOWN;
    } else if (end && !http_response_has_no_body(method, status)) {
        length = 0;
    }
    *message =
        (struct http_message){.version_minor = 1,
                              .is_h2 = true,
                              .status = status,
                              .body_length = length,
                              .fields = {head->fields, head->field_count, head->limits.fields_max}};
}

bool h2_head_trailers(const struct h2_head *head, struct arena *arena, struct http_fields *fields) {
    CHECK(head->kind == H2_TRAILERS && head->reason == REASON_NONE);
    struct bytes text;
    if (!arena_copy(arena, bytes_make(head->text, head->text_len), &text)) return false;
    return h2_copy_fields(head, arena, text.ptr, fields);
}
