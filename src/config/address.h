/* address.h: from an address in a file to one for bind(2) or connect(2). */
#ifndef WEIR_CONFIG_ADDRESS_H
#define WEIR_CONFIG_ADDRESS_H

#include "config/config.h"
#include "config/memory.h"

/* "HOST:PORT" with an IPv4 address, an IPv6 address in brackets or a name (getaddrinfo(3), the
 * first answer), or "unix:/path". Names are asked once, here, and may block. false and a sentence
 * in `why`. */
bool address_resolve(struct bytes text, struct memory *memory, struct config_address *address,
                     struct writer *why);
/* The host of an address that could be resolved, as it stands there, without port and brackets;
 * NULL for a unix socket. */
char *address_host(struct bytes text, struct memory *memory);
bool address_equal(const struct config_address *a, const struct config_address *b);
/* Whether `all` is 0.0.0.0 or [::] with the port and the family of `one`, which is another address.
 */
bool address_covers(const struct config_address *all, const struct config_address *one);

#endif
