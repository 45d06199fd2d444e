/* hash_key.h: the number by which a consistent balancer (uses_hash) takes a request
 * or a connection: balance_pick.hash. */
#ifndef WEIR_PROXY_HASH_KEY_H
#define WEIR_PROXY_HASH_KEY_H

#include "config/config.h"
#include "proto/http.h"

/* The hash of upstream->hash_key in `request`: call it before the request is rewritten. A request
 * that has no such field or cookie, or an empty one, is taken by its client's address: otherwise
 * all of those would go to one server. balance = source_ip takes all by the address. `client_ip` is
 * text without port. Without a request (NULL), the key is client_ip. */
uint64_t hash_key(const struct config_upstream *upstream, const struct http_message *request,
                  struct bytes client_ip);

#endif
