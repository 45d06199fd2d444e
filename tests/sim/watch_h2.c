/* watch_h2.c: weir's sessions of HTTP/2: their streams, their windows, and what their servers have
 * said. What passes between weir and nghttp2 is counted by functions of nghttp2 that the linker
 * wraps (the list is in the Makefile); the actors' sessions are made by others. */
#include "base/check.h"
#include "control/worker.h"
#include "session/h2_internal.h"
#include "sim/sim.h"
#include "sim/watch.h"

#include <stdio.h>
#include <stdlib.h>

/* What is counted of one session. */
struct tally {
    nghttp2_session *ng;
    uint64_t received; /* bytes of DATA that weir was given */
    uint64_t consumed; /* of them, whose window of the connection was given back */
    bool goaway;       /* its server takes no more */
    uint32_t streams;  /* that weir had opened by then */
    struct tally *next;
};

static struct tally *tallies;
static nghttp2_on_frame_recv_callback frame_callback;
static nghttp2_on_data_chunk_recv_callback bytes_callback;

int __real_nghttp2_session_server_new3(nghttp2_session **ng,
                                       const nghttp2_session_callbacks *callbacks, void *user,
                                       const nghttp2_option *option, nghttp2_mem *memory);
int __wrap_nghttp2_session_server_new3(nghttp2_session **ng,
                                       const nghttp2_session_callbacks *callbacks, void *user,
                                       const nghttp2_option *option, nghttp2_mem *memory);
int __real_nghttp2_session_client_new3(nghttp2_session **ng,
                                       const nghttp2_session_callbacks *callbacks, void *user,
                                       const nghttp2_option *option, nghttp2_mem *memory);
int __wrap_nghttp2_session_client_new3(nghttp2_session **ng,
                                       const nghttp2_session_callbacks *callbacks, void *user,
                                       const nghttp2_option *option, nghttp2_mem *memory);
void __real_nghttp2_session_del(nghttp2_session *ng);
void __wrap_nghttp2_session_del(nghttp2_session *ng);
int __real_nghttp2_session_consume_connection(nghttp2_session *ng, size_t size);
int __wrap_nghttp2_session_consume_connection(nghttp2_session *ng, size_t size);
int __real_nghttp2_session_consume_stream(nghttp2_session *ng, int32_t id, size_t size);
int __wrap_nghttp2_session_consume_stream(nghttp2_session *ng, int32_t id, size_t size);
void __real_nghttp2_session_callbacks_set_on_frame_recv_callback(
    nghttp2_session_callbacks *callbacks, nghttp2_on_frame_recv_callback callback);
void __wrap_nghttp2_session_callbacks_set_on_frame_recv_callback(
    nghttp2_session_callbacks *callbacks, nghttp2_on_frame_recv_callback callback);
void __real_nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
    nghttp2_session_callbacks *callbacks, nghttp2_on_data_chunk_recv_callback callback);
void __wrap_nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
    nghttp2_session_callbacks *callbacks, nghttp2_on_data_chunk_recv_callback callback);

void watch_h2_begin(void) { CHECK(!tallies); }

/* NULL: an actor's. */
static struct tally *tally_of(const nghttp2_session *ng) {
    struct tally *tally = tallies;
    while (tally && tally->ng != ng)
        tally = tally->next;
    return tally;
}

static int tally_begin(nghttp2_session *ng, int error) {
    if (error != 0) return error;
    struct tally *tally = calloc(1, sizeof *tally);
    CHECK(tally);
    tally->ng = ng;
    tally->next = tallies;
    tallies = tally;
    return 0;
}

int __wrap_nghttp2_session_server_new3(nghttp2_session **ng,
                                       const nghttp2_session_callbacks *callbacks, void *user,
                                       const nghttp2_option *option, nghttp2_mem *memory) {
    int error = __real_nghttp2_session_server_new3(ng, callbacks, user, option, memory);
    return tally_begin(*ng, error);
}

int __wrap_nghttp2_session_client_new3(nghttp2_session **ng,
                                       const nghttp2_session_callbacks *callbacks, void *user,
                                       const nghttp2_option *option, nghttp2_mem *memory) {
    int error = __real_nghttp2_session_client_new3(ng, callbacks, user, option, memory);
    return tally_begin(*ng, error);
}

