#include "config/check_internal.h"
#include "config/value.h"

#define ALPN_SIZE_MAX 256

/* What an application can be told that it speaks. Any name may be offered before bytes that weir
 * only carries. */
static const struct {
    const char *word;
    bool is_later;
} http_protocols[] = {
    {"h2", false},
    {"http/1.1", false},
};

/* A relative path begins at the folder of the configuration. */
static char *resolve_path(struct check *check, struct bytes path) {
    struct bytes folder = bytes_of(check->config->file);
    while (folder.len != 0 && folder.ptr[folder.len - 1] != '/')
        folder.len--;
    if (path.ptr[0] == '/') folder.len = 0;
    char *whole = memory_alloc(check->memory, folder.len + path.len + 1, 1);
    struct writer w = writer_make(whole, folder.len + path.len);
    writer_put(&w, folder);
    writer_put(&w, path);
    return whole;
}

/* A key that names one file. Whoever knows what should be in it reads it. */
static struct config_entry read_file(struct check *check, const struct ini_section *section,
                                     enum key_id key) {
    const struct ini_entry *entry = ini_find(section, key);
    if (!entry || entry->value.len == 0) return (struct config_entry){NULL, section->line};
    return (struct config_entry){resolve_path(check, entry->value), entry->line};
}

struct files {
    struct config_entry *items; /* text NULL: off */
    uint32_t count;
};

/* A key that lists files; `may_be_off`: the word off stands for none. */
static struct files read_files(struct check *check, const struct ini_section *section,
                               enum key_id key, bool may_be_off) {
    struct files files = {NULL, 0};
    const struct ini_entry *entry = ini_next(section, key, NULL);
    for (; entry; entry = ini_next(section, key, entry)) {
        struct bytes rest = entry->value;
        struct bytes item;
        while (check_item(entry, &rest, &item)) {
            struct config_entry file = {NULL, entry->line};
            bool is_off = may_be_off && bytes_equal(item, BYTES("off"));
            if (!is_off) file.text = resolve_path(check, item);
            files.items =
                memory_grow(check->memory, files.items, files.count, sizeof(struct config_entry));
            files.items[files.count++] = file;
        }
    }
    return files;
}

static bool check_count(struct check *check, const struct ini_section *section, enum key_id key,
                        struct files files, uint32_t wanted) {
    if (files.count == 0 || files.count == wanted) return true;
    check_fault(check, section, ini_find(section, key),
                "%u files for %u certificates: it must be one for each, in the same order",
                files.count, wanted);
    return false;
}

/* What a client gets would be the same, but the metric of its end would stand there twice. */
static void check_once(struct check *check, const struct ini_section *section, enum key_id key,
                       struct files files) {
    for (uint32_t i = 0; i < files.count; i++) {
        uint32_t first = 0;
        while (strcmp(files.items[first].text, files.items[i].text) != 0)
            first++;
        if (first == i) continue;
        const struct ini_entry *entry = ini_find(section, key);
        while (entry->line != files.items[i].line)
            entry = ini_next(section, key, entry);
        check_fault(check, section, entry, "%s is listed twice", files.items[i].text);
    }
}

static void read_certificates(struct check *check, const struct ini_section *section,
                              struct config_tls *tls) {
    struct files certificates = read_files(check, section, KEY_CERTIFICATE, false);
    struct files keys = read_files(check, section, KEY_KEY, false);
    struct files staples = read_files(check, section, KEY_OCSP_STAPLE, true);
    if (!ini_find(section, KEY_CERTIFICATE)) {
        check_missing(check, section, KEY_CERTIFICATE);
        return;
    }
    check_once(check, section, KEY_CERTIFICATE, certificates);
    bool is_paired = check_count(check, section, KEY_KEY, keys, certificates.count);
    is_paired &= check_count(check, section, KEY_OCSP_STAPLE, staples, certificates.count);
    if (!is_paired) return;
    tls->certificate_count = certificates.count;
    tls->certificates =
        memory_alloc(check->memory, certificates.count, sizeof(struct config_certificate));
    for (uint32_t i = 0; i < certificates.count; i++) {
        struct config_certificate *certificate = &tls->certificates[i];
        certificate->file = certificates.items[i];
        certificate->key = i < keys.count ? keys.items[i] : certificates.items[i];
        if (i < staples.count) certificate->ocsp_staple = staples.items[i];
    }
}

static struct config_entry read_text(struct check *check, const struct ini_section *section,
                                     enum key_id key) {
    const struct ini_entry *entry = ini_find(section, key);
    return (struct config_entry){memory_string(check->memory, check_text(section, key)),
                                 entry ? entry->line : section->line};
}

