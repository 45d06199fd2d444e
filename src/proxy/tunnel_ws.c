#include "proxy/tunnel_ws.h"

#include "base/check.h"
#include "base/wheel.h"
#include "net/net.h"

#include <openssl/rand.h>

/* Both have closed: so long they get to end their side of the connection, too. */
#define TUNNEL_WS_END_MS 1000

/* One end of the tunnel. Its stream's user is the tunnel_ws. */
struct tunnel_ws_side {
    struct stream *stream;
    struct ws_parser parser; /* of what it sends */
    uint64_t ping; /* what the last one to it said; 0: its pong has come, or none was sent */
    bool silent;   /* nothing has come since */
    bool paused;   /* by us: the other side is slow */
    bool closed;   /* it has sent its Close, or its end: nothing behind it passes */
    bool told;     /* it was sent a Close: nothing else follows */
    bool ended;    /* its stream was given its end */
    bool lost;     /* its stream is reset */
    uint8_t held_len;
    char held[WS_CONTROL_SIZE_MAX]; /* what has come of a frame that is not judged yet */
};

struct tunnel_ws {
    struct list link; /* in room->tunnels */
    struct tunnel *tunnel;
    struct tunnel_ws_room *room;
    uint64_t ping_ms;
    uint64_t idle_ms;
    uint64_t moved_ms; /* when something last came */
    struct wheel_timer timer;
    bool draining;
    bool ending; /* both have closed, and were told the end */
    struct tunnel_ws_side client;
    struct tunnel_ws_side upstream;
};

int tunnel_ws_room_init(struct tunnel_ws_room *room, struct net *net, uint32_t count) {
    room->net = net;
    room->draining = false;
    list_init(&room->tunnels);
    ws_room_init(&room->frames);
    int error = slab_init(&room->slots, "tunnel_ws", sizeof(struct tunnel_ws), count);
    if (error == 0) net_add_slab(net, &room->slots);
    return error;
}

void tunnel_ws_room_fini(struct tunnel_ws_room *room) {
    if (room->net) CHECK(list_empty(&room->tunnels));
    slab_fini(&room->slots);
    ws_room_fini(&room->frames);
}

static bool is_client(const struct tunnel_ws *ws, const struct tunnel_ws_side *side) {
    return side == &ws->client;
}

static struct tunnel_ws_side *other_side(struct tunnel_ws *ws, const struct tunnel_ws_side *side) {
    return is_client(ws, side) ? &ws->upstream : &ws->client;
}

/* Whether a frame of weir's own may go to this side now. */
static bool may_tell(struct tunnel_ws *ws, const struct tunnel_ws_side *side) {
    return !side->told && !side->ended && !side->lost &&
           !ws_in_frame(&other_side(ws, side)->parser);
}

/* Its pong may have come long ago: the time it has to say something begins anew. */
static void read_again(struct tunnel_ws *ws, struct tunnel_ws_side *side) {
    if (!side->paused) return;
    side->paused = false;
    ws->moved_ms = ws->room->net->now_ms;
    if (!side->lost) side->stream->ops->resume(side->stream);
}

static void tell_close(struct tunnel_ws *ws, struct tunnel_ws_side *side, enum ws_code code) {
    char frame[WS_CONTROL_SIZE_MAX];
    if (!may_tell(ws, side)) return;
    size_t size = ws_write_close(frame, code, !is_client(ws, side));
    /* Full or not: it is the last. */
    (void)side->stream->ops->data(side->stream, bytes_make(frame, size), NULL, false);
    side->told = true;
    /* Nothing else goes to it, so nobody has to wait for it to read. */
    read_again(ws, other_side(ws, side));
}

static void end_side(struct tunnel_ws_side *side) {
    if (side->ended || side->lost) return;
    side->ended = true;
    side->stream->ops->end(side->stream, NULL);
}