void __wrap_nghttp2_session_del(nghttp2_session *ng) {
    struct tally **at = &tallies;
    while (*at && (*at)->ng != ng)
        at = &(*at)->next;
    if (*at) {
        struct tally *tally = *at;
        *at = tally->next;
        free(tally);
    }
    __real_nghttp2_session_del(ng);
}

int __wrap_nghttp2_session_consume_connection(nghttp2_session *ng, size_t size) {
    struct tally *tally = tally_of(ng);
    if (tally && sim_defect(DEFECT_KEEP_WINDOW)) return 0;
    if (tally) tally->consumed += size;
    return __real_nghttp2_session_consume_connection(ng, size);
}

int __wrap_nghttp2_session_consume_stream(nghttp2_session *ng, int32_t id, size_t size) {
    if (tally_of(ng) && sim_defect(DEFECT_KEEP_STREAM_WINDOW)) return 0;
    return __real_nghttp2_session_consume_stream(ng, id, size);
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *user) {
    struct tally *tally = tally_of(ng);
    const struct h2 *h2 = user;
    if (frame->hd.type != NGHTTP2_GOAWAY || tally->goaway) return frame_callback(ng, frame, user);
    tally->goaway = true;
    tally->streams = h2->session.streams;
    if (sim_defect(DEFECT_IGNORE_GOAWAY)) return 0;
    return frame_callback(ng, frame, user);
}

static int on_bytes(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *bytes,
                    size_t size, void *user) {
    if (!h2_is_deaf(user)) tally_of(ng)->received += size;
    return bytes_callback(ng, flags, id, bytes, size, user);
}

/* What nghttp2 holds against what it was given, for the trace. */
static int on_error(nghttp2_session *ng, int code, const char *text, size_t size, void *user) {
    (void)ng;
    (void)user;
    sim_note("nghttp2 complains", code, 0, 0);
    if (sim.options.verbose) printf("%.*s\n", (int)size, text);
    return 0;
}

void __wrap_nghttp2_session_callbacks_set_on_frame_recv_callback(
    nghttp2_session_callbacks *callbacks, nghttp2_on_frame_recv_callback callback) {
    frame_callback = callback;
    nghttp2_session_callbacks_set_error_callback2(callbacks, on_error);
    __real_nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
}

void __wrap_nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
    nghttp2_session_callbacks *callbacks, nghttp2_on_data_chunk_recv_callback callback) {
    bytes_callback = callback;
    __real_nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_bytes);
}

/* What the streams of a session add up to. */
struct sums {
    uint32_t streams;
    uint32_t open;  /* by their users */
    uint32_t taken; /* that nghttp2 has */
    uint32_t unconsumed;
};

static struct sums add_up(const struct h2 *h2) {
    struct sums sums = {0};
    CHECK(h2->busy == 0 && list_empty(&h2->dead));
    LIST_FOR_EACH(node, &h2->streams) {
        const struct h2_stream *s = LIST_OWNER(node, struct h2_stream, link);
        sums.streams++;
        sums.open += s->user_open;
        sums.taken += !s->gone;
        sums.unconsumed += s->unconsumed;
        bool keeps = s->paused || s->in == H2_IN_HELD || s->in == H2_IN_BROKEN || s->tunnelled;
        if (s->unconsumed == 0 || keeps) continue;
        sim_fail(INVARIANT_WINDOWS, "stream %d keeps %u bytes of its window", s->id, s->unconsumed);
    }
    return sums;
}

static void watch_windows(const struct h2 *h2, const struct sums *sums) {
    const struct tally *tally = tally_of(h2->ng);
    if (h2->held != sums->unconsumed) {
        sim_fail(INVARIANT_WINDOWS, "a session counts %u bytes that it holds, its streams %u",
                 h2->held, sums->unconsumed);
    }
    if (h2_is_deaf(h2)) return;
    CHECK(tally);
    bool sound = tally->received - tally->consumed == h2->owed && (h2->held != 0 || h2->owed == 0);
    if (sound) return;
    sim_fail(INVARIANT_WINDOWS,
             "a session has received %llu bytes, given back window for %llu, and owes %u",
             (unsigned long long)tally->received, (unsigned long long)tally->consumed, h2->owed);
}

