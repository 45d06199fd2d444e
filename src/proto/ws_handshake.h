/* ws_handshake.h: what proves in HTTP/1.1 that both ends mean WebSocket (RFC 6455 sections 1.3, 4).
 *
 * HTTP/2 has no such proof (RFC 8441 section 5): a session of HTTP/1.1 makes it, or checks it, when
 * the other side of an exchange does not.
 */
#ifndef WEIR_PROTO_WS_HANDSHAKE_H
#define WEIR_PROTO_WS_HANDSHAKE_H

#include "base/bytes.h"

#define WS_KEY_SIZE 24
#define WS_ACCEPT_SIZE 28

/* Whether it is the base64 of 16 bytes. */
bool ws_key_valid(struct bytes key);
/* A new key; false when the system gives no random bytes. */
bool ws_key_make(char key[WS_KEY_SIZE]);
/* The Sec-WebSocket-Accept that answers a key. */
void ws_accept_of(const char key[WS_KEY_SIZE], char accept[WS_ACCEPT_SIZE]);

#endif
