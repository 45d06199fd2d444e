#include "config/check.h"

#include "base/check.h"
#include "config/check_internal.h"
#include "config/suggest.h"
#include "config/value.h"

void check_missing(struct check *check, const struct ini_section *section, enum key_id key) {
    const struct key *missing = key_at(key);
    struct fault_place place = {section->line, section->title, missing->name};
    faults_add(check->faults, place, "missing (%s)", missing->help);
}

static uint64_t default_number(const struct key *key) {
    uint64_t number = 0;
    char text[256];
    struct writer why = writer_make(text, sizeof text);
    /* Our own table: a unit test reads every default. */
    CHECK(key_number(key, bytes_of(key->fallback), &number, &why));
    return number;
}

static const struct ini_entry *valid_entry(const struct ini_section *section, enum key_id key) {
    const struct ini_entry *entry = section ? ini_find(section, key) : NULL;
    return entry && entry->is_valid ? entry : NULL;
}

uint64_t check_number(const struct check *check, const struct ini_section *section,
                      enum key_id id) {
    const struct key *key = key_at(id);
    const struct ini_entry *entry = valid_entry(section, id);
    /* What the public is given in time is nothing for the probes and scrapes of operators. */
    bool is_own = section && section->kind == SECTION_ADMIN && key->kind == KIND_DURATION;
    if (!entry && key->places & IN_DEFAULTS && !is_own) {
        entry = valid_entry(ini_section_find(check->ini, SECTION_DEFAULTS, BYTES("")), id);
    }
    return entry ? entry->number : default_number(key);
}

struct bytes check_text(const struct ini_section *section, enum key_id key) {
    const struct ini_entry *entry = section ? ini_find(section, key) : NULL;
    return entry ? entry->value : bytes_of(key_at(key)->fallback);
}

bool check_item(const struct ini_entry *entry, struct bytes *rest, struct bytes *item) {
    if (!entry->is_quoted) return value_next(rest, item);
    *item = *rest;
    *rest = BYTES_NONE;
    return item->len != 0;
}

const struct ini_section *check_reference(struct check *check, const struct ini_section *section,
                                          const struct ini_entry *entry, enum section_kind kind,
                                          struct bytes name) {
    const struct ini_section *found = ini_section_find(check->ini, kind, name);
    if (found) return found;
    struct suggest suggest;
    suggest_init(&suggest, name);
    for (uint32_t i = 0; i < check->ini->section_count; i++) {
        const struct ini_section *other = &check->ini->sections[i];
        if (other->kind == kind) suggest_offer(&suggest, bytes_of(other->name));
    }
    if (suggest.best.len == 0) {
        check_fault(check, section, entry, "there is no [%s %.*s]", section_word(kind),
                    BYTES_FMT(value_shown(name)));
    } else {
        check_fault(check, section, entry, "there is no [%s %.*s] (did you mean \"%.*s\"?)",
                    section_word(kind), BYTES_FMT(value_shown(name)), BYTES_FMT(suggest.best));
    }
    return NULL;
}

void check_limits(const struct check *check, const struct ini_section *section,
                  struct config_limits *limits) {
    *limits = (struct config_limits){
        .timeout_request_ms = check_number(check, section, KEY_TIMEOUT_REQUEST),
        .timeout_client_ms = check_number(check, section, KEY_TIMEOUT_CLIENT),
        .timeout_keepalive_ms = check_number(check, section, KEY_TIMEOUT_KEEPALIVE),
        .timeout_handshake_ms = check_number(check, section, KEY_TIMEOUT_HANDSHAKE),
        .timeout_connect_ms = check_number(check, section, KEY_TIMEOUT_CONNECT),
        .timeout_queue_ms = check_number(check, section, KEY_TIMEOUT_QUEUE),
        .timeout_server_ms = check_number(check, section, KEY_TIMEOUT_SERVER),
        .timeout_tunnel_ms = check_number(check, section, KEY_TIMEOUT_TUNNEL),
        .min_read_rate = check_number(check, section, KEY_MIN_READ_RATE),
        .max_header_size = check_number(check, section, KEY_MAX_HEADER_SIZE),
        .max_headers = check_number(check, section, KEY_MAX_HEADERS),
        .max_target = check_number(check, section, KEY_MAX_TARGET),
        .max_body_size = check_number(check, section, KEY_MAX_BODY_SIZE),
        .h2_max_streams = check_number(check, section, KEY_H2_MAX_STREAMS),
        .h2_max_resets = check_number(check, section, KEY_H2_MAX_RESETS),
        .h2_max_made_resets = check_number(check, section, KEY_H2_MAX_MADE_RESETS),
        .h2_max_continuations = check_number(check, section, KEY_H2_MAX_CONTINUATIONS),
        .h2_max_settings = check_number(check, section, KEY_H2_MAX_SETTINGS),
        .h2_max_pings = check_number(check, section, KEY_H2_MAX_PINGS),
        .h2_max_empty_data = check_number(check, section, KEY_H2_MAX_EMPTY_DATA),
        .h2_max_priority = check_number(check, section, KEY_H2_MAX_PRIORITY),
        .h2_max_window_updates = check_number(check, section, KEY_H2_MAX_WINDOW_UPDATES),
        .h2_max_stalled = check_number(check, section, KEY_H2_MAX_STALLED),
        .h2_max_closed = check_number(check, section, KEY_H2_MAX_CLOSED),
    };
}

