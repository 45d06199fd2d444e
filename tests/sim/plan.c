#include "sim/plan.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/rand.h"
#include "sim/actors.h"
#include "sim/frames.h"

#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct request requests[REQUESTS_MAX];

static uint32_t last_id;

void plan_init(void) {
    memset(requests, 0, sizeof requests);
    frames_free_all();
    last_id = 0;
}

uint32_t plan_next(uint32_t client, bool tcp) {
    if (last_id + 1 == REQUESTS_MAX) return 0;
    requests[++last_id] = (struct request){.client = client, .tcp = tcp};
    return last_id;
}

static uint32_t pick_size(struct rand_state *random) {
    if (sim_has(FAULT_SLOW_NETWORK)) return rand_below(random, 1500);
    switch (rand_below(random, 8)) {
    case 0:
        return 0;
    case 1:
    case 2:
    case 3:
        return rand_below(random, 500);
    case 4:
        return 2040 + rand_below(random, 16); /* where copying ends */
    case 5:
        return rand_below(random, 20000);
    case 6:
        return 65536 - 8 + rand_below(random, 16); /* where a stream begins */
    default:
        return rand_below(random, rand_below(random, 8) == 0 ? 2000000 : 300000);
    }
}

static void plan_method(struct plan *plan, struct rand_state *random) {
    switch (rand_below(random, 6)) {
    case 0:
    case 1:
    case 2:
        plan->method = "GET";
        plan->idempotent = true;
        return;
    case 3:
        plan->method = "HEAD";
        plan->idempotent = plan->is_head = true;
        return;
    case 4:
        plan->method = "PUT";
        plan->idempotent = true;
        break;
    default:
        plan->method = "POST";
        break;
    }
    plan->request_framing = rand_below(random, 2) ? FRAMING_LENGTH : FRAMING_CHUNKED;
    plan->request_size = pick_size(random);
    plan->expects = rand_below(random, 20) == 0;
}

static void plan_status(struct plan *plan, struct rand_state *random) {
    static const int statuses[] = {200, 200, 200, 200, 201, 204, 304, 404, 500, 503};
    plan->status = statuses[rand_below(random, 10)];
    plan->interims = rand_below(random, 10) == 0 ? 1 + rand_below(random, 2) : 0;
    plan->answer_framing = FRAMING_LENGTH + rand_below(random, 3);
    plan->answer_size = pick_size(random);
    plan->server_ends = plan->answer_framing == FRAMING_CLOSE || rand_below(random, 10) == 0;
    if (plan->status != 204 && plan->status != 304) return;
    plan->answer_framing = FRAMING_NONE;
    plan->answer_size = 0;
    plan->server_ends = false;
}

/* What the headers of clients tell, in turn. */
enum told { TOLD_BY_V1, TOLD_BY_V2, TOLD_NOTHING_BY_V1, TOLD_NOTHING_BY_V2, TOLD_COUNT };

static enum told told_of(uint32_t client) { return (enum told)(client % TOLD_COUNT); }

/* 10.0.0.0/16 has the clients' own addresses, 10.9.0.0/16 those that are told. */
static bool is_told(uint32_t client) {
    return world.takes_proxy && (told_of(client) == TOLD_BY_V1 || told_of(client) == TOLD_BY_V2);
}

void plan_client_address(uint32_t client, char *text, size_t size) {
    snprintf(text, size, "10.%u.%u.%u", is_told(client) ? 9 : 0, client / 256, client % 256);
}

/* A TLV that means nothing lies behind the addresses of some. */
static void add_v2_header(uint32_t client, bool told, struct text *text) {
    static const char signature[] = "\r\n\r\n\0\r\nQUIT\n";
    static const char noop[300] = {4, 1, 41};
    uint32_t tlv = client % 8 < TOLD_COUNT ? 0 : (uint32_t)sizeof noop;
    uint32_t size = (told ? 12 : 0) + tlv;
    const char head[] = {told ? 0x21 : 0x20, told ? 0x11 : 0, (char)(size >> 8), (char)size};
    const char ends[] = {10, 9, (char)(client / 256), (char)client, 127, 0, 0, 1, 1, 2, 3, 4};
    text_add(text, signature, sizeof signature - 1);
    text_add(text, head, sizeof head);
    if (told) text_add(text, ends, sizeof ends);
    text_add(text, noop, tlv);
}

