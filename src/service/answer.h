/* answer.h: the stream of a service that answers a request with one head and one body, made at
 * once.
 *
 * It drops the request's body and sends the answer from a deferred task, piece by piece as the
 * client reads. It lives in the exchange's arena, and ends with the exchange's close.
 */
#ifndef WEIR_SERVICE_ANSWER_H
#define WEIR_SERVICE_ANSWER_H

#include "net/net.h"
#include "session/stream.h"

struct answer {
    struct stream stream;
    struct net *net;
    struct net_task task;
    void *service; /* the maker's */
    /* Fills *message (status, fields: in stream.arena or static) and *body (bytes that stay until
     * `done`). false: memory is used up. */
    bool (*make)(struct answer *answer, const struct http_message *request,
                 struct http_message *message, struct bytes *body);
    void (*done)(struct answer *answer); /* the stream was closed; NULL: nothing to do */
    void *made;                          /* the maker's, for `done` */
    /* The rest is answer.c's. */
    struct http_message message;
    struct bytes body; /* what is still to be sent */
    bool failed;
    bool begun;
    bool paused;
    bool no_body;
    bool ended;   /* the user has had all */
    bool *closed; /* set by close while an event is given */
};

/* NULL when the arena is at its limit. The caller sets service, make and done. */
struct answer *answer_open(struct net *net, struct arena *arena);

#endif
