/* tunnel_ws.h: a tunnel whose bytes are WebSocket frames, checked as they pass (RFC 6455).
 *
 * Bytes go through as they are, as in tunnel.h, but a frame's header and control frames are held
 * back until they are known to be good. Since it knows where frames end, weir can put in its own:
 *
 * violation: a Close with its code to who broke the rule, one with 1001 to the other, then the end
 *
 * drain: a Close with 1001 to both; the end when both have answered, or gone
 *
 * ping: to both when nothing has come for ping_ms; pongs that answer go no further, and an end that
 * says nothing at all for as long again, and reads nothing, is gone
 *
 * A frame of weir's own goes out only where the other side's frames let it; where one of them is
 * cut short, the end alone tells. Behind a Close nothing passes any more.
 */
#ifndef WEIR_PROXY_TUNNEL_WS_H
#define WEIR_PROXY_TUNNEL_WS_H

#include "base/list.h"
#include "base/slab.h"
#include "proto/ws.h"
#include "proxy/tunnel.h"

struct net;

/* Those of one worker. */
struct tunnel_ws_room {
    struct net *net;
    struct slab slots;
    struct ws_room frames;
    struct list tunnels;
    bool draining;
};

struct tunnel_ws_options {
    uint64_t message_max; /* bytes, 0: no limit */
    uint64_t ping_ms;     /* 0: off */
    uint64_t idle_ms;     /* as in tunnel_start */
};

/* 0 or -ENOMEM. `count`: how many tunnels there can be; 0: none is ever started. */
int tunnel_ws_room_init(struct tunnel_ws_room *room, struct net *net, uint32_t count);
void tunnel_ws_room_fini(struct tunnel_ws_room *room);

/* In place of tunnel_start. Ends by tunnel->on_end, never from within. */
void tunnel_ws_start(struct tunnel *tunnel, struct tunnel_ws_room *room,
                     const struct tunnel_ws_options *options);
/* Closes all tunnels, and those that are still to begin. */
void tunnel_ws_drain(struct tunnel_ws_room *room);

#endif
