/* plan.h: what every request is and how it will be answered, from its number alone.
 *
 * The client that asks and the server that answers both know the plan of a request's number, so
 * each can check every byte it gets. The number travels in X-Id, and comes back in it.
 */
#ifndef WEIR_TESTS_SIM_PLAN_H
#define WEIR_TESTS_SIM_PLAN_H

#include "sim/sim.h"

#define REQUESTS_MAX 4096 /* in a run */

enum framing { FRAMING_NONE, FRAMING_LENGTH, FRAMING_CHUNKED, FRAMING_CLOSE };
enum side { SIDE_REQUEST, SIDE_ANSWER };

/* What a request asks for instead of an answer. */
enum tunnel_kind { TUNNEL_NONE, TUNNEL_UPGRADE, TUNNEL_WEBSOCKET, TUNNEL_CONNECT };

/* What a server does with a request. */
enum manner {
    MANNER_SERVES,
    MANNER_EARLY,   /* answers before it has the whole request */
    MANNER_SILENT,  /* never answers */
    MANNER_CLOSES,  /* sends a part of the answer, then FIN */
    MANNER_RESETS,  /* sends a part of the answer, then RST */
    MANNER_NONSENSE /* answers what is no HTTP */
};

struct plan {
    uint32_t id;
    const char *method;
    bool idempotent;
    bool is_head;
    bool local; /* weir answers by itself */
    bool tcp;   /* no HTTP at all: the client sends a line with the number, then raw bytes */
    bool echo;  /* of these: weir gives them back, and there is no line */
    enum tunnel_kind tunnel;
    bool upgrade; /* both sides go on without HTTP; the sizes below are those of raw bytes */
    bool frames;  /* these are WebSocket frames, and weir looks at them */
    bool breaks;  /* one end or both send frames that break a rule */
    bool call; /* of gRPC: its outcome is a number, in the trailers or, without a body, in the head
                */
    int outcome;
    uint32_t timeout_ms; /* of a call, 0: none */
    bool eager;          /* they do not wait for the answer */
    bool expects;        /* Expect: 100-continue */
    bool request_trailers, answer_trailers;
    enum framing request_framing;
    uint32_t request_size;
    int status;
    uint32_t interims;
    enum framing answer_framing;
    uint32_t answer_size;
    bool server_ends; /* the server closes after it */
    enum manner manner;
    uint32_t cut_at; /* bytes of the answer's text that a bad server sends, modulo its size */
};

/* A piece of memory that grows. */
struct text {
    char *bytes;
    size_t len;
    size_t capacity;
};

struct plan plan_of(uint32_t id);
char plan_byte(uint32_t id, enum side side, uint64_t offset);
/* Adds the whole of it; `last`: the client asks for no more on this connection. */
void plan_request(const struct plan *plan, bool last, struct text *text);
/* Over HTTP/1.1: raw bytes are right behind the head. */
static inline bool plan_is_hasty(const struct plan *plan) {
    return plan->eager && plan->upgrade && !plan->frames;
}
/* Where the request's body begins in its text. */
size_t plan_request_head_size(const struct plan *plan, bool last);
/* The interim heads, and the answer; `key` is the Sec-WebSocket-Key, "": none. */
void plan_interims(const struct plan *plan, struct text *text);
void plan_answer(const struct plan *plan, const char *key, struct text *text);
/* Where the request goes to, in HTTP/1's words: a path, or an authority. */
void plan_target(const struct plan *plan, char *text, size_t size);
/* The key of every client of HTTP/1, and the answer to it (RFC 6455 section 1.3). */
#define PLAN_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define PLAN_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
/* The PROXY header a client begins with: of either version, with or without an address. */
void plan_proxy_header(uint32_t client, struct text *text);
/* One that is malformed whatever follows it. */
void plan_bad_proxy_header(struct text *text);
/* The address that weir is to know the client by. */
void plan_client_address(uint32_t client, char *text, size_t size);
/* The grpc-timeout of a call. */
void plan_timeout(const struct plan *plan, char *text, size_t size);
/* Raw bytes after an upgrade. */
void plan_raw(const struct plan *plan, enum side side, struct text *text);

void text_add(struct text *text, const char *bytes, size_t size);
void text_print(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_free(struct text *text);

/* What the run knows of its requests. */
struct request {
    uint32_t client;     /* whose it is */
    uint32_t executions; /* heads that servers have seen */
    uint32_t refusals;   /* heads that servers have refused to look at */
    bool tcp;
    bool echo;
    bool h2; /* its client speaks HTTP/2 */
    uint64_t asked_ns;
    bool barred; /* behind a PROXY header that is none: no server may see it */
    bool left;   /* the client has gone before the end of it, of its own will */
};
extern struct request requests[REQUESTS_MAX];
/* The next number; 0 when there are too many. */
uint32_t plan_next(uint32_t client, bool tcp);
void plan_init(void);

#endif
