#include "config/check_internal.h"
#include "config/regex.h"
#include "config/value.h"

/* What a route matches. What it does with a request: check_action.c. */

/* A list of strings as it stands in struct config_route. */
struct texts {
    struct bytes *items;
    uint32_t count;
};

static struct bytes lower_copy(struct memory *memory, struct bytes text) {
    char *copy = memory_string(memory, text);
    for (size_t i = 0; i < text.len; i++) {
        if (copy[i] >= 'A' && copy[i] <= 'Z') copy[i] = (char)(copy[i] | 0x20);
    }
    return bytes_make(copy, text.len);
}

static bool read_host(struct memory *memory, struct bytes item, struct bytes *kept,
                      struct writer *why) {
    struct bytes shown = value_shown(item);
    /* As in a request, a dot at the end says nothing (RFC 3986 section 3.2.2). */
    if (item.len > 1 && item.ptr[item.len - 1] == '.') item.len--;
    *kept = lower_copy(memory, item);
    if (value_is_host_pattern(item)) return true;
    writer_print(why, "\"%.*s\" is not a host without a port, or \"*.\" and a host",
                 BYTES_FMT(shown));
    return false;
}

/* Methods are case-sensitive (RFC 9110 section 9.1): "get" is valid, and surely a slip. */
static bool read_method(struct memory *memory, struct bytes item, struct bytes *kept,
                        struct writer *why) {
    static const char *const known[] = {"GET",     "HEAD",    "POST",  "PUT",  "DELETE",
                                        "CONNECT", "OPTIONS", "TRACE", "PATCH"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct bytes word = bytes_of(known[i]);
        if (!bytes_equal_nocase(item, word) || bytes_equal(item, word)) continue;
        writer_print(why, "\"%.*s\" is not how the method is written (did you mean \"%s\"?)",
                     BYTES_FMT(item), known[i]);
        return false;
    }
    *kept = memory_bytes(memory, item);
    if (value_is_token(item)) return true;
    writer_print(why, "\"%.*s\" is not a method", BYTES_FMT(value_shown(item)));
    return false;
}

static bool read_content_type(struct memory *memory, struct bytes item, struct bytes *kept,
                              struct writer *why) {
    *kept = lower_copy(memory, item);
    if (value_is_media_range(item)) return true;
    writer_print(why, "\"%.*s\" is not a media type (type/subtype or type/*)",
                 BYTES_FMT(value_shown(item)));
    return false;
}

/* `read`: from an item to the text that is kept, or false and a sentence. */
static struct texts read_texts(struct check *check, const struct ini_section *section,
                               enum key_id key,
                               bool (*read)(struct memory *, struct bytes item, struct bytes *kept,
                                            struct writer *why)) {
    struct texts texts = {NULL, 0};
    const struct ini_entry *entry = ini_next(section, key, NULL);
    for (; entry; entry = ini_next(section, key, entry)) {
        struct bytes rest = entry->value;
        struct bytes item;
        while (check_item(entry, &rest, &item)) {
            struct bytes kept;
            char text[256];
            struct writer why = writer_make(text, sizeof text);
            if (!read(check->memory, item, &kept, &why)) {
                check_fault(check, section, entry, "%.*s", BYTES_FMT(writer_bytes(&why)));
                continue;
            }
            texts.items =
                memory_grow(check->memory, texts.items, texts.count, sizeof(struct bytes));
            texts.items[texts.count++] = kept;
        }
    }
    return texts;
}

static void push_path(struct check *check, struct config_route *route, struct config_path path) {
    route->paths =
        memory_grow(check->memory, route->paths, route->path_count, sizeof(struct config_path));
    route->paths[route->path_count++] = path;
}

static void push_plain_path(struct check *check, const struct ini_section *section,
                            const struct ini_entry *entry, struct config_route *route,
                            struct config_path path) {
    if (value_is_path(path.text)) {
        path.text = memory_bytes(check->memory, path.text);
        push_path(check, route, path);
        return;
    }
    check_fault(check, section, entry,
                "\"%.*s\" is not a path: it begins with \"/\" and has no \"?\", \"#\" or blank",
                BYTES_FMT(value_shown(path.text)));
}

