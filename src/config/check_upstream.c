#include "config/address.h"
#include "config/check_internal.h"
#include "config/suggest.h"
#include "config/value.h"

#define WEIGHT_MAX 1000
#define SERVER_CONNECTIONS_MAX 1000000

static const struct {
    const char *word;
    bool is_later;
} parameters[] = {
    {"weight", false},
    {"max_connections", false},
    {"backup", false},
    {"slow_start", true},
};

static void explain_parameter(struct bytes name, struct writer *why) {
    if (bytes_find(name, ':') != name.len) {
        writer_print(why, "\"%.*s\" belongs in a line of its own, one server a line",
                     BYTES_FMT(value_shown(name)));
        return;
    }
    struct suggest suggest;
    suggest_init(&suggest, name);
    for (size_t i = 0; i < sizeof parameters / sizeof parameters[0]; i++) {
        if (!parameters[i].is_later) suggest_offer(&suggest, bytes_of(parameters[i].word));
        if (!parameters[i].is_later || !bytes_equal(name, bytes_of(parameters[i].word))) continue;
        writer_print(why, "\"%s\" is not supported by this version", parameters[i].word);
        return;
    }
    writer_print(why, "unknown parameter \"%.*s\"", BYTES_FMT(value_shown(name)));
    if (suggest.best.len == 0) return;
    writer_print(why, " (did you mean \"%.*s\"?)", BYTES_FMT(suggest.best));
}

/* The number of NAME=N. */
static bool read_bounded(struct bytes item, const uint32_t range[2], uint32_t *number,
                         struct writer *why) {
    uint64_t value;
    struct bytes text = bytes_slice(item, bytes_find(item, '=') + 1, item.len);
    if (bytes_to_u64(text, &value) && value >= range[0] && value <= range[1]) {
        *number = (uint32_t)value;
        return true;
    }
    writer_print(why, "\"%.*s\" needs a number from %u to %u", BYTES_FMT(value_shown(item)),
                 range[0], range[1]);
    return false;
}

/* One of weight=N, max_connections=N, backup. */
static bool read_parameter(struct bytes item, struct config_server *server, struct writer *why) {
    if (bytes_equal(item, BYTES("backup"))) {
        server->backup = true;
        return true;
    }
    size_t sign = bytes_find(item, '=');
    struct bytes name = bytes_slice(item, 0, sign);
    bool has_value = sign != item.len;
    if (has_value && bytes_equal(name, BYTES("weight"))) {
        return read_bounded(item, (const uint32_t[]){1, WEIGHT_MAX}, &server->weight, why);
    }
    if (has_value && bytes_equal(name, BYTES("max_connections"))) {
        return read_bounded(item, (const uint32_t[]){0, SERVER_CONNECTIONS_MAX},
                            &server->max_connections, why);
    }
    bool lacks_value =
        bytes_equal(name, BYTES("weight")) || bytes_equal(name, BYTES("max_connections"));
    if (lacks_value) {
        writer_print(why, "\"%.*s\" needs a value, as in %.*s=2", BYTES_FMT(name), BYTES_FMT(name));
        return false;
    }
    explain_parameter(name, why);
    return false;
}

/* Whether a parameter of that name stands before `item` in its line. */
static bool is_repeated(const struct ini_entry *entry, struct bytes item) {
    struct bytes name = bytes_slice(item, 0, bytes_find(item, '='));
    struct bytes rest = bytes_slice(entry->value, 0, (size_t)(item.ptr - entry->value.ptr));
    struct bytes other;
    while (value_next(&rest, &other)) {
        if (bytes_equal(name, bytes_slice(other, 0, bytes_find(other, '=')))) return true;
    }
    return false;
}

static bool read_server(struct check *check, const struct ini_entry *entry,
                        struct config_server *server, struct writer *why) {
    struct bytes rest = entry->value;
    struct bytes item;
    if (!check_item(entry, &rest, &item)) return true;
    *server = (struct config_server){.weight = 1};
    if (!address_resolve(item, check->memory, &server->address, why)) return false;
    server->name = server->address.text;
    server->tls_name = address_host(item, check->memory);
    while (check_item(entry, &rest, &item)) {
        if (!read_parameter(item, server, why)) return false;
        if (!is_repeated(entry, item)) continue;
        writer_print(why, "\"%.*s\" is given twice",
                     BYTES_FMT(bytes_slice(item, 0, bytes_find(item, '='))));
        return false;
    }
    return true;
}

