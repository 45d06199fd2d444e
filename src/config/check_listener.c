#include "config/address.h"
#include "config/check_internal.h"
#include "config/value.h"

static void check_binds(struct check *check, const struct ini_section *section,
                        struct config_listener *listener) {
    const struct ini_entry *entry = ini_next(section, KEY_BIND, NULL);
    if (!entry) check_missing(check, section, KEY_BIND);
    for (; entry; entry = ini_next(section, KEY_BIND, entry)) {
        struct bytes rest = entry->value;
        struct bytes item;
        while (check_item(entry, &rest, &item)) {
            struct config_address address;
            char text[512];
            struct writer why = writer_make(text, sizeof text);
            if (!address_resolve(item, check->memory, &address, &why)) {
                check_fault(check, section, entry, "%.*s", BYTES_FMT(writer_bytes(&why)));
                continue;
            }
            address.line = entry->line;
            listener->binds = memory_grow(check->memory, listener->binds, listener->bind_count,
                                          sizeof(struct config_address));
            listener->binds[listener->bind_count++] = address;
        }
    }
}

static void check_trusted(struct check *check, const struct ini_section *section,
                          const struct ini_entry *entry, struct cidr_list *trusted) {
    struct bytes rest = entry->value;
    struct bytes item;
    while (check_item(entry, &rest, &item)) {
        struct cidr cidr;
        if (!cidr_parse(item, &cidr)) {
            check_fault(check, section, entry,
                        "\"%.*s\" is no network: 10.0.0.0/8, 2001:db8::/32, an address, or unix:",
                        BYTES_FMT(value_shown(item)));
            continue;
        }
        if (cidr_trim(&cidr)) {
            char text[64];
            struct writer trimmed = writer_make(text, sizeof text);
            cidr_write(&cidr, &trimmed);
            check_fault(check, section, entry,
                        "\"%.*s\" has bits behind its prefix (did you mean \"%.*s\"?)",
                        BYTES_FMT(value_shown(item)), BYTES_FMT(writer_bytes(&trimmed)));
            continue;
        }
        trusted->items =
            memory_grow(check->memory, trusted->items, trusted->count, sizeof(struct cidr));
        trusted->items[trusted->count++] = cidr;
    }
}

static void check_proxy_protocol(struct check *check, const struct ini_section *section,
                                 struct config_listener *listener) {
    listener->proxy_protocol = (uint8_t)check_number(check, section, KEY_PROXY_PROTOCOL);
    const struct ini_entry *entry = ini_next(section, KEY_TRUSTED_PROXIES, NULL);
    if (!entry && listener->proxy_protocol != 0) {
        check_fault(check, section, ini_find(section, KEY_PROXY_PROTOCOL),
                    "needs trusted_proxies, the addresses of the proxies that send the header "
                    "(0.0.0.0/0 ::/0 trusts all)");
    }
    for (; entry; entry = ini_next(section, KEY_TRUSTED_PROXIES, entry))
        check_trusted(check, section, entry, &listener->trusted);
}

static void set_upstream(struct check *check, const struct ini_section *section,
                         const struct ini_entry *entry, struct config_action *action) {
    const struct ini_section *target =
        check_reference(check, section, entry, SECTION_UPSTREAM, entry->value);
    if (!target) return;
    action->kind = CONFIG_ACTION_UPSTREAM;
    action->splits = memory_alloc(check->memory, 1, sizeof(struct config_split));
    action->splits[0] = (struct config_split){&check->config->upstreams[target->ordinal], 1};
    action->split_count = 1;
    action->weight_sum = 1;
}

/* A service fits one mode: an answer needs a request, and bytes that come back are none. */
static void set_service(struct check *check, const struct ini_section *section,
                        const struct ini_entry *entry, struct config_listener *listener) {
    const struct ini_section *target =
        check_reference(check, section, entry, SECTION_SERVICE, entry->value);
    if (!target) return;
    listener->action.kind = CONFIG_ACTION_SERVICE;
    listener->action.service = &check->config->services[target->ordinal];
    const struct ini_entry *mode = ini_find(section, KEY_MODE);
    if (mode && !mode->is_valid) return; /* reported already */
    check_service_fits(check, section, entry, target, listener->mode);
}