/* Every number, whether something will ask for it or not. */
static void read_numbers(struct check *check, const struct ini_section *section) {
    for (uint32_t i = 0; i < section->entry_count; i++) {
        struct ini_entry *entry = &section->entries[i];
        bool is_number = entry->key->kind != KIND_TEXT && entry->key->kind != KIND_LIST;
        /* An empty value has been reported already. */
        if (!is_number || entry->value.len == 0) continue;
        char text[512];
        struct writer why = writer_make(text, sizeof text);
        entry->is_valid = key_number(entry->key, entry->value, &entry->number, &why);
        if (!entry->is_valid) {
            check_fault(check, section, entry, "%.*s", BYTES_FMT(writer_bytes(&why)));
        }
    }
}

/* Before anything is built, so that pointers into these arrays hold. */
static void make_room(struct check *check) {
    const uint32_t *counts = check->ini->kind_counts;
    struct config *config = check->config;
    config->listener_count = counts[SECTION_LISTENER] + counts[SECTION_ADMIN];
    config->listeners =
        memory_alloc(check->memory, config->listener_count, sizeof(struct config_listener));
    config->tls_count = counts[SECTION_TLS];
    config->tls = memory_alloc(check->memory, config->tls_count, sizeof(struct config_tls));
    config->route_count = counts[SECTION_ROUTE];
    config->routes = memory_alloc(check->memory, config->route_count, sizeof(struct config_route));
    config->upstream_count = counts[SECTION_UPSTREAM];
    config->upstreams =
        memory_alloc(check->memory, config->upstream_count, sizeof(struct config_upstream));
    config->service_count = counts[SECTION_SERVICE];
    config->services =
        memory_alloc(check->memory, config->service_count, sizeof(struct config_service));
}

static void build(struct check *check, const struct ini_section *section) {
    struct config *config = check->config;
    switch (section->kind) {
    case SECTION_LISTENER:
        check_listener(check, section, &config->listeners[section->ordinal]);
        break;
    case SECTION_ADMIN:
        check_listener(
            check, section,
            &config->listeners[check->ini->kind_counts[SECTION_LISTENER] + section->ordinal]);
        break;
    case SECTION_TLS:
        check_tls(check, section, &config->tls[section->ordinal]);
        break;
    case SECTION_ROUTE:
        check_route(check, section, &config->routes[section->ordinal]);
        break;
    case SECTION_UPSTREAM:
        check_upstream(check, section, &config->upstreams[section->ordinal]);
        break;
    case SECTION_SERVICE:
        check_service(check, section, &config->services[section->ordinal]);
        break;
    case SECTION_GLOBAL:
    case SECTION_DEFAULTS:
    case SECTION_COUNT:
        break;
    }
}

void check_file(struct check *check) {
    struct ini_file *ini = check->ini;
    for (uint32_t i = 0; i < ini->section_count; i++)
        read_numbers(check, &ini->sections[i]);
    make_room(check);
    check_global(check);
    check_limits(check, NULL, &check->config->defaults);
    for (uint32_t i = 0; i < ini->section_count; i++)
        build(check, &ini->sections[i]);
    check_listeners_together(check);
    check_upstreams_together(check);
}
