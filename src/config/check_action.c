#include "config/check_internal.h"
#include "config/value.h"

#define SPLIT_WEIGHT_MAX 1000

/* "app" or "app 95". */
static bool read_share(struct bytes item, struct bytes *name, uint64_t *weight, bool *has_weight) {
    struct bytes rest = item;
    struct bytes digits;
    *weight = 1;
    if (!value_word(&rest, name)) return false;
    *has_weight = value_word(&rest, &digits);
    if (!*has_weight) return true;
    return bytes_to_u64(digits, weight) && *weight <= SPLIT_WEIGHT_MAX && bytes_trim(rest).len == 0;
}

/* false when the action has that upstream already. */
static bool add_split(struct check *check, struct config_action *action,
                      struct config_split split) {
    for (uint32_t i = 0; i < action->split_count; i++) {
        if (action->splits[i].upstream == split.upstream) return false;
    }
    action->splits = memory_grow(check->memory, action->splits, action->split_count,
                                 sizeof(struct config_split));
    action->splits[action->split_count++] = split;
    action->weight_sum += split.weight;
    return true;
}

/* One line of upstream =, shares separated by commas. Returns how many of them lack a weight. */
static uint32_t read_split(struct check *check, const struct ini_section *section,
                           const struct ini_entry *entry, struct config_action *action) {
    uint32_t bare = 0;
    struct bytes rest = entry->value;
    struct bytes item;
    while (bytes_split(&rest, ',', &item)) {
        struct bytes name;
        uint64_t weight;
        bool has_weight;
        if (!read_share(item, &name, &weight, &has_weight)) {
            check_fault(check, section, entry,
                        "\"%.*s\" is not the name of an upstream and a weight from 0 to %d",
                        BYTES_FMT(value_shown(item)), SPLIT_WEIGHT_MAX);
            continue;
        }
        bare += !has_weight;
        const struct ini_section *target =
            check_reference(check, section, entry, SECTION_UPSTREAM, name);
        if (!target) continue;
        struct config_split split = {&check->config->upstreams[target->ordinal], (uint32_t)weight};
        if (add_split(check, action, split)) continue;
        check_fault(check, section, entry, "\"%s\" is named twice", target->name);
    }
    return bare;
}

static void read_upstreams(struct check *check, const struct ini_section *section,
                           struct config_action *action) {
    const struct ini_entry *first = ini_next(section, KEY_ROUTE_UPSTREAM, NULL);
    uint32_t faults_before = check->faults->count;
    uint32_t bare = 0;
    for (const struct ini_entry *e = first; e; e = ini_next(section, KEY_ROUTE_UPSTREAM, e)) {
        if (e->value.len != 0) bare += read_split(check, section, e, action);
    }
    if (check->faults->count != faults_before || first->value.len == 0) return;
    if (action->split_count > 1 && bare != 0) {
        check_fault(check, section, first,
                    "with several upstreams each needs a weight: app 95, canary 5");
    } else if (action->weight_sum == 0) {
        check_fault(check, section, first, "all weights are 0");
    }
}

/* "STATUS rest". */
static bool read_status(struct bytes text, uint16_t *status, struct bytes *rest) {
    struct bytes word;
    uint64_t number;
    *rest = text;
    if (!value_word(rest, &word) || word.len != 3 || !bytes_to_u64(word, &number)) return false;
    *status = (uint16_t)number;
    *rest = bytes_trim(*rest);
    return true;
}

static void read_redirect(struct check *check, const struct ini_section *section,
                          const struct ini_entry *entry, struct config_action *action) {
    static const uint16_t statuses[] = {301, 302, 303, 307, 308}; /* RFC 9110 section 15.4 */
    struct bytes url;
    bool is_known = false;
    if (read_status(entry->value, &action->status, &url)) {
        for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
            is_known |= statuses[i] == action->status;
        }
    }
    if (!is_known) {
        check_fault(check, section, entry, "expected 301, 302, 303, 307 or 308, then a URL");
        return;
    }
    bool has_blank = bytes_find(url, ' ') != url.len || bytes_find(url, '\t') != url.len;
    if (url.len == 0 || has_blank) {
        check_fault(check, section, entry, "%s",
                    has_blank ? "the URL has a blank" : "the URL is missing");
        return;
    }
    (void)check_template(check, section, entry, url, VARIABLES_OF_REQUEST, &action->text);
}

