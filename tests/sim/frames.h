/* frames.h: WebSocket frames of a run whose weir checks them (RFC 6455): what either end of such a
 * tunnel sends, made once from its plan, and what comes of it at the other end.
 *
 * weir adds frames of its own to the planned bytes: a Close with one of its codes, a ping of
 * FRAMES_PING_SIZE bytes. Planned frames are never like these, so they are told apart by
 * themselves, and taken out. They share nothing with src/proto/.
 */
#ifndef WEIR_TESTS_SIM_FRAMES_H
#define WEIR_TESTS_SIM_FRAMES_H

#include "sim/plan.h"

#define FRAMES_MESSAGE_MAX 65536 /* weir's limit in these runs */
#define FRAMES_PING_SIZE 8
#define FRAMES_CONTROL_MAX 131 /* a control frame with its header */

/* One end's bytes of a tunnel. */
struct frames_plan {
    struct text text;
    uint64_t good;    /* so many of them may pass */
    uint32_t code;    /* what weir closes with where they end, 0: they break no rule */
    uint64_t rest_at; /* where its sender rests, between two frames; UINT64_MAX: nowhere */
    uint64_t rest_ns;
};

/* What is read at one end: what the other one has sent. */
struct frames {
    /* Fixed after init. */
    uint32_t id;
    enum side side; /* whose bytes they are */
    /* Changes in routine work. */
    bool in_frame;
    uint8_t held_len; /* of a header, or of a control frame */
    char held[FRAMES_CONTROL_MAX];
    uint64_t left;    /* of a data frame's payload */
    uint64_t passed;  /* planned bytes so far */
    uint32_t code;    /* of the Close that weir has said, 0: none */
    bool says_closed; /* the planned Close has come */
    uint32_t pings;   /* of weir's, with the payload of the last one */
    char ping[FRAMES_PING_SIZE];
};

/* What is written at one end. */
struct frames_out {
    bool rested;
    uint64_t until_ns; /* it rests */
    uint32_t answered; /* pings of weir's */
    uint32_t pong_at;  /* bytes of it that are written */
    uint32_t pong_len;
    char pong[FRAMES_CONTROL_MAX];
};

/* Makes those of both sides where they are not made yet: about so many bytes, and some that break a
 * rule; `eager`: the client does not wait for the server. */
void frames_make(uint32_t id, const uint32_t sizes[2], const bool breaks[2], bool eager);
const struct frames_plan *frames_plan(uint32_t id, enum side side);
/* NULL: its bytes are no frames. */
const struct text *frames_text(uint32_t id, enum side side);
void frames_free_all(void);

void frames_begin(struct frames *frames, uint32_t id, enum side side);
/* Takes out what is weir's: *out, with room for `size` and FRAMES_CONTROL_MAX more, gets what is
 * planned. Returns how much. What may not come ends the run. */
size_t frames_take(struct frames *frames, const char *bytes, size_t size, char *out);
/* How many of the next bytes may be written: their sender may have come to its rest. Plans without
 * frames have none. */
uint64_t frames_may_send(struct frames_out *out, const struct plan *plan, enum side side,
                         uint64_t at);
/* Who rests answers weir's ping, of what it has read; others show that they are there. True: there
 * is some of a pong to be written. */
bool frames_answer(struct frames_out *out, const struct frames *read);
/* As many bytes of it as there is room for. */
size_t frames_put_pong(struct frames_out *out, char *to, size_t size);
/* Whether who rested has something to write now. */
bool frames_may_go_on(const struct frames_out *out, const struct frames *read);
/* Whether weir has ended the tunnel from here on: what is missing then is excused. */
static inline bool frames_are_cut(const struct frames *frames) { return frames->code != 0; }

#endif