void plan_proxy_header(uint32_t client, struct text *text) {
    char address[32];
    if (is_told(client) && sim_defect(DEFECT_SWAP_HEADERS)) client += TOLD_COUNT;
    plan_client_address(client, address, sizeof address);
    switch (told_of(client)) {
    case TOLD_BY_V1:
        text_print(text, "PROXY TCP4 %s 127.0.0.1 %u 8080\r\n", address, 1024 + client);
        return;
    case TOLD_NOTHING_BY_V1:
        text_print(text, "PROXY UNKNOWN%s\r\n", client % 8 < TOLD_COUNT ? "" : " and the like");
        return;
    case TOLD_BY_V2:
    case TOLD_NOTHING_BY_V2:
        add_v2_header(client, told_of(client) == TOLD_BY_V2, text);
        return;
    case TOLD_COUNT:
        break;
    }
    CHECK(false);
}

void plan_bad_proxy_header(struct text *text) {
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {
        {"PROXY TCP4 10.9.0.1 127.0.0.1 1 70000\r\n", 39},
        {"PROXY TCP4 10.9.0.1\r\n", 21},
        {"PROXY  UNKNOWN\r\n", 16},
        {"PROXY UNKNOWN\n", 14},
        {"none at all", 11},
        {"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c", 16},
        {"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", 16},
        {"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x05"
         "abcde",
         21},
        {"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c"
         "abcdefghijkl",
         28},
    };
    size_t i = (size_t)sim_below(sizeof bad / sizeof *bad);
    text_add(text, bad[i].bytes, bad[i].size);
}

static enum manner pick_manner(struct rand_state *random) {
    if (sim_has(FAULT_SERVER_BAD) && rand_below(random, 4) == 0)
        return MANNER_SILENT + rand_below(random, 4);
    if (sim_has(FAULT_SERVER_EARLY) && rand_below(random, 4) == 0) return MANNER_EARLY;
    return MANNER_SERVES;
}

/* A tunnel is asked for: the server may have something else to say. */
static void plan_tunnel(struct plan *plan, struct rand_state *random) {
    static const int refusals[] = {404, 403, 503, 200};
    bool converted = world.h2_servers && !requests[plan->id].h2;
    /* The only upgrade of HTTP/1.1 that servers of HTTP/2 can be told of is that to WebSocket. */
    enum tunnel_kind least = converted ? TUNNEL_WEBSOCKET : TUNNEL_UPGRADE;
    plan->tunnel = rand_below(random, 2) ? TUNNEL_WEBSOCKET
                                         : least + rand_below(random, TUNNEL_CONNECT - least + 1);
    bool connects = plan->tunnel == TUNNEL_CONNECT;
    plan->method = connects ? "CONNECT" : "GET";
    plan->idempotent = !connects;
    plan->is_head = plan->expects = plan->request_trailers = false;
    plan->request_framing = FRAMING_NONE;
    plan->request_size = 0;
    plan->eager = rand_below(random, 4) == 0;
    plan->upgrade = rand_below(random, 6) != 0;
    if (plan->upgrade) return;
    /* What would not open a tunnel. */
    plan->status = refusals[rand_below(random, connects || world.h2_servers ? 3 : 4)];
    if (plan->answer_framing == FRAMING_NONE) plan->answer_framing = FRAMING_LENGTH;
}

static void plan_frames(struct plan *plan, struct rand_state *random) {
    const bool breaks[2] = {rand_below(random, 8) == 0, rand_below(random, 8) == 0};
    frames_make(plan->id, (uint32_t[]){plan->request_size, plan->answer_size}, breaks, plan->eager);
    plan->frames = true;
    plan->breaks = breaks[SIDE_REQUEST] || breaks[SIDE_ANSWER];
    plan->request_size = (uint32_t)frames_plan(plan->id, SIDE_REQUEST)->text.len;
    plan->answer_size = (uint32_t)frames_plan(plan->id, SIDE_ANSWER)->text.len;
}