static void check_servers(struct check *check, const struct ini_section *section,
                          struct config_upstream *upstream) {
    const struct ini_entry *entry = ini_next(section, KEY_SERVER, NULL);
    if (!entry) check_missing(check, section, KEY_SERVER);
    for (; entry; entry = ini_next(section, KEY_SERVER, entry)) {
        struct config_server server = {0};
        char text[512];
        struct writer why = writer_make(text, sizeof text);
        if (!read_server(check, entry, &server, &why)) {
            check_fault(check, section, entry, "%.*s", BYTES_FMT(writer_bytes(&why)));
            continue;
        }
        if (!server.name) continue; /* empty: reported already */
        for (uint32_t i = 0; i < upstream->server_count; i++) {
            if (!address_equal(&upstream->servers[i].address, &server.address)) continue;
            check_fault(check, section, entry, "duplicate server \"%s\"", server.name);
        }
        server.index = upstream->server_count;
        upstream->servers = memory_grow(check->memory, upstream->servers, upstream->server_count,
                                        sizeof(struct config_server));
        upstream->servers[upstream->server_count++] = server;
    }
}

static bool read_hash_key(struct bytes text, enum config_hash_key *key, struct bytes *name) {
    static const struct {
        const char *word;
        enum config_hash_key key;
        bool is_named;
    } words[] = {
        {"client_ip", CONFIG_HASH_CLIENT_IP, false},
        {"header", CONFIG_HASH_HEADER, true},
        {"cookie", CONFIG_HASH_COOKIE, true},
        {"path", CONFIG_HASH_PATH, false},
    };
    size_t colon = bytes_find(text, ':');
    *name = bytes_slice(text, colon + 1, text.len);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (!bytes_equal(bytes_slice(text, 0, colon), bytes_of(words[i].word))) continue;
        *key = words[i].key;
        return words[i].is_named ? value_is_token(*name) : colon == text.len;
    }
    return false;
}

static void check_hash_key(struct check *check, const struct ini_section *section,
                           struct config_upstream *upstream) {
    struct bytes text = check_text(section, KEY_HASH_KEY);
    struct bytes name;
    const struct ini_entry *entry = ini_find(section, KEY_HASH_KEY);
    if (entry && entry->value.len == 0) return; /* reported already */
    if (!read_hash_key(text, &upstream->hash_key, &name)) {
        check_fault(check, section, entry,
                    "\"%.*s\" is none of client_ip, header:NAME, cookie:NAME, path",
                    BYTES_FMT(value_shown(text)));
        return;
    }
    if (name.len != 0) upstream->hash_name = memory_string(check->memory, name);
    if (entry && upstream->balance != CONFIG_BALANCE_MAGLEV) {
        check_fault(check, section, entry, "needs balance = maglev");
    } else if (upstream->hash_key == CONFIG_HASH_HEADER) {
        (void)check_field_name(check, section, entry, name); /* its error is all that is wanted */
    }
}

/* A connection that has told whose it is cannot be another client's afterwards. */
static void check_send_proxy(struct check *check, const struct ini_section *section,
                             struct config_upstream *upstream) {
    upstream->send_proxy = (uint8_t)check_number(check, section, KEY_SEND_PROXY);
    if (upstream->send_proxy == 0) return;
    const struct ini_entry *keepalive = ini_find(section, KEY_KEEPALIVE);
    if (keepalive && upstream->keepalive != 0) {
        check_fault(check, section, keepalive,
                    "with send_proxy a connection is one client's and cannot be kept: it must be "
                    "0, or left out");
    }
    upstream->keepalive = 0;
}

static void check_floods(struct check *check, const struct ini_section *section,
                         const struct config_upstream *upstream) {
    static const enum key_id keys[] = {KEY_H2_MAX_CONTINUATIONS, KEY_H2_MAX_SETTINGS,
                                       KEY_H2_MAX_PINGS,         KEY_H2_MAX_EMPTY_DATA,
                                       KEY_H2_MAX_PRIORITY,      KEY_H2_MAX_WINDOW_UPDATES,
                                       KEY_H2_MAX_CLOSED};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct ini_entry *entry = ini_find(section, keys[i]);
        if (entry && upstream->protocol != CONFIG_PROTOCOL_H2)
            check_fault(check, section, entry, "has no effect with protocol = h1");
    }
}

void check_upstream(struct check *check, const struct ini_section *section,
                    struct config_upstream *upstream) {
    upstream->name = memory_string(check->memory, bytes_of(section->name));
    upstream->index = section->ordinal;
    upstream->line = section->line;
    upstream->protocol = (enum config_protocol)check_number(check, section, KEY_PROTOCOL);
    upstream->balance = (enum config_balance)check_number(check, section, KEY_BALANCE);
    upstream->keepalive = (uint32_t)check_number(check, section, KEY_KEEPALIVE);
    upstream->keepalive_timeout_ms = check_number(check, section, KEY_KEEPALIVE_TIMEOUT);
    check_send_proxy(check, section, upstream);
    upstream->queue = (uint32_t)check_number(check, section, KEY_QUEUE);
    check_limits(check, section, &upstream->limits);
    check_floods(check, section, upstream);
    check_servers(check, section, upstream);
    check_upstream_tls(check, section, upstream);
    check_hash_key(check, section, upstream);
}