static void check_action(struct check *check, const struct ini_section *section,
                         struct config_listener *listener) {
    const struct ini_entry *upstream = ini_find(section, KEY_LISTENER_UPSTREAM);
    const struct ini_entry *service = ini_find(section, KEY_LISTENER_SERVICE);
    if (upstream && upstream->value.len != 0)
        set_upstream(check, section, upstream, &listener->action);
    if (service && service->value.len != 0) set_service(check, section, service, listener);
    if (upstream && service) {
        check_fault(check, section, service,
                    "upstream is given too (line %u), it must be one of both", upstream->line);
    }
}

/* What only requests have any use for; from [defaults] it may come all the same. */
static void refuse_http_keys(struct check *check, const struct ini_section *section) {
    static const enum key_id keys[] = {
        KEY_TIMEOUT_REQUEST, KEY_TIMEOUT_CLIENT,  KEY_TIMEOUT_KEEPALIVE,
        KEY_MIN_READ_RATE,   KEY_MAX_HEADER_SIZE, KEY_MAX_HEADERS,
        KEY_MAX_TARGET,      KEY_MAX_BODY_SIZE,   KEY_VIA,
        KEY_FORWARDED,       KEY_WEBSOCKET,       KEY_WEBSOCKET_MAX_MESSAGE,
        KEY_WEBSOCKET_PING};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct ini_entry *entry = ini_find(section, keys[i]);
        if (entry) check_fault(check, section, entry, "has no effect with mode = tcp");
    }
    const struct ini_entry *trusted = ini_next(section, KEY_TRUSTED_PROXIES, NULL);
    if (trusted && !ini_find(section, KEY_PROXY_PROTOCOL))
        check_fault(check, section, trusted,
                    "has no effect with mode = tcp and without proxy_protocol");
}

/* What only HTTP/2 has any use for; likewise. */
static void refuse_h2_keys(struct check *check, const struct ini_section *section,
                           const char *where) {
    static const enum key_id keys[] = {
        KEY_H2_MAX_STREAMS,       KEY_H2_MAX_RESETS,   KEY_H2_MAX_MADE_RESETS,
        KEY_H2_MAX_CONTINUATIONS, KEY_H2_MAX_SETTINGS, KEY_H2_MAX_PINGS,
        KEY_H2_MAX_EMPTY_DATA,    KEY_H2_MAX_PRIORITY, KEY_H2_MAX_WINDOW_UPDATES,
        KEY_H2_MAX_STALLED,       KEY_H2_MAX_CLOSED};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct ini_entry *entry = ini_find(section, keys[i]);
        if (entry) check_fault(check, section, entry, "has no effect %s", where);
    }
}

/* What only IP has; beside another address it is for that one. */
static void refuse_ip_keys(struct check *check, const struct ini_section *section,
                           const struct config_listener *listener) {
    static const enum key_id keys[] = {KEY_NODELAY, KEY_TTL, KEY_RECV_BUFFER, KEY_SEND_BUFFER,
                                       KEY_MAX_CONNECTIONS_PER_IP};
    for (uint32_t i = 0; i < listener->bind_count; i++) {
        if (listener->binds[i].storage.ss_family != AF_UNIX) return;
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct ini_entry *entry = ini_find(section, keys[i]);
        /* A PROXY header has an address to count by. */
        bool is_told = keys[i] == KEY_MAX_CONNECTIONS_PER_IP && listener->proxy_protocol != 0;
        if (entry && !is_told) check_fault(check, section, entry, "has no effect on unix sockets");
    }
}

/* `names`: each behind its length, as alpn is kept. */
static bool has_h2(struct bytes names) {
    for (size_t at = 0; at < names.len; at += 1u + (unsigned char)names.ptr[at]) {
        if (bytes_starts_with(bytes_slice(names, at, names.len), BYTES("\x02h2"))) return true;
    }
    return false;
}

