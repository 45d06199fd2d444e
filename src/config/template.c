#include "config/template.h"

#include "config/suggest.h"

#include <errno.h>
#include <stdlib.h>

static const struct {
    const char *name;
    enum template_variable variable;
} variables[] = {
    {"client_ip", TEMPLATE_CLIENT_IP},
    {"client_port", TEMPLATE_CLIENT_PORT},
    {"host", TEMPLATE_HOST},
    {"authority", TEMPLATE_AUTHORITY},
    {"method", TEMPLATE_METHOD},
    {"scheme", TEMPLATE_SCHEME},
    {"path", TEMPLATE_PATH},
    {"query", TEMPLATE_QUERY},
    {"uri", TEMPLATE_URI},
    {"listener", TEMPLATE_LISTENER},
    {"route", TEMPLATE_ROUTE},
    {"upstream", TEMPLATE_UPSTREAM},
    {"server", TEMPLATE_SERVER},
    {"tls_version", TEMPLATE_TLS_VERSION},
    {"tls_cipher", TEMPLATE_TLS_CIPHER},
    {"tls_sni", TEMPLATE_TLS_SNI},
    {"tls_client_subject", TEMPLATE_TLS_CLIENT_SUBJECT},
    {"tls_client_verify", TEMPLATE_TLS_CLIENT_VERIFY},
    {"status", TEMPLATE_STATUS},
    {"request_id", TEMPLATE_REQUEST_ID},
};
#define VARIABLE_COUNT (sizeof variables / sizeof variables[0])
#define HEADER_PREFIX BYTES("header_")

static bool is_name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* The name after a "$" at text[at - 1], in braces or bare. Moves `at` past it; false when it is no
 * name. */
static bool take_name(struct bytes text, size_t *at, struct bytes *name) {
    bool braced = *at < text.len && text.ptr[*at] == '{';
    size_t start = *at + braced;
    size_t end = start;
    while (end < text.len && is_name_char(text.ptr[end]))
        end++;
    if (braced && (end == text.len || text.ptr[end] != '}')) return false;
    *name = bytes_make(text.ptr + start, end - start);
    *at = end + braced;
    return end != start;
}

/* Field names have "-" where variables have "_". `name` lies in the copy this template owns. */
static struct template_part header_part(struct bytes name, char *copy) {
    for (size_t i = 0; i < name.len; i++)
        copy[i] = name.ptr[i] == '_' ? '-' : name.ptr[i];
    return (struct template_part){TEMPLATE_HEADER, bytes_make(copy, name.len)};
}

static bool find_variable(struct bytes name, enum template_variable *variable) {
    for (size_t i = 0; i < VARIABLE_COUNT; i++) {
        if (!bytes_equal(name, bytes_of(variables[i].name))) continue;
        *variable = variables[i].variable;
        return true;
    }
    return false;
}

static void say_unknown(struct bytes name, struct writer *error) {
    struct suggest suggest;
    suggest_init(&suggest, name);
    for (size_t i = 0; i < VARIABLE_COUNT; i++)
        suggest_offer(&suggest, bytes_of(variables[i].name));
    writer_print(error, "unknown variable \"$%.*s\"", BYTES_FMT(bytes_slice(name, 0, 40)));
    if (suggest.best.len != 0) {
        writer_print(error, " (did you mean \"$%.*s\"?)", BYTES_FMT(suggest.best));
    }
}

/* One "$..." at text[*at]. `copy` mirrors `text` byte by byte and belongs to the template. */
static bool take_variable(struct bytes text, size_t *at, char *copy, struct template_part *part,
                          struct writer *error) {
    size_t next = *at + 1;
    if (next < text.len && text.ptr[next] == '$') {
        *part = (struct template_part){TEMPLATE_LITERAL, bytes_make(copy + next, 1)};
        *at = next + 1;
        return true;
    }
    struct bytes name;
    if (!take_name(text, &next, &name)) {
        writer_print(error, "\"$\" without the name of a variable (\"$$\" is a dollar sign)");
        return false;
    }
    *at = next;
    *part = (struct template_part){.text = BYTES_NONE};
    if (find_variable(name, &part->variable)) return true;
    if (name.len > HEADER_PREFIX.len && bytes_starts_with(name, HEADER_PREFIX)) {
        name = bytes_slice(name, HEADER_PREFIX.len, name.len);
        *part = header_part(name, copy + (name.ptr - text.ptr));
        return true;
    }
    say_unknown(name, error);
    return false;
}

static size_t count_dollars(struct bytes text) {
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++)
        count += text.ptr[i] == '$';
    return count;
}

int template_parse(struct template *template, struct bytes text, char *error, size_t error_size) {
    struct writer w = writer_make(error, error_size == 0 ? 0 : error_size - 1);
    if (error_size != 0) memset(error, 0, error_size);
    /* One allocation: the parts (a literal before and after each variable at most), then the text.
     */
    size_t parts_size = (2 * count_dollars(text) + 1) * sizeof(struct template_part);
    struct template_part *parts = calloc(1, parts_size + text.len + 1);
    if (!parts) {
        writer_print(&w, "out of memory");
        return -EINVAL;
    }
    char *copy = (char *)parts + parts_size;
    if (text.len != 0) memcpy(copy, text.ptr, text.len);
    uint32_t count = 0;
    size_t at = 0;
    while (at < text.len) {
        size_t literal = bytes_find(bytes_slice(text, at, text.len), '$');
        if (literal != 0) {
            parts[count++] =
                (struct template_part){TEMPLATE_LITERAL, bytes_make(copy + at, literal)};
            at += literal;
            continue;
        }
        if (!take_variable(text, &at, copy, &parts[count], &w)) {
            free(parts);
            return -EINVAL;
        }
        count++;
    }
    *template = (struct template){parts, count};
    return 0;
}

int template_literal(struct template *template, struct bytes text) {
    struct template_part *part = calloc(1, sizeof *part + text.len + 1);
    if (!part) return -ENOMEM;
    char *copy = (char *)(part + 1);
    if (text.len != 0) memcpy(copy, text.ptr, text.len);
    *part = (struct template_part){TEMPLATE_LITERAL, bytes_make(copy, text.len)};
    *template = (struct template){part, 1};
    return 0;
}

void template_fini(struct template *template) {
    free(template->parts);
    *template = (struct template){NULL, 0};
}
