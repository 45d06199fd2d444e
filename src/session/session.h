/* session.h: a protocol living on one connection, behind one vtable, in client role (accepted) or
 * upstream role (dialled).
 *
 * session_ops is what a protocol (an HTTP version, or TCP's bare bytes) offers upward; session_host
 * is who a session tells of its life: the proxy's front for client sessions, its pool for upstream
 * ones. A session is owned by its connection's fate: it ends with on_closed, after which it must
 * not be touched. Its streams end first.
 */
#ifndef WEIR_SESSION_SESSION_H
#define WEIR_SESSION_SESSION_H

#include "base/list.h"
#include "net/conn.h"
#include "proto/h2_flood.h"
#include "proto/http_date.h"
#include "session/stream.h"
#include "session/wire.h"

struct session;
struct session_room;
struct tls_context;

/* What the configuration says for sessions of one listener or upstream. Outlives them. */
struct session_options {
    uint64_t timeout_request_ms;
    uint64_t timeout_client_ms;
    uint64_t timeout_keepalive_ms;
    uint64_t timeout_connect_ms;
    uint64_t timeout_handshake_ms;
    uint64_t timeout_server_ms;
    uint64_t min_read_rate; /* bytes/s, 0: off */
    uint64_t max_body_size; /* bytes, 0: no limit */
    uint32_t max_header_size;
    uint32_t max_headers;
    uint32_t max_target;
    uint32_t h2_streams_max; /* client role, HTTP/2: requests of one connection at once */
    struct h2_flood_limits h2_flood;
    bool h2_refused;    /* client role: HTTP/1 leads to no HTTP/2 */
    bool no_websocket;  /* client role, HTTP/2: none is offered */
    uint8_t send_proxy; /* version of the PROXY header a dialled connection begins with, 0: none */
    const struct tls_context *tls; /* for connections from now on: it may change; NULL: in clear */
};

struct session_host {
    /* Client role: a request begins. The host sets stream->events and ->user, or returns false:
     * answered 503 then. */
    bool (*on_stream)(struct session *session, struct stream *stream);
    /* Client role: a request was refused by the parser or ended before it became a stream; `status`
     * was sent, 0: none. */
    void (*on_refused)(struct session *session, enum reason reason);
    /* Upstream role: the connect (with all handshakes) is done. */
    void (*on_ready)(struct session *session);
    /* Upstream role: streams_open has fallen, or streams_max has changed, and the connection goes
     * on. May come from within stream close, never from within open. Where that was its last
     * stream and streams_max is 0, the host closes it. */
    void (*on_room)(struct session *session);
    /* The session ends now: never from within a call. Its streams have had their on_reset and their
     * close. */
    void (*on_closed)(struct session *session, enum reason reason);
};

/* Where to dial, valid until on_ready or on_closed. */
struct session_address {
    const struct sockaddr *address;
    socklen_t size;
    const struct addr_pair *client; /* with send_proxy: to tell, during the call; NULL: nobody's */
    const char *tls_name; /* with tls: the server, for tls_context_expect; NULL: any will do */
    struct wire_sessions *tls_sessions; /* with tls: to resume; outlives the session; may be NULL */
};

struct session_ops {
    const char *proto; /* label of metrics: "h1" */
    bool one_stream;   /* a connection carries one stream and ends with it */
    bool multiplexed;  /* upstream role: it carries many at once */
    /* Client role, on an accepted connection. NULL when all slots are in use. */
    struct session *(*accept)(struct session_room *room, struct conn *conn,
                              const struct session_options *options,
                              const struct session_host *host);
    /* Client role, instead of accept: tells an accepted connection that it is one too many, asked
     * or not, and ends it. NULL where a protocol has no word for it: the connection is reset. */
    void (*refuse)(struct session_room *room, struct conn *conn, enum reason reason);
    /* Upstream role: dials. NULL and *reason when that cannot even begin. */
    struct session *(*connect)(struct session_room *room, const struct session_address *to,
                               const struct session_options *options,
                               const struct session_host *host, enum reason *reason);
    /* Upstream role, ready, and streams_open < streams_max: a new stream whose answers are built in
     * `arena`. NULL when the connection has been lost meanwhile: a multiplexed one has no conn or a
     * streams_max of 0 then, or memory is short. */
    struct stream *(*open)(struct session *session, struct arena *arena);
    /* Takes no new streams, lets those at work end, then closes. An idle session closes: at once,
     * or when it has been idle long enough that no request can be on its way. */
    void (*drain)(struct session *session);
    /* Ends at once: streams are reset with `reason`. */
    void (*close)(struct session *session, enum reason reason);
    /* Client role, multiplexed: bytes that wait in its streams for the client to take them. */
    size_t (*held)(const struct session *session);
};