/* Gives the slot back and tells the owner: `ws` must not be touched afterwards. */
static void tunnel_ws_end(struct tunnel_ws *ws, enum reason reason) {
    struct tunnel *tunnel = ws->tunnel;
    struct tunnel_ws_room *room = ws->room;
    tunnel->upstream_told = ws->upstream.told && ws->upstream.ended && !ws->upstream.lost;
    ws_parser_fini(&ws->client.parser);
    ws_parser_fini(&ws->upstream.parser);
    wheel_disarm(&room->net->wheel, &ws->timer);
    list_remove(&ws->link);
    slab_release(&room->slots, ws);
    tunnel->on_end(tunnel, reason);
}

static enum reason tunnel_ws_end_reason(const struct tunnel_ws *ws) {
    return ws->draining ? REASON_DRAINED : REASON_NONE;
}

/* The tunnel cannot go on: `side` is told `code` (0: nothing), the other one that it has gone. */
static void tunnel_ws_fail(struct tunnel_ws *ws, struct tunnel_ws_side *side, unsigned code,
                           enum reason reason) {
    struct tunnel_ws_side *other = other_side(ws, side);
    /* Who had nothing more to say or to hear may end as it likes. */
    if (ws->ending) reason = tunnel_ws_end_reason(ws);
    if (code != 0) tell_close(ws, side, (enum ws_code)code);
    tell_close(ws, other, WS_CODE_GOING_AWAY);
    /* Without a Close an orderly end would look like more than it is: those are reset. */
    if (side->told) end_side(side);
    if (other->told) end_side(other);
    tunnel_ws_end(ws, reason);
}

/* Both have said their last word: whoever waits for the end of the connection gets it (RFC 6455
 * section 7.1.1), and some time to end its own side. */
static void tunnel_ws_check_end(struct tunnel_ws *ws) {
    struct net *net = ws->room->net;
    if (ws->draining && !ws->ending) {
        /* Who has closed already gets the other one's answer. */
        if (!ws->client.closed) tell_close(ws, &ws->client, WS_CODE_GOING_AWAY);
        if (!ws->upstream.closed) tell_close(ws, &ws->upstream, WS_CODE_GOING_AWAY);
    }
    if (!ws->client.closed || !ws->upstream.closed) return;
    if (!ws->ending) {
        ws->ending = true;
        end_side(&ws->client);
        end_side(&ws->upstream);
        wheel_arm(&net->wheel, &ws->timer, net->now_ms + TUNNEL_WS_END_MS);
    }
    bool both = ws->tunnel->client_ended && ws->tunnel->upstream_ended;
    if (both) tunnel_ws_end(ws, tunnel_ws_end_reason(ws));
}

/* From one side to the other. lease NULL: what was held. */
static void pass(struct tunnel_ws *ws, struct tunnel_ws_side *from, struct bytes bytes,
                 struct lease *lease) {
    struct tunnel_ws_side *to = other_side(ws, from);
    if (bytes.len == 0 || to->told || to->ended || to->lost) return;
    if (to->stream->ops->data(to->stream, bytes, lease, false) != STREAM_FULL || from->paused)
        return;
    from->paused = true;
    from->stream->ops->pause(from->stream);
}

static void pass_held(struct tunnel_ws *ws, struct tunnel_ws_side *from) {
    pass(ws, from, bytes_make(from->held, from->held_len), NULL);
    from->held_len = 0;
}

static bool is_own_pong(const struct tunnel_ws_side *side) {
    const struct ws_parser *parser = &side->parser;
    return parser->opcode == WS_PONG && side->ping != 0 &&
           parser->control_size == sizeof side->ping &&
           memcmp(parser->control, &side->ping, sizeof side->ping) == 0;
}

/* A received buffer on its way: what of it has been dealt with, and what has been read. */
struct tunnel_ws_piece {
    struct bytes bytes;
    struct lease *lease;
    size_t done;
    size_t read;
};

