#include "proxy/hash_key.h"

#include "base/hash.h"
#include "proxy/request_field.h"

/* The same in every process and version: servers keep their users over an upgrade. */
#define SEED 0

/* RFC 6265 section 4.2.1: pairs "name=value" between semicolons; names are compared with case. */
static struct bytes cookie_in(struct bytes pairs, struct bytes name) {
    struct bytes pair;
    while (bytes_split(&pairs, ';', &pair)) {
        size_t equals = bytes_find(pair, '=');
        if (equals == pair.len || !bytes_equal(bytes_slice(pair, 0, equals), name)) continue;
        return bytes_slice(pair, equals + 1, pair.len);
    }
    return BYTES_NONE;
}

static struct bytes cookie_find(const struct http_message *request, struct bytes name) {
    for (uint32_t i = 0; i < request->fields.count; i++) {
        const struct http_field *field = &request->fields.items[i];
        if (field->id != HTTP_FIELD_COOKIE) continue;
        struct bytes value = cookie_in(field->value, name);
        if (value.len != 0) return value;
    }
    return BYTES_NONE;
}

static struct bytes key_text(const struct config_upstream *upstream,
                             const struct http_message *request) {
    if (upstream->balance == CONFIG_BALANCE_SOURCE_IP) return BYTES_NONE;
    switch (upstream->hash_key) {
    case CONFIG_HASH_CLIENT_IP:
        return BYTES_NONE;
    case CONFIG_HASH_HEADER:
        return request_field(request, bytes_of(upstream->hash_name));
    case CONFIG_HASH_COOKIE:
        return cookie_find(request, bytes_of(upstream->hash_name));
    case CONFIG_HASH_PATH:
        return request->path;
    }
    return BYTES_NONE;
}

uint64_t hash_key(const struct config_upstream *upstream, const struct http_message *request,
                  struct bytes client_ip) {
    struct bytes key = key_text(upstream, request);
    return hash_bytes(key.len != 0 ? key : client_ip, SEED);
}
