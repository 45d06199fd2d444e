/* h2_guard.c: what the other side makes an HTTP/2 session do for nothing, counted and bounded. */
#include "session/h2_guard.h"

/* Header sections of so many times the limits are no mistake. */
#define H2_BOMB_FACTOR 4
/* Frames without data that may wait to be sent: of each stream its head, its end, its windows; and
 * what else is answered, of which nghttp2 itself bounds acknowledgements. */
#define H2_FRAMES_PER_STREAM 4
#define H2_FRAMES_SPARE 4000
/* Who reads so little at a time may open windows for it each time. */
#define H2_WINDOW_PIECE 64

static const enum stat_id flood_stats[H2_FLOOD_COUNT] = {
    [H2_FLOOD_RAPID_RESET] = STAT_H2_FLOOD_RAPID_RESET,
    [H2_FLOOD_MADE_RESET] = STAT_H2_FLOOD_MADE_RESET,
    [H2_FLOOD_CONTINUATION] = STAT_H2_FLOOD_CONTINUATION,
    [H2_FLOOD_SETTINGS] = STAT_H2_FLOOD_SETTINGS,
    [H2_FLOOD_PING] = STAT_H2_FLOOD_PING,
    [H2_FLOOD_EMPTY_DATA] = STAT_H2_FLOOD_EMPTY_DATA,
    [H2_FLOOD_PRIORITY] = STAT_H2_FLOOD_PRIORITY,
    [H2_FLOOD_WINDOW_UPDATE] = STAT_H2_FLOOD_WINDOW_UPDATE,
    [H2_FLOOD_HPACK] = STAT_H2_FLOOD_HPACK,
    [H2_FLOOD_ZERO_WINDOW] = STAT_H2_FLOOD_ZERO_WINDOW,
    [H2_FLOOD_CLOSED] = STAT_H2_FLOOD_CLOSED,
};

void h2_guard_end(struct h2 *h2, enum h2_flood_kind kind) {
    if (h2_is_deaf(h2)) return;
    stat_add(h2_net(h2)->stats, flood_stats[kind], 1);
    enum reason reason = h2->session.is_client ? REASON_H2_FLOOD : REASON_SERVER_FLOOD;
    h2_fail(h2, reason, NGHTTP2_ENHANCE_YOUR_CALM);
}

void h2_flood(struct h2 *h2, enum h2_flood_kind kind) {
    const struct h2_flood_limits *limits = &h2->session.options->h2_flood;
    if (h2_flood_note(&h2->flood, limits, kind, h2_net(h2)->now_ms)) h2_guard_end(h2, kind);
}

void h2_guard_request(struct h2 *h2) {
    h2_flood_allow(&h2->flood, H2_FLOOD_CLOSED, 2); /* trailers and a reset may cross its end */
    if (h2->session.is_client) return;
    h2_flood_allow(&h2->flood, H2_FLOOD_WINDOW_UPDATE, 4);
    h2_flood_allow(&h2->flood, H2_FLOOD_PING, 1);
    h2_flood_allow(&h2->flood, H2_FLOOD_EMPTY_DATA, 1);
}

void h2_guard_sent(struct h2 *h2, size_t bytes) {
    h2_flood_save(&h2->flood, H2_FLOOD_WINDOW_UPDATE, 4 + (uint32_t)bytes / H2_WINDOW_PIECE);
}

/* However small on the wire: no client needs it, and it would go on. */
void h2_guard_head(struct h2 *h2, const struct h2_head *head) {
    if (head->size <= (uint64_t)H2_BOMB_FACTOR * head->limits.head_size_max &&
        head->count <= (uint64_t)H2_BOMB_FACTOR * head->limits.fields_max) {
        return;
    }
    h2_guard_end(h2, H2_FLOOD_HPACK);
}

/* Of a stream that has ended, or was never taken. After a GOAWAY no other begins. */
static bool h2_is_closed(struct h2 *h2, int32_t id) {
    bool begins = h2->session.is_client && !h2->drain_said &&
                  id > nghttp2_session_get_last_proc_stream_id(h2->ng);
    return !begins && !h2_find(h2, id);
}

