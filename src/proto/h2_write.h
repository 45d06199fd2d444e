/* h2_write.h: messages as fields of HTTP/2 (RFC 9113 section 8.3): a list for nghttp2, which
 * compresses it.
 *
 * The list views the message and its own text; nghttp2 copies both at once, and puts names in lower
 * case, but for the names that are constants. What belongs to connections of HTTP/1 is left out.
 * Names and values come from parsed or configured fields, valid by construction.
 */
#ifndef WEIR_PROTO_H2_WRITE_H
#define WEIR_PROTO_H2_WRITE_H

#include "proto/h2.h"
#include "proto/http.h"

struct h2_list {
    /* Fixed after init. */
    nghttp2_nv *items;
    uint32_t max;
    struct writer text; /* its memory */
    /* Changes in routine work. */
    uint32_t count;
};

/* Each begins the list anew. False: it has no room for all of it. `scheme` is that of the
 * connection; `end`: no body follows.
 */
/* Whether a request is sent as an extended CONNECT (RFC 8441): other upgrades of HTTP/1.1 have no
 * word in HTTP/2, and are ignored. */
static inline bool h2_is_extended(const struct http_message *message) {
    return message->upgrade_only || http_is_websocket(message);
}
bool h2_write_request(struct h2_list *list, const struct http_message *message, struct bytes scheme,
                      bool end);
/* 101 is said as 200. */
bool h2_write_response(struct h2_list *list, const struct http_message *message);
bool h2_write_trailers(struct h2_list *list, const struct http_fields *trailers);

#endif