/* The frame under way began in this piece here; what was held of it came before. */
static size_t frame_start(const struct tunnel_ws_side *from, const struct tunnel_ws_piece *piece) {
    CHECK(from->parser.undecided >= from->held_len);
    size_t here = from->parser.undecided - from->held_len;
    CHECK(here <= piece->read - piece->done);
    return piece->read - here;
}

static void pass_until(struct tunnel_ws *ws, struct tunnel_ws_side *from,
                       struct tunnel_ws_piece *piece, size_t until) {
    pass(ws, from, bytes_slice(piece->bytes, piece->done, until - piece->done), piece->lease);
    piece->done = until;
}

static void take_control(struct tunnel_ws *ws, struct tunnel_ws_side *from,
                         struct tunnel_ws_piece *piece) {
    size_t start = frame_start(from, piece);
    bool is_close = from->parser.opcode == WS_CLOSE;
    if (is_own_pong(from)) {
        pass_until(ws, from, piece, start);
        piece->done = piece->read;
        from->ping = 0;
        from->held_len = 0;
        return;
    }
    pass_held(ws, from);
    if (!is_close) return;
    pass_until(ws, from, piece, piece->read);
    from->closed = true;
    other_side(ws, from)->told = true; /* by this one, or before */
}

/* Keeps what has come of a frame that is not judged yet: it goes with the rest, or never. */
static void hold(struct tunnel_ws *ws, struct tunnel_ws_side *from, struct tunnel_ws_piece *piece) {
    size_t start = frame_start(from, piece);
    size_t len = piece->read - start;
    pass_until(ws, from, piece, start);
    CHECK(from->held_len + len <= sizeof from->held);
    memcpy(from->held + from->held_len, piece->bytes.ptr + start, len);
    from->held_len = (uint8_t)(from->held_len + len);
}

static void tunnel_ws_take(struct tunnel_ws *ws, struct tunnel_ws_side *from,
                           struct tunnel_ws_piece *piece) {
    while (!from->closed) {
        size_t used;
        struct bytes rest = bytes_slice(piece->bytes, piece->read, SIZE_MAX);
        enum ws_event event = ws_read(&from->parser, rest, &used);
        piece->read += used;
        switch (event) {
        case WS_PASS:
            if (from->held_len != 0) pass_held(ws, from);
            break;
        case WS_CONTROL:
            take_control(ws, from, piece);
            break;
        case WS_MORE:
            hold(ws, from, piece);
            tunnel_ws_check_end(ws);
            return;
        case WS_BAD:
            pass_until(ws, from, piece, frame_start(from, piece));
            tunnel_ws_fail(ws, from, from->parser.code, from->parser.reason);
            return;
        }
    }
    tunnel_ws_check_end(ws);
}

static void tunnel_ws_on_data(struct tunnel_ws *ws, struct tunnel_ws_side *from, struct bytes data,
                              struct lease *lease) {
    ws->moved_ms = ws->room->net->now_ms;
    from->silent = false;
    if (from->closed) return; /* RFC 6455 section 5.5.1: nothing behind a Close counts */
    struct tunnel_ws_piece piece = {.bytes = data, .lease = lease};
    tunnel_ws_take(ws, from, &piece);
}

static void tunnel_ws_on_end(struct tunnel_ws *ws, struct tunnel_ws_side *from) {
    from->closed = true;
    /* Where a drain waits for the other side's answer, the end follows with it. */
    if (!ws->draining) end_side(other_side(ws, from));
    tunnel_ws_check_end(ws);
}

static void tunnel_ws_on_drained(struct tunnel_ws *ws, struct tunnel_ws_side *reader) {
    read_again(ws, other_side(ws, reader));
}

static void client_on_data(struct stream *stream, struct bytes data, struct lease *lease) {
    struct tunnel_ws *ws = stream->user;
    stat_add(ws->tunnel->stats, STAT_TUNNEL_BYTES_TO_UPSTREAM, data.len);
    tunnel_ws_on_data(ws, &ws->client, data, lease);
}

