/* addr.h: socket addresses as text. */
#ifndef WEIR_NET_ADDR_H
#define WEIR_NET_ADDR_H

#include "base/bytes.h"

#include <sys/socket.h>

#define ADDR_TEXT_MAX 64

/* The host part without port or brackets (inet_ntop(3)); an IPv4-mapped IPv6 address as IPv4;
 * "unix" for unix sockets. */
void addr_host(const struct sockaddr_storage *address, struct writer *text);
/* Host byte order; 0 for unix sockets. */
uint16_t addr_port(const struct sockaddr_storage *address);

#endif
