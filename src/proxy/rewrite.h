/* rewrite.h: what a proxy changes in a message: Via, X-Forwarded-* or Forwarded, strip_prefix,
 * edits, templates.
 *
 * All new text goes to the arena given. Functions return false when the arena is at its limit; the
 * message may then be half changed and the exchange ends with REASON_NO_MEMORY.
 */
#ifndef WEIR_PROXY_REWRITE_H
#define WEIR_PROXY_REWRITE_H

#include "config/config.h"
#include "proto/http.h"
#include "proto/tls.h"

/* What variables can name; unknown pieces are BYTES_NONE. */
struct rewrite_facts {
    const struct http_message *request; /* as received */
    struct bytes client_ip; /* text, without port and brackets; "unix" for unix sockets */
    uint16_t client_port;
    struct bytes original_path; /* before strip_prefix */
    const char *listener;
    const char *route;    /* "" when none */
    const char *upstream; /* "" when none */
    const char *server;
    const struct tls *tls; /* of the client's connection; NULL: in clear */
    int status;            /* 0 while unknown */
    uint64_t request_id;   /* printed as 16 hex digits */
};

/* Expands a template into the arena. */
bool rewrite_expand(const struct template *template, const struct rewrite_facts *facts,
                    struct arena *arena, struct bytes *text);
/* For a request that goes to an upstream: Via ("1.1 weir", RFC 9110 section 7.6.3), client address
 * fields by listener->forwarded, route's strip_prefix and request edits (route may be NULL). An
 * edit that sets Host changes request->authority.
 *
 * X-Forwarded-For is appended to, -Proto and -Host are replaced; RFC 7239 Forwarded is appended to,
 * IPv6 quoted. With listener->trusted -Proto and -Host from one of those stay, and of others every
 * X-Forwarded-* and Forwarded received goes before ours comes. */
bool rewrite_request(struct http_message *request, const struct config_listener *listener,
                     const struct config_route *route, const struct rewrite_facts *facts,
                     struct arena *arena);
/* For a response that goes to the client: Via, response edits. Not for 1xx. */
bool rewrite_response(struct http_message *response, const struct config_listener *listener,
                      const struct config_route *route, const struct rewrite_facts *facts,
                      struct arena *arena);

#endif
