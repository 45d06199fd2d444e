#include "proto/h1_internal.h"

/* Path and query of what follows the authority, or of an origin-form target. */
static void split_path(struct bytes rest, struct h1_target *split) {
    size_t mark = bytes_find(rest, '?');
    split->path = bytes_make(rest.ptr, mark);
    if (mark != rest.len) split->query = bytes_make(rest.ptr + mark + 1, rest.len - mark - 1);
}

/* Bytes of "http://" or "https://" at the front; 0 when there is neither. */
static size_t scheme_size(struct bytes target) {
    struct bytes plain = BYTES("http://");
    struct bytes secure = BYTES("https://");
    if (bytes_equal_nocase(bytes_slice(target, 0, plain.len), plain)) return plain.len;
    if (bytes_equal_nocase(bytes_slice(target, 0, secure.len), secure)) return secure.len;
    return 0;
}

/* RFC 9112 section 3.2.2. An empty path is "/", but "*" in OPTIONS without a query (section 3.2.4).
 */
static bool split_absolute(enum http_method method, struct bytes target, struct h1_target *split) {
    size_t scheme = scheme_size(target);
    if (scheme == 0) return false;
    struct bytes rest = bytes_slice(target, scheme, target.len);
    size_t end = 0;
    while (end < rest.len && rest.ptr[end] != '/' && rest.ptr[end] != '?')
        end++;
    split->authority = bytes_make(rest.ptr, end);
    split_path(bytes_slice(rest, end, rest.len), split);
    if (split->path.len == 0) {
        bool asterisk = method == HTTP_OPTIONS && split->query.ptr == NULL;
        split->path = asterisk ? BYTES("*") : BYTES("/");
    }
    return http_authority_valid(split->authority);
}

/* RFC 9112 section 3.2.3 wants a port; RFC 9110 section 9.3.6 has an empty one refused. */
static bool split_authority_form(struct bytes target, struct h1_target *split) {
    split->authority = target;
    if (!http_authority_valid(target)) return false;
    char last = target.ptr[target.len - 1];
    bool host_only = last == ']' || bytes_find(target, ':') == target.len;
    return !host_only && last != ':';
}

bool h1_target_split(enum http_method method, struct bytes target, struct h1_target *split) {
    *split = (struct h1_target){0};
    if (method == HTTP_CONNECT) return split_authority_form(target, split);
    if (target.ptr[0] == '/') {
        split_path(target, split);
        return true;
    }
    if (target.len == 1 && target.ptr[0] == '*') {
        split->path = target;
        return method == HTTP_OPTIONS;
    }
    return split_absolute(method, target, split);
}
