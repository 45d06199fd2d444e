#include "proto/sni.h"

#define RECORD_HEADER_SIZE 5
#define RECORD_HANDSHAKE 22
#define RECORD_SIZE_MAX 16384 /* RFC 8446 section 5.1 */
#define CLIENT_HELLO 1
#define EXTENSION_SERVER_NAME 0
#define NAME_TYPE_HOST 0

/* Reads the bytes of handshake messages out of the records they lie in: a record may hold a part of
 * one only. */
struct reader {
    const unsigned char *at;
    const unsigned char *end;
    size_t in_record; /* bytes left of the record at `at` */
    bool is_bad;      /* no record where one should be */
};

/* False: it is bad, or the bytes end. */
static bool next_record(struct reader *reader) {
    while (reader->in_record == 0) {
        size_t left = (size_t)(reader->end - reader->at);
        const unsigned char *at = reader->at;
        /* The second byte, 3, has been that of every version since SSL 3. */
        if ((left > 0 && at[0] != RECORD_HANDSHAKE) || (left > 1 && at[1] != 3)) {
            reader->is_bad = true;
            return false;
        }
        if (left < RECORD_HEADER_SIZE) return false;
        reader->in_record = (size_t)at[3] << 8 | at[4];
        reader->is_bad = reader->in_record == 0 || reader->in_record > RECORD_SIZE_MAX;
        if (reader->is_bad) return false;
        reader->at += RECORD_HEADER_SIZE;
    }
    return reader->at < reader->end;
}

static bool read_byte(struct reader *reader, size_t *value) {
    if (!next_record(reader)) return false;
    *value = *reader->at++;
    reader->in_record--;
    return true;
}

static bool read_number(struct reader *reader, int size, size_t *value) {
    size_t byte;
    for (*value = 0; size > 0; size--) {
        if (!read_byte(reader, &byte)) return false;
        *value = *value << 8 | byte;
    }
    return true;
}

static bool skip(struct reader *reader, size_t size) {
    while (size != 0) {
        if (!next_record(reader)) return false;
        size_t part = (size_t)(reader->end - reader->at);
        if (part > reader->in_record) part = reader->in_record;
        if (part > size) part = size;
        reader->at += part;
        reader->in_record -= part;
        size -= part;
    }
    return true;
}

/* What is left of the part that is being read; taking more than that is malformed. */
struct span {
    struct reader *reader;
    size_t left;
    bool is_bad;
};

static bool span_take(struct span *span, size_t size) {
    if (size > span->left) {
        span->is_bad = true;
        return false;
    }
    span->left -= size;
    return true;
}

static bool span_number(struct span *span, int size, size_t *value) {
    return span_take(span, (size_t)size) && read_number(span->reader, size, value);
}

static bool span_skip(struct span *span, size_t size) {
    return span_take(span, size) && skip(span->reader, size);
}

/* A vector whose contents do not matter. */
static bool span_skip_vector(struct span *span, int length_size) {
    size_t size;
    return span_number(span, length_size, &size) && span_skip(span, size);
}

static bool is_name_byte(size_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

static bool read_name(struct span *span, char *memory, struct bytes *name) {
    size_t size;
    size_t byte;
    if (!span_number(span, 2, &size)) return false;
    span->is_bad = size == 0 || size > SNI_SIZE_MAX || size > span->left;
    for (size_t i = 0; !span->is_bad && i < size; i++) {
        if (!span_number(span, 1, &byte)) return false;
        span->is_bad = !is_name_byte(byte);
        memory[i] = (char)byte;
    }
    if (span->is_bad) return false;
    if (size > 1 && memory[size - 1] == '.') size--;
    *name = bytes_make(memory, size);
    return true;
}

/* server_name: a list with at most one name of each type, of which there is one. */
static bool read_server_name(struct span *span, char *memory, struct bytes *name) {
    size_t size;
    size_t type;
    if (!span_number(span, 2, &size) || !span_number(span, 1, &type)) return false;
    span->is_bad = type != NAME_TYPE_HOST;
    return !span->is_bad && read_name(span, memory, name);
}

/* The extensions up to the name; true: there is one, or there is none and all has been read. */
static bool read_extensions(struct span *span, char *memory, struct bytes *name) {
    size_t size;
    if (span->left == 0) return true; /* before extensions were thought of */
    if (!span_number(span, 2, &size)) return false;
    span->is_bad = size != span->left;
    while (!span->is_bad && span->left != 0) {
        size_t type;
        size_t length;
        if (!span_number(span, 2, &type) || !span_number(span, 2, &length)) return false;
        if (type == EXTENSION_SERVER_NAME) return read_server_name(span, memory, name);
        if (!span_skip(span, length)) return false;
    }
    return !span->is_bad;
}

enum sni_result sni_find(struct bytes bytes, char memory[SNI_SIZE_MAX], struct bytes *name) {
    const unsigned char *start = (const unsigned char *)bytes.ptr;
    struct reader reader = {.at = start, .end = start + bytes.len};
    struct span span = {.reader = &reader};
    struct bytes found = BYTES_NONE;
    size_t type;
    if (bytes.len == 0) return SNI_MORE;
    if (!read_byte(&reader, &type)) return reader.is_bad ? SNI_BAD : SNI_MORE;
    if (type != CLIENT_HELLO) return SNI_BAD;
    bool is_read = read_number(&reader, 3, &span.left) &&
                   span_skip(&span, 2 + 32) &&   /* legacy_version,
                                                    random */
                   span_skip_vector(&span, 1) && /* legacy_session_id */
                   span_skip_vector(&span, 2) && /* cipher_suites */
                   span_skip_vector(&span, 1) && /* legacy_compression_methods */
                   read_extensions(&span, memory, &found);
    if (reader.is_bad || span.is_bad) return SNI_BAD;
    if (!is_read) return SNI_MORE;
    if (!found.ptr) return SNI_NONE;
    *name = found;
    return SNI_NAME;
}