static bool leads_to(const struct config_action *action, const struct config_upstream *upstream) {
    for (uint32_t i = 0; action->kind == CONFIG_ACTION_UPSTREAM && i < action->split_count; i++) {
        if (action->splits[i].upstream == upstream) return true;
    }
    return false;
}

/* Whether connections are carried to it, and whether requests are sent. */
static void find_users(const struct config *config, const struct config_upstream *upstream,
                       bool *has_tcp, bool *has_http) {
    *has_tcp = *has_http = false;
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        if (!leads_to(&listener->action, upstream)) continue;
        *(listener->mode == CONFIG_MODE_TCP ? has_tcp : has_http) = true;
    }
    for (uint32_t i = 0; i < config->route_count; i++) {
        const struct config_route *route = &config->routes[i];
        if (!leads_to(&route->action, upstream)) continue;
        *(route->sni_count != 0 ? has_tcp : has_http) = true;
    }
}

void check_upstreams_together(struct check *check) {
    static const enum key_id keys[] = {KEY_TIMEOUT_SERVER, KEY_KEEPALIVE, KEY_KEEPALIVE_TIMEOUT};
    for (uint32_t i = 0; i < check->config->upstream_count; i++) {
        const struct config_upstream *upstream = &check->config->upstreams[i];
        bool has_tcp;
        bool has_http;
        find_users(check->config, upstream, &has_tcp, &has_http);
        if (!has_tcp || has_http) continue;
        const struct ini_section *section =
            ini_section_find(check->ini, SECTION_UPSTREAM, bytes_of(upstream->name));
        for (size_t j = 0; j < sizeof keys / sizeof keys[0]; j++) {
            const struct ini_entry *entry = ini_find(section, keys[j]);
            if (!entry) continue;
            check_fault(check, section, entry,
                        "has no effect: only connections of mode = tcp come here%s",
                        keys[j] == KEY_TIMEOUT_SERVER ? " (see timeout_tunnel)" : "");
        }
    }
}

/* false when it says none, or nonsense, which is reported where it stands. */
static bool read_type(const struct ini_section *section, enum config_service_type *type) {
    const struct ini_entry *entry = ini_find(section, KEY_TYPE);
    if (!entry || !entry->is_valid) return false;
    *type = (enum config_service_type)entry->number;
    return true;
}

void check_service_fits(struct check *check, const struct ini_section *section,
                        const struct ini_entry *entry, const struct ini_section *service,
                        enum config_mode mode) {
    enum config_service_type type;
    if (!read_type(service, &type)) return;
    bool is_echo = type == CONFIG_SERVICE_ECHO;
    if (is_echo == (mode == CONFIG_MODE_TCP)) return;
    check_fault(check, section, entry, "%s is of type %s, which needs a listener with mode = %s",
                service->name, is_echo ? "echo" : "respond", is_echo ? "tcp" : "http");
}

static void refuse_answer_keys(struct check *check, const struct ini_section *section) {
    static const enum key_id keys[] = {KEY_STATUS, KEY_SERVICE_HEADER, KEY_BODY};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct ini_entry *entry = ini_find(section, keys[i]);
        if (entry) check_fault(check, section, entry, "has no effect with type = echo");
    }
}

void check_service(struct check *check, const struct ini_section *section,
                   struct config_service *service) {
    service->name = memory_string(check->memory, bytes_of(section->name));
    service->index = section->ordinal;
    service->line = section->line;
    (void)read_type(section, &service->type); /* else respond: its keys are all there are */
    service->status = (uint16_t)check_number(check, section, KEY_STATUS);
    if (!ini_find(section, KEY_TYPE)) check_missing(check, section, KEY_TYPE);
    if (service->type == CONFIG_SERVICE_ECHO) {
        refuse_answer_keys(check, section);
        return;
    }
    check_edits(check, section, HEADER_SERVICE, &service->headers);
    const struct ini_entry *body = ini_find(section, KEY_BODY);
    struct bytes text = body ? body->value : BYTES_NONE;
    service->body = memory_string(check->memory, text);
    service->body_size = text.len;
    bool has_no_body = service->status == 204 || service->status == 304;
    if (has_no_body && text.len != 0) {
        /* RFC 9110 sections 15.3.5 and 15.4.5. */
        check_fault(check, section, body, "an answer with status %u has no body", service->status);
    }
}
