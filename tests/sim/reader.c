#include "sim/reader.h"

#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void reader_init(struct reader *reader, bool is_answer) {
    *reader = (struct reader){.is_answer = is_answer};
}

static enum reader_event bad(struct reader *reader, const char *why) {
    reader->why = why;
    return READER_BAD;
}

/* True with a whole line, without its CRLF, in reader->line. */
static bool read_line(struct reader *reader, const char **at, size_t *size) {
    while (*size != 0 && reader->line_len + 1 < sizeof reader->line) {
        char c = *(*at)++;
        (*size)--;
        reader->line[reader->line_len++] = c;
        if (c != '\n') continue;
        bool crlf = reader->line_len >= 2 && reader->line[reader->line_len - 2] == '\r';
        if (!crlf) reader->why = "a line ends without CR";
        reader->line[reader->line_len - (crlf ? 2 : 1)] = '\0';
        reader->line_len = 0;
        return true;
    }
    if (reader->line_len + 1 == sizeof reader->line) reader->why = "a line is too long";
    return false;
}

static bool read_start(struct reader *reader) {
    reader->status = 0;
    reader->id = reader->sum = 0;
    reader->outcome = -1;
    reader->timeout[0] = '\0';
    reader->has_length = reader->chunked = reader->closes = reader->no_body = false;
    reader->is_tunnel = reader->has_frames = false;
    reader->reason[0] = reader->forwarded_for[0] = reader->key[0] = '\0';
    reader->pattern_id = 0;
    reader->length = reader->body = reader->left = 0;
    if (reader->is_answer) return sscanf(reader->line, "HTTP/1.1 %3d ", &reader->status) == 1;
    int end = 0;
    int got = sscanf(reader->line, "%15s %63s HTTP/1.1%n", reader->method, reader->target, &end);
    return got == 2 && end != 0 && reader->line[end] == '\0';
}

static bool field_is(const char *line, const char *name, const char **value) {
    size_t size = strlen(name);
    if (strncasecmp(line, name, size) != 0 || line[size] != ':') return false;
    *value = line + size + 1;
    while (**value == ' ')
        (*value)++;
    return true;
}

static bool read_field(struct reader *reader) {
    const char *line = reader->line;
    const char *value;
    if (!strchr(line, ':') || line[0] == ' ' || line[0] == ':') return false;
    if (field_is(line, "X-Id", &value)) {
        if (reader->id != 0) return false;
        reader->id = (uint32_t)strtoul(value, NULL, 10);
    } else if (field_is(line, "Content-Length", &value)) {
        if (reader->has_length || reader->chunked) return false;
        reader->has_length = true;
        reader->length = strtoull(value, NULL, 10);
    } else if (field_is(line, "Transfer-Encoding", &value)) {
        if (reader->has_length || strcmp(value, "chunked") != 0) return false;
        reader->chunked = true;
    } else if (field_is(line, "Connection", &value)) {
        if (strcasestr(value, "close")) reader->closes = true;
    } else if (field_is(line, "X-Forwarded-For", &value)) {
        snprintf(reader->forwarded_for, sizeof reader->forwarded_for, "%s", value);
    } else if (field_is(line, "Grpc-Status", &value)) {
        reader->outcome = atoi(value);
    } else if (field_is(line, "Grpc-Timeout", &value)) {
        snprintf(reader->timeout, sizeof reader->timeout, "%.12s", value);
    } else if (field_is(line, "Sec-WebSocket-Key", &value) ||
               field_is(line, "Sec-WebSocket-Accept", &value)) {
        snprintf(reader->key, sizeof reader->key, "%.60s", value);
    } else if (field_is(line, "Proxy-Status", &value)) {
        const char *word = strstr(value, "details=\"");
        if (word) sscanf(word + strlen("details=\""), "%39[a-z_]", reader->reason);
    }
    return true;
}

/* What follows the head (RFC 9112 section 6.3). */
static enum reader_event begin_body(struct reader *reader) {
    bool none = reader->no_body || reader->status == 204 || reader->status == 304;
    reader->state = READ_START;
    if (reader->is_tunnel || reader->status == 101) {
        reader->state = READ_RAW;
        return READER_MORE;
    }
    if (reader->is_answer && reader->status < 200) return READER_MORE;
    if (none) return READER_END;
    if (reader->chunked) {
        reader->state = READ_CHUNK;
        return READER_MORE;
    }
    if (reader->has_length || !reader->is_answer) {
        reader->left = reader->length;
        if (reader->left == 0) return READER_END;
        reader->state = READ_BODY;
        return READER_MORE;
    }
    reader->state = READ_UNTIL_END;
    return READER_MORE;
}

