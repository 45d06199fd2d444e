#include "base/bytes.h"

#include <stdarg.h>
#include <stdio.h>

struct bytes bytes_of(const char *string) {
    return string ? bytes_make(string, strlen(string)) : BYTES_NONE;
}

/* tolower(3) follows the locale and takes int: field names are ASCII (RFC 9110 section 5.1). */
static unsigned char lower(unsigned char c) { return (unsigned char)(c - 'A') < 26 ? c | 0x20 : c; }

/* memcmp(3) must not get NULL, not even for 0 bytes. */
static bool same(const char *a, const char *b, size_t len) {
    return len == 0 || memcmp(a, b, len) == 0;
}

static bool same_nocase(const char *a, const char *b, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (lower((unsigned char)a[i]) != lower((unsigned char)b[i])) return false;
    }
    return true;
}

bool bytes_equal(struct bytes a, struct bytes b) {
    return a.len == b.len && same(a.ptr, b.ptr, a.len);
}

bool bytes_equal_nocase(struct bytes a, struct bytes b) {
    return a.len == b.len && same_nocase(a.ptr, b.ptr, a.len);
}

bool bytes_starts_with(struct bytes whole, struct bytes prefix) {
    return whole.len >= prefix.len && same(whole.ptr, prefix.ptr, prefix.len);
}

bool bytes_ends_with_nocase(struct bytes whole, struct bytes suffix) {
    if (whole.len < suffix.len) return false;
    if (suffix.len == 0) return true;
    return same_nocase(whole.ptr + (whole.len - suffix.len), suffix.ptr, suffix.len);
}

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

struct bytes bytes_trim(struct bytes b) {
    while (b.len != 0 && is_blank(b.ptr[0])) {
        b.ptr++;
        b.len--;
    }
    while (b.len != 0 && is_blank(b.ptr[b.len - 1]))
        b.len--;
    return b;
}

struct bytes bytes_slice(struct bytes b, size_t from, size_t len) {
    if (b.len == 0) return b;
    if (from > b.len) from = b.len;
    if (len > b.len - from) len = b.len - from;
    return bytes_make(b.ptr + from, len);
}

size_t bytes_find(struct bytes b, char c) {
    if (b.len == 0) return 0;
    const char *found = memchr(b.ptr, c, b.len);
    return found ? (size_t)(found - b.ptr) : b.len;
}

bool bytes_split(struct bytes *rest, char separator, struct bytes *item) {
    if (!rest->ptr) return false;
    size_t end = bytes_find(*rest, separator);
    *item = bytes_trim(bytes_make(rest->ptr, end));
    /* "a," has two items and "a" has one: only a separator leaves a rest, if an empty one. */
    *rest = end == rest->len ? BYTES_NONE : bytes_make(rest->ptr + end + 1, rest->len - end - 1);
    return true;
}

bool bytes_to_u64(struct bytes b, uint64_t *value) {
    if (b.len == 0) return false;
    uint64_t sum = 0;
    for (size_t i = 0; i < b.len; i++) {
        unsigned digit = (unsigned char)b.ptr[i] - (unsigned)'0';
        if (digit > 9) return false;
        if (__builtin_mul_overflow(sum, 10u, &sum)) return false;
        if (__builtin_add_overflow(sum, digit, &sum)) return false;
    }
    *value = sum;
    return true;
}

/* Digits come out last first, so they are laid down from the end of a buffer that holds the longest
 * number: 20 decimal digits of 2^64 - 1. */
static void put_number(struct writer *w, uint64_t value, unsigned base) {
    char digits[20];
    size_t start = sizeof digits;
    do {
        digits[--start] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    writer_put(w, bytes_make(digits + start, sizeof digits - start));
}

void writer_u64(struct writer *w, uint64_t value) { put_number(w, value, 10); }

void writer_hex(struct writer *w, uint64_t value) { put_number(w, value, 16); }

void writer_print(struct writer *w, const char *format, ...) {
    if (w->full) return;
    size_t room = w->size - w->len;
    va_list arguments;
    va_start(arguments, format);
    /* With no room at all vsnprintf only measures; ptr may be NULL then. */
    int len = vsnprintf(room != 0 ? w->ptr + w->len : NULL, room, format, arguments);
    va_end(arguments);
    if (len < 0 || (len != 0 && (size_t)len >= room)) {
        w->full = true;
        return;
    }
    w->len += (size_t)len;
}
