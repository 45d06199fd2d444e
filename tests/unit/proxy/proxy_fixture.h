/* proxy_fixture.h: a proxy whose streams, on both sides, are made by the test: they write down what
 * they are told, and the test gives the events. */
#ifndef WEIR_TESTS_UNIT_PROXY_PROXY_FIXTURE_H
#define WEIR_TESTS_UNIT_PROXY_PROXY_FIXTURE_H

#include "proxy/exchange.h"
#include "proxy/pool.h"

#include "unit/net/net_fixture.h"

#define FAKE_SESSIONS_MAX 16

#define ONE_SERVER                                                                                 \
    "[global]\nworkers = 1\ncpu_affinity = off\n[listener web]\nbind = 127.0.0.1:8080\n"           \
    "upstream = app\n[upstream app]\nserver = 127.0.0.1:9001\n"

struct fake_stream {
    struct stream stream;
    struct fake_session *session; /* NULL: the client's */
    /* What it was given. */
    uint32_t heads; /* final ones, or requests */
    uint32_t interims;
    int status;
    char path[128];
    char authority[128];
    uint64_t body_length;
    bool close_after;
    bool tunnelled;
    char body[65536];
    size_t body_len;
    uint32_t ends; /* end, or `end` with head or data */
    bool trailers;
    char grpc_status[8]; /* in the head or the trailers */
    char grpc_timeout[16];
    uint64_t passed; /* bytes that reached it by themselves */
    uint32_t passes; /* times it was asked to pass what arrives */
    bool paused;
    uint32_t pauses;
    uint32_t resumes;
    uint32_t closes;
    enum reason reason;
    /* How it answers. */
    bool full;
    bool passable;
};

/* A session to a server that exists only here. */
struct fake_session {
    struct session session;
    struct fake_stream stream;
    bool closed; /* ops->close was called: on_closed is owed */
    enum reason reason;
    bool gone; /* on_closed was given */
};

struct proxy_world {
    struct net_world *net;
    struct session_room room;
    struct config *config;
    struct service *services[4];
    struct proxy proxy;
    struct session client_session;
    struct arena arena; /* the client stream's */
    struct fake_stream client;
    struct http_message request;
    /* Of the requests and answers to come. */
    struct http_field fields[2];
    uint32_t field_count;
    uint64_t began_ms_ago;
    const char *content_type; /* of answers */
    struct lease *lease;      /* of the last fake_data */
    /* Dialled sessions in their order. */
    struct fake_session sessions[FAKE_SESSIONS_MAX];
    uint32_t session_count;
    struct addr_pair told[FAKE_SESSIONS_MAX]; /* each to whom, with send_proxy */
    bool no_dial;                             /* connect says CONNECT_FAILED at once */
};

/* The configuration's first listener is the front. */
struct proxy_world *proxy_world_new(const char *config);
/* Fails the test if an exchange, a stream, a lease or a count was left over. */
void proxy_world_free(struct proxy_world *world);
struct server *proxy_world_server(struct proxy_world *world, uint32_t index);

/* How many exchanges have ended so. */
uint64_t ended(const struct proxy_world *world, enum reason reason);
/* The client has one answer and its stream is closed, with that reason; no exchange is left. */
void assert_answer(const struct proxy_world *world, int status, enum reason closed_with);

/* A client of a listener with mode = tcp has connected; false: it was refused. */
bool client_connect(struct proxy_world *world);
/* A request of the client begins. `body_length` 0: none follows. */
void client_request(struct proxy_world *world, enum http_method method, const char *path,
                    uint64_t body_length);
void client_data(struct proxy_world *world, const char *text);
void client_passed(struct proxy_world *world, uint64_t bytes);
void client_end(struct proxy_world *world);
void client_reset(struct proxy_world *world, enum reason reason);
void client_drained(struct proxy_world *world);

/* What a server does. */
void server_ready(struct fake_session *session);
void server_closed(struct fake_session *session, enum reason reason);
void server_answer(struct fake_session *session, int status, uint64_t body_length);
void server_data(struct proxy_world *world, struct fake_session *session, const char *text);
void server_end(struct fake_session *session);
void server_reset(struct fake_session *session, enum reason reason);
void server_drained(struct fake_session *session);

#endif
