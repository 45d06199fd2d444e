#include "net/addr.h"

#include <arpa/inet.h>

/* Written by hand: it runs once for every connection, and inet_ntop goes through printf. */
static void addr_host_v4(const uint8_t *octets, struct writer *text) {
    for (int i = 0; i < 4; i++) {
        if (i != 0) writer_char(text, '.');
        writer_u64(text, octets[i]);
    }
}

static void addr_host_v6(const struct in6_addr *address, struct writer *text) {
    if (IN6_IS_ADDR_V4MAPPED(address)) {
        addr_host_v4(address->s6_addr + 12, text);
        return;
    }
    char host[INET6_ADDRSTRLEN];
    writer_put(text, bytes_of(inet_ntop(AF_INET6, address, host, sizeof host)));
}

void addr_host(const struct sockaddr *address, struct writer *text) {
    const void *any = address;
    if (address->sa_family == AF_INET) {
        addr_host_v4((const uint8_t *)&((const struct sockaddr_in *)any)->sin_addr, text);
    } else if (address->sa_family == AF_INET6) {
        addr_host_v6(&((const struct sockaddr_in6 *)any)->sin6_addr, text);
    } else {
        writer_put(text, BYTES("unix"));
    }
}

uint16_t addr_port(const struct sockaddr *address) {
    const void *any = address;
    if (address->sa_family == AF_INET) return ntohs(((const struct sockaddr_in *)any)->sin_port);
    if (address->sa_family == AF_INET6) return ntohs(((const struct sockaddr_in6 *)any)->sin6_port);
    return 0;
}