struct session {
    /* Fixed after init. */
    const struct session_ops *ops;
    const struct session_options *options;
    const struct session_host *host;
    struct session_room *room;
    struct conn *conn;
    void *user;         /* the host's */
    uint8_t host_state; /* the host's */
    bool is_client;
    /* Changes in routine work. */
    bool closing;       /* on_closed is on its way: opens no more streams */
    uint32_t streams;   /* opened so far */
    struct list link;   /* in session_room.clients, or the host's list */
    uint64_t opened_ns; /* worker's clock */
    union {
        struct {                    /* Client role. */
            uint8_t client_ip_size; /* 0: not asked yet */
            uint16_t client_port;
            char client_ip[46];
        };
        struct { /* Upstream role. */
            /* How many may be open at once, a guess that the host may lower until the server has
             * said it; 0: it takes no more. May fall below what is open. */
            uint32_t streams_max;
            uint32_t streams_open;
            struct list waiters;       /* the host's: who waits for on_ready */
            uint32_t waiting;          /* the host's: how many */
            int connect_error;         /* errno of a connect that failed; 0: none, or not known */
            const char *connect_words; /* of a handshake that failed; NULL: none */
        };
    };
};

struct h1_parser;
struct h1_span;
struct h2_room;

/* The slabs and scratch memory all sessions of one worker share. */
struct session_room {
    struct net *net;
    struct slab sessions; /* struct h1 */
    struct slab tcp;      /* struct tcp */
    struct slab heads;    /* heads that came in pieces */
    struct wire_room wires;
    struct h2_room *h2; /* of h2_internal.h */
    struct arena_pool arenas;
    struct h1_parser *parser; /* scratch for a head that arrives whole */
    struct h1_span *spans;
    char *text; /* scratch for a head to send that no small buffer holds */
    size_t text_size;
    struct list clients;      /* sessions in client role, and others a drain waits for */
    uint32_t max_header_size; /* the largest of all options */
    uint32_t max_headers;
    bool draining;
    struct http_date date;
};

struct session_room_options {
    uint32_t sessions_max;    /* of HTTP/1 */
    uint32_t h2_sessions_max; /* 0: nobody speaks HTTP/2 */
    uint32_t tcp_max;         /* of session_tcp, in both roles; 0: there are none */
    uint32_t wires_max;       /* TLS connections, in both roles; 0: there are none */
    uint32_t handshakes_max;  /* TLS, client role, under way at once; at least 1 with wires */
    bool ktls;                /* the kernel can take over what they send (net/ktls.h) */
    uint32_t exchanges_max;   /* requests at once: arenas */
    uint32_t streams_more;    /* of them, those beyond the first of each client's connection */
    uint32_t max_header_size;
    uint32_t max_headers;
    uint64_t h2_memory_max; /* bytes nghttp2 may have for all sessions, if they can take so much */
};

/* 0 or -ENOMEM. */
int session_room_init(struct session_room *room, struct net *net,
                      const struct session_room_options *options);
void session_room_fini(struct session_room *room);
/* No client session takes another request than those under way. */
void session_room_drain(struct session_room *room);
/* Ends all client sessions with DRAIN_CUT, and those to servers that were still sending what a
 * client had left; returns how many of the latter. */
uint32_t session_room_cut(struct session_room *room);
/* After a turn that leaves hardly a buffer (net_is_spent): of the clients whose many streams let
 * them hold more than anybody with one could, who holds most is reset. */
void session_room_relieve(struct session_room *room);
uint32_t session_room_used(const struct session_room *room); /* that hold a slot, of all kinds */
void session_room_publish(const struct session_room *room);  /* sets the gauge of slots in use */

/* Adds Date where there is none (RFC 9110 section 6.6.1). false when the arena is at its limit. */
bool session_add_date(struct session_room *room, struct http_message *response,
                      struct arena *arena);

/* Address of the client of a client session, as text; found at the first call. As a PROXY header
 * told it, else that of the other side. "unknown" when the connection is gone. */
struct bytes session_client_ip(struct session *session);
/* Where that client is and what it connected to, likewise; false when the connection is gone. */
bool session_client_ends(const struct session *session, struct addr_pair *ends);

extern const struct session_ops session_h1;
extern const struct session_ops session_h2;
extern const struct session_ops session_tcp;

#endif
