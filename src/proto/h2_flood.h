/* h2_flood.h: what one side of an HTTP/2 connection may make the other do for nothing, counted by
 * kind.
 *
 * Each kind has a limit for H2_FLOOD_WINDOW_MS; a limit of 0 does not count. Counts begin anew with
 * each window, so that up to twice the limit may come around the change of one. Frames that were
 * asked for by what we did ourselves (h2_flood_allow) do not count against the sender.
 */
#ifndef WEIR_PROTO_H2_FLOOD_H
#define WEIR_PROTO_H2_FLOOD_H

#include <stdbool.h>
#include <stdint.h>

#define H2_FLOOD_WINDOW_MS 10000
/* No more than this is saved up. */
#define H2_FLOOD_SAVED_MAX 32768

/* Each has a row in base/stat.def. */
enum h2_flood_kind {
    H2_FLOOD_RAPID_RESET,   /* requests that the client takes back before their answer is whole,
                             * more than are answered */
    H2_FLOOD_MADE_RESET,    /* streams that we have to reset for what the client does on them */
    H2_FLOOD_CONTINUATION,  /* frames of one header block: not by time */
    H2_FLOOD_SETTINGS,      /* SETTINGS frames */
    H2_FLOOD_PING,          /* PING frames, beyond one for each DATA frame that we have sent */
    H2_FLOOD_EMPTY_DATA,    /* DATA frames without data or end */
    H2_FLOOD_PRIORITY,      /* PRIORITY frames */
    H2_FLOOD_WINDOW_UPDATE, /* more than four for each DATA frame that we have sent, and one for
                             * each 64 bytes in it: some open both windows for all they read */
    H2_FLOOD_HPACK,         /* header sections of four times the limits: not by time */
    H2_FLOOD_ZERO_WINDOW,   /* streams whose window has stayed closed for timeout_client */
    H2_FLOOD_CLOSED,        /* HEADERS and RST_STREAM on streams that have ended, more than two for
                             * each that has begun; DATA there, beyond what may have crossed the end
                             */
    H2_FLOOD_COUNT
};

struct h2_flood_limits {
    uint32_t max[H2_FLOOD_COUNT]; /* in one window; 0: no limit */
};

struct h2_flood {
    uint64_t window_ms; /* when this one began */
    uint32_t count[H2_FLOOD_COUNT];
    uint32_t saved[H2_FLOOD_COUNT]; /* free ones that have not come yet, of any window */
};

/* One more has come. True: that is too many. */
bool h2_flood_note(struct h2_flood *flood, const struct h2_flood_limits *limits,
                   enum h2_flood_kind kind, uint64_t now_ms);
/* `count` of those that have come are free. */
void h2_flood_allow(struct h2_flood *flood, enum h2_flood_kind kind, uint32_t count);
/* Likewise, or of those that come later: what they answer may have to wait for long. */
void h2_flood_save(struct h2_flood *flood, enum h2_flood_kind kind, uint32_t count);

#endif
