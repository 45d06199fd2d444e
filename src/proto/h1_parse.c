#include "proto/h1_parse.h"

#include "base/check.h"
#include "proto/h1_internal.h"
#include "proto/h1_scan.h"

/* What a request line may take besides a target of the longest length: a method of 54 bytes, two
 * spaces and the version. */
#define REQUEST_LINE_EXTRA 64
#define LINE_END_SIZE 2
#define VERSION_SIZE 8 /* "HTTP/1.1" */

void h1_parser_init(struct h1_parser *parser, enum h1_kind kind, enum http_method request_method,
                    const struct h1_limits *limits, struct h1_span *spans) {
    *parser = (struct h1_parser){
        .kind = kind,
        .request_method = request_method,
        .limits = *limits,
        .spans = spans,
        .start_line_done = kind == H1_TRAILERS,
    };
}

/* A client is told what is wrong; what is wrong with an answer is the upstream's affair, and one
 * reason. */
static enum h1_result refuse(struct h1_parser *parser, enum reason reason) {
    parser->reason = parser->kind == H1_RESPONSE ? REASON_BAD_RESPONSE : reason;
    return H1_BAD;
}

static bool in_request_line(const struct h1_parser *parser) {
    return !parser->start_line_done && parser->kind == H1_REQUEST;
}

/* "HTTP/" DIGIT "." DIGIT at `text` (RFC 9112 section 2.3). */
static enum reason take_version(struct h1_parser *parser, const char *text) {
    bool well_formed = memcmp(text, "HTTP/", 5) == 0 && http_byte_is(text[5], HTTP_BYTE_DIGIT) &&
                       text[6] == '.' && http_byte_is(text[7], HTTP_BYTE_DIGIT);
    if (!well_formed) return REASON_BAD_REQUEST_LINE;
    if (text[5] != '1' || text[7] > '1') return REASON_BAD_VERSION;
    parser->version_minor = (uint8_t)(text[7] - '0');
    return REASON_NONE;
}

static enum reason check_target(const struct h1_parser *parser, const char *base,
                                uint32_t line_end) {
    uint32_t at = parser->target_at;
    uint32_t end = at + parser->target_len; /* there is a space, which stops the scan */
    if (parser->target_len > parser->limits.target_size_max) return REASON_TARGET_TOO_LONG;
    if (h1_scan_not_target(base, at, line_end) != end) return REASON_BAD_TARGET;
    /* origin-form, nearly always: nothing else to check. */
    if (base[at] == '/' && parser->method != HTTP_CONNECT) return REASON_NONE;
    struct h1_target split;
    bool valid = h1_target_split(parser->method, bytes_make(base + at, parser->target_len), &split);
    return valid ? REASON_NONE : REASON_BAD_TARGET;
}

/* token SP before base[end]. Also of a line that is refused before its end: how a refusal is
 * written depends on the method. */
static bool take_method(struct h1_parser *parser, const char *base, uint32_t end) {
    uint32_t at = parser->line_at;
    while (at < end && http_byte_is(base[at], HTTP_BYTE_TOKEN))
        at++;
    if (at == end || base[at] != ' ') return false;
    parser->method_len = at - parser->line_at;
    parser->method = http_method_of(bytes_make(base + parser->line_at, parser->method_len));
    return true;
}

/* method SP request-target SP HTTP-version (RFC 9112 section 3). The version is taken off the end,
 * so a space within the target is a bad target. */
static enum reason take_request_line(struct h1_parser *parser, const char *base, uint32_t end) {
    if (!take_method(parser, base, end)) return REASON_BAD_REQUEST_LINE;
    parser->target_at = parser->line_at + parser->method_len + 1;
    if (end - parser->target_at < 1 + 1 + VERSION_SIZE) return REASON_BAD_REQUEST_LINE;
    uint32_t version_at = end - VERSION_SIZE;
    if (base[version_at - 1] != ' ') return REASON_BAD_REQUEST_LINE;
    enum reason reason = take_version(parser, base + version_at);
    if (reason != REASON_NONE) return reason;
    parser->target_len = version_at - 1 - parser->target_at;
    return check_target(parser, base, end);
}

/* HTTP-version SP status-code [ SP reason-phrase ] (RFC 9112 section 4: a client should take a line
 * that lacks the phrase and the space before it). */
static enum reason take_status_line(struct h1_parser *parser, const char *base, uint32_t end) {
    const char *line = base + parser->line_at;
    uint32_t size = end - parser->line_at;
    uint32_t code_end = VERSION_SIZE + 1 + 3;
    if (size < code_end || line[VERSION_SIZE] != ' ') return REASON_BAD_RESPONSE;
    if (take_version(parser, line) != REASON_NONE) return REASON_BAD_RESPONSE;
    struct bytes code = bytes_make(line + VERSION_SIZE + 1, 3);
    if (!http_bytes_are(code, HTTP_BYTE_DIGIT)) return REASON_BAD_RESPONSE;
    int status = (code.ptr[0] - '0') * 100 + (code.ptr[1] - '0') * 10 + (code.ptr[2] - '0');
    /* RFC 9110 section 15: outside of this range a status is invalid. */
    if (status < 100 || status > 599) return REASON_BAD_RESPONSE;
    parser->status = (uint16_t)status;
    if (size > code_end && line[code_end] != ' ') return REASON_BAD_RESPONSE;
    parser->phrase_at = parser->line_at + (size > code_end ? code_end + 1 : code_end);
    parser->phrase_len = end - parser->phrase_at;
    return REASON_NONE;
}

