#include "sim/frames.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/rand.h"
#include "sim/actors.h"
#include "sim/judge.h"

#include <stdlib.h>
#include <string.h>

enum opcode { CONTINUATION, TEXT, BINARY, CLOSE = 8, PING, PONG };

/* A frame that is to be written. */
struct frame {
    uint8_t first; /* FIN, reserved bits, opcode */
    const char *payload;
    uint32_t size;
    bool masked;
};

#define FIN 0x80u
#define PIECE_MAX 20000 /* payload of a planned frame */

static struct frames_plan *plans[REQUESTS_MAX][2];

static void put_frame(struct text *text, const struct frame *frame, struct rand_state *random) {
    char head[14] = {(char)frame->first};
    size_t size = 2;
    if (frame->size < 126) {
        head[1] = (char)frame->size;
    } else if (frame->size < 65536) {
        head[1] = 126;
        head[size++] = (char)(frame->size >> 8);
        head[size++] = (char)frame->size;
    } else {
        head[1] = 127;
        size += 4; /* zeros */
        for (int shift = 24; shift >= 0; shift -= 8)
            head[size++] = (char)(frame->size >> shift);
    }
    char mask[4] = {0};
    if (frame->masked) {
        uint64_t key = rand_next(random);
        memcpy(mask, &key, sizeof mask);
        memcpy(head + size, mask, sizeof mask);
        head[1] = (char)(head[1] | 0x80);
        size += sizeof mask;
    }
    text_add(text, head, size);
    size_t at = text->len;
    if (frame->size != 0) text_add(text, frame->payload, frame->size);
    for (size_t i = 0; i < frame->size; i++)
        text->bytes[at + i] = (char)(text->bytes[at + i] ^ mask[i % 4]);
}

/* Whole characters of one to four bytes; they may be cut into frames anywhere. */
static void put_words(struct text *text, uint32_t size, struct rand_state *random) {
    static const char *const words[] = {
        "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x8c\x8a", "\xed\x9f\xbf", "plain words "};
    while (text->len < size) {
        const char *word = words[rand_below(random, 6)];
        text_add(text, word, strlen(word));
    }
}

static void put_control(struct text *text, bool masked, struct rand_state *random) {
    char payload[125];
    uint32_t size = rand_below(random, sizeof payload + 1);
    if (size == FRAMES_PING_SIZE) size++;
    for (uint32_t i = 0; i < size; i++)
        payload[i] = (char)rand_next(random);
    uint8_t opcode = rand_below(random, 2) ? PING : PONG;
    put_frame(text, &(struct frame){(uint8_t)(FIN | opcode), payload, size, masked}, random);
}

/* A message in one frame or more, with control frames between them. `open`: the last one is to
 * come. */
static void put_message(struct text *text, bool masked, bool open, struct rand_state *random) {
    struct text words = {0};
    uint8_t opcode = rand_below(random, 2) ? TEXT : BINARY;
    uint32_t most = rand_below(random, 3) ? 200 : PIECE_MAX;
    put_words(&words, 1 + rand_below(random, most), random);
    uint32_t frames = rand_below(random, 2) ? 1 : 1 + rand_below(random, 3);
    for (size_t at = 0; frames != 0; frames--) {
        bool last = frames == 1;
        size_t left = words.len - at;
        size_t size = last && !open ? left : rand_below(random, (uint32_t)left + 1);
        uint8_t fin = last && !open ? FIN : 0;
        put_frame(text, &(struct frame){fin | opcode, words.bytes + at, (uint32_t)size, masked},
                  random);
        at += size;
        opcode = CONTINUATION;
        if (!last && rand_below(random, 4) == 0) put_control(text, masked, random);
    }
    text_free(&words);
}

static void put_close(struct text *text, bool masked, struct rand_state *random) {
    static const char *const closes[] = {"", "\x03\xe8", "\x0f\xa0 bye", "\x0b\xb8\xc3\xa4"};
    static const uint32_t sizes[] = {0, 2, 6, 4};
    uint32_t i = rand_below(random, 4);
    put_frame(text, &(struct frame){FIN | CLOSE, closes[i], sizes[i], masked}, random);
}

