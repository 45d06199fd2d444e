/* h1_internal.h: what the files of the HTTP/1 parser share. Of proto/ only. */
#ifndef WEIR_PROTO_H1_INTERNAL_H
#define WEIR_PROTO_H1_INTERNAL_H

#include "proto/h1_parse.h"

/* h1_parser.connection_options: what Connection fields named. */
enum h1_connection_option {
    H1_OPTION_CLOSE = 1,
    H1_OPTION_KEEP_ALIVE = 2,
    H1_OPTION_UPGRADE = 4,
    H1_OPTION_FIELD = 8 /* any other: the name of a field */
};

/* A request target taken apart (RFC 9112 section 3.2). */
struct h1_target {
    struct bytes authority; /* of absolute-form and authority-form; else none */
    struct bytes path;
    struct bytes query; /* ptr NULL without "?" */
};

/* h1_target.c. false when the target has none of the four forms, or one that the method does not go
 * with. The bytes of the target are HTTP_BYTE_TARGET already. *split is written in any case. */
bool h1_target_split(enum http_method method, struct bytes target, struct h1_target *split);

/* h1_fields.c. REASON_NONE, or why the head is refused; the reasons are those of a request in any
 * kind of head. */
/* The field line is base[parser->line_at .. line_end), without control bytes and not empty. */
enum reason h1_take_field(struct h1_parser *parser, const char *base, uint32_t line_end);
/* At the empty line of a request or response: Host, framing, persistence, and what Connection
 * names. */
enum reason h1_finish_head(struct h1_parser *parser, const char *base);

static inline struct bytes h1_span_name(const struct h1_span *span, const char *base) {
    return bytes_make(base + span->name_at, span->name_len);
}
static inline struct bytes h1_span_value(const struct h1_span *span, const char *base) {
    return bytes_make(base + span->value_at, span->value_len);
}

#endif
