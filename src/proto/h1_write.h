/* h1_write.h: HTTP/1.1 messages as bytes (RFC 9112). Puts in what belongs to the connection:
 * framing, Host, Connection, Upgrade.
 *
 * Writers stop with `full` set; the caller gives more room and starts again. Names and values come
 * from parsed or configured fields, valid by construction.
 */
#ifndef WEIR_PROTO_H1_WRITE_H
#define WEIR_PROTO_H1_WRITE_H

#include "proto/h1_parse.h"

/* How the sender frames the message and what it says of the connection. */
struct h1_framing {
    enum h1_body_kind body_kind;
    uint64_t body_length; /* as in http_message */
    /* One at most is said, the first that applies: upgrade, close, keep-alive. */
    bool upgrade;        /* "Connection: upgrade" and "Upgrade: <message->upgrade>" */
    bool keep_alive;     /* false: "Connection: close" */
    bool say_keep_alive; /* "Connection: keep-alive", for HTTP/1.0 clients */
    /* A HEAD answer or 304: write Content-Length though no body follows (body_kind NONE;
     * body_length set, or HTTP_LENGTH_UNKNOWN: not written). */
    bool length_is_known;
};

/* How many bytes the head can take at most: room to reserve. */
size_t h1_head_size_max(const struct http_message *message);
/* origin-form (asterisk-form for "*", authority-form for CONNECT), Host first. Always HTTP/1.1.
 * POST, PUT and PATCH without a body say "Content-Length: 0". A TE field gets its Connection
 * option. */
void h1_write_request(struct writer *w, const struct http_message *message,
                      const struct h1_framing *framing);
/* Always HTTP/1.1. For 1xx no framing and no Connection is written, but the upgrade of 101. For 204
 * never Content-Length. body_kind NONE with a status that may have a body writes "Content-Length:
 * 0", unless body_length is HTTP_LENGTH_UNKNOWN (HEAD without a length, 2xx to CONNECT).
 * UNTIL_CLOSE writes no framing. */
void h1_write_response(struct writer *w, const struct http_message *message,
                       const struct h1_framing *framing);
/* "<hex>\r\n"; at most H1_CHUNK_HEAD_MAX bytes. The caller adds the data and "\r\n". */
#define H1_CHUNK_HEAD_MAX 18
void h1_write_chunk_head(struct writer *w, uint64_t size);
/* "0\r\n", trailers if any (NULL allowed), "\r\n". */
void h1_write_last_chunk(struct writer *w, const struct http_fields *trailers);

#endif
