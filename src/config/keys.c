#include "config/keys.h"

#include "base/check.h"
#include "base/log.h"
#include "config/config.h"
#include "config/suggest.h"
#include "config/value.h"

#include <inttypes.h>

static const struct key keys[KEY_COUNT] = {
#define KEY(id, places, name, kind, fallback, min, max, help)                                      \
    {name, fallback, help, min, max, KEY_##id, kind, places},
#include "config/defaults.def"
};

static const struct {
    const char *name;
    unsigned places;
} later_keys[] = {
#define LATER(places, name) {name, places},
#include "config/defaults.def"
};

static const char *const later_sections[] = {
#define LATER_SECTION(word) word,
#include "config/defaults.def"
};

static const struct {
    const char *word;
    bool is_named;
} sections[SECTION_COUNT] = {
    [SECTION_GLOBAL] = {"global", false},    [SECTION_DEFAULTS] = {"defaults", false},
    [SECTION_ADMIN] = {"admin", false},      [SECTION_LISTENER] = {"listener", true},
    [SECTION_TLS] = {"tls", true},           [SECTION_ROUTE] = {"route", true},
    [SECTION_UPSTREAM] = {"upstream", true}, [SECTION_SERVICE] = {"service", true},
};

static const struct key_word log_level_words[] = {{"debug", LOG_DEBUG, false},
                                                  {"info", LOG_INFO, false},
                                                  {"warn", LOG_WARN, false},
                                                  {"error", LOG_ERROR, false},
                                                  {NULL, 0, false}};
static const struct key_word mode_words[] = {
    {"http", CONFIG_MODE_HTTP, false}, {"tcp", CONFIG_MODE_TCP, false}, {NULL, 0, false}};
static const struct key_word forwarded_words[] = {{"x_forwarded", CONFIG_FORWARDED_X, false},
                                                  {"rfc7239", CONFIG_FORWARDED_RFC7239, false},
                                                  {"off", CONFIG_FORWARDED_OFF, false},
                                                  {NULL, 0, false}};
static const struct key_word balance_words[] = {{"round_robin", CONFIG_BALANCE_ROUND_ROBIN, false},
                                                {"least_conn", CONFIG_BALANCE_LEAST_CONN, false},
                                                {"p2c", CONFIG_BALANCE_P2C, false},
                                                {"random", CONFIG_BALANCE_RANDOM, false},
                                                {"maglev", CONFIG_BALANCE_MAGLEV, false},
                                                {"source_ip", CONFIG_BALANCE_SOURCE_IP, false},
                                                {"first", CONFIG_BALANCE_FIRST, false},
                                                {"ewma", 0, true},
                                                {NULL, 0, false}};
static const struct key_word websocket_words[] = {{"off", CONFIG_WEBSOCKET_OFF, false},
                                                  {"raw", CONFIG_WEBSOCKET_RAW, false},
                                                  {"checked", CONFIG_WEBSOCKET_CHECKED, false},
                                                  {NULL, 0, false}};
/* Sets of versions, as net/pp.h has them. */
static const struct key_word proxy_protocol_words[] = {
    {"off", 0, false}, {"v1", 1, false}, {"v2", 2, false}, {"any", 3, false}, {NULL, 0, false}};
static const struct key_word send_proxy_words[] = {
    {"off", 0, false}, {"v1", 1, false}, {"v2", 2, false}, {NULL, 0, false}};
static const struct key_word min_version_words[] = {
    {"1.2", 2, false}, {"1.3", 3, false}, {NULL, 0, false}};
static const struct key_word client_auth_words[] = {
    {"off", CONFIG_CLIENT_AUTH_OFF, false},
    {"optional", CONFIG_CLIENT_AUTH_OPTIONAL, false},
    {"require", CONFIG_CLIENT_AUTH_REQUIRE, false},
    {NULL, 0, false}};
static const struct key_word protocol_words[] = {
    {"h1", CONFIG_PROTOCOL_H1, false}, {"h2", CONFIG_PROTOCOL_H2, false}, {NULL, 0, false}};
static const struct key_word type_words[] = {{"respond", CONFIG_SERVICE_RESPOND, false},
                                             {"echo", CONFIG_SERVICE_ECHO, false},
                                             {"static", 0, true},
                                             {"chat", 0, true},
                                             {"sse", 0, true},
                                             {"monitor", 0, true},
                                             {"replay", 0, true},
                                             {NULL, 0, false}};

const char *section_word(enum section_kind kind) {
    CHECK(kind < SECTION_COUNT);
    return sections[kind].word;
}

bool section_is_named(enum section_kind kind) {
    CHECK(kind < SECTION_COUNT);
    return sections[kind].is_named;
}

bool section_find(struct bytes word, enum section_kind *kind) {
    for (unsigned i = 0; i < SECTION_COUNT; i++) {
        if (!bytes_equal(word, bytes_of(sections[i].word))) continue;
        *kind = (enum section_kind)i;
        return true;
    }
    return false;
}

bool section_is_later(struct bytes word) {
    for (size_t i = 0; i < sizeof later_sections / sizeof later_sections[0]; i++) {
        if (bytes_equal(word, bytes_of(later_sections[i]))) return true;
    }
    return false;
}

const struct key *key_at(enum key_id id) {
    CHECK(id < KEY_COUNT);
    return &keys[id];
}

const struct key *key_find(enum section_kind kind, struct bytes name) {
    for (unsigned i = 0; i < KEY_COUNT; i++) {
        if ((keys[i].places & 1u << kind) && bytes_equal(name, bytes_of(keys[i].name)))
            return &keys[i];
    }
    return NULL;
}

bool key_is_later(enum section_kind kind, struct bytes name) {
    for (size_t i = 0; i < sizeof later_keys / sizeof later_keys[0]; i++) {
        if (!(later_keys[i].places & 1u << kind)) continue;
        if (bytes_equal(name, bytes_of(later_keys[i].name))) return true;
    }
    return false;
}

static unsigned places_of(struct bytes name) {
    unsigned places = 0;
    for (unsigned i = 0; i < KEY_COUNT; i++) {
        if (bytes_equal(name, bytes_of(keys[i].name))) places |= keys[i].places;
    }
    return places;
}

static void say_places(unsigned places, struct writer *why) {
    const char *before = "does not belong here but in";
    for (unsigned i = 0; i < SECTION_COUNT; i++) {
        if (!(places & 1u << i)) continue;
        writer_print(why, "%s [%s%s]", before, sections[i].word,
                     sections[i].is_named ? " NAME" : "");
        before = " or";
    }
}

/* What a server has, said of all of them. false: that is not it. */
static bool explain_server_word(enum section_kind kind, struct bytes name, struct writer *why) {
    static const struct {
        const char *word;
        const char *written;
    } words[] = {
        {"weight", "weight=N"}, {"max_connections", "max_connections=N"}, {"backup", "backup"}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (kind != SECTION_UPSTREAM || !bytes_equal(name, bytes_of(words[i].word))) continue;
        writer_print(why, "belongs in the line of each server: server = ADDRESS %s",
                     words[i].written);
        return true;
    }
    return false;
}

void key_explain_unknown(enum section_kind kind, struct bytes name, struct writer *why) {
    if (key_is_later(kind, name)) {
        writer_print(why, "not supported by this version");
        return;
    }
    if (explain_server_word(kind, name, why)) return;
    unsigned places = places_of(name);
    if (places != 0) {
        say_places(places, why);
        return;
    }
    struct suggest suggest;
    suggest_init(&suggest, name);
    for (unsigned i = 0; i < KEY_COUNT; i++) {
        if (keys[i].places & 1u << kind) suggest_offer(&suggest, bytes_of(keys[i].name));
    }
    writer_print(why, "unknown key");
    if (suggest.best.len != 0) {
        writer_print(why, " (did you mean \"%.*s\"?)", BYTES_FMT(suggest.best));
    }
}

const struct key_word *key_words(enum key_id id) {
    /* Not a switch: one that names every key would say nothing more. */
    if (id == KEY_LOG_LEVEL) return log_level_words;
    if (id == KEY_MODE) return mode_words;
    if (id == KEY_FORWARDED) return forwarded_words;
    if (id == KEY_PROXY_PROTOCOL) return proxy_protocol_words;
    if (id == KEY_SEND_PROXY) return send_proxy_words;
    if (id == KEY_MIN_VERSION) return min_version_words;
    if (id == KEY_CLIENT_AUTH) return client_auth_words;
    if (id == KEY_WEBSOCKET) return websocket_words;
    if (id == KEY_BALANCE) return balance_words;
    if (id == KEY_PROTOCOL) return protocol_words;
    if (id == KEY_TYPE) return type_words;
    return NULL;
}

static bool read_word(const struct key *key, struct bytes text, uint64_t *number,
                      struct writer *why) {
    const struct key_word *words = key_words(key->id);
    CHECK(words != NULL);
    struct suggest suggest;
    suggest_init(&suggest, text);
    for (const struct key_word *w = words; w->word; w++) {
        suggest_offer(&suggest, bytes_of(w->word));
        if (!bytes_equal(text, bytes_of(w->word))) continue;
        if (w->is_later) {
            writer_print(why, "\"%s\" is not supported by this version", w->word);
            return false;
        }
        *number = w->number;
        return true;
    }
    writer_print(why, "\"%.*s\" is none of", BYTES_FMT(value_shown(text)));
    for (const struct key_word *w = words; w->word; w++) {
        if (!w->is_later) writer_print(why, " %s", w->word);
    }
    if (suggest.best.len != 0) {
        writer_print(why, " (did you mean \"%.*s\"?)", BYTES_FMT(suggest.best));
    }
    return false;
}

/* The largest unit that divides the number, so that a range reads as it would be written in a file.
 */
static void print_number(enum key_kind kind, uint64_t number, struct writer *why) {
    static const struct {
        enum key_kind kind;
        uint64_t factor;
        const char *unit;
    } units[] = {
        {KIND_DURATION, 3600000, "h"}, {KIND_DURATION, 60000, "m"}, {KIND_DURATION, 1000, "s"},
        {KIND_DURATION, 1, "ms"},      {KIND_SIZE, 1 << 30, "g"},   {KIND_SIZE, 1 << 20, "m"},
        {KIND_SIZE, 1 << 10, "k"},     {KIND_RATE, 1 << 30, "g/s"}, {KIND_RATE, 1 << 20, "m/s"},
        {KIND_RATE, 1 << 10, "k/s"},
    };
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (units[i].kind != kind || number == 0 || number % units[i].factor != 0) continue;
        writer_print(why, "%" PRIu64 "%s", number / units[i].factor, units[i].unit);
        return;
    }
    writer_print(why, "%" PRIu64, number);
}

