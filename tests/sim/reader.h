/* reader.h: HTTP/1.1 as the actors read it: strict, and checking every byte of a body against its
 * plan. It shares nothing with src/proto/. */
#ifndef WEIR_TESTS_SIM_READER_H
#define WEIR_TESTS_SIM_READER_H

#include "sim/frames.h"
#include "sim/plan.h"

enum reader_event {
    READER_MORE, /* all was taken */
    READER_HEAD, /* a head is complete; the body's pattern may be set */
    READER_END,  /* a message is complete */
    READER_BAD   /* `why` says what */
};

enum reader_state {
    READ_START,
    READ_FIELDS,
    READ_BODY,
    READ_CHUNK,
    READ_CHUNK_END,
    READ_TRAILERS,
    READ_UNTIL_END,
    READ_RAW
};

struct reader {
    bool is_answer;
    enum reader_state state;
    bool head_is_new; /* READER_HEAD was said, the body not begun */
    char line[16384];
    size_t line_len;
    const char *why;
    /* Of the message. */
    char method[16];
    char target[64];
    int status;
    uint32_t id; /* 0: none */
    bool has_length;
    uint64_t length;
    bool chunked;
    bool closes;     /* Connection: close */
    char reason[40]; /* weir's own, in Proxy-Status */
    char forwarded_for[64];
    uint32_t sum; /* the trailer's, 0: none */
    int outcome;  /* grpc-status, of the head or the trailers; -1: none */
    char timeout[16];
    char key[64]; /* Sec-WebSocket-Key or -Accept */
    /* Set by the user at READER_HEAD. */
    bool no_body;    /* as answers to HEAD have none */
    bool is_tunnel;  /* raw bytes follow */
    bool has_frames; /* these are frames, with some of weir's among them */
    struct frames frames;
    uint32_t pattern_id; /* 0: the body is not looked at */
    enum side side;
    uint64_t body; /* bytes so far */
    uint64_t left; /* of the body, or the chunk */
};

#define READER_PIECE_MAX 65536 /* bytes fed at once */

void reader_init(struct reader *reader, bool is_answer);
/* Takes some of *at, *size. */
enum reader_event reader_feed(struct reader *reader, const char **at, size_t *size);
/* Whether FIN here ends a message well; if not, something was cut. */
bool reader_may_end(const struct reader *reader);
static inline bool reader_is_idle(const struct reader *reader) {
    return reader->state == READ_START && reader->line_len == 0;
}

#endif