static void watch_session(const struct h2 *h2, const struct sums *sums) {
    const struct session *session = &h2->session;
    if (session->is_client && !h2_is_deaf(h2) && h2->taken != sums->taken) {
        sim_fail(INVARIANT_STREAMS, "%u streams of a client are taken, %u are counted", sums->taken,
                 h2->taken);
    }
    if (session->is_client) return;
    if (session->streams_open != sums->open) {
        sim_fail(INVARIANT_STREAMS, "%u streams to a server are open, %u are counted", sums->open,
                 session->streams_open);
    }
    const struct tally *tally = tally_of(h2->ng);
    if (!tally->goaway || h2_is_deaf(h2) || session->streams <= tally->streams) return;
    sim_fail(INVARIANT_STREAMS, "after GOAWAY %u streams were opened",
             session->streams - tally->streams);
}

static bool is_taken(const struct slab *slab, uint32_t index) {
    for (uint32_t i = 0; i < slab->hot_count; i++)
        if (slab->hot[i] == index) return false;
    return slab->full[0][index / 64] >> index % 64 & 1;
}

/* A list of a server's connections, all in one state. Returns how many there are. */
static uint32_t watch_list(const struct list *list, bool busy) {
    uint32_t count = 0;
    LIST_FOR_EACH(node, list) {
        struct session *session = LIST_OWNER(node, struct session, link);
        count++;
        /* One that is lost is told to the pool a little later. */
        bool lost = session->ops->multiplexed && h2_is_deaf(h2_of_session(session));
        if (lost || (session->streams_open != 0) == busy) continue;
        sim_fail(INVARIANT_STREAMS, "a connection with %u streams is among the %s ones",
                 session->streams_open, busy ? "shared" : "idle");
    }
    return count;
}

static void watch_connections(const struct worker *worker) {
    const struct stat_block *stats = &worker->stats;
    uint64_t idle = 0, connections = 0;
    for (uint32_t i = 0; i < worker->config->upstream_count; i++) {
        const struct upstream *upstream = &worker->proxy.upstreams[i];
        for (uint32_t j = 0; j < upstream->config->server_count; j++) {
            const struct server *server = &upstream->servers[j];
            (void)watch_list(&server->shared, true);
            (void)watch_list(&server->loaded, true);
            idle += watch_list(&server->idle, false);
            connections += server->connections;
        }
    }
    uint64_t gauges = stat_get(stats, STAT_UPSTREAM_CONNECTIONS_IDLE) +
                      stat_get(stats, STAT_UPSTREAM_CONNECTIONS_ACTIVE) +
                      stat_get(stats, STAT_UPSTREAM_CONNECTIONS_CONNECTING);
    if (idle == stat_get(stats, STAT_UPSTREAM_CONNECTIONS_IDLE) && gauges <= connections) return;
    sim_fail(INVARIANT_SLOTS, "%llu idle connections of %llu, and gauges of %llu, %llu in all",
             (unsigned long long)idle, (unsigned long long)connections,
             (unsigned long long)stat_get(stats, STAT_UPSTREAM_CONNECTIONS_IDLE),
             (unsigned long long)gauges);
}

void watch_h2_turn(const struct worker *worker) {
    const struct h2_room *room = worker->room.h2;
    const struct slab *slab = &room->sessions;
    uint32_t streams = 0;
    if (sim.defects == 0 && room->streams.used != 0 && sim_defect(DEFECT_LEAK_STREAM))
        (void)slab_acquire((struct slab *)(uintptr_t)&room->streams);
    for (uint32_t i = 0; i < slab->fresh; i++) {
        if (!is_taken(slab, i)) continue;
        const struct h2 *h2 = slab_at(slab, i);
        struct sums sums = add_up(h2);
        streams += sums.streams;
        watch_windows(h2, &sums);
        watch_session(h2, &sums);
    }
    watch_connections(worker);
    uint64_t gauge = stat_get(&worker->stats, STAT_H2_STREAMS_ACTIVE);
    if (streams == room->streams.used && streams == gauge) return;
    sim_fail(INVARIANT_STREAMS, "%u streams of sessions, %u slots in use, %llu in the gauge",
             streams, room->streams.used, (unsigned long long)gauge);
}
