#include "proxy/tunnel.h"

static void tunnel_carry(struct stream *from, struct stream *to, struct bytes data,
                         struct lease *lease) {
    if (to->ops->data(to, data, lease, false) == STREAM_FULL) {
        from->ops->pause(from);
        from->bulk = true; /* a backlog is a stream, too */
    }
    if (from->bulk && from->ops->pass) (void)from->ops->pass(from, to); /* or copied */
}

static void tunnel_check_end(struct tunnel *tunnel) {
    if (tunnel->client_ended && tunnel->upstream_ended) tunnel->on_end(tunnel, REASON_NONE);
}

static void tunnel_on_client_data(struct stream *stream, struct bytes data, struct lease *lease) {
    struct tunnel *tunnel = stream->user;
    stat_add(tunnel->stats, STAT_TUNNEL_BYTES_TO_UPSTREAM, data.len);
    tunnel_carry(stream, tunnel->upstream, data, lease);
}

static void tunnel_on_upstream_data(struct stream *stream, struct bytes data, struct lease *lease) {
    struct tunnel *tunnel = stream->user;
    stat_add(tunnel->stats, STAT_TUNNEL_BYTES_TO_CLIENT, data.len);
    tunnel_carry(stream, tunnel->client, data, lease);
}

static void tunnel_on_client_passed(struct stream *stream, uint64_t bytes) {
    struct tunnel *tunnel = stream->user;
    stat_add(tunnel->stats, STAT_TUNNEL_BYTES_TO_UPSTREAM, bytes);
    tunnel->upstream->ops->passed(tunnel->upstream, bytes);
}

static void tunnel_on_upstream_passed(struct stream *stream, uint64_t bytes) {
    struct tunnel *tunnel = stream->user;
    stat_add(tunnel->stats, STAT_TUNNEL_BYTES_TO_CLIENT, bytes);
    tunnel->client->ops->passed(tunnel->client, bytes);
}

static void tunnel_on_client_end(struct stream *stream, const struct http_fields *trailers) {
    (void)trailers; /* bytes have none */
    struct tunnel *tunnel = stream->user;
    tunnel->client_ended = true;
    tunnel->upstream->ops->end(tunnel->upstream, NULL);
    tunnel_check_end(tunnel);
}

static void tunnel_on_upstream_end(struct stream *stream, const struct http_fields *trailers) {
    (void)trailers; /* bytes have none */
    struct tunnel *tunnel = stream->user;
    tunnel->upstream_ended = true;
    tunnel->client->ops->end(tunnel->client, NULL);
    tunnel_check_end(tunnel);
}

static void tunnel_on_client_drained(struct stream *stream) {
    struct tunnel *tunnel = stream->user;
    tunnel->upstream->ops->resume(tunnel->upstream);
}

static void tunnel_on_upstream_drained(struct stream *stream) {
    struct tunnel *tunnel = stream->user;
    tunnel->client->ops->resume(tunnel->client);
}

static void tunnel_on_reset(struct stream *stream, enum reason reason) {
    struct tunnel *tunnel = stream->user;
    tunnel->on_end(tunnel, reason);
}

uint64_t tunnel_idle_ms(struct stream *stream) {
    return stream->ops->idle_ms ? stream->ops->idle_ms(stream) : UINT64_MAX;
}

static uint64_t tunnel_on_client_idle(struct stream *stream) {
    struct tunnel *tunnel = stream->user;
    return tunnel_idle_ms(tunnel->upstream);
}

static uint64_t tunnel_on_upstream_idle(struct stream *stream) {
    struct tunnel *tunnel = stream->user;
    return tunnel_idle_ms(tunnel->client);
}

static const struct stream_events tunnel_client_events = {
    .on_data = tunnel_on_client_data,
    .on_end = tunnel_on_client_end,
    .on_passed = tunnel_on_client_passed,
    .on_drained = tunnel_on_client_drained,
    .on_reset = tunnel_on_reset,
    .on_idle = tunnel_on_client_idle,
};

static const struct stream_events tunnel_upstream_events = {
    .on_data = tunnel_on_upstream_data,
    .on_end = tunnel_on_upstream_end,
    .on_passed = tunnel_on_upstream_passed,
    .on_drained = tunnel_on_upstream_drained,
    .on_reset = tunnel_on_reset,
    .on_idle = tunnel_on_upstream_idle,
};

void tunnel_start(struct tunnel *tunnel, uint64_t idle_ms) {
    tunnel->client_ended = tunnel->upstream_ended = false;
    tunnel->client->events = &tunnel_client_events;
    tunnel->upstream->events = &tunnel_upstream_events;
    tunnel->client->user = tunnel->upstream->user = tunnel;
    tunnel->upstream->ops->tunnel(tunnel->upstream, idle_ms);
    tunnel->client->ops->tunnel(tunnel->client, idle_ms);
}
