/* exchange_internal.h: the exchange, shared by exchange.c (the client's side, begin and end),
 * exchange_serve.c (the upstream's side), exchange_call.c (what gRPC adds) and exchange_tunnel.c
 * (what becomes of it after a 101). */
#ifndef WEIR_PROXY_EXCHANGE_INTERNAL_H
#define WEIR_PROXY_EXCHANGE_INTERNAL_H

#include "proxy/exchange.h"
#include "proxy/pool.h"
#include "proxy/rewrite.h"
#include "proxy/tunnel_ws.h"

/* Request body kept for another attempt: pieces, each with its lease. */
#define EXCHANGE_KEPT_MAX 16384

/* What is read of a request's body after the server's whole answer, so that the client's connection
 * can be used again. */
#define EXCHANGE_REST_MAX 65536

/* How often a request that servers refuse unseen is sent again. */
#define EXCHANGE_REFUSALS_MAX 2

enum exchange_state {
    EXCHANGE_ROUTE,
    EXCHANGE_QUEUE,
    EXCHANGE_CONNECT,
    EXCHANGE_SEND,
    EXCHANGE_RESPOND,
    EXCHANGE_DONE
};

/* What is counted of an exchange when it has ended. */
struct exchange_record {
    struct front *front;
    const struct config_route *route;
    struct server *server; /* whose in_flight counts it; NULL: none */
    enum http_method method;
    int status;
    bool is_websocket; /* it became one */
};

/* A piece of request body, in the arena. */
struct exchange_piece {
    struct exchange_piece *next;
    struct bytes data;
    struct lease *lease;
};

/* When a call ends at the latest; in the arena, as most exchanges have none. */
struct exchange_deadline {
    struct wheel_timer timer;
    struct exchange *x;
    uint64_t given_ms; /* as the client gave it */
};

struct exchange {
    struct proxy *proxy;
    struct front *front;
    struct stream *client;
    struct stream *upstream; /* NULL: none open */
    enum exchange_state state;
    struct http_message *request; /* as received */
    const struct http_fields *request_trailers;
    const struct config_route *route;
    struct upstream *target;
    struct server *server; /* of the attempt under way; NULL when there is none */
    struct balance_pick pick;
    struct pool_wait wait;
    struct queue_entry turn; /* in the target's queue while in QUEUE */
    struct net_task again;   /* sends the request once more, on a new connection */
    struct exchange_piece *kept_first;
    struct exchange_piece *kept_last;
    uint64_t kept_bytes;
    uint64_t body_bytes; /* of the request's body that have arrived */
    uint64_t attempt_ns; /* when the request was given to the server */
    uint64_t request_id;
    int status;               /* of the final head */
    enum reason last_failure; /* of the attempts so far */
    enum reason retry_of;     /* how the attempt ended that the next one follows; NONE: none */
    bool kept_lost;           /* some of the body is no longer there to be sent again */
    bool body_begun;          /* some of the request's body has arrived */
    bool request_ended;       /* the whole request has arrived */
    bool response_ended;      /* the whole answer has been given to the client's stream */
    bool answered;            /* a final head was given to the client's stream */
    bool body_passed;         /* some of the request's body has passed inside the kernel */
    bool rest_unwanted;       /* the server has answered in full without the rest of the body */
    bool sent_again;          /* the one repetition after a reused connection was used up */
    bool fresh;               /* the next attempt wants a new connection */
    uint8_t refusals;         /* repetitions after a server refused it unseen */
    bool is_call;             /* the request is a gRPC call */
    bool ends_in_status;      /* the head given to the client is that of a gRPC answer */
    struct exchange_deadline *deadline; /* of a gRPC call; NULL: it has none */
};

void exchange_set_state(struct exchange *x, enum exchange_state state);
struct rewrite_facts exchange_facts(struct exchange *x);
struct net *exchange_net(const struct exchange *x);
/* Answers with the reason's error if no head went out yet, and ends. */
void exchange_fail(struct exchange *x, enum reason reason);
/* Gives the client an answer of the proxy itself. */
void exchange_answer(struct exchange *x, struct http_message *answer, struct bytes body);
/* Closes both streams, counts, and gives the slot back: `x` must not be touched afterwards. */
void exchange_end(struct exchange *x, enum reason reason);
/* The final head goes out now, whoever gives it. */
void exchange_set_answered(struct exchange *x);
/* Ends well when both directions have ended. */
void exchange_check_end(struct exchange *x);
/* Whether so little of the request may still come that reading it costs less than a new connection
 * of the client. Of a chunked body that shows only while it is read. */
bool exchange_rest_is_small(const struct exchange *x);

/* Keeps a piece of the body. false: the memory for it is used up. */
bool exchange_keep(struct exchange *x, struct bytes data, struct lease *lease);
void exchange_drop_kept(struct exchange *x);

/* What it decides, for log_level = debug; by the number that $request_id has. */
#define exchange_debug(x, format, ...)                                                             \
    log_debug("request %016llx: " format, (unsigned long long)(x)->request_id, __VA_ARGS__)

/* Whether it asks to become a WebSocket. */
bool exchange_is_websocket(const struct exchange *x);
struct exchange_record exchange_record_of(const struct exchange *x);
void exchange_count(const struct exchange_record *record, const struct stream *client,
                    enum reason reason);
/* Both streams and the count of the server are somebody else's now: gives the slot back. */
void exchange_hand_over(struct exchange *x);

/* exchange_tunnel.c. From here on both sides carry bytes: `message` goes to the client, and the
 * exchange is over. Or it fails for lack of memory. */
void exchange_begin_tunnel(struct exchange *x, const struct http_message *message);

/* exchange_serve.c */
void exchange_init_turn(struct exchange *x);
/* The first attempt: at once, or behind those that wait already. */
void exchange_begin(struct exchange *x);
/* Picks servers until one gives a stream, or a dial; or waits for one; or none is left. */
void exchange_try(struct exchange *x);
/* A stream that will answer: gives it the request as far as it is there. */
void exchange_send(struct exchange *x, struct stream *stream);
/* The attempt is over: the server's counts and the stream. */
void exchange_leave_server(struct exchange *x, enum reason reason);

/* exchange_call.c: gRPC. */
/* The request has just arrived. false: the exchange has ended. */
bool exchange_begin_call(struct exchange *x);
/* No deadline any more; harmless without one. */
void exchange_stop_deadline(struct exchange *x);
/* The copy of the request that goes to a server says how much time is left. false: the memory for
 * it is used up. */
bool exchange_tell_time_left(struct exchange *x, struct http_message *copy);
/* Tells the client of a call that fails, where it can be told: by an answer, or in trailers. */
void exchange_fail_call(struct exchange *x, enum reason reason);

#endif
