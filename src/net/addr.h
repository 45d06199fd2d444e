/* addr.h: socket addresses: as text, and in the room that a connection has for them. */
#ifndef WEIR_NET_ADDR_H
#define WEIR_NET_ADDR_H

#include "base/bytes.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define ADDR_TEXT_MAX 64

/* One end of a connection. Of a unix socket there is only the family. */
union addr {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Both ends of a client's connection, seen from the client. */
struct addr_pair {
    union addr source;
    union addr destination;
};

/* The host part without port or brackets (inet_ntop(3)); an IPv4-mapped IPv6 address as IPv4;
 * "unix" for unix sockets. */
void addr_host(const struct sockaddr *address, struct writer *text);
/* Host byte order; 0 for unix sockets. */
uint16_t addr_port(const struct sockaddr *address);

#endif
