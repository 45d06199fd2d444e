/* h1_parse.h: heads of HTTP/1.x messages (RFC 9112), parsed in place, from input split anywhere.
 *
 * The caller keeps all bytes of the head received so far contiguous at one base (which may move
 * between calls: the parser keeps offsets only) and calls h1_parse again with more. Each complete
 * line is looked at once, so work is linear in the input however it is split, and the result
 * depends on the bytes only, never on the split. The parser refuses all that could be read two ways
 * (RFC 9112 section 11.2); the reason says which answer. A head is judged line by line, so of two
 * faults the reason names that of the earlier line; a fault of the head as a whole (no Host, two
 * framings) comes last. A line is refused before it is complete when its first byte cannot begin
 * one, at its first control byte, when it reaches past head_size_max, and, a request line, when it
 * is longer than target_size_max + 64 (TARGET_TOO_LONG). When DONE, h1_message copies the head into
 * an arena as a struct http_message, without its connection-level fields.
 */
#ifndef WEIR_PROTO_H1_PARSE_H
#define WEIR_PROTO_H1_PARSE_H

#include "base/reason.h"
#include "proto/http.h"

enum h1_result { H1_DONE, H1_MORE, H1_BAD };
enum h1_kind { H1_REQUEST, H1_RESPONSE, H1_TRAILERS };

struct h1_limits {
    uint32_t head_size_max;   /* bytes, start line and fields and the empty line */
    uint32_t fields_max;      /* count */
    uint32_t target_size_max; /* bytes */
};

/* One field line, as offsets from the head's base. */
struct h1_span {
    uint32_t name_at;
    uint32_t value_at;
    uint32_t value_len;
    uint16_t name_len;
    uint8_t id;   /* enum http_field_id */
    uint8_t drop; /* a connection-level field: not forwarded */
};

/* Body framing that follows the head (RFC 9112 section 6.3). */
enum h1_body_kind {
    H1_BODY_NONE,
    H1_BODY_LENGTH,
    H1_BODY_CHUNKED,
    H1_BODY_UNTIL_CLOSE /* responses only */
};

struct h1_parser {
    /* Fixed by h1_parser_init. */
    enum h1_kind kind;
    enum http_method request_method; /* of the request a response answers */
    struct h1_limits limits;
    struct h1_span *spans; /* the caller's, limits.fields_max of them */
    /* While parsing. */
    uint32_t line_at; /* offset of the line being read */
    uint32_t scanned; /* bytes already searched for its end */
    uint32_t span_count;
    bool start_line_done;
    /* Results, valid once DONE; `reason` and, of a request, `method` once BAD. */
    enum reason reason;
    uint32_t head_size;      /* bytes of the head: the body starts there */
    enum http_method method; /* GET as long as it has not been read */
    uint16_t status;
    uint8_t version_minor;
    bool keep_alive; /* what this message says of its connection (RFC 9112 section 9.3) */
    bool expect_continue;
    bool upgrade_named; /* HTTP/1.1, Connection names Upgrade and there is one Upgrade field */
    enum h1_body_kind body_kind;
    uint64_t body_length; /* of Content-Length, whatever the kind; under 2^63 */
    /* Offsets and lengths of pieces of the start line and of fields that h1_message needs: the
     * implementation's. */
    uint32_t method_len;
    uint32_t target_at, target_len;
    uint32_t phrase_at, phrase_len;
    uint32_t host_at, host_len; /* of Host; host_seen says whether there is one */
    uint32_t upgrade_at, upgrade_len;
    uint32_t connection_count;  /* options named in Connection */
    uint8_t connection_options; /* enum h1_connection_option, of h1_internal.h */
    bool host_seen;
    bool length_seen;
    bool coding_seen; /* Transfer-Encoding ended in chunked */
};

/* `spans` must have room for limits->fields_max and live until h1_message. `request_method` matters
 * for responses only. */
void h1_parser_init(struct h1_parser *parser, enum h1_kind kind, enum http_method request_method,
                    const struct h1_limits *limits, struct h1_span *spans);
/* `head` is everything from the first byte of the head, at least what the last call had; it may
 * hold bytes past the head. Empty lines before a request line are skipped (RFC 9112 section 2.2)
 * and count as part of the head. A response that is refused for anything gives REASON_BAD_RESPONSE.
 * After DONE or BAD a call gives the same again. */
enum h1_result h1_parse(struct h1_parser *parser, struct bytes head);

/* After DONE: copies what is end-to-end into `arena` and fills *message. `head` is the same bytes
 * as given to h1_parse. Drops Connection, what it names, Keep-Alive, Proxy-Connection, TE (unless
 * "trailers"), Transfer-Encoding, Upgrade, Content-Length, Host, and in HTTP/1.0 Expect. There may
 * be as many names in Connection as fields (TOO_MANY_FIELDS). `scheme` is "http" or "https", of the
 * connection. false when the arena is at its limit. For H1_TRAILERS only message->fields is set,
 * without fields that trailers must not hold (RFC 9110 section 6.5.1). */
bool h1_message(const struct h1_parser *parser, struct bytes head, struct bytes scheme,
                struct arena *arena, struct http_message *message);

#endif