/* Bytes that break a rule, and the code that says so. */
static void put_breach(struct frames_plan *plan, bool masked, struct rand_state *random) {
    static const char zeros[FRAMES_MESSAGE_MAX + 1];
    static const struct {
        struct frame frame;
        uint32_t code;
    } breaches[] = {
        {{FIN | 3, zeros, 5, false}, 1002},            /* an opcode that is none */
        {{FIN | 11, zeros, 5, false}, 1002},           /* likewise */
        {{FIN | 0x40 | TEXT, zeros, 5, false}, 1002},  /* a reserved bit */
        {{FIN | CONTINUATION, zeros, 5, false}, 1002}, /* of nothing */
        {{PING, zeros, 5, false}, 1002},               /* a fragment */
        {{FIN | PING, zeros, 126, false}, 1002},       /* too long */
        {{FIN | CLOSE, "\x03\xed", 2, false}, 1002},   /* 1005 is never sent */
        {{FIN | CLOSE, "\x03", 1, false}, 1002},       /* half a code */
        {{FIN | CLOSE, "\x03\xe8\xff", 3, false}, 1007},
        {{FIN | TEXT, "\xc3", 1, false}, 1007},
        {{FIN | TEXT, "\xed\xa0\x80", 3, false}, 1007}, /* a surrogate */
        {{FIN | BINARY, zeros, sizeof zeros, false}, 1009},
    };
    enum { COUNT = sizeof breaches / sizeof *breaches };
    uint32_t i = rand_below(random, COUNT + 2);
    plan->good = plan->text.len;
    if (i < COUNT) {
        struct frame frame = breaches[i].frame;
        frame.masked = masked;
        put_frame(&plan->text, &frame, random);
        plan->code = breaches[i].code;
        /* A text may begin to pass before its bad byte. */
        bool is_text = plan->code == 1007 && (frame.first & 8) == 0;
        if (is_text) plan->good = plan->text.len;
    } else if (i == COUNT) { /* masked as the other side */
        put_frame(&plan->text, &(struct frame){FIN | BINARY, zeros, 300, !masked}, random);
        plan->code = 1002;
    } else { /* a message within another one */
        put_message(&plan->text, masked, true, random);
        plan->good = plan->text.len;
        put_frame(&plan->text, &(struct frame){FIN | TEXT, zeros, 5, masked}, random);
        plan->code = 1002;
    }
}

static struct frames_plan *make(uint32_t id, enum side side, uint32_t size, bool breaks) {
    struct rand_state random;
    sim_seed(&random, hash_u64(sim.options.seed + 2) ^ (id * 2 + side));
    struct frames_plan *plan = calloc(1, sizeof *plan);
    CHECK(plan);
    bool masked = side == SIDE_REQUEST;
    plan->rest_at = rand_below(&random, 2) ? 0 : UINT64_MAX;
    uint32_t until = breaks ? rand_below(&random, size + 1) : size;
    while (plan->text.len < until) {
        if (rand_below(&random, 8) == 0) plan->rest_at = plan->text.len;
        if (rand_below(&random, 4) == 0) {
            put_control(&plan->text, masked, &random);
        } else {
            put_message(&plan->text, masked, false, &random);
        }
    }
    if (breaks) put_breach(plan, masked, &random);
    if (breaks) sim_note("frames break a rule", id, side, plan->code);
    if (rand_below(&random, 8) != 0) put_close(&plan->text, masked, &random);
    if (plan->text.len == 0) plan->rest_at = UINT64_MAX;
    if (!breaks) plan->good = plan->text.len;
    return plan;
}

void frames_make(uint32_t id, const uint32_t sizes[2], const bool breaks[2], bool eager) {
    if (plans[id][SIDE_REQUEST]) return;
    struct frames_plan *request = make(id, SIDE_REQUEST, sizes[0], breaks[0]);
    struct frames_plan *answer = make(id, SIDE_ANSWER, sizes[1], breaks[1]);
    /* Behind a Close nobody is pinged: only where both rest at once it may be for longer than
     * timeout_tunnel. */
    bool both = request->rest_at == 0 && answer->rest_at == 0 && !eager;
    uint64_t most_ns = both && world.ping_ns != 0 ? 2 * world.timeout_ns : world.timeout_ns / 3;
    request->rest_ns = answer->rest_ns = most_ns / (1 + id % 7);
    plans[id][SIDE_REQUEST] = request;
    plans[id][SIDE_ANSWER] = answer;
}

