/* h2_call.h: a request at a server that speaks HTTP/2, and its answer. h2_server.c has the
 * connection, and what comes on it. */
#ifndef WEIR_TESTS_SIM_H2_CALL_H
#define WEIR_TESTS_SIM_H2_CALL_H

#include "sim/actors.h"
#include "sim/frames.h"
#include "sim/h2_link.h"

struct h2_conn;

/* A request: a stream. */
struct h2_call {
    struct h2_conn *conn;
    int32_t id;
    struct plan plan; /* id 0: its head is not whole */
    uint32_t told_id; /* X-Id */
    char timeout[16];
    char method[16], path[64], authority[64], protocol[16], told[64];
    uint32_t sum;
    struct frames frames; /* of a tunnel that has them */
    struct frames_out frames_out;
    uint64_t body;   /* bytes that have come */
    uint32_t unread; /* of them, without their window given back */
    uint32_t given;  /* bytes of the answer */
    uint32_t given_max;
    bool ended;     /* the request */
    bool answering; /* something of an answer was given */
    bool cuts;      /* the answer, after given_max */
    bool dropped;   /* refused, or behind a GOAWAY: it was never looked at */
    bool slow;
    bool deferred;
    struct sim_event *timer;
    struct sim_event *rest; /* between two frames */
    struct h2_call *next;
};

struct h2_conn {
    struct h2_link link;
    struct h2_call *calls;
    char line[128]; /* the PROXY header */
    size_t line_len;
    bool wants_proxy;
    int32_t last; /* what its GOAWAY says: nothing is done with streams behind it */
    bool goaway;
    bool done;
    bool aborts;
    bool lingers;   /* it has said all, and reads on until weir has gone: RST would take it back */
    uint32_t pings; /* left of a row of them; 0: none is under way */
    struct sim_event *timer;
    struct sim_event *idle; /* a GOAWAY, or the end */
    struct h2_conn *next;
};

/* Window for what was read, and more of the answer, after a rest. */
void h2_call_rest(struct h2_call *call);
/* Its bytes go on after a rest, or there is a ping to be answered. */
void h2_call_go_on(struct h2_call *call);
void h2_call_put_interims(struct h2_call *call);
/* As its plan says; some of them end in RST_STREAM. */
void h2_call_answer(struct h2_call *call);
/* Its stream has ended, or its connection. */
void h2_call_free(struct h2_call *call);
/* h2_server.c: the connection does its next step then. */
void h2_server_wake(struct h2_conn *conn, uint64_t at_ns);

#endif
