/* pp.h: the PROXY protocol, versions 1 and 2, read and written (haproxy's proxy-protocol.txt,
 * sections 2.1 and 2.2): the header a proxy puts before the first byte of a connection, to say
 * whose connection it carries.
 *
 * Codec without I/O: bytes in, a header out. Any split of the input gives the same result. TLVs are
 * skipped, but for the checksum, which is verified where it is present.
 */
#ifndef WEIR_NET_PP_H
#define WEIR_NET_PP_H

#include "base/reason.h"
#include "net/addr.h"

/* The longest line of version 1, CR LF included, and the most that pp_write writes. */
#define PP_V1_SIZE_MAX 107
/* The longest header taken. Version 2 could announce 64 KB; its text says that a header is always
 * smaller than an MSS, and this is Ethernet's. It leaves 1228 bytes of TLVs to the largest address
 * block. */
#define PP_SIZE_MAX 1460

/* Sets of versions. */
#define PP_V1 1u
#define PP_V2 2u

enum pp_result { PP_DONE, PP_MORE, PP_BAD };

struct pp_header {
    /* DONE. */
    struct addr_pair ends; /* valid if has_ends */
    bool has_ends;         /* false: LOCAL, UNKNOWN and the like: those of the socket hold */
    uint32_t size;         /* bytes of the header */
    /* BAD: PROXY_HEADER_MALFORMED, or PROXY_HEADER_VERSION for one that is not in `versions`. */
    enum reason reason;
};

/* Reads the header at the start of `input`. */
enum pp_result pp_parse(struct bytes input, unsigned versions, struct pp_header *header);

/* A header that comes in pieces. Only `len` needs to be set, to 0. */
struct pp_reader {
    uint32_t len;
    char text[PP_SIZE_MAX];
};
/* The next piece. On DONE *input is what stands behind the header. */
enum pp_result pp_read(struct pp_reader *reader, unsigned versions, struct bytes *input,
                       struct pp_header *header);

/* The header that tells of `ends` in version 1 or 2; NULL, or ends that are no IP addresses:
 * UNKNOWN or LOCAL. Ends that are, or map, IPv4 both are written as such; one of each as IPv6.
 * `text` has PP_V1_SIZE_MAX bytes of room. */
void pp_write(struct writer *text, unsigned version, const struct addr_pair *ends);

#endif