static bool read_number(enum key_kind kind, struct bytes text, uint64_t *number,
                        const char **expected) {
    switch (kind) {
    case KIND_COUNT:
        *expected = "a whole number";
        return bytes_to_u64(text, number);
    case KIND_DURATION:
        *expected = "a duration with a unit (500ms 10s 5m 1h)";
        return value_duration(text, number);
    case KIND_SIZE:
        *expected = "a size (bytes, or with k, m or g)";
        return value_size(text, number);
    case KIND_RATE:
        *expected = "a rate (bytes for each second, as in 500 or 10k/s)";
        return value_rate(text, number);
    case KIND_FREQUENCY:
        *expected = "a number for each second (as in 100 or 100/s)";
        return value_frequency(text, number);
    case KIND_SWITCH:
        *expected = "on or off";
        return value_switch(text, number);
    case KIND_WORD:
    case KIND_TEXT:
    case KIND_LIST:
        break;
    }
    return false;
}

bool key_number(const struct key *key, struct bytes text, uint64_t *number, struct writer *why) {
    CHECK(key->kind != KIND_TEXT && key->kind != KIND_LIST);
    if (key->kind == KIND_WORD) return read_word(key, text, number, why);
    const char *expected = NULL;
    uint64_t value;
    if (!read_number(key->kind, text, &value, &expected)) {
        writer_print(why, "\"%.*s\" is not %s", BYTES_FMT(value_shown(text)), expected);
        return false;
    }
    if (value < key->min || value > key->max) {
        writer_print(why, "\"%.*s\" is out of range, it must be ", BYTES_FMT(value_shown(text)));
        print_number(key->kind, key->min, why);
        writer_print(why, " to ");
        print_number(key->kind, key->max, why);
        return false;
    }
    *number = value;
    return true;
}
