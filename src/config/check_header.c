#include "base/check.h"
#include "config/check_internal.h"
#include "config/value.h"

/* Fields of one connection (RFC 9110 section 7.6.1) and of its framing: the sessions take them out
 * of every message they receive and write their own, so a rule about them could only be void or
 * break the framing. */
static const char *const owned_fields[] = {
    "Connection", "Content-Length", "Keep-Alive",        "Proxy-Connection",
    "TE",         "Trailer",        "Transfer-Encoding", "Upgrade",
};

bool check_field_name(struct check *check, const struct ini_section *section,
                      const struct ini_entry *entry, struct bytes name) {
    if (!value_is_token(name)) {
        check_fault(check, section, entry, "\"%.*s\" is not the name of a header field",
                    BYTES_FMT(value_shown(name)));
        return false;
    }
    for (size_t i = 0; i < sizeof owned_fields / sizeof owned_fields[0]; i++) {
        if (!bytes_equal_nocase(name, bytes_of(owned_fields[i]))) continue;
        check_fault(check, section, entry, "%s belongs to the connection and is weir's own",
                    owned_fields[i]);
        return false;
    }
    return true;
}

bool check_template(struct check *check, const struct ini_section *section,
                    const struct ini_entry *entry, struct bytes text, unsigned allowed,
                    struct template *parsed) {
    char error[256];
    if (template_parse(parsed, text, error, sizeof error) != 0) {
        check_fault(check, section, entry, "%s", error);
        return false;
    }
    for (uint32_t i = 0; i < parsed->count; i++) {
        if (allowed & 1u << parsed->parts[i].variable) continue;
        check_fault(check, section, entry, "it has a variable that is not known here yet");
        template_fini(parsed);
        return false;
    }
    return true;
}

static bool edit_kind(enum header_side side, enum key_id key, enum config_edit_kind *kind) {
    static const struct {
        enum key_id key;
        enum header_side side;
        enum config_edit_kind kind;
    } rows[] = {
        {KEY_SET_REQUEST_HEADER, HEADER_REQUEST, CONFIG_EDIT_SET},
        {KEY_ADD_REQUEST_HEADER, HEADER_REQUEST, CONFIG_EDIT_ADD},
        {KEY_REMOVE_REQUEST_HEADER, HEADER_REQUEST, CONFIG_EDIT_REMOVE},
        {KEY_SET_RESPONSE_HEADER, HEADER_RESPONSE, CONFIG_EDIT_SET},
        {KEY_ADD_RESPONSE_HEADER, HEADER_RESPONSE, CONFIG_EDIT_ADD},
        {KEY_REMOVE_RESPONSE_HEADER, HEADER_RESPONSE, CONFIG_EDIT_REMOVE},
        {KEY_SERVICE_HEADER, HEADER_SERVICE, CONFIG_EDIT_ADD},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].side != side || rows[i].key != key) continue;
        *kind = rows[i].kind;
        return true;
    }
    return false;
}

/* A request has exactly one Host (RFC 9112 section 3.2). */
static bool host_is_kept(struct check *check, const struct ini_section *section,
                         const struct ini_entry *entry, struct bytes name,
                         enum config_edit_kind kind) {
    bool is_request =
        entry->key->id == KEY_ADD_REQUEST_HEADER || entry->key->id == KEY_REMOVE_REQUEST_HEADER;
    if (!is_request || kind == CONFIG_EDIT_SET || !bytes_equal_nocase(name, BYTES("Host"))) {
        return true;
    }
    check_fault(check, section, entry, "Host can only be set (set_request_header)");
    return false;
}

static void push_edit(struct check *check, struct config_edits *edits, enum config_edit_kind kind,
                      struct bytes name, struct template value) {
    edits->items =
        memory_grow(check->memory, edits->items, edits->count, sizeof(struct config_edit));
    edits->items[edits->count++] =
        (struct config_edit){kind, memory_string(check->memory, name), value};
}

static void read_removal(struct check *check, const struct ini_section *section,
                         const struct ini_entry *entry, struct config_edits *edits) {
    struct bytes rest = entry->value;
    struct bytes name;
    while (check_item(entry, &rest, &name)) {
        if (!check_field_name(check, section, entry, name)) continue;
        if (!host_is_kept(check, section, entry, name, CONFIG_EDIT_REMOVE)) continue;
        push_edit(check, edits, CONFIG_EDIT_REMOVE, name, (struct template){NULL, 0});
    }
}

/* The value's variables: a service's fields have none, its "$" is a dollar sign. */
static bool read_value(struct check *check, const struct ini_section *section,
                       const struct ini_entry *entry, enum header_side side, struct bytes text,
                       struct template *value) {
    switch (side) {
    case HEADER_REQUEST:
        return check_template(check, section, entry, text, VARIABLES_OF_UPSTREAM, value);
    case HEADER_RESPONSE:
        return check_template(check, section, entry, text, VARIABLES_OF_RESPONSE, value);
    case HEADER_SERVICE:
        CHECK(template_literal(value, text) == 0); /* no memory left: as in memory.h */
        return true;
    }
    return false;
}

void check_edits(struct check *check, const struct ini_section *section, enum header_side side,
                 struct config_edits *edits) {
    for (uint32_t i = 0; i < section->entry_count; i++) {
        const struct ini_entry *entry = &section->entries[i];
        enum config_edit_kind kind;
        if (!edit_kind(side, entry->key->id, &kind) || entry->value.len == 0) continue;
        if (kind == CONFIG_EDIT_REMOVE) {
            read_removal(check, section, entry, edits);
            continue;
        }
        struct bytes name;
        struct bytes text;
        if (!value_field(entry->value, &name, &text)) {
            check_fault(check, section, entry, "expected NAME: VALUE");
            continue;
        }
        if (!check_field_name(check, section, entry, name)) continue;
        if (!host_is_kept(check, section, entry, name, kind)) continue;
        struct template value;
        if (!read_value(check, section, entry, side, text, &value)) continue;
        push_edit(check, edits, kind, name, value);
    }
}
