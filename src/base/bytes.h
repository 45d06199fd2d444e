/* bytes.h: a view of bytes somebody else owns, and a bounded writer.
 *
 * struct bytes never owns. It is passed by value. ptr may be NULL only when len is 0.
 * struct writer appends into memory of the caller; once something does not fit, `full` is set,
 * nothing more is written and `len` stays at the last whole put. All functions are libc-only and
 * thread-safe.
 */
#ifndef WEIR_BASE_BYTES_H
#define WEIR_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes {
    const char *ptr;
    size_t len;
};

/* Of a string literal; anything else does not compile. */
#define BYTES(literal) ((struct bytes){"" literal, sizeof(literal) - 1})
#define BYTES_NONE ((struct bytes){NULL, 0})
/* For printf("%.*s", BYTES_FMT(b)). */
#define BYTES_FMT(b) (int)(b).len, (b).ptr ? (b).ptr : ""

static inline struct bytes bytes_make(const char *ptr, size_t len) {
    return (struct bytes){ptr, len};
}
struct bytes bytes_of(const char *string); /* NUL-terminated; NULL gives BYTES_NONE */

bool bytes_equal(struct bytes a, struct bytes b);
bool bytes_equal_nocase(struct bytes a, struct bytes b); /* ASCII only */
bool bytes_starts_with(struct bytes whole, struct bytes prefix);
bool bytes_ends_with_nocase(struct bytes whole, struct bytes suffix);
struct bytes bytes_trim(struct bytes b); /* OWS of RFC 9110 section 5.6.3: SP and HTAB, both ends */
struct bytes bytes_slice(struct bytes b, size_t from, size_t len); /* clamped */
/* Index of the first `c`, or b.len. */
size_t bytes_find(struct bytes b, char c);
/* Takes the next item off a list separated by `separator` (items trimmed of SP and HTAB); false at
 * the end. Empty items are returned as empty: n separators make n + 1 items, so "a," gives "a" and
 * "", and "" gives one "". After the last item *rest is BYTES_NONE, which has none. */
bool bytes_split(struct bytes *rest, char separator, struct bytes *item);
/* Decimal digits only, no sign, no space, at least one (leading zeros may stand); false on anything
 * else or on overflow. */
bool bytes_to_u64(struct bytes b, uint64_t *value);

struct writer {
    char *ptr;
    size_t len;
    size_t size;
    bool full;
};

static inline struct writer writer_make(void *memory, size_t size) {
    return (struct writer){.ptr = memory, .size = size};
}
static inline void writer_put(struct writer *w, struct bytes b) {
    if (w->full || b.len > w->size - w->len) {
        w->full = true;
        return;
    }
    if (b.len != 0) memcpy(w->ptr + w->len, b.ptr, b.len);
    w->len += b.len;
}
static inline void writer_char(struct writer *w, char c) { writer_put(w, bytes_make(&c, 1)); }
void writer_u64(struct writer *w, uint64_t value); /* decimal */
void writer_hex(struct writer *w, uint64_t value); /* lower case, no leading zeros */
/* Needs one byte more than its text, for the NUL of vsnprintf(3), which `len` does not count. */
void writer_print(struct writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline struct bytes writer_bytes(const struct writer *w) {
    return bytes_make(w->ptr, w->len);
}

#endif