void check_listener(struct check *check, const struct ini_section *section,
                    struct config_listener *listener) {
    bool is_admin = section->kind == SECTION_ADMIN;
    if (!is_admin && bytes_equal(bytes_of(section->name), BYTES("admin"))) {
        faults_add(check->faults, (struct fault_place){section->line, section->title, NULL},
                   "this name is the one of [admin]");
    }
    listener->name = memory_string(check->memory, bytes_of(is_admin ? "admin" : section->name));
    /* Its own place in the array: the admin's is the last. */
    listener->index = (uint32_t)(listener - check->config->listeners);
    listener->line = section->line;
    listener->is_admin = is_admin;
    listener->backlog = (uint32_t)check_number(check, section, KEY_BACKLOG);
    listener->max_connections =
        (uint32_t)check_number(check, section, KEY_LISTENER_MAX_CONNECTIONS);
    listener->max_connections_per_ip =
        (uint32_t)check_number(check, section, KEY_MAX_CONNECTIONS_PER_IP);
    listener->max_connection_rate = (uint32_t)check_number(check, section, KEY_MAX_CONNECTION_RATE);
    listener->nodelay = check_number(check, section, KEY_NODELAY) != 0;
    listener->ttl = (uint32_t)check_number(check, section, KEY_TTL);
    listener->recv_buffer = (uint32_t)check_number(check, section, KEY_RECV_BUFFER);
    listener->send_buffer = (uint32_t)check_number(check, section, KEY_SEND_BUFFER);
    listener->via = check_number(check, section, KEY_VIA) != 0;
    listener->forwarded = (enum config_forwarded)check_number(check, section, KEY_FORWARDED);
    check_proxy_protocol(check, section, listener);
    check_limits(check, section, &listener->limits);
    listener->websocket = (struct config_websocket){
        .mode = check_number(check, section, KEY_WEBSOCKET),
        .message_max = check_number(check, section, KEY_WEBSOCKET_MAX_MESSAGE),
        .ping_ms = check_number(check, section, KEY_WEBSOCKET_PING)};
    check_binds(check, section, listener);
    if (is_admin) return;
    listener->mode = (enum config_mode)check_number(check, section, KEY_MODE);
    check_listener_tls(check, section, listener);
    check_action(check, section, listener);
    if (listener->bind_count != 0) refuse_ip_keys(check, section, listener);
    if (listener->mode == CONFIG_MODE_TCP) {
        refuse_http_keys(check, section);
        refuse_h2_keys(check, section, "with mode = tcp");
    } else {
        /* Without the key, and after an error in it, h2 is among them. */
        listener->speaks_h2 = listener->alpn.len == 0 || has_h2(listener->alpn);
        if (!listener->speaks_h2) refuse_h2_keys(check, section, "without h2 in alpn");
        check_websocket_keys(check, section, listener->websocket.mode);
    }
}

static const struct ini_section *section_of(const struct check *check,
                                            const struct config_listener *listener) {
    enum section_kind kind = listener->is_admin ? SECTION_ADMIN : SECTION_LISTENER;
    return ini_section_find(check->ini, kind, bytes_of(listener->is_admin ? "" : listener->name));
}

static bool collides(const struct config_address *a, const struct config_address *b) {
    return address_equal(a, b) || address_covers(a, b) || address_covers(b, a);
}

/* Whether some listener before `listener`, or itself before `bind`, has that address already, or
 * all of them with its port, or one of those it has. */
static const struct config_listener *earlier_owner(const struct config *config, uint32_t listener,
                                                   uint32_t bind,
                                                   const struct config_address **owned) {
    const struct config_address *address = &config->listeners[listener].binds[bind];
    for (uint32_t i = 0; i <= listener; i++) {
        const struct config_listener *other = &config->listeners[i];
        uint32_t count = i == listener ? bind : other->bind_count;
        for (uint32_t j = 0; j < count; j++) {
            *owned = &other->binds[j];
            if (collides(*owned, address)) return other;
        }
    }
    return NULL;
}

