#include "config/value.h"

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit duration_units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
static const struct unit size_units[] = {{"", 1}, {"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}};

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool is_alnum(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c);
}

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

static bool with_unit(struct bytes text, const struct unit *units, size_t count, uint64_t *value) {
    size_t digits = 0;
    while (digits < text.len && is_digit(text.ptr[digits]))
        digits++;
    uint64_t number;
    if (!bytes_to_u64(bytes_slice(text, 0, digits), &number)) return false;
    struct bytes name = bytes_slice(text, digits, text.len);
    for (size_t i = 0; i < count; i++) {
        if (!bytes_equal(name, bytes_of(units[i].name))) continue;
        return !__builtin_mul_overflow(number, units[i].factor, value);
    }
    return false;
}

bool value_duration(struct bytes text, uint64_t *ms) {
    return with_unit(text, duration_units, sizeof duration_units / sizeof duration_units[0], ms);
}

bool value_size(struct bytes text, uint64_t *bytes) {
    return with_unit(text, size_units, sizeof size_units / sizeof size_units[0], bytes);
}

bool value_rate(struct bytes text, uint64_t *per_s) {
    if (bytes_ends_with_nocase(text, BYTES("/s"))) text.len -= 2;
    return value_size(text, per_s);
}

bool value_frequency(struct bytes text, uint64_t *per_s) {
    if (bytes_ends_with_nocase(text, BYTES("/s"))) text.len -= 2;
    return bytes_to_u64(text, per_s);
}

bool value_switch(struct bytes text, uint64_t *on) {
    bool is_on = bytes_equal(text, BYTES("on"));
    if (!is_on && !bytes_equal(text, BYTES("off"))) return false;
    *on = is_on;
    return true;
}

/* The next run of bytes that are neither blank nor `separator` (a blank when there is no other). */
static bool next_run(struct bytes *rest, char separator, struct bytes *item) {
    size_t start = 0;
    while (start < rest->len && (is_blank(rest->ptr[start]) || rest->ptr[start] == separator))
        start++;
    size_t end = start;
    while (end < rest->len && !is_blank(rest->ptr[end]) && rest->ptr[end] != separator)
        end++;
    if (start == end) return false;
    *item = bytes_slice(*rest, start, end - start);
    *rest = bytes_slice(*rest, end, rest->len);
    return true;
}

bool value_next(struct bytes *rest, struct bytes *item) { return next_run(rest, ',', item); }

bool value_word(struct bytes *rest, struct bytes *item) { return next_run(rest, ' ', item); }

bool value_field(struct bytes text, struct bytes *name, struct bytes *value) {
    size_t colon = bytes_find(text, ':');
    if (colon == text.len) return false;
    *name = bytes_trim(bytes_slice(text, 0, colon));
    *value = bytes_trim(bytes_slice(text, colon + 1, text.len));
    return true;
}

bool value_is_name(struct bytes text) {
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (!is_alnum(c) && c != '_' && c != '.' && c != '-') return false;
    }
    return text.len != 0;
}

bool value_is_token(struct bytes text) {
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (!is_alnum(c) && (c == '\0' || !strchr("!#$%&'*+-.^_`|~", c))) return false;
    }
    return text.len != 0;
}

static bool is_ip_literal(struct bytes text) {
    if (text.len < 4 || text.ptr[0] != '[' || text.ptr[text.len - 1] != ']') return false;
    for (size_t i = 1; i < text.len - 1; i++) {
        char c = text.ptr[i];
        bool is_hex = is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        if (!is_hex && c != ':' && c != '.') return false;
    }
    return true;
}

bool value_is_host_pattern(struct bytes text) {
    if (is_ip_literal(text)) return true;
    if (bytes_starts_with(text, BYTES("*."))) text = bytes_slice(text, 2, text.len);
    if (!value_is_name(text) || text.ptr[0] == '.') return false;
    for (size_t i = 1; i < text.len; i++) {
        if (text.ptr[i] == '.' && text.ptr[i - 1] == '.') return false;
    }
    return true;
}

bool value_is_path(struct bytes text) {
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c <= ' ' || c == 0x7f || c == '?' || c == '#') return false;
    }
    return text.len != 0 && text.ptr[0] == '/';
}

bool value_is_media_range(struct bytes text) {
    size_t slash = bytes_find(text, '/');
    struct bytes subtype = bytes_slice(text, slash + 1, text.len);
    struct bytes type = bytes_slice(text, 0, slash);
    if (bytes_find(type, '*') != type.len || !value_is_token(type)) return false;
    if (bytes_equal(subtype, BYTES("*"))) return true;
    return value_is_token(subtype) && bytes_find(subtype, '*') == subtype.len;
}
