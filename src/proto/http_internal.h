/* http_internal.h: the classes of bytes that RFC 9110 and RFC 3986 tell apart, as one table, and
 * which fields are none for trailers. Of proto/ only. */
#ifndef WEIR_PROTO_HTTP_INTERNAL_H
#define WEIR_PROTO_HTTP_INTERNAL_H

#include "proto/http.h"

/* A struct bytes of a literal where C wants a constant: in tables. */
#define HTTP_TEXT(literal)                                                                         \
    { "" literal, sizeof(literal) - 1 }

enum http_byte_class {
    HTTP_BYTE_TOKEN = 1,    /* tchar, RFC 9110 section 5.6.2 */
    HTTP_BYTE_REG_NAME = 2, /* unreserved and sub-delims, RFC 3986 section 3.2.2; "%" is not in it
                             */
    HTTP_BYTE_TARGET = 4, /* visible ASCII but "#": a target has no fragment (RFC 9112 section 3.2)
                           */
    HTTP_BYTE_VALUE = 8,  /* field-vchar, SP and HTAB, RFC 9110 section 5.5 */
    HTTP_BYTE_DIGIT = 16,
    HTTP_BYTE_HEX = 32
};

extern const uint8_t http_byte_classes[256];

static inline bool http_byte_is(char c, enum http_byte_class wanted) {
    return (http_byte_classes[(unsigned char)c] & wanted) != 0;
}
/* Whether a trailer section must not hold a field (RFC 9110 section 6.5.1). */
bool http_trailer_forbidden(struct bytes name, enum http_field_id id);
/* Whether all bytes are of the class; true for none. */
static inline bool http_bytes_are(struct bytes b, enum http_byte_class wanted) {
    for (size_t i = 0; i < b.len; i++) {
        if (!http_byte_is(b.ptr[i], wanted)) return false;
    }
    return true;
}

#endif
