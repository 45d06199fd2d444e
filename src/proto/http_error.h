/* http_error.h: the answer that tells a client why weir itself ends its request. */
#ifndef WEIR_PROTO_HTTP_ERROR_H
#define WEIR_PROTO_HTTP_ERROR_H

#include "base/reason.h"
#include "proto/http.h"

/* A short text body, Content-Type and Proxy-Status (RFC 9209), Retry-After for 503 and 429.
 * `reason` must have a status. Fields and body are in `arena` or static. false when the arena is at
 * its limit. */
bool http_error_answer(enum reason reason, struct arena *arena, struct http_message *answer,
                       struct bytes *body);
/* Appends its Proxy-Status alone. */
bool http_add_proxy_status(enum reason reason, struct arena *arena, struct http_fields *fields);

#endif