void h2_guard_free(struct h2 *h2, int32_t id) {
    int32_t window = nghttp2_session_get_stream_local_window_size(h2->ng, id);
    if (window <= 0 || nghttp2_session_get_stream_remote_close(h2->ng, id) != 0) return;
    uint32_t bytes = h2->stray_free + (uint32_t)window;
    h2->stray_free = bytes < H2_CONNECTION_WINDOW ? bytes : H2_CONNECTION_WINDOW;
}

/* After a GOAWAY bodies come of requests that were too late, which is no doing of the client's. */
void h2_guard_strays(struct h2 *h2) {
    const struct h2_stray *stray = &h2->stray;
    if (stray->frames == 0 || h2->drain_said || !nghttp2_session_want_read(h2->ng)) return;
    if (stray->bytes != 0 && stray->bytes <= h2->stray_free) {
        h2->stray_free -= stray->bytes;
        return;
    }
    for (uint32_t i = 0; i < stray->frames && !h2_is_deaf(h2); i++)
        h2_flood(h2, H2_FLOOD_CLOSED);
}

/* By header block, not by time. Their length (RFC 9113 section 4.2) nghttp2 does not look at. */
static void h2_continue(struct h2 *h2, size_t length) {
    uint32_t max = h2->session.options->h2_flood.max[H2_FLOOD_CONTINUATION];
    enum reason of_side = h2->session.is_client ? REASON_H2_PROTOCOL : REASON_BAD_RESPONSE;
    if (length > nghttp2_session_get_local_settings(h2->ng, NGHTTP2_SETTINGS_MAX_FRAME_SIZE))
        h2_fail(h2, of_side, NGHTTP2_FRAME_SIZE_ERROR);
    if (++h2->continuations <= max || max == 0) return;
    h2_guard_end(h2, H2_FLOOD_CONTINUATION);
}

/* Every frame, before what is in it. The rest of what has come is not looked at any more when the
 * connection ends: it would make streams that nobody counts. */
int h2_guard_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *user) {
    struct h2 *h2 = user;
    (void)ng;
    if (h2_is_deaf(h2)) return NGHTTP2_ERR_CALLBACK_FAILURE;
    switch (hd->type) {
    case NGHTTP2_HEADERS:
        h2->continuations = 0;
        if (h2_is_closed(h2, hd->stream_id)) h2_flood(h2, H2_FLOOD_CLOSED);
        break;
    case NGHTTP2_DATA:
        if (hd->length == 0 && (hd->flags & NGHTTP2_FLAG_END_STREAM) == 0)
            h2_flood(h2, H2_FLOOD_EMPTY_DATA);
        h2_stray_told(&h2->stray, hd->length);
        break;
    case NGHTTP2_SETTINGS:
        h2_flood(h2, H2_FLOOD_SETTINGS);
        break;
    case NGHTTP2_PING:
        h2_flood(h2, H2_FLOOD_PING);
        break;
    case NGHTTP2_WINDOW_UPDATE:
        h2_flood(h2, H2_FLOOD_WINDOW_UPDATE);
        break;
    case NGHTTP2_CONTINUATION:
        h2_continue(h2, hd->length);
        break;
    case NGHTTP2_RST_STREAM: /* else it counts where an answer is still due: h2_on_rst */
        if (h2_is_closed(h2, hd->stream_id)) h2_flood(h2, H2_FLOOD_CLOSED);
        break;
    default: /* also GOAWAY: each has nghttp2 look at every stream */
        h2_flood(h2, H2_FLOOD_PRIORITY);
        break;
    }
    return 0;
}

/* What is answered to who reads nothing waits in nghttp2's memory, which all connections share; a
 * client that asks for more streams than there are is told by a frame each. */
void h2_guard_queue(struct h2 *h2) {
    size_t max = H2_FRAMES_SPARE + H2_FRAMES_PER_STREAM * h2->session.options->h2_streams_max;
    if (!h2->session.is_client) return;
    if (nghttp2_session_get_outbound_queue_size(h2->ng) > max)
        h2_guard_end(h2, H2_FLOOD_MADE_RESET);
}