static void upstream_on_data(struct stream *stream, struct bytes data, struct lease *lease) {
    struct tunnel_ws *ws = stream->user;
    stat_add(ws->tunnel->stats, STAT_TUNNEL_BYTES_TO_CLIENT, data.len);
    tunnel_ws_on_data(ws, &ws->upstream, data, lease);
}

static void client_on_end(struct stream *stream, const struct http_fields *trailers) {
    (void)trailers; /* bytes have none */
    struct tunnel_ws *ws = stream->user;
    ws->tunnel->client_ended = true;
    tunnel_ws_on_end(ws, &ws->client);
}

static void upstream_on_end(struct stream *stream, const struct http_fields *trailers) {
    (void)trailers; /* bytes have none */
    struct tunnel_ws *ws = stream->user;
    ws->tunnel->upstream_ended = true;
    tunnel_ws_on_end(ws, &ws->upstream);
}

static void client_on_drained(struct stream *stream) {
    struct tunnel_ws *ws = stream->user;
    tunnel_ws_on_drained(ws, &ws->client);
}

static void upstream_on_drained(struct stream *stream) {
    struct tunnel_ws *ws = stream->user;
    tunnel_ws_on_drained(ws, &ws->upstream);
}

static void client_on_reset(struct stream *stream, enum reason reason) {
    struct tunnel_ws *ws = stream->user;
    ws->client.lost = true;
    tunnel_ws_fail(ws, &ws->client, 0, reason);
}

static void upstream_on_reset(struct stream *stream, enum reason reason) {
    struct tunnel_ws *ws = stream->user;
    ws->upstream.lost = true;
    tunnel_ws_fail(ws, &ws->upstream, 0, reason);
}

static uint64_t client_on_idle(struct stream *stream) {
    struct tunnel_ws *ws = stream->user;
    return tunnel_idle_ms(ws->upstream.stream);
}

static uint64_t upstream_on_idle(struct stream *stream) {
    struct tunnel_ws *ws = stream->user;
    return tunnel_idle_ms(ws->client.stream);
}

static const struct stream_events client_events = {
    .on_data = client_on_data,
    .on_end = client_on_end,
    .on_drained = client_on_drained,
    .on_reset = client_on_reset,
    .on_idle = client_on_idle,
};

static const struct stream_events upstream_events = {
    .on_data = upstream_on_data,
    .on_end = upstream_on_end,
    .on_drained = upstream_on_drained,
    .on_reset = upstream_on_reset,
    .on_idle = upstream_on_idle,
};

static void ping(struct tunnel_ws *ws, struct tunnel_ws_side *side) {
    char frame[WS_CONTROL_SIZE_MAX];
    /* One ping is under way at most. */
    if (side->closed || side->silent || !may_tell(ws, side)) return;
    /* What nobody else would have said. */
    if (RAND_bytes((unsigned char *)&side->ping, sizeof side->ping) != 1 || side->ping == 0)
        side->ping = ws->room->net->now_ns;
    struct bytes payload = bytes_make((const char *)&side->ping, sizeof side->ping);
    size_t size = ws_write_control(frame, WS_PING, payload, !is_client(ws, side));
    /* Few bytes, and no more until they are answered. */
    (void)side->stream->ops->data(side->stream, bytes_make(frame, size), NULL, false);
    side->silent = true;
}

/* When it counts as gone, unless something comes or it takes something. Of who is not read nothing
 * can be heard, and who reads slowly has not come to the ping yet. */
static uint64_t gone_ms(const struct tunnel_ws *ws, const struct tunnel_ws_side *side) {
    if (!side->silent || side->paused || side->closed) return UINT64_MAX;
    uint64_t idle_ms = tunnel_idle_ms(side->stream);
    uint64_t now_ms = ws->room->net->now_ms;
    return idle_ms < ws->ping_ms ? now_ms + ws->ping_ms - idle_ms : now_ms;
}

static bool is_gone(const struct tunnel_ws *ws, const struct tunnel_ws_side *side) {
    return gone_ms(ws, side) <= ws->room->net->now_ms;
}