/* Only a body of unknown length has trailers in HTTP/1.1. */
static void plan_call(struct plan *plan, struct rand_state *random) {
    plan->call = true;
    plan->method = "POST";
    plan->idempotent = plan->is_head = plan->expects = plan->request_trailers = false;
    plan->request_framing = FRAMING_CHUNKED;
    plan->request_size = pick_size(random);
    plan->status = 200;
    plan->server_ends = false;
    /* Those that weir gives itself mean that it has. */
    plan->outcome = rand_below(random, 3) ? 0 : 5 + (int)rand_below(random, 9);
    bool head_only = rand_below(random, 5) == 0;
    plan->answer_framing = head_only ? FRAMING_LENGTH : FRAMING_CHUNKED;
    plan->answer_size = head_only ? 0 : pick_size(random);
    plan->answer_trailers = !head_only;
    uint32_t most = 1u << rand_below(random, 15);
    plan->timeout_ms = rand_below(random, 2) ? 0 : 1 + rand_below(random, most);
}

struct plan plan_of(uint32_t id) {
    struct rand_state random;
    sim_seed(&random, hash_u64(sim.options.seed + 1) ^ id);
    struct plan plan = {.id = id};
    plan.local = rand_below(&random, 12) == 0;
    plan_method(&plan, &random);
    plan_status(&plan, &random);
    plan.manner = pick_manner(&random);
    plan.cut_at = rand_below(&random, 1 << 30);
    plan.request_trailers = plan.request_framing == FRAMING_CHUNKED && rand_below(&random, 8) == 0;
    plan.answer_trailers = plan.answer_framing == FRAMING_CHUNKED && rand_below(&random, 8) == 0;
    bool tcp = requests[id].tcp;
    bool tunnels = !plan.local && rand_below(&random, 5) == 0;
    if (plan.local && !tcp) plan.manner = MANNER_SERVES;
    bool calls = !plan.local && !tunnels && rand_below(&random, 6) == 0;
    if (!tcp && tunnels) plan_tunnel(&plan, &random);
    if (!tcp && calls) plan_call(&plan, &random);
    plan.upgrade |= tcp;
    if (!plan.upgrade) return plan;
    if (requests[id].echo) {
        uint32_t size = pick_size(&random);
        return (struct plan){.id = id,
                             .method = "ECHO",
                             .tcp = true,
                             .echo = true,
                             .local = true,
                             .upgrade = true,
                             .request_size = size,
                             .status = 101,
                             .answer_size = size,
                             .manner = MANNER_SERVES};
    }
    bool raw_only = plan.manner == MANNER_EARLY || (tcp && plan.manner == MANNER_NONSENSE);
    struct plan raw = {.id = id,
                       .method = tcp ? "TCP" : plan.method,
                       .idempotent = !tcp && plan.idempotent,
                       .tcp = tcp,
                       .tunnel = plan.tunnel,
                       .upgrade = true,
                       .eager = plan.eager,
                       .interims = plan.interims,
                       .request_size = pick_size(&random),
                       .status = plan.tunnel == TUNNEL_CONNECT ? 200 : 101,
                       .answer_size = plan.answer_size,
                       .manner = raw_only ? MANNER_SERVES : plan.manner,
                       .cut_at = plan.cut_at};
    if (raw.tunnel == TUNNEL_WEBSOCKET && world.checks_frames) plan_frames(&raw, &random);
    return raw;
}

char plan_byte(uint32_t id, enum side side, uint64_t offset) {
    const struct text *frames = frames_text(id, side);
    if (frames) return offset < frames->len ? frames->bytes[offset] : '\0';
    uint64_t x = (id * 2 + side) * 0x9e3779b97f4a7c15ull + offset * 0xbf58476d1ce4e5b9ull;
    return (char)(x >> 53);
}

void text_add(struct text *text, const char *bytes, size_t size) {
    if (size == 0) return;
    if (text->len + size > text->capacity) {
        text->capacity = (text->len + size) * 2;
        text->bytes = realloc(text->bytes, text->capacity);
        CHECK(text->bytes);
    }
    memcpy(text->bytes + text->len, bytes, size);
    text->len += size;
}

