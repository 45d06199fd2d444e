/* ktls.h: TLS records made by the kernel of what is sent (Documentation/networking/tls.rst).
 *
 * From ktls_start on whatever is written to the socket, also by splice(2), leaves it encrypted. Who
 * made the records until then must have written the last of them to the socket; there is no way
 * back, and no second start with other keys (before Linux 6.14). Receiving is not touched.
 *
 * The kernel may take bytes and be left with an encrypted record, or a part of one, for which the
 * socket has no room. It goes out when there is some; but a FIN would go before it, and close(2)
 * forgets it (net/tls/tls_sw.c, tls_sw_release_resources_tx). So before either: ktls_is_sent.
 *
 * MSG_WAITALL is refused on such a socket (-EOPNOTSUPP).
 */
#ifndef WEIR_NET_KTLS_H
#define WEIR_NET_KTLS_H

#include "base/bytes.h"

/* One socket whose sending the kernel encrypts. */
struct ktls {
    uint64_t written;  /* bytes in the stream of TCP before */
    uint64_t plain;    /* bytes that the owner had sent before, by its own count */
    uint64_t said;     /* bytes of ktls_say */
    uint64_t records;  /* the first one's number */
    uint32_t overhead; /* what a record adds */
    uint32_t keys_size;
};

/* Whether the kernel has it; as root this loads its module. */
bool ktls_probe(void);

/* 0, or -errno: the socket goes on as it was. `keys`: as TLS_TX takes them (linux/tls.h). `plain`:
 * how many bytes the owner has sent on it so far. */
int ktls_start(struct ktls *ktls, int fd, struct bytes keys, uint64_t plain);
/* A record of another type than data: an alert. 0 or -errno; -EAGAIN: there is no room yet. */
int ktls_say(struct ktls *ktls, int fd, uint8_t type, struct bytes bytes);
/* After splice(2) has found no room. What was given by it a moment ago may be ready and yet not on
 * its way: TCP was told that more is coming (MSG_SENDPAGE_NOTLAST), and TLS found no room for it
 * before TCP could see that. Nothing would ever make room then (seen on 6.1). */
void ktls_push(int fd);
/* Whether the kernel holds nothing back; `plain` as above. True as well where nothing can be known:
 * the connection is broken then. */
bool ktls_is_sent(const struct ktls *ktls, int fd, uint64_t plain);

#endif
