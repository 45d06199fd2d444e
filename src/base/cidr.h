/* cidr.h: sets of addresses as a network and the length of its prefix (RFC 4632, RFC 4291
 * section 2.3).
 *
 * Plain values, no state, any thread. An IPv4-mapped IPv6 address is its IPv4 address here, so
 * "10.0.0.0/8" also has ::ffff:10.1.2.3, and "::/0" has no IPv4 address at all.
 */
#ifndef WEIR_BASE_CIDR_H
#define WEIR_BASE_CIDR_H

#include "base/bytes.h"

#include <sys/socket.h>

struct cidr {
    uint16_t family; /* AF_INET, AF_INET6; AF_UNIX: every unix socket */
    uint8_t bits;    /* of the prefix */
    uint8_t bytes[16];
};

struct cidr_list {
    struct cidr *items;
    uint32_t count;
};

/* "10.0.0.0/8", "2001:db8::/32", an address alone (its only member), or "unix:". */
bool cidr_parse(struct bytes text, struct cidr *cidr);
/* Clears what stands behind the prefix; false when there was nothing. */
bool cidr_trim(struct cidr *cidr);
/* As cidr_parse reads it, always with its prefix. */
void cidr_write(const struct cidr *cidr, struct writer *text);

bool cidr_list_has(const struct cidr_list *list, const struct sockaddr *address);
/* Of an address as text, without port; "unix" is that of a unix socket. What is no address is in no
 * list. */
bool cidr_list_has_text(const struct cidr_list *list, struct bytes address);

#endif