static enum reason take_start_line(struct h1_parser *parser, const char *base, uint32_t end) {
    enum reason reason;
    if (parser->kind == H1_REQUEST) {
        if (end == parser->line_at) return REASON_NONE; /* RFC 9112 section 2.2 */
        reason = take_request_line(parser, base, end);
    } else {
        reason = take_status_line(parser, base, end);
    }
    parser->start_line_done = true;
    return reason;
}

/* A complete line, base[parser->line_at .. end), without control bytes but HTAB. */
static enum reason take_line(struct h1_parser *parser, const char *base, uint32_t end) {
    if (!parser->start_line_done) return take_start_line(parser, base, end);
    if (end != parser->line_at) return h1_take_field(parser, base, end);
    enum reason reason = REASON_NONE;
    if (parser->kind != H1_TRAILERS) reason = h1_finish_head(parser, base);
    if (reason == REASON_NONE) parser->head_size = end + LINE_END_SIZE;
    return reason;
}

/* What the first byte of a line rules out before the line is complete: a TLS ClientHello is refused
 * at once. */
static enum reason check_first_byte(const struct h1_parser *parser, char c) {
    if (parser->start_line_done) return c == ' ' || c == '\t' ? REASON_BAD_FOLD : REASON_NONE;
    if (parser->kind == H1_RESPONSE) return c == 'H' ? REASON_NONE : REASON_BAD_RESPONSE;
    bool may_begin = http_byte_is(c, HTTP_BYTE_TOKEN) || c == '\r' || c == '\n';
    return may_begin ? REASON_NONE : REASON_BAD_REQUEST_LINE;
}

/* Why the line whose first control byte (at base[at]) does not begin a CRLF is refused. Depends on
 * nothing behind it. */
static enum reason control_reason(const struct h1_parser *parser, const char *base, uint32_t at) {
    if (base[at] == '\r' || base[at] == '\n') return REASON_BAD_LINE_END;
    struct bytes before = bytes_make(base + parser->line_at, at - parser->line_at);
    if (parser->start_line_done) {
        bool in_value = bytes_find(before, ':') != before.len;
        return in_value ? REASON_BAD_FIELD_VALUE : REASON_BAD_FIELD_NAME;
    }
    bool in_target = bytes_find(before, ' ') != before.len;
    return in_target ? REASON_BAD_TARGET : REASON_BAD_REQUEST_LINE;
}

/* Offset by which the current line must have ended, its CRLF included. */
static uint32_t line_room(const struct h1_parser *parser) {
    uint32_t room = parser->limits.head_size_max;
    if (!in_request_line(parser)) return room;
    uint64_t of_line = (uint64_t)parser->line_at + parser->limits.target_size_max +
                       REQUEST_LINE_EXTRA + LINE_END_SIZE;
    return of_line < room ? (uint32_t)of_line : room;
}

/* Finds the end of the current line. All that is decided is decided by the bytes up to the one that
 * decides it, and within line_room, never by how many more are there: that is what makes results
 * independent of the split. */
static enum h1_result next_line(struct h1_parser *parser, struct bytes head, uint32_t *line_end) {
    uint32_t room = line_room(parser);
    uint32_t end = head.len < room ? (uint32_t)head.len : room;
    CHECK(parser->scanned <= end);
    if (parser->line_at < end) {
        enum reason reason = check_first_byte(parser, head.ptr[parser->line_at]);
        if (reason != REASON_NONE) return refuse(parser, reason);
    }
    uint32_t at = h1_scan_control(head.ptr, parser->scanned, end);
    parser->scanned = at;
    if (at == end || (head.ptr[at] == '\r' && at + 1 == end)) {
        if (head.len < room) return H1_MORE;
        bool is_head = room == parser->limits.head_size_max;
        return refuse(parser, is_head ? REASON_HEAD_TOO_LARGE : REASON_TARGET_TOO_LONG);
    }
    if (head.ptr[at] != '\r' || head.ptr[at + 1] != '\n') {
        return refuse(parser, control_reason(parser, head.ptr, at));
    }
    *line_end = at;
    return H1_DONE;
}

enum h1_result h1_parse(struct h1_parser *parser, struct bytes head) {
    if (parser->reason != REASON_NONE) return H1_BAD;
    while (parser->head_size == 0) {
        uint32_t line_end;
        enum h1_result result = next_line(parser, head, &line_end);
        if (result == H1_BAD && in_request_line(parser))
            (void)take_method(parser, head.ptr, parser->scanned); /* there may be none */
        if (result != H1_DONE) return result;
        enum reason reason = take_line(parser, head.ptr, line_end);
        if (reason != REASON_NONE) return refuse(parser, reason);
        parser->line_at = line_end + LINE_END_SIZE;
        parser->scanned = parser->line_at;
    }
    return H1_DONE;
}