/* "= /exact" and "~ regex" take the rest of the line; prefixes are a list. */
static void read_path(struct check *check, const struct ini_section *section,
                      const struct ini_entry *entry, struct config_route *route) {
    struct bytes text = entry->value;
    struct bytes rest = bytes_trim(bytes_slice(text, 1, text.len));
    if (text.len != 0 && text.ptr[0] == '=') {
        push_plain_path(check, section, entry, route,
                        (struct config_path){CONFIG_PATH_EXACT, rest, NULL});
        return;
    }
    if (text.len == 0 || text.ptr[0] != '~') {
        rest = text;
        struct bytes item;
        while (check_item(entry, &rest, &item)) {
            push_plain_path(check, section, entry, route,
                            (struct config_path){CONFIG_PATH_PREFIX, item, NULL});
        }
        return;
    }
    char reason[256];
    struct writer why = writer_make(reason, sizeof reason);
    if (rest.len == 0) {
        check_fault(check, section, entry, "the expression is empty");
        return;
    }
    void *regex = regex_compile(rest, &why);
    if (!regex) {
        check_fault(check, section, entry, "%.*s", BYTES_FMT(writer_bytes(&why)));
        return;
    }
    push_path(check, route,
              (struct config_path){CONFIG_PATH_REGEX, memory_bytes(check->memory, rest), regex});
}

static void read_header(struct check *check, const struct ini_section *section,
                        const struct ini_entry *entry, struct config_route *route) {
    struct config_header_match match = {entry->value, BYTES_NONE};
    bool has_value = value_field(entry->value, &match.name, &match.value);
    if (!check_field_name(check, section, entry, match.name)) return;
    if (bytes_equal_nocase(match.name, BYTES("Host"))) {
        check_fault(check, section, entry, "a host is matched by host = NAME");
        return;
    }
    match.name = memory_bytes(check->memory, match.name);
    if (has_value) match.value = memory_bytes(check->memory, match.value);
    route->headers = memory_grow(check->memory, route->headers, route->header_count,
                                 sizeof(struct config_header_match));
    route->headers[route->header_count++] = match;
}

static void read_listeners(struct check *check, const struct ini_section *section,
                           const struct ini_entry *entry, struct config_route *route) {
    struct bytes rest = entry->value;
    struct bytes name;
    while (check_item(entry, &rest, &name)) {
        const struct ini_section *target =
            check_reference(check, section, entry, SECTION_LISTENER, name);
        if (!target) continue;
        bool is_tcp = check_number(check, target, KEY_MODE) == CONFIG_MODE_TCP;
        bool has_sni = ini_find(section, KEY_SNI) != NULL;
        if (is_tcp && !has_sni) {
            check_fault(check, section, entry,
                        "listener %s has mode = tcp, which knows routes by sni only", target->name);
            continue;
        }
        if (has_sni && (!is_tcp || ini_find(target, KEY_LISTENER_TLS))) {
            check_fault(check, section, entry,
                        "sni is for listeners with mode = tcp and without tls, which %s is not",
                        target->name);
            continue;
        }
        route->listeners = memory_grow(check->memory, route->listeners, route->listener_count,
                                       sizeof(struct config_listener *));
        route->listeners[route->listener_count++] = &check->config->listeners[target->ordinal];
    }
}

void check_websocket_keys(struct check *check, const struct ini_section *section, uint64_t mode) {
    static const enum key_id keys[] = {KEY_WEBSOCKET_MAX_MESSAGE, KEY_WEBSOCKET_PING};
    if (mode == CONFIG_WEBSOCKET_CHECKED) return;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct ini_entry *entry = ini_find(section, keys[i]);
        if (entry) check_fault(check, section, entry, "has no effect without websocket = checked");
    }
}

static uint64_t said_number(const struct check *check, const struct ini_section *section,
                            enum key_id key) {
    return ini_find(section, key) ? check_number(check, section, key) : CONFIG_UNSAID;
}

