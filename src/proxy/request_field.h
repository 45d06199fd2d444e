/* request_field.h: a field of a request by a name from the configuration, Host included.
 *
 * A session takes Host out of the fields (it is message->authority then); whoever writes "Host" in
 * the configuration does not know that.
 */
#ifndef WEIR_PROXY_REQUEST_FIELD_H
#define WEIR_PROXY_REQUEST_FIELD_H

#include "proto/http.h"

/* The first value; ptr NULL when there is no such field. No case. */
struct bytes request_field(const struct http_message *request, struct bytes name);

#endif
