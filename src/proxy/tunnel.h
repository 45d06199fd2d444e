/* tunnel.h: bytes both ways between two streams, after an Upgrade or a CONNECT.
 *
 * Each direction ends by itself (half-close is passed on); the tunnel is over when both have, or
 * when one stream is reset: the other is then reset as well. A slow reader stops the reading of the
 * other side.
 */
#ifndef WEIR_PROXY_TUNNEL_H
#define WEIR_PROXY_TUNNEL_H

#include "base/stat.h"
#include "session/stream.h"

struct tunnel {
    struct stream *client;
    struct stream *upstream;
    struct stat_block *stats;
    bool client_ended; /* no more bytes come from the client */
    bool upstream_ended;
    bool upstream_told; /* the server's side has been ended in order: its stream closes well */
    /* Both streams are still open: the owner closes them with `reason`. */
    void (*on_end)(struct tunnel *tunnel, enum reason reason);
};

/* How long ago something moved at this end: bytes that it still takes in, slowly, keep the other
 * one waiting rightly. UINT64_MAX where it does not say. */
uint64_t tunnel_idle_ms(struct stream *stream);

/* Takes both streams over: their events and user. All fields but the ended ones are set by the
 * caller. */
void tunnel_start(struct tunnel *tunnel, uint64_t idle_ms);

#endif