void text_print(struct text *text, const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    CHECK(size >= 0 && (size_t)size < sizeof line);
    text_add(text, line, (size_t)size);
}

void text_free(struct text *text) {
    free(text->bytes);
    *text = (struct text){0};
}

static void add_pattern(struct text *text, const struct plan *plan, enum side side,
                        const uint32_t range[2]) {
    char piece[1024];
    for (uint32_t at = range[0]; at < range[1];) {
        uint32_t size = range[1] - at < sizeof piece ? range[1] - at : (uint32_t)sizeof piece;
        for (uint32_t i = 0; i < size; i++)
            piece[i] = plan_byte(plan->id, side, at + i);
        text_add(text, piece, size);
        at += size;
    }
}

static void add_chunks(struct text *text, const struct plan *plan, enum side side, uint32_t size) {
    struct rand_state random;
    sim_seed(&random, plan->cut_at + side);
    for (uint32_t at = 0; at < size;) {
        uint32_t most = rand_below(&random, 2) ? 100 : 40000;
        uint32_t chunk = 1 + rand_below(&random, most);
        if (chunk > size - at) chunk = size - at;
        text_print(text, "%x\r\n", chunk);
        add_pattern(text, plan, side, (uint32_t[]){at, at + chunk});
        text_add(text, "\r\n", 2);
        at += chunk;
    }
    text_print(text, "0\r\n");
    bool trailers = side == SIDE_REQUEST ? plan->request_trailers : plan->answer_trailers;
    if (trailers) text_print(text, "X-Sum: %u\r\n", plan->id);
    bool swaps = trailers && plan->call && sim_defect(DEFECT_SWAP_OUTCOMES);
    if (trailers && plan->call)
        text_print(text, "Grpc-Status: %d\r\n", plan->outcome + (swaps ? 1 : 0));
    text_print(text, "\r\n");
}

static void add_body(struct text *text, const struct plan *plan, enum side side) {
    uint32_t size = side == SIDE_REQUEST ? plan->request_size : plan->answer_size;
    enum framing framing = side == SIDE_REQUEST ? plan->request_framing : plan->answer_framing;
    if (framing == FRAMING_CHUNKED) {
        add_chunks(text, plan, side, size);
    } else if (framing != FRAMING_NONE) {
        add_pattern(text, plan, side, (uint32_t[]){0, size});
    }
}

static void add_framing(struct text *text, enum framing framing, uint32_t size) {
    if (framing == FRAMING_LENGTH) text_print(text, "Content-Length: %u\r\n", size);
    if (framing == FRAMING_CHUNKED) text_print(text, "Transfer-Encoding: chunked\r\n");
}

/* In one unit or another. */
void plan_timeout(const struct plan *plan, char *text, size_t size) {
    if (plan->id % 3 == 0 && plan->timeout_ms < 99999) {
        snprintf(text, size, "%uu", plan->timeout_ms * 1000);
    } else {
        snprintf(text, size, "%um", plan->timeout_ms);
    }
}

void plan_target(const struct plan *plan, char *text, size_t size) {
    if (plan->tunnel == TUNNEL_CONNECT) {
        snprintf(text, size, "far:%u", plan->id);
    } else {
        snprintf(text, size, "%s/%u", plan->local ? "/local" : "/far", plan->id);
    }
}

