/* ws.h: WebSocket frames as they pass (RFC 6455), without I/O: bytes in, events out.
 *
 * A parser reads one direction of a tunnel and judges it: masking by side, reserved bits, opcodes,
 * fragmentation, sizes, the UTF-8 of texts, what a Close may say. It changes nothing and keeps no
 * payload. Frames are taken apart by wslay, whose state is a few kilobytes: a parser holds one of
 * the room's only while a frame is incomplete. A room belongs to one worker and outlives its
 * parsers; it grows to as many states as were ever needed at once, two for each tunnel at most.
 */
#ifndef WEIR_PROTO_WS_H
#define WEIR_PROTO_WS_H

#include "base/bytes.h"
#include "base/reason.h"

/* RFC 6455 section 5.2. */
enum ws_opcode {
    WS_CONTINUATION = 0,
    WS_TEXT = 1,
    WS_BINARY = 2,
    WS_CLOSE = 8,
    WS_PING = 9,
    WS_PONG = 10
};

/* RFC 6455 section 7.4.1, as far as weir says them itself. */
enum ws_code {
    WS_CODE_GOING_AWAY = 1001,
    WS_CODE_PROTOCOL = 1002,
    WS_CODE_BAD_TEXT = 1007,
    WS_CODE_TOO_LARGE = 1009,
    WS_CODE_INTERNAL = 1011
};

#define WS_CONTROL_PAYLOAD_MAX 125
/* Of a control frame with its header; no frame of any kind has a longer header than this. */
#define WS_CONTROL_SIZE_MAX (2 + 4 + WS_CONTROL_PAYLOAD_MAX)
/* As much of a control frame's payload as a parser keeps: a Close's code, a pong to weir's ping. */
#define WS_CONTROL_KEPT 8

struct ws_state;

struct ws_room {
    struct ws_state *spare;
    uint32_t count; /* states that exist */
    uint32_t used;
};

struct ws_parser {
    /* Fixed after init. */
    struct ws_room *room;
    uint64_t message_max; /* bytes of payload in all frames of a message, 0: no limit */
    bool masked;          /* frames of this direction are: it comes from a client */
    /* Changes in routine work. */
    bool begun;        /* the frame under way was judged by its header, and is not refused */
    bool passed;       /* some of the frame under way has passed */
    bool in_message;   /* more frames of the message follow */
    bool is_text;      /* the message */
    bool fin;          /* of the frame under way */
    uint8_t opcode;    /* of the frame under way or the last one, enum ws_opcode */
    uint8_t utf8_left; /* continuation bytes that the character under way still needs */
    uint8_t utf8_low;  /* and the range of the next one */
    uint8_t utf8_high;
    uint8_t control_size; /* payload of a control frame so far */
    uint8_t control[WS_CONTROL_KEPT];
    uint16_t code;          /* BAD: what a Close to the sender says, enum ws_code */
    enum reason reason;     /* BAD */
    uint32_t undecided;     /* bytes of the frame under way that no event has let pass yet */
    uint64_t left;          /* payload of the frame under way still to come */
    uint64_t message_size;  /* payload of the message, with all of the frame under way */
    struct ws_state *state; /* NULL between frames */
};

enum ws_event {
    WS_MORE,    /* all is read; the last `undecided` bytes belong to a frame that is not judged */
    WS_PASS,    /* what was read so far is good: a data frame's header and payload, or part of it */
    WS_CONTROL, /* a whole control frame of `undecided` bytes ends here; do not read on behind a
                 * Close */
    WS_BAD      /* a violation: nothing of the last `undecided` bytes may pass; do not read on */
};

void ws_room_init(struct ws_room *room);
/* CHECKs that no parser holds a state. Harmless on a zeroed room. */
void ws_room_fini(struct ws_room *room);

void ws_parser_init(struct ws_parser *parser, struct ws_room *room, bool masked,
                    uint64_t message_max);
void ws_parser_fini(struct ws_parser *parser);
/* Reads from `input` up to the next event and says in *used how many bytes that took. The events
 * and their places depend on the bytes alone, not on how they were split, except that a payload
 * gives one PASS for each piece. BAD with REASON_NO_MEMORY when there is no state for it. */
enum ws_event ws_read(struct ws_parser *parser, struct bytes input, size_t *used);
/* Whether some of a data frame has passed and the rest has not: no other frame may be put in here
 * (RFC 6455 section 5.4). Also after BAD. */
static inline bool ws_in_frame(const struct ws_parser *parser) { return parser->passed; }

/* A control frame with at most WS_CONTROL_PAYLOAD_MAX bytes; `to` has room for WS_CONTROL_SIZE_MAX.
 * Returns its size. Masked by a fresh key when it goes to a server. */
size_t ws_write_control(char *to, enum ws_opcode opcode, struct bytes payload, bool masked);
/* A Close with a code and no text. */
size_t ws_write_close(char *to, enum ws_code code, bool masked);

#endif