/* Looks at `count` bytes of the body. */
static bool check_body(struct reader *reader, const char *bytes, size_t count) {
    static char planned[READER_PIECE_MAX + FRAMES_CONTROL_MAX];
    uint64_t at = reader->body;
    if (reader->has_frames) {
        CHECK(count <= READER_PIECE_MAX);
        count = frames_take(&reader->frames, bytes, count, planned);
        bytes = planned;
    }
    reader->body += count;
    if (reader->pattern_id == 0) return true;
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] == plan_byte(reader->pattern_id, reader->side, at + i)) continue;
        snprintf(reader->line, sizeof reader->line, "at %llu of %s, state %d",
                 (unsigned long long)(at + i), reader->is_answer ? "an answer" : "a request",
                 (int)reader->state);
        return false;
    }
    return true;
}

static enum reader_event read_body(struct reader *reader, const char **at, size_t *size) {
    bool bounded = reader->state == READ_BODY || reader->state == READ_CHUNK_END;
    size_t count = bounded && reader->left < *size ? (size_t)reader->left : *size;
    if (!check_body(reader, *at, count)) return bad(reader, "a body's byte is another one");
    *at += count;
    *size -= count;
    if (!bounded) return READER_MORE;
    reader->left -= count;
    if (reader->left != 0 || reader->state != READ_BODY) return READER_MORE;
    reader->state = READ_START;
    return READER_END;
}

static enum reader_event read_chunk_head(struct reader *reader) {
    char *end;
    reader->left = strtoull(reader->line, &end, 16);
    if (end == reader->line || (*end != '\0' && *end != ';')) return bad(reader, "bad chunk head");
    reader->state = reader->left == 0 ? READ_TRAILERS : READ_CHUNK_END;
    return READER_MORE;
}

static enum reader_event read_head_line(struct reader *reader) {
    if (reader->state == READ_START) {
        reader->state = READ_FIELDS;
        return read_start(reader) ? READER_MORE : bad(reader, "bad start line");
    }
    if (reader->line[0] != '\0') {
        return read_field(reader) ? READER_MORE : bad(reader, "bad field");
    }
    reader->head_is_new = true;
    return READER_HEAD;
}

/* What a whole line means in this state. */
static enum reader_event take_line(struct reader *reader) {
    switch (reader->state) {
    case READ_START:
    case READ_FIELDS:
        return read_head_line(reader);
    case READ_CHUNK:
        return read_chunk_head(reader);
    case READ_CHUNK_END:
        reader->state = READ_CHUNK;
        return reader->line[0] == '\0' ? READER_MORE : bad(reader, "no CRLF after a chunk");
    case READ_TRAILERS:
        if (strncasecmp(reader->line, "X-Sum: ", 7) == 0)
            reader->sum = (uint32_t)strtoul(reader->line + 7, NULL, 10);
        if (strncasecmp(reader->line, "Grpc-Status: ", 13) == 0)
            reader->outcome = atoi(reader->line + 13);
        if (reader->line[0] != '\0') return READER_MORE;
        reader->state = READ_START;
        return READER_END;
    case READ_BODY:
    case READ_UNTIL_END:
    case READ_RAW:
        break;
    }
    return bad(reader, "a line where there is none");
}

enum reader_event reader_feed(struct reader *reader, const char **at, size_t *size) {
    enum reader_event event = READER_MORE;
    if (reader->head_is_new) {
        reader->head_is_new = false;
        event = begin_body(reader);
    }
    while (event == READER_MORE && *size != 0) {
        bool in_chunk = reader->state == READ_CHUNK_END && reader->left != 0;
        if (in_chunk || reader->state == READ_BODY || reader->state == READ_UNTIL_END ||
            reader->state == READ_RAW) {
            event = read_body(reader, at, size);
        } else if (read_line(reader, at, size)) {
            event = reader->why ? READER_BAD : take_line(reader);
        } else if (reader->why) {
            event = READER_BAD;
        }
    }
    return event;
}

bool reader_may_end(const struct reader *reader) {
    return reader->state == READ_UNTIL_END || reader_is_idle(reader);
}