static void add_request_head(const struct plan *plan, bool last, struct text *text) {
    char target[32];
    plan_target(plan, target, sizeof target);
    text_print(text, "%s %s HTTP/1.1\r\nHost: %s\r\nX-Id: %u\r\n", plan->method, target,
               plan->tunnel == TUNNEL_CONNECT ? target : "sim", plan->id);
    if (plan->cut_at % 3 == 0) {
        text_print(text, "Cookie: ");
        for (uint32_t i = 0; i < plan->cut_at % 50; i++)
            text_add(text, "abcdefgh", 8);
        text_add(text, "\r\n", 2);
    }
    add_framing(text, plan->request_framing, plan->request_size);
    if (plan->expects) text_print(text, "Expect: 100-continue\r\n");
    if (plan->call) text_print(text, "Content-Type: application/grpc\r\nTE: trailers\r\n");
    char timeout[16];
    plan_timeout(plan, timeout, sizeof timeout);
    bool lost = plan->timeout_ms != 0 && sim_defect(DEFECT_LOSE_DEADLINE);
    if (plan->timeout_ms != 0 && !lost) text_print(text, "Grpc-Timeout: %s\r\n", timeout);
    if (plan->tunnel == TUNNEL_WEBSOCKET) {
        text_print(text, "Connection: upgrade\r\nUpgrade: websocket\r\n"
                         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " PLAN_KEY "\r\n");
    } else if (plan->tunnel == TUNNEL_UPGRADE) {
        text_print(text, "Connection: upgrade\r\nUpgrade: sim\r\n");
    } else if (plan->tunnel == TUNNEL_NONE && last && plan->cut_at % 2) {
        text_print(text, "Connection: close\r\n");
    }
    text_add(text, "\r\n", 2);
}

void plan_request(const struct plan *plan, bool last, struct text *text) {
    if (plan->tcp) {
        if (!plan->echo) text_print(text, "RAW %u\n", plan->id);
        plan_raw(plan, SIDE_REQUEST, text);
        return;
    }
    add_request_head(plan, last, text);
    add_body(text, plan, SIDE_REQUEST);
    if (plan_is_hasty(plan)) plan_raw(plan, SIDE_REQUEST, text);
}

size_t plan_request_head_size(const struct plan *plan, bool last) {
    struct text head = {0};
    if (plan->tcp) return 0;
    add_request_head(plan, last, &head);
    size_t size = head.len;
    text_free(&head);
    return size;
}

void plan_interims(const struct plan *plan, struct text *text) {
    if (plan->expects) text_print(text, "HTTP/1.1 100 Continue\r\nX-Id: %u\r\n\r\n", plan->id);
    for (uint32_t i = 0; i < plan->interims; i++) {
        text_print(text, "HTTP/1.1 103 Early Hints\r\nX-Id: %u\r\nLink: </x>\r\n\r\n", plan->id);
    }
}

/* RFC 6455 section 4.2.2. */
static void add_accept(const char *key, struct text *text) {
    char whole[128];
    unsigned char digest[20], accept[32];
    int size = snprintf(whole, sizeof whole, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    CHECK(EVP_Digest(whole, (size_t)size, digest, NULL, EVP_sha1(), NULL) == 1);
    CHECK(EVP_EncodeBlock(accept, digest, sizeof digest) == (int)strlen(PLAN_ACCEPT));
    text_print(text, "Upgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
}

static void add_switch(const struct plan *plan, const char *key, struct text *text) {
    if (plan->tunnel == TUNNEL_CONNECT) {
        /* It means nothing here (RFC 9110 section 9.3.6). */
        text_print(text, plan->cut_at % 5 == 0 ? "Content-Length: 3\r\n\r\n" : "\r\n");
        return;
    }
    text_print(text, "Connection: upgrade\r\n");
    if (plan->tunnel == TUNNEL_WEBSOCKET) {
        add_accept(key, text);
    } else {
        text_print(text, "Upgrade: sim\r\n\r\n");
    }
}

void plan_answer(const struct plan *plan, const char *key, struct text *text) {
    if (plan->tcp) return;
    text_print(text, "HTTP/1.1 %d Planned\r\nX-Id: %u\r\n", plan->status, plan->id);
    if (plan->upgrade) {
        add_switch(plan, key, text);
        return;
    }
    add_framing(text, plan->answer_framing, plan->answer_size);
    if (plan->call) text_print(text, "Content-Type: application/grpc\r\n");
    if (plan->call && !plan->answer_trailers)
        text_print(text, "Grpc-Status: %d\r\n", plan->outcome);
    if (plan->server_ends) text_print(text, "Connection: close\r\n");
    text_add(text, "\r\n", 2);
    if (!plan->is_head) add_body(text, plan, SIDE_ANSWER);
}

void plan_raw(const struct plan *plan, enum side side, struct text *text) {
    uint32_t size = side == SIDE_REQUEST ? plan->request_size : plan->answer_size;
    add_pattern(text, plan, side, (uint32_t[]){0, size});
}
