/* h2_link.h: HTTP/2 as the actors speak it: one of nghttp2's sessions on an end of a connection.
 *
 * nghttp2 keeps its checks of messages here, which weir has switched off: what weir sends must pass
 * them. The actor gives windows back by itself, so that it may read one stream slowly and all
 * others at once. */
#ifndef WEIR_TESTS_SIM_H2_LINK_H
#define WEIR_TESTS_SIM_H2_LINK_H

#include "sim/frames.h"
#include "sim/kernel.h"
#include "sim/plan.h"

#include <nghttp2/nghttp2.h>

#define H2_FIELDS_MAX 12 /* of a message that an actor sends */

/* What nghttp2 hands its callbacks: the first member of whoever has it. */
struct h2_link {
    /* Fixed after init. */
    struct sock *sock;
    nghttp2_session *ng;
    char name[24]; /* whose it is, for failures */
    uint32_t write_max, read_max;
    uint64_t pace_ns; /* between two writes or reads, at most */
    bool may_break;   /* errors of what comes are no finding */
    /* Changes in routine work. */
    uint64_t next_write_ns, next_read_ns;
    struct text out;
    size_t out_at;
    uint64_t moved; /* bytes both ways */
    bool fin;       /* the other side's */
    bool reset;
    bool broken; /* nghttp2 has given it up */
};

/* The callbacks of an actor; what every actor has in common is set already. */
nghttp2_session_callbacks *h2_link_callbacks(void);
void h2_link_on_frame(nghttp2_session_callbacks *callbacks,
                      nghttp2_on_frame_recv_callback callback);
void h2_link_on_bytes(nghttp2_session_callbacks *callbacks,
                      nghttp2_on_data_chunk_recv_callback callback);
/* A server's end, or a client's. Takes the callbacks. */
void h2_link_init(struct h2_link *link, nghttp2_session_callbacks *callbacks, bool is_server);
void h2_link_fini(struct h2_link *link);
/* Whether streams are to begin without a window, which is opened later. */
bool h2_link_begins_shut(void);
void h2_link_open_window(struct h2_link *link);
/* As far as its pace allows it. */
void h2_link_read(struct h2_link *link);
void h2_link_feed(struct h2_link *link, const char *bytes, size_t size);
void h2_link_write(struct h2_link *link);
/* Nothing is left to be written, or ever to be read. */
bool h2_link_is_done(const struct h2_link *link);
/* When it goes on by itself, UINT64_MAX: only when something comes. */
uint64_t h2_link_next_ns(const struct h2_link *link);

/* What of DATA's bytes is planned: without weir's own frames where there are any. */
size_t h2_link_planned(struct frames *frames, bool has_frames, const char **bytes, size_t size);

struct h2_fields {
    nghttp2_nv items[H2_FIELDS_MAX];
    size_t count;
    char text[H2_FIELDS_MAX][512];
};
void h2_fields_add(struct h2_fields *fields, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Whether it is this field; copies the value. */
bool h2_field_is(const nghttp2_nv *field, const char *name, char *value, size_t size);

#endif