const struct frames_plan *frames_plan(uint32_t id, enum side side) { return plans[id][side]; }

const struct text *frames_text(uint32_t id, enum side side) {
    return plans[id][side] ? &plans[id][side]->text : NULL;
}

void frames_free_all(void) {
    for (uint32_t id = 0; id < REQUESTS_MAX; id++) {
        for (int side = 0; side < 2; side++) {
            if (!plans[id][side]) continue;
            text_free(&plans[id][side]->text);
            free(plans[id][side]);
            plans[id][side] = NULL;
        }
    }
}

void frames_begin(struct frames *frames, uint32_t id, enum side side) {
    *frames = (struct frames){.id = id, .side = side};
}

static const char *reader_of(const struct frames *frames) {
    return frames->side == SIDE_ANSWER ? "client" : "server";
}

/* Bytes of a header, as far as it says how long it is. */
static size_t header_size(const struct frames *frames) {
    if (frames->held_len < 2) return 2;
    uint8_t length = (uint8_t)frames->held[1];
    size_t size = 2;
    if ((length & 0x7f) == 126) size = 4;
    if ((length & 0x7f) == 127) size = 10;
    return size + (length & 0x80 ? 4 : 0);
}

static uint64_t payload_size(const struct frames *frames) {
    uint8_t length = (uint8_t)frames->held[1] & 0x7f;
    if (length < 126) return length;
    uint64_t size = 0;
    for (int i = 2; i < (length == 126 ? 4 : 10); i++)
        size = size << 8 | (uint8_t)frames->held[i];
    return size;
}

/* The payload of a control frame, without its mask. */
static uint8_t payload_byte(const struct frames *frames, size_t i) {
    size_t start = header_size(frames);
    uint8_t mask = (uint8_t)(frames->held[1] & 0x80 ? frames->held[start - 4 + i % 4] : 0);
    return (uint8_t)frames->held[start + i] ^ mask;
}

static void take_close(struct frames *frames, uint32_t code) {
    sim_note("weir closes", frames->id, frames->side, code);
    if (!judge_may_close(frames->id, frames->side, code)) {
        sim_fail(INVARIANT_ANSWERS, "request %u: weir sends its %s a Close with %u for no reason",
                 frames->id, reader_of(frames), code);
    }
    frames->code = code;
}

/* A control frame is whole. Whether it is one of weir's own. */
static bool take_own(struct frames *frames) {
    uint8_t opcode = (uint8_t)frames->held[0] & 0xf;
    uint64_t size = payload_size(frames);
    bool to_server = frames->side == SIDE_REQUEST;
    bool is_ping = opcode == PING && size == FRAMES_PING_SIZE;
    uint32_t code = 0;
    if (opcode == CLOSE && size == 2)
        code = (uint32_t)payload_byte(frames, 0) << 8 | payload_byte(frames, 1);
    bool is_close = code > 1000 && code < 1012;
    if (opcode == CLOSE && !is_close) frames->says_closed = true;
    if (!is_ping && !is_close) return false;
    if ((frames->held[1] & 0x80) != (to_server ? 0x80 : 0)) {
        sim_fail(INVARIANT_BYTES, "request %u: a frame of weir's to the %s is masked wrongly",
                 frames->id, reader_of(frames));
    }
    if (is_close) take_close(frames, code);
    if (!is_ping) return true;
    for (size_t i = 0; i < FRAMES_PING_SIZE; i++)
        frames->ping[i] = (char)payload_byte(frames, i);
    frames->pings++;
    sim_note("weir pings", frames->id, frames->side, 0);
    if (world.ping_ns == 0) {
        sim_fail(INVARIANT_BYTES, "request %u: its %s gets a ping", frames->id, reader_of(frames));
    }
    return true;
}