static void check_clients(struct check *check, const struct ini_section *section,
                          struct config_tls *tls) {
    tls->client_auth = (enum config_client_auth)check_number(check, section, KEY_CLIENT_AUTH);
    tls->ca = read_file(check, section, KEY_TLS_CA);
    tls->crl = read_file(check, section, KEY_TLS_CRL);
    const struct ini_entry *auth = ini_find(section, KEY_CLIENT_AUTH);
    bool is_off = tls->client_auth == CONFIG_CLIENT_AUTH_OFF;
    if (!is_off && !ini_find(section, KEY_TLS_CA)) {
        check_fault(check, section, auth, "needs ca, the file of who may have signed them");
        tls->client_auth = CONFIG_CLIENT_AUTH_OFF;
    }
    if (!is_off || (auth && !auth->is_valid)) return;
    static const enum key_id keys[] = {KEY_TLS_CA, KEY_TLS_CRL};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct ini_entry *entry = ini_find(section, keys[i]);
        if (entry) check_fault(check, section, entry, "has no effect with client_auth = off");
    }
}

void check_tls(struct check *check, const struct ini_section *section, struct config_tls *tls) {
    tls->name = memory_string(check->memory, bytes_of(section->name));
    tls->index = section->ordinal;
    tls->line = section->line;
    tls->min_version = (uint8_t)check_number(check, section, KEY_MIN_VERSION);
    tls->session_tickets = check_number(check, section, KEY_SESSION_TICKETS) != 0;
    tls->strict_sni = check_number(check, section, KEY_STRICT_SNI) != 0;
    tls->ticket_rotation_ms = check_number(check, section, KEY_TICKET_ROTATION);
    tls->watch_ms = check_number(check, section, KEY_WATCH);
    tls->ciphers = read_text(check, section, KEY_CIPHERS);
    tls->ciphersuites = read_text(check, section, KEY_CIPHERSUITES);
    tls->groups = read_text(check, section, KEY_GROUPS);
    read_certificates(check, section, tls);
    check_clients(check, section, tls);
    const struct ini_entry *ciphers = ini_find(section, KEY_CIPHERS);
    if (ciphers && tls->min_version == 3)
        check_fault(check, section, ciphers, "has no effect with min_version = 1.3");
    const struct ini_entry *rotation = ini_find(section, KEY_TICKET_ROTATION);
    if (rotation && !tls->session_tickets)
        check_fault(check, section, rotation, "has no effect with session_tickets = off");
}

/* false and an error when HTTP has no such protocol, or this version does not speak it. */
static bool check_http_protocol(struct check *check, const struct ini_section *section,
                                const struct ini_entry *entry, struct bytes name) {
    for (size_t i = 0; i < sizeof http_protocols / sizeof http_protocols[0]; i++) {
        if (!bytes_equal(name, bytes_of(http_protocols[i].word))) continue;
        if (http_protocols[i].is_later)
            check_fault(check, section, entry, "\"%s\" is not supported by this version",
                        http_protocols[i].word);
        return !http_protocols[i].is_later;
    }
    check_fault(check, section, entry, "\"%.*s\" is none of h2 http/1.1",
                BYTES_FMT(value_shown(name)));
    return false;
}

static void read_alpn(struct check *check, const struct ini_section *section,
                      struct config_listener *listener) {
    char memory[ALPN_SIZE_MAX];
    struct writer w = writer_make(memory, sizeof memory);
    const struct ini_entry *entry = ini_next(section, KEY_ALPN, NULL);
    bool is_http = listener->mode == CONFIG_MODE_HTTP;
    if (!entry && is_http) {
        struct bytes rest = bytes_of(key_at(KEY_ALPN)->fallback);
        struct bytes name;
        while (value_next(&rest, &name)) {
            writer_char(&w, (char)name.len);
            writer_put(&w, name);
        }
    }
    for (; entry; entry = ini_next(section, KEY_ALPN, entry)) {
        struct bytes rest = entry->value;
        struct bytes name;
        while (check_item(entry, &rest, &name)) {
            if (is_http && !check_http_protocol(check, section, entry, name)) continue;
            if (name.len < ALPN_SIZE_MAX) writer_char(&w, (char)name.len);
            writer_put(&w, name);
            if (w.full) check_fault(check, section, entry, "the names are too long");
        }
    }
    listener->alpn = memory_bytes(check->memory, writer_bytes(&w));
}

