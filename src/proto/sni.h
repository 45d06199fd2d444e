/* sni.h: the name in a TLS ClientHello, read without answering it: for whoever passes TLS on to the
 * server that is meant.
 *
 * Records (RFC 8446 section 5.1), the handshake message in them (4.1.2) and its server_name
 * extension (RFC 6066 section 3). Nothing is verified that does not lead to the name. Without
 * state: it is given all bytes from the first one on, again when more have come.
 */
#ifndef WEIR_PROTO_SNI_H
#define WEIR_PROTO_SNI_H

#include "base/bytes.h"

#define SNI_SIZE_MAX 255

enum sni_result {
    SNI_MORE, /* it may still be a ClientHello */
    SNI_NAME, /* *name is set */
    SNI_NONE, /* a ClientHello without a name */
    SNI_BAD   /* not a ClientHello */
};

/* A name as it was sent, without dot at its end: letters, digits, "-", "_" and "." only. In
 * `memory`. */
enum sni_result sni_find(struct bytes bytes, char memory[SNI_SIZE_MAX], struct bytes *name);

#endif