/* One byte more of a header, or of a control frame. Returns how much of it is planned. */
static size_t take_held(struct frames *frames, char byte, char *out) {
    CHECK(frames->held_len < sizeof frames->held);
    frames->held[frames->held_len++] = byte;
    size_t header = header_size(frames);
    if (frames->held_len < header) return 0;
    uint64_t payload = payload_size(frames);
    bool control = ((uint8_t)frames->held[0] & 8) != 0;
    if (control && payload > 125) {
        sim_fail(INVARIANT_BYTES, "request %u: its %s gets a control frame of %llu bytes",
                 frames->id, reader_of(frames), (unsigned long long)payload);
    }
    if (control && frames->held_len < header + payload) return 0;
    size_t size = frames->held_len;
    frames->left = control ? 0 : payload;
    bool own = control && take_own(frames);
    frames->held_len = 0;
    if (own) return 0;
    memcpy(out, frames->held, size);
    return size;
}

size_t frames_take(struct frames *frames, const char *bytes, size_t size, char *out) {
    size_t len = 0;
    for (size_t at = 0; at < size;) {
        if (frames->code != 0 || frames->says_closed) {
            sim_fail(INVARIANT_BYTES, "request %u: its %s gets bytes behind a Close", frames->id,
                     reader_of(frames));
        }
        if (frames->left == 0) {
            len += take_held(frames, bytes[at++], out + len);
            continue;
        }
        size_t part = frames->left < size - at ? (size_t)frames->left : size - at;
        memcpy(out + len, bytes + at, part);
        frames->left -= part;
        len += part;
        at += part;
    }
    frames->passed += len;
    const struct frames_plan *plan = plans[frames->id][frames->side];
    if (frames->passed > plan->good) {
        sim_fail(INVARIANT_BYTES, "request %u: its %s gets %llu bytes, %llu are good frames",
                 frames->id, reader_of(frames), (unsigned long long)frames->passed,
                 (unsigned long long)plan->good);
    }
    return len;
}

uint64_t frames_may_send(struct frames_out *out, const struct plan *plan, enum side side,
                         uint64_t at) {
    const struct frames_plan *frames = plan->frames ? plans[plan->id][side] : NULL;
    if (!frames) return UINT64_MAX;
    if (at < frames->rest_at) return frames->rest_at - at;
    if (at == frames->rest_at && !out->rested) {
        out->rested = true;
        out->until_ns = sim.now_ns + frames->rest_ns;
        sim_note("rests", plan->id, side, (int64_t)(frames->rest_ns / SIM_MS));
    }
    bool waits = sim.now_ns < out->until_ns || out->pong_at < out->pong_len;
    return waits ? 0 : UINT64_MAX;
}

bool frames_answer(struct frames_out *out, const struct frames *read) {
    if (out->pong_at < out->pong_len) return true;
    if (out->answered == read->pings) return false;
    out->answered = read->pings;
    if (sim.now_ns >= out->until_ns) return false;
    bool masked = read->side == SIDE_ANSWER; /* a client writes it */
    static const char mask[] = {1, 2, 3, 4};
    out->pong[0] = (char)(FIN | PONG);
    out->pong[1] = (char)(FRAMES_PING_SIZE | (masked ? 0x80 : 0));
    char *payload = out->pong + 2;
    if (masked) {
        memcpy(payload, mask, sizeof mask);
        payload += sizeof mask;
    }
    for (size_t i = 0; i < FRAMES_PING_SIZE; i++)
        payload[i] = (char)(read->ping[i] ^ (masked ? mask[i % 4] : 0));
    out->pong_at = 0;
    out->pong_len = (uint32_t)(payload + FRAMES_PING_SIZE - out->pong);
    return true;
}

size_t frames_put_pong(struct frames_out *out, char *to, size_t size) {
    size_t left = out->pong_len - out->pong_at;
    if (size > left) size = left;
    memcpy(to, out->pong + out->pong_at, size);
    out->pong_at += (uint32_t)size;
    return size;
}

bool frames_may_go_on(const struct frames_out *out, const struct frames *read) {
    return out->rested && (sim.now_ns >= out->until_ns || out->answered != read->pings ||
                           out->pong_at < out->pong_len);
}
