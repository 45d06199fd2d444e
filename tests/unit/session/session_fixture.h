/* session_fixture.h: sessions (HTTP/1, or TCP alone) in both roles on real sockets, and a user of
 * their streams that writes down what it is told and may act in each event. */
#ifndef WEIR_TESTS_UNIT_SESSION_SESSION_FIXTURE_H
#define WEIR_TESTS_UNIT_SESSION_SESSION_FIXTURE_H

#include "session/session.h"

#include "unit/net/net_fixture.h"

#define SEEN_MAX 64
#define SEEN_BODY_MAX (1 << 20)

/* What one stream's user has seen. */
struct seen {
    struct stream *stream; /* NULL once closed */
    uint32_t heads;
    int status; /* of the last head */
    int interims;
    char path[256];
    bool ended; /* by on_end, or with the head */
    uint32_t ends;
    uint32_t resets;
    enum reason reason;
    bool reused; /* stream->reused, ->sent, ->answered when it was reset */
    bool sent;
    bool answered;
    uint32_t drained;
    uint32_t datas;
    char trailers[256]; /* "name: value\n" each */
    uint64_t body_length;
    size_t body_len;
    char *body;
};

struct session_world {
    struct net_world *net;
    struct session_room room;
    struct session_options options;
    const struct session_ops *ops; /* session_h1 unless the test says another */
    struct sockaddr_in address;    /* where an upstream session dials */
    int listening;
    int peer; /* the other side of the session's connection */
    struct session *session;
    /* What the host is told. */
    uint32_t ready;
    uint32_t idle;
    uint32_t closed;
    enum reason closed_reason;
    uint32_t refused;
    enum reason refused_reason;
    bool refuse_streams; /* on_stream says no */
    uint32_t streams;
    struct seen seen[SEEN_MAX];
    /* What the streams' user does: NULL for nothing. */
    void (*on_head)(struct session_world *world, struct seen *seen);
    void (*on_data)(struct session_world *world, struct seen *seen);
    void (*on_end)(struct session_world *world, struct seen *seen);
    void (*on_reset)(struct session_world *world, struct seen *seen);
};

/* Timeouts of 2 s, heads up to 4 KB, of 32 fields. */
struct session_options session_world_options(void);
struct session_world *session_world_new(const struct session_options *options,
                                        const struct net_options *net_options);
/* Both must have ended, or be ended by this. */
void session_world_free(struct session_world *world);

/* The session in client role, on an accepted connection whose other side is world->peer. */
void session_world_accept(struct session_world *world);
/* A new world with such a session. */
struct session_world *session_world_client(void);
/* In upstream role; waits until it is ready. */
void session_world_connect(struct session_world *world);
/* A new stream of the upstream session. */
struct seen *session_world_open(struct session_world *world, struct arena *arena);

/* For world->on_head and on_end: answers a whole request with its path. */
void seen_on_request_answer(struct session_world *world, struct seen *seen);
void client_expect_path(struct session_world *world, const char *path);
/* For world->on_reset: just closes, or answers 503 with the body "cut" and closes. */
void seen_on_reset_close(struct session_world *world, struct seen *seen);
void seen_on_reset_answer(struct session_world *world, struct seen *seen);

/* Calls of the stream's user. */
void seen_answer(struct seen *seen, int status, const char *body);
void seen_answer_head(struct seen *seen, int status, uint64_t body_length, bool end);
void seen_request(struct seen *seen, enum http_method method, uint64_t body_length, bool end);
enum stream_room seen_data(struct seen *seen, const char *text, bool end);
void seen_close(struct seen *seen, enum reason reason);

#endif