static void read_websocket(struct check *check, const struct ini_section *section,
                           struct config_route *route) {
    route->websocket = (struct config_websocket){
        .mode = said_number(check, section, KEY_WEBSOCKET),
        .message_max = said_number(check, section, KEY_WEBSOCKET_MAX_MESSAGE),
        .ping_ms = said_number(check, section, KEY_WEBSOCKET_PING)};
    /* Of a route that does not say how, each of its listeners does. */
    if (route->websocket.mode != CONFIG_UNSAID)
        check_websocket_keys(check, section, route->websocket.mode);
}

/* As a host without an address: RFC 6066 section 3 wants names. */
static bool read_sni(struct memory *memory, struct bytes item, struct bytes *kept,
                     struct writer *why) {
    if (!read_host(memory, item, kept, why)) return false;
    if (kept->ptr[0] != '[') return true;
    writer_print(why, "\"%.*s\" is an address, which is never asked for by sni",
                 BYTES_FMT(value_shown(item)));
    return false;
}

/* Before the name nothing is known, and behind it is nothing that weir could read. */
static void check_sni(struct check *check, const struct ini_section *section,
                      struct config_route *route) {
    static const enum key_id keys[] = {KEY_HOST,
                                       KEY_PATH,
                                       KEY_METHOD,
                                       KEY_ROUTE_HEADER,
                                       KEY_CONTENT_TYPE,
                                       KEY_REDIRECT,
                                       KEY_RESPOND,
                                       KEY_CONNECT,
                                       KEY_WEBSOCKET,
                                       KEY_WEBSOCKET_MAX_MESSAGE,
                                       KEY_WEBSOCKET_PING,
                                       KEY_STRIP_PREFIX,
                                       KEY_SET_REQUEST_HEADER,
                                       KEY_ADD_REQUEST_HEADER,
                                       KEY_REMOVE_REQUEST_HEADER,
                                       KEY_SET_RESPONSE_HEADER,
                                       KEY_ADD_RESPONSE_HEADER,
                                       KEY_REMOVE_RESPONSE_HEADER};
    const struct ini_entry *sni = ini_find(section, KEY_SNI);
    if (!sni) return;
    struct texts names = read_texts(check, section, KEY_SNI, read_sni);
    route->sni_names = names.items;
    route->sni_count = names.count;
    if (!ini_find(section, KEY_ROUTE_LISTENER))
        check_fault(check, section, sni, "needs listener = NAME, with mode = tcp and without tls");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct ini_entry *entry = ini_find(section, keys[i]);
        if (entry)
            check_fault(check, section, entry, "has no effect with sni: requests are not seen");
    }
}

void check_route(struct check *check, const struct ini_section *section,
                 struct config_route *route) {
    route->name = memory_string(check->memory, bytes_of(section->name));
    route->index = section->ordinal;
    route->line = section->line;
    for (uint32_t i = 0; i < section->entry_count; i++) {
        const struct ini_entry *entry = &section->entries[i];
        if (entry->value.len == 0) continue; /* reported already */
        if (entry->key->id == KEY_ROUTE_LISTENER) read_listeners(check, section, entry, route);
        if (entry->key->id == KEY_PATH) read_path(check, section, entry, route);
        if (entry->key->id == KEY_ROUTE_HEADER) read_header(check, section, entry, route);
    }
    check_sni(check, section, route);
    struct texts hosts = read_texts(check, section, KEY_HOST, read_host);
    struct texts methods = read_texts(check, section, KEY_METHOD, read_method);
    struct texts types = read_texts(check, section, KEY_CONTENT_TYPE, read_content_type);
    route->hosts = hosts.items;
    route->host_count = hosts.count;
    route->methods = methods.items;
    route->method_count = methods.count;
    route->content_types = types.items;
    route->content_type_count = types.count;
    check_edits(check, section, HEADER_REQUEST, &route->request_edits);
    check_edits(check, section, HEADER_RESPONSE, &route->response_edits);
    read_websocket(check, section, route);
    check_route_action(check, section, route);
}
