#include "proto/h2_write.h"

static void h2_begin(struct h2_list *list) {
    list->count = 0;
    list->text.len = 0;
    list->text.full = false;
}

static bool h2_add(struct h2_list *list, struct bytes name, struct bytes value, uint8_t flags) {
    if (list->count == list->max) return false;
    list->items[list->count++] = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name.ptr,
                                              .value = (uint8_t *)(uintptr_t)value.ptr,
                                              .namelen = name.len,
                                              .valuelen = value.len,
                                              .flags = flags};
    return true;
}

/* `name` is a constant, in lower case. */
static bool h2_put(struct h2_list *list, struct bytes name, struct bytes value) {
    return h2_add(list, name, value, NGHTTP2_NV_FLAG_NO_COPY_NAME);
}

static bool h2_put_field(struct h2_list *list, const struct http_field *field) {
    if (field->id != HTTP_FIELD_OTHER)
        return h2_put(list, http_field_name(field->id), field->value);
    return h2_add(list, field->name, field->value, NGHTTP2_NV_FLAG_NONE);
}

/* A view of what `text` gets from now on. */
static struct bytes h2_text_from(const struct h2_list *list, size_t from) {
    return bytes_make(list->text.ptr + from, list->text.len - from);
}

/* RFC 9113 section 8.2.2; Host is :authority, and lengths are the message's own. */
static bool h2_is_dropped(const struct http_field *field) {
    switch ((int)field->id) {
    case HTTP_FIELD_CONNECTION:
    case HTTP_FIELD_CONTENT_LENGTH:
    case HTTP_FIELD_HOST:
    case HTTP_FIELD_KEEP_ALIVE:
    case HTTP_FIELD_PROXY_CONNECTION:
    case HTTP_FIELD_TRANSFER_ENCODING:
    case HTTP_FIELD_UPGRADE:
        return true;
    case HTTP_FIELD_TE:
        return !bytes_equal_nocase(field->value, BYTES("trailers"));
    default:
        return false;
    }
}

/* RFC 8441 section 5: HTTP/2 needs no proof that both ends mean a WebSocket. */
static bool h2_is_proof(const struct http_field *field) {
    return bytes_equal_nocase(field->name, BYTES("Sec-WebSocket-Key")) ||
           bytes_equal_nocase(field->name, BYTES("Sec-WebSocket-Accept"));
}

static bool h2_put_fields(struct h2_list *list, const struct http_fields *fields, bool upgrades) {
    for (uint32_t i = 0; i < fields->count; i++) {
        const struct http_field *field = &fields->items[i];
        if (h2_is_dropped(field) || (upgrades && h2_is_proof(field))) continue;
        if (!h2_put_field(list, field)) return false;
        /* RFC 7541 section 6.2.3: an intermediary uses the same representation. */
        if (field->never_indexed) list->items[list->count - 1].flags |= NGHTTP2_NV_FLAG_NO_INDEX;
    }
    return true;
}

static bool h2_put_length(struct h2_list *list, uint64_t length) {
    size_t from = list->text.len;
    writer_u64(&list->text, length);
    return !list->text.full && h2_put(list, BYTES("content-length"), h2_text_from(list, from));
}

/* Path and query in one; most often they stand so in memory already. */
static bool h2_put_path(struct h2_list *list, const struct http_message *message) {
    struct bytes path = message->path.len != 0 ? message->path : BYTES("/");
    struct bytes query = message->query;
    if (!query.ptr) return h2_put(list, BYTES(":path"), path);
    if (path.ptr + path.len + 1 == query.ptr)
        return h2_put(list, BYTES(":path"), bytes_make(path.ptr, path.len + 1 + query.len));
    size_t from = list->text.len;
    writer_put(&list->text, path);
    writer_char(&list->text, '?');
    writer_put(&list->text, query);
    return !list->text.full && h2_put(list, BYTES(":path"), h2_text_from(list, from));
}

static bool h2_put_target(struct h2_list *list, const struct http_message *message,
                          struct bytes scheme) {
    bool extended = h2_is_extended(message);
    bool is_connect = message->method == HTTP_CONNECT;
    /* As it is registered: servers compare it letter by letter, and HTTP/1 does not. */
    struct bytes protocol = http_is_websocket(message) ? BYTES("websocket") : message->upgrade;
    if (!h2_put(list, BYTES(":method"), extended ? BYTES("CONNECT") : message->method_text))
        return false;
    if (extended && !h2_put(list, BYTES(":protocol"), protocol)) return false;
    if (!is_connect && !h2_put(list, BYTES(":scheme"), scheme)) return false;
    if (!h2_put(list, BYTES(":authority"), message->authority)) return false;
    return is_connect || h2_put_path(list, message);
}

bool h2_write_request(struct h2_list *list, const struct http_message *message, struct bytes scheme,
                      bool end) {
    h2_begin(list);
    if (!h2_put_target(list, message, scheme)) return false;
    bool extended = h2_is_extended(message);
    if (!h2_put_fields(list, &message->fields, extended)) return false;
    if (extended || message->method == HTTP_CONNECT) return true;
    /* RFC 9110 section 8.6: these expect content, so that there is none is said. */
    bool expects = message->method == HTTP_POST || message->method == HTTP_PUT ||
                   message->method == HTTP_PATCH;
    if (end) return !expects || h2_put_length(list, 0);
    return message->body_length == HTTP_LENGTH_UNKNOWN || h2_put_length(list, message->body_length);
}

bool h2_write_response(struct h2_list *list, const struct http_message *message) {
    h2_begin(list);
    uint16_t status = message->status == 101 ? 200 : message->status;
    writer_u64(&list->text, status);
    if (!h2_put(list, BYTES(":status"), h2_text_from(list, 0))) return false;
    if (!h2_put_fields(list, &message->fields, message->status == 101)) return false;
    bool has_length = status >= 200 && status != 204 && message->status != 101 &&
                      message->body_length != HTTP_LENGTH_UNKNOWN;
    return !has_length || h2_put_length(list, message->body_length);
}

bool h2_write_trailers(struct h2_list *list, const struct http_fields *trailers) {
    h2_begin(list);
    return h2_put_fields(list, trailers, false);
}