static void check_addresses(struct check *check, uint32_t index) {
    const struct config_listener *listener = &check->config->listeners[index];
    for (uint32_t i = 0; i < listener->bind_count; i++) {
        const struct config_address *address = &listener->binds[i];
        const struct config_address *owned;
        const struct config_listener *owner = earlier_owner(check->config, index, i, &owned);
        if (!owner) continue;
        const struct ini_section *section = section_of(check, listener);
        struct fault_place place = {address->line, section->title, key_at(KEY_BIND)->name};
        if (address_equal(owned, address)) {
            faults_add(check->faults, place, "%s is bound already by listener %s in line %u",
                       address->text, owner->name, owner->line);
            continue;
        }
        faults_add(check->faults, place,
                   "%s %s %s, which is bound already by listener %s in line %u", address->text,
                   address_covers(owned, address) ? "is part of" : "covers", owned->text,
                   owner->name, owner->line);
    }
}

static bool has_route(const struct config *config, const struct config_listener *listener) {
    for (uint32_t i = 0; i < config->route_count; i++) {
        const struct config_route *route = &config->routes[i];
        if (route->listener_count == 0 && listener->mode == CONFIG_MODE_HTTP) return true;
        for (uint32_t j = 0; j < route->listener_count; j++) {
            if (route->listeners[j] == listener) return true;
        }
    }
    return false;
}

/* Of a connection there is nothing to hash but where it comes from. */
static void check_tcp_hash(struct check *check, const struct config_listener *listener,
                           const struct config_action *action) {
    bool is_balanced = listener->mode == CONFIG_MODE_TCP && action->kind == CONFIG_ACTION_UPSTREAM;
    for (uint32_t i = 0; is_balanced && i < action->split_count; i++) {
        const struct config_upstream *upstream = action->splits[i].upstream;
        if (upstream->hash_key == CONFIG_HASH_CLIENT_IP) continue;
        const struct ini_section *section =
            ini_section_find(check->ini, SECTION_UPSTREAM, bytes_of(upstream->name));
        check_fault(check, section, ini_find(section, KEY_HASH_KEY),
                    "must be client_ip: listener %s in line %u has mode = tcp", listener->name,
                    listener->line);
    }
}

static void check_route_hashes(struct check *check) {
    for (uint32_t i = 0; i < check->config->route_count; i++) {
        const struct config_route *route = &check->config->routes[i];
        if (route->sni_count != 0 && route->listener_count != 0)
            check_tcp_hash(check, route->listeners[0], &route->action);
    }
}

/* Routes for all listeners, of which none speaks HTTP. */
static void check_idle_routes(struct check *check) {
    const struct config *config = check->config;
    for (uint32_t i = 0; i < config->listener_count; i++) {
        if (config->listeners[i].mode == CONFIG_MODE_HTTP && !config->listeners[i].is_admin) return;
    }
    for (uint32_t i = 0; i < config->route_count; i++) {
        const struct ini_section *section =
            ini_section_find(check->ini, SECTION_ROUTE, bytes_of(config->routes[i].name));
        if (ini_find(section, KEY_ROUTE_LISTENER)) continue;
        faults_add(check->faults, (struct fault_place){section->line, section->title, NULL},
                   "there is no listener with mode = http");
    }
}

void check_listeners_together(struct check *check) {
    const struct config *config = check->config;
    if (check->ini->kind_counts[SECTION_LISTENER] == 0) {
        faults_add(check->faults, (struct fault_place){0, NULL, NULL},
                   "there is no [listener NAME] section");
    } else {
        check_idle_routes(check);
    }
    check_route_hashes(check);
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        check_addresses(check, i);
        check_tcp_hash(check, listener, &listener->action);
        const struct ini_section *section = section_of(check, listener);
        bool has_default = listener->is_admin || ini_find(section, KEY_LISTENER_UPSTREAM) ||
                           ini_find(section, KEY_LISTENER_SERVICE);
        if (has_default || has_route(config, listener)) continue;
        faults_add(check->faults, (struct fault_place){listener->line, section->title, NULL},
                   listener->mode == CONFIG_MODE_TCP
                       ? "needs upstream = NAME or service = NAME, or a route by sni"
                       : "needs upstream = NAME or service = NAME, or a route");
    }
}