static void read_respond(struct check *check, const struct ini_section *section,
                         const struct ini_entry *entry, struct config_action *action) {
    struct bytes text;
    if (!read_status(entry->value, &action->status, &text) || action->status < 200 ||
        action->status > 599) {
        check_fault(check, section, entry,
                    "expected a status from 200 to 599, then a text or nothing");
        return;
    }
    if ((action->status == 204 || action->status == 304) && text.len != 0) {
        /* RFC 9110 sections 15.3.5 and 15.4.5. */
        check_fault(check, section, entry, "an answer with status %u has no body", action->status);
        return;
    }
    (void)check_template(check, section, entry, text, VARIABLES_OF_REQUEST, &action->text);
}

static void read_service(struct check *check, const struct ini_section *section,
                         const struct ini_entry *entry, struct config_route *route) {
    const struct ini_section *target =
        check_reference(check, section, entry, SECTION_SERVICE, entry->value);
    if (!target) return;
    route->action.service = &check->config->services[target->ordinal];
    check_service_fits(check, section, entry, target,
                       route->sni_count != 0 ? CONFIG_MODE_TCP : CONFIG_MODE_HTTP);
}

/* What only a request that is passed on has any use for. */
static void refuse_request_edits(struct check *check, const struct ini_section *section) {
    static const enum key_id keys[] = {KEY_STRIP_PREFIX, KEY_SET_REQUEST_HEADER,
                                       KEY_ADD_REQUEST_HEADER, KEY_REMOVE_REQUEST_HEADER};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct ini_entry *entry = ini_find(section, keys[i]);
        if (entry) {
            check_fault(check, section, entry, "has no effect in a route with redirect or respond");
        }
    }
}

static void read_strip_prefix(struct check *check, const struct ini_section *section,
                              struct config_route *route) {
    const struct ini_entry *entry = ini_find(section, KEY_STRIP_PREFIX);
    if (!entry || entry->value.len == 0) return;
    if (!value_is_path(entry->value) || entry->value.len == 1) {
        check_fault(check, section, entry, "\"%.*s\" is not a path to strip, as in /v1",
                    BYTES_FMT(value_shown(entry->value)));
        return;
    }
    route->strip_prefix = memory_bytes(check->memory, entry->value);
}

/* Only a server can open a tunnel. CONNECT has no path (RFC 9112 section 3.2.3). */
static void read_connect(struct check *check, const struct ini_section *section,
                         struct config_route *route) {
    const struct ini_entry *entry = ini_find(section, KEY_CONNECT);
    if (!entry) return;
    route->connect = check_number(check, section, KEY_CONNECT) != 0;
    if (route->connect && route->action.kind != CONFIG_ACTION_UPSTREAM)
        check_fault(check, section, entry, "needs upstream = NAME in the same route");
    if (route->connect && route->path_count != 0)
        check_fault(check, section, entry, "a request with CONNECT has no path: leave out path");
}

/* The one entry that says what the route does; NULL and an error when there is none, or more than
 * one. */
static const struct ini_entry *find_action(struct check *check, const struct ini_section *section,
                                           enum config_action_kind *kind) {
    static const struct {
        enum key_id key;
        enum config_action_kind kind;
    } rows[] = {
        {KEY_ROUTE_UPSTREAM, CONFIG_ACTION_UPSTREAM},
        {KEY_ROUTE_SERVICE, CONFIG_ACTION_SERVICE},
        {KEY_REDIRECT, CONFIG_ACTION_REDIRECT},
        {KEY_RESPOND, CONFIG_ACTION_RESPOND},
    };
    const struct ini_entry *found = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct ini_entry *entry = ini_find(section, rows[i].key);
        if (entry && found) {
            check_fault(check, section, entry, "%s is given too (line %u), it must be one of both",
                        found->key->name, found->line);
            return NULL;
        }
        if (!entry) continue;
        found = entry;
        *kind = rows[i].kind;
    }
    if (found) return found;
    faults_add(check->faults, (struct fault_place){section->line, section->title, NULL},
               "needs one of upstream, service, redirect, respond");
    return NULL;
}

void check_route_action(struct check *check, const struct ini_section *section,
                        struct config_route *route) {
    struct config_action *action = &route->action;
    read_strip_prefix(check, section, route);
    const struct ini_entry *entry = find_action(check, section, &action->kind);
    read_connect(check, section, route);
    if (!entry || entry->value.len == 0) return;
    switch (action->kind) {
    case CONFIG_ACTION_UPSTREAM:
        read_upstreams(check, section, action);
        break;
    case CONFIG_ACTION_SERVICE:
        read_service(check, section, entry, route);
        break;
    case CONFIG_ACTION_REDIRECT:
        read_redirect(check, section, entry, action);
        refuse_request_edits(check, section);
        break;
    case CONFIG_ACTION_RESPOND:
        read_respond(check, section, entry, action);
        refuse_request_edits(check, section);
        break;
    case CONFIG_ACTION_NONE:
        break;
    }
}
