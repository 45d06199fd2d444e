/* h2_ask.h: a client's requests over HTTP/2: what is sent on each stream, and the judge of what
 * comes back. h2_client.c has the connection. */
#ifndef WEIR_TESTS_SIM_H2_ASK_H
#define WEIR_TESTS_SIM_H2_ASK_H

#include "sim/actors.h"
#include "sim/frames.h"
#include "sim/h2_link.h"

#define H2_ASKED_MAX 16

/* How a stream ends, apart from having its answer. */
enum mood { MOOD_WELL, MOOD_SLOW, MOOD_STOPS, MOOD_RESETS };

struct h2_client;

/* A request: a stream. */
struct h2_ask {
    struct h2_client *client;
    struct plan plan;
    int32_t id;
    enum mood mood;
    uint64_t leave_at; /* after so many bytes of body both ways */
    uint32_t sent;     /* bytes of the request's body */
    uint64_t body;     /* of the answer's */
    uint32_t unread;   /* of them, without their window given back */
    uint64_t progress_ns;
    uint32_t interims;
    /* The answer. */
    int status;
    uint32_t told_id;
    uint32_t sum;
    int outcome; /* grpc-status; -1: none */
    char reason[40];
    bool answered; /* with a final head */
    bool whole;    /* its end has come */
    bool closed;   /* the stream */
    bool misbehaved;
    bool stopped;
    bool got_continue;
    bool deferred;
    struct frames frames; /* of a tunnel that has them */
    struct frames_out frames_out;
    struct sim_event *timer;
};

struct h2_client {
    struct h2_link link;
    uint32_t number;
    struct h2_ask asked[H2_ASKED_MAX];
    uint32_t asked_count;
    uint32_t begun;
    uint32_t closed;
    uint32_t depth; /* requests that may be under way at once */
    enum leaving leaving;
    uint64_t leave_at; /* after so many bytes both ways */
    uint64_t moved;    /* of which it knows */
    uint64_t progress_ns;
    uint64_t accepted_ns;
    uint32_t pings; /* left before it ends well */
    bool opened, accepted;
    bool heard;      /* something of weir's */
    bool refused;    /* told so in HTTP/1: it is one too many */
    bool misbehaved; /* from here on weir owes nothing */
    bool stopped;
    bool no_more;     /* weir takes no more requests here */
    bool says_goaway; /* behind its last request: weir ends the connection after it */
    bool fin_sent;
    bool done;
    struct sim_event *timer;
    struct h2_client *next;
};

/* The callbacks of a client: they know its requests by their streams. */
nghttp2_session_callbacks *h2_ask_callbacks(void);
/* Asks for the next of what is to be asked. */
void h2_ask_next(struct h2_client *client);
/* Whether it has had enough of its stream, and so resets or leaves it. */
bool h2_ask_is_over(struct h2_ask *ask);
/* Its bytes go on after a rest, or there is a ping to be answered. */
void h2_ask_go_on(struct h2_ask *ask);
/* The stream has ended: without its whole answer it needs an excuse. */
void h2_ask_close(struct h2_ask *ask, uint32_t code);
/* h2_client.c: the client does its next step then. */
void h2_client_wake(struct h2_client *client, uint64_t at_ns);

#endif