void check_listener_tls(struct check *check, const struct ini_section *section,
                        struct config_listener *listener) {
    const struct ini_entry *entry = ini_find(section, KEY_LISTENER_TLS);
    const struct ini_entry *alpn = ini_find(section, KEY_ALPN);
    if (!entry) {
        if (alpn && listener->mode == CONFIG_MODE_TCP)
            check_fault(check, section, alpn, "needs tls = NAME");
        else if (alpn)
            read_alpn(check, section, listener);
        return;
    }
    if (entry->value.len == 0) return; /* reported already */
    read_alpn(check, section, listener);
    uint64_t unused;
    /* As in an upstream; a section may have such a name all the same. */
    if (value_switch(entry->value, &unused) &&
        !ini_section_find(check->ini, SECTION_TLS, entry->value)) {
        check_fault(check, section, entry,
                    "needs the name of a [tls NAME] section; without the key it is in clear");
        return;
    }
    const struct ini_section *target =
        check_reference(check, section, entry, SECTION_TLS, entry->value);
    if (target) listener->tls = &check->config->tls[target->ordinal];
}

/* As certificates write it: the dot that says that a name is whole (RFC 6066 section 3) and the
 * brackets of an IPv6 address are of other grammars. */
static char *name_in_certificates(struct check *check, struct bytes name) {
    if (name.len > 1 && name.ptr[name.len - 1] == '.') name.len--;
    if (name.ptr[0] == '[') name = bytes_slice(name, 1, name.len - 2);
    return memory_string(check->memory, name);
}

/* A certificate of a server that has no name cannot be told from that of another. */
static void check_names(struct check *check, const struct ini_section *section,
                        struct config_upstream *upstream) {
    const struct ini_entry *name = ini_find(section, KEY_SERVER_NAME);
    if (name && name->value.len != 0) {
        bool is_pattern = bytes_starts_with(name->value, BYTES("*"));
        if (is_pattern || !value_is_host_pattern(name->value))
            check_fault(check, section, name, "\"%.*s\" is not a host without a port",
                        BYTES_FMT(value_shown(name->value)));
    }
    for (uint32_t i = 0; i < upstream->server_count; i++) {
        struct config_server *server = &upstream->servers[i];
        struct bytes wanted = name ? name->value : bytes_of(server->tls_name);
        if (wanted.len != 0) server->tls_name = name_in_certificates(check, wanted);
        if (server->tls_name || !upstream->tls.verify) continue;
        check_fault(check, section, ini_find(section, KEY_UPSTREAM_TLS),
                    "server %s has no name that its certificate could have: server_name = NAME "
                    "says it",
                    server->name);
    }
}

static void refuse_tls_keys(struct check *check, const struct ini_section *section) {
    static const enum key_id keys[] = {KEY_VERIFY,       KEY_SERVER_NAME,          KEY_UPSTREAM_CA,
                                       KEY_UPSTREAM_CRL, KEY_UPSTREAM_CERTIFICATE, KEY_UPSTREAM_KEY,
                                       KEY_WATCH,        KEY_TIMEOUT_HANDSHAKE};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct ini_entry *entry = ini_find(section, keys[i]);
        if (entry) check_fault(check, section, entry, "has no effect with tls = off");
    }
}

static void refuse_unverified(struct check *check, const struct ini_section *section) {
    static const enum key_id keys[] = {KEY_UPSTREAM_CA, KEY_UPSTREAM_CRL};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct ini_entry *entry = ini_find(section, keys[i]);
        if (entry) check_fault(check, section, entry, "has no effect with verify = off");
    }
}

void check_upstream_tls(struct check *check, const struct ini_section *section,
                        struct config_upstream *upstream) {
    struct config_upstream_tls *tls = &upstream->tls;
    const struct ini_entry *entry = ini_find(section, KEY_UPSTREAM_TLS);
    tls->on = check_number(check, section, KEY_UPSTREAM_TLS) != 0;
    if (!tls->on) {
        if (!entry || entry->is_valid) refuse_tls_keys(check, section);
        return;
    }
    tls->line = entry->line;
    tls->verify = check_number(check, section, KEY_VERIFY) != 0;
    tls->watch_ms = check_number(check, section, KEY_WATCH);
    if (!tls->verify) refuse_unverified(check, section);
    tls->ca = read_file(check, section, KEY_UPSTREAM_CA);
    tls->crl = read_file(check, section, KEY_UPSTREAM_CRL);
    tls->certificate.file = read_file(check, section, KEY_UPSTREAM_CERTIFICATE);
    tls->certificate.key = read_file(check, section, KEY_UPSTREAM_KEY);
    const struct ini_entry *key = ini_find(section, KEY_UPSTREAM_KEY);
    if (key && !tls->certificate.file.text) check_fault(check, section, key, "needs certificate");
    if (!key) tls->certificate.key = tls->certificate.file;
    check_names(check, section, upstream);
}