/* Behind half a frame nobody can be asked: what passes between weir and the other end says nothing
 * of this one. */
static bool is_stuck(struct tunnel_ws *ws, const struct tunnel_ws_side *side) {
    bool asked = side->closed || side->told || !ws_in_frame(&other_side(ws, side)->parser);
    return !asked && tunnel_idle_ms(side->stream) >= ws->idle_ms;
}

static void tunnel_ws_on_timer(struct wheel_timer *timer, uint64_t now_ms) {
    struct tunnel_ws *ws = LIST_OWNER(timer, struct tunnel_ws, timer);
    struct wheel *wheel = &ws->room->net->wheel;
    if (ws->ending) {
        tunnel_ws_end(ws, tunnel_ws_end_reason(ws));
        return;
    }
    if (ws->moved_ms + ws->ping_ms > now_ms) {
        wheel_arm(wheel, timer, ws->moved_ms + ws->ping_ms);
    } else if (is_gone(ws, &ws->client)) {
        tunnel_ws_fail(ws, &ws->client, 0, REASON_WEBSOCKET_TIMEOUT);
    } else if (is_gone(ws, &ws->upstream)) {
        tunnel_ws_fail(ws, &ws->upstream, 0, REASON_WEBSOCKET_TIMEOUT);
    } else if (is_stuck(ws, &ws->client) || is_stuck(ws, &ws->upstream)) {
        tunnel_ws_fail(ws, &ws->client, 0, REASON_TUNNEL_TIMEOUT);
    } else {
        uint64_t next_ms = now_ms + ws->ping_ms;
        for (int i = 0; i < 2; i++) {
            struct tunnel_ws_side *side = i == 0 ? &ws->client : &ws->upstream;
            uint64_t asked_before_ms = gone_ms(ws, side);
            if (asked_before_ms < next_ms) next_ms = asked_before_ms;
            ping(ws, side);
        }
        wheel_arm(wheel, timer, next_ms);
    }
}

static void side_init(struct tunnel_ws_side *side, struct tunnel_ws *ws, struct stream *stream,
                      const struct tunnel_ws_options *options) {
    bool masked = is_client(ws, side);
    side->stream = stream;
    stream->events = masked ? &client_events : &upstream_events;
    stream->user = ws;
    ws_parser_init(&side->parser, &ws->room->frames, masked, options->message_max);
}

void tunnel_ws_start(struct tunnel *tunnel, struct tunnel_ws_room *room,
                     const struct tunnel_ws_options *options) {
    struct tunnel_ws *ws = slab_acquire(&room->slots);
    CHECK(ws); /* there are as many as tunnels */
    *ws = (struct tunnel_ws){.tunnel = tunnel,
                             .room = room,
                             .ping_ms = options->ping_ms,
                             .idle_ms = options->idle_ms,
                             .moved_ms = room->net->now_ms,
                             .draining = room->draining};
    list_init(&ws->link);
    list_push_back(&room->tunnels, &ws->link);
    wheel_timer_init(&ws->timer, tunnel_ws_on_timer);
    side_init(&ws->client, ws, tunnel->client, options);
    side_init(&ws->upstream, ws, tunnel->upstream, options);
    tunnel->upstream->ops->tunnel(tunnel->upstream, options->idle_ms);
    tunnel->client->ops->tunnel(tunnel->client, options->idle_ms);
    if (ws->ping_ms != 0) wheel_arm(&room->net->wheel, &ws->timer, ws->moved_ms + ws->ping_ms);
    tunnel_ws_check_end(ws);
}

void tunnel_ws_drain(struct tunnel_ws_room *room) {
    room->draining = true;
    LIST_FOR_EACH(node, &room->tunnels) {
        struct tunnel_ws *ws = LIST_OWNER(node, struct tunnel_ws, link);
        ws->draining = true;
        tunnel_ws_check_end(ws);
    }
}
