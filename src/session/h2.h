/* h2.h: what a session of HTTP/1 hands over to HTTP/2 on the same connection, and the room's part
 * for HTTP/2. */
#ifndef WEIR_SESSION_H2_H
#define WEIR_SESSION_H2_H

#include "session/session.h"

/* A client's first line, when it speaks HTTP/2 without asking (RFC 9113 section 3.3). */
#define H2_PREFACE_LINE "PRI * HTTP/2.0\r\n"

/* Takes the connection of `from`, which has read exactly H2_PREFACE_LINE, and its host with its
 * user; `from` has no connection then, and tells its host nothing more. `rest` is what follows in
 * `lease`, which is borrowed. False: no memory, and nothing has changed. */
bool h2_take_over(struct session *from, struct bytes rest, struct lease *lease);

/* Likewise of a session that has read a request which asks for h2c (RFC 7540 section 3.2): it
 * becomes stream 1, built from `parser` and its `head`, and the client is told by 101. What follows
 * the head goes to h2_feed. NULL: no memory, or the settings are malformed: nothing has changed. */
struct session *h2_take_upgrade(struct session *from, const struct h1_parser *parser,
                                struct bytes head, struct bytes settings);
/* `bytes` lie in `lease`, which is borrowed. */
void h2_feed(struct session *session, struct bytes bytes, struct lease *lease);

/* 0 or -ENOMEM. */
int h2_room_init(struct session_room *room, const struct session_room_options *options);
void h2_room_fini(struct session_room *room);

/* What nghttp2 has for all sessions of the room, and may have at most: by any thread. */
struct h2_room_memory {
    uint64_t used; /* bytes */
    uint64_t max;
    uint32_t sessions; /* how many there may be, of H2_SESSION_MEMORY at most */
    uint32_t streams;
    uint64_t stream_size; /* bytes of one at most */
};
struct h2_room_memory h2_room_memory(const struct session_room *room);

#endif
