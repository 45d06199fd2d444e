/* HTTP/1: whatever arrives, however it is split, gives one result; what is accepted can be written
 * and read again.
 *
 * The first 4 bytes of an input choose limits, the method that a response answers, and the splits.
 * The rest is read as a request, a response and a trailer section, each with the body and the
 * trailers that its head announces.
 */
#include "base/check.h"
#include "proto/h1_body.h"
#include "proto/h1_write.h"
#include "proto/http_internal.h"

#include <stdio.h>
#include <stdlib.h>

#define OPTION_BYTES 4
#define INPUT_SIZE_MAX 2048
#define FIELDS_MAX 100
#define REPORT_SIZE (64 * 1024)
#define WRITTEN_SIZE (64 * 1024)

/* The input, and where it is cut: the parts end at ends[0], ends[1] ... size. */
struct feed {
    struct bytes input;
    const uint32_t *ends;
    uint32_t end_count;
};

/* Everything that a reader of one message learns. */
struct outcome {
    enum h1_result head;
    struct h1_parser parser;
    struct http_message message;
    enum h1_body_event body; /* the last event */
    struct writer body_bytes;
    enum h1_result trailers;
    enum reason trailers_reason;
    struct http_message trailer_message;
    uint32_t consumed; /* offset where the next message begins, when this one is complete */
    bool complete;
    struct arena arena;
};

static struct arena_pool pool;
static struct h1_span spans[FIELDS_MAX];

/* Exactly as big as what it holds, and at a new place each time. */
static char *copy_of(struct bytes b) {
    char *copy = malloc(b.len);
    CHECK(copy != NULL || b.len == 0);
    if (b.len != 0) memcpy(copy, b.ptr, b.len);
    return copy;
}

/* Reads a head (or trailers) that begins at `from`. */
static enum h1_result read_head(struct h1_parser *parser, const struct feed *feed, uint32_t from,
                                struct arena *arena, struct http_message *message) {
    enum h1_result result = H1_MORE;
    for (uint32_t i = 0; i < feed->end_count && result == H1_MORE; i++) {
        if (feed->ends[i] < from) continue;
        struct bytes head = bytes_make(feed->input.ptr + from, feed->ends[i] - from);
        char *copy = copy_of(head);
        head.ptr = copy;
        result = h1_parse(parser, head);
        CHECK(result == H1_MORE || h1_parse(parser, head) == result);
        if (result == H1_DONE) {
            CHECK(parser->head_size <= head.len);
            CHECK(h1_message(parser, head, BYTES("http"), arena, message));
        }
        free(copy);
    }
    return result;
}

/* Reads body bytes from `from` on; returns the offset behind what was used. */
static uint32_t read_body(struct outcome *out, const struct feed *feed, uint32_t from) {
    struct h1_body body;
    uint32_t at = from;
    h1_body_init(&body, out->parser.body_kind, out->parser.body_length);
    for (uint32_t i = 0; i < feed->end_count; i++) {
        if (feed->ends[i] < at) continue;
        struct bytes piece = bytes_make(feed->input.ptr + at, feed->ends[i] - at);
        char *copy = copy_of(piece);
        piece.ptr = copy;
        struct bytes data;
        while ((out->body = h1_body_read(&body, &piece, &data)) == H1_BODY_DATA) {
            CHECK(data.len != 0);
            writer_put(&out->body_bytes, data);
        }
        CHECK(out->body != H1_BODY_MORE || piece.len == 0);
        at = feed->ends[i] - (uint32_t)piece.len;
        free(copy);
        if (out->body != H1_BODY_MORE) break;
    }
    CHECK(body.read == out->body_bytes.len);
    return at;
}

static void read_trailers(struct outcome *out, const struct feed *feed, uint32_t from,
                          const struct h1_limits *limits) {
    struct h1_parser parser;
    h1_parser_init(&parser, H1_TRAILERS, HTTP_GET, limits, spans);
    out->trailers = read_head(&parser, feed, from, &out->arena, &out->trailer_message);
    out->trailers_reason = parser.reason;
    out->consumed = from + parser.head_size;
    out->complete = out->trailers == H1_DONE;
}

static void read_message(struct outcome *out, const struct feed *feed, enum h1_kind kind,
                         enum http_method method, const struct h1_limits *limits) {
    static char body_memory[2][WRITTEN_SIZE];
    static unsigned turn;
    *out = (struct outcome){.trailers = H1_MORE};
    out->body_bytes = writer_make(body_memory[turn++ % 2], WRITTEN_SIZE);
    arena_init(&out->arena, &pool);
    h1_parser_init(&out->parser, kind, method, limits, spans);
    out->head = read_head(&out->parser, feed, 0, &out->arena, &out->message);
    if (out->head != H1_DONE) return;
    out->consumed = out->parser.head_size;
    out->complete = kind == H1_TRAILERS;
    if (kind == H1_TRAILERS) return;
    out->consumed = read_body(out, feed, out->parser.head_size);
    out->complete = out->body == H1_BODY_END || out->parser.body_kind == H1_BODY_UNTIL_CLOSE;
    if (out->body == H1_BODY_TRAILERS) read_trailers(out, feed, out->consumed, limits);
}

static void report_bytes(struct writer *w, const char *name, struct bytes b) {
    writer_print(w, "%s%s %zu=", name, b.ptr == NULL ? " none" : "", b.len);
    writer_put(w, b);
    writer_char(w, '\n');
}

static void report_fields(struct writer *w, const struct http_fields *fields) {
    for (uint32_t i = 0; i < fields->count; i++) {
        writer_print(w, "field %d ", (int)fields->items[i].id);
        report_bytes(w, "name", fields->items[i].name);
        report_bytes(w, "value", fields->items[i].value);
    }
}

/* What must survive being written and read again. */
static void report_message(struct writer *w, const struct outcome *out) {
    const struct http_message *message = &out->message;
    writer_print(w, "method %d status %d length %llu expect %d\n", (int)message->method,
                 (int)message->status, (unsigned long long)message->body_length,
                 (int)message->expect_continue);
    report_bytes(w, "method", message->method_text);
    report_bytes(w, "scheme", message->scheme);
    report_bytes(w, "authority", message->authority);
    report_bytes(w, "path", message->path);
    report_bytes(w, "query", message->query);
    report_bytes(w, "phrase", message->reason_phrase);
    report_bytes(w, "upgrade", message->upgrade);
    report_fields(w, &message->fields);
    writer_print(w, "body kind %d event %d\n", (int)out->parser.body_kind, (int)out->body);
    report_bytes(w, "body", writer_bytes(&out->body_bytes));
    report_fields(w, &out->trailer_message.fields);
}

static void report_outcome(struct writer *w, const struct outcome *out) {
    const struct h1_parser *parser = &out->parser;
    writer_print(w, "head %d reason %d size %u minor %d method %d\n", (int)out->head,
                 (int)parser->reason, parser->head_size, (int)out->message.version_minor,
                 (int)parser->method);
    if (out->head != H1_DONE) return;
    writer_print(w, "keep %d upgrade %d length %llu\n", (int)parser->keep_alive,
                 (int)parser->upgrade_named, (unsigned long long)parser->body_length);
    writer_print(w, "trailers %d reason %d\n", (int)out->trailers, (int)out->trailers_reason);
    writer_print(w, "consumed %u complete %d\n", out->consumed, (int)out->complete);
    report_message(w, out);
}

static void check_same(const struct writer *a, const struct writer *b, const char *what) {
    CHECK(!a->full && !b->full);
    if (bytes_equal(writer_bytes(a), writer_bytes(b))) return;
    fprintf(stderr, "%s differs:\n%.*s\n---- and ----\n%.*s\n", what, BYTES_FMT(writer_bytes(a)),
            BYTES_FMT(writer_bytes(b)));
    abort();
}

/* Only what may be forwarded, and nothing that could end a line. */
static void check_fields(const struct http_fields *fields, bool trailers) {
    CHECK(fields->count <= fields->capacity);
    for (uint32_t i = 0; i < fields->count; i++) {
        const struct http_field *field = &fields->items[i];
        CHECK(http_token_valid(field->name) && http_field_value_valid(field->value));
        CHECK(bytes_equal(bytes_trim(field->value), field->value));
        CHECK(field->id == http_field_id_of(field->name));
        CHECK(!trailers || field->id == HTTP_FIELD_OTHER);
        CHECK(field->id != HTTP_FIELD_CONNECTION && field->id != HTTP_FIELD_CONTENT_LENGTH);
        CHECK(field->id != HTTP_FIELD_TRANSFER_ENCODING && field->id != HTTP_FIELD_HOST);
        CHECK(field->id != HTTP_FIELD_UPGRADE && field->id != HTTP_FIELD_KEEP_ALIVE);
    }
}

static void check_message(const struct outcome *out) {
    const struct http_message *message = &out->message;
    check_fields(&message->fields, out->parser.kind == H1_TRAILERS);
    check_fields(&out->trailer_message.fields, true);
    if (out->parser.kind == H1_REQUEST) {
        CHECK(http_token_valid(message->method_text));
        CHECK(http_bytes_are(message->path, HTTP_BYTE_TARGET));
        CHECK(http_bytes_are(message->query, HTTP_BYTE_TARGET));
        CHECK(message->path.len != 0 || message->method == HTTP_CONNECT);
        CHECK(message->authority.len == 0 || http_authority_valid(message->authority));
        CHECK(message->authority.len != 0 || message->version_minor == 0);
    }
    if (out->parser.kind == H1_RESPONSE) CHECK(http_field_value_valid(message->reason_phrase));
}

static void write_message(struct writer *w, const struct outcome *out) {
    const struct http_message *message = &out->message;
    struct h1_framing framing = {
        .body_kind = out->parser.body_kind,
        .body_length = message->body_length,
        .upgrade = message->upgrade.len != 0,
        .keep_alive = out->parser.keep_alive,
    };
    if (out->parser.kind == H1_REQUEST) {
        h1_write_request(w, message, &framing);
    } else {
        bool no_body = http_response_has_no_body(out->parser.request_method, message->status);
        framing.length_is_known = no_body && message->body_length != HTTP_LENGTH_UNKNOWN;
        h1_write_response(w, message, &framing);
    }
    CHECK(w->len <= h1_head_size_max(message));
    struct bytes body = writer_bytes(&out->body_bytes);
    if (out->parser.body_kind == H1_BODY_CHUNKED) {
        if (body.len != 0) {
            h1_write_chunk_head(w, body.len);
            writer_put(w, body);
            writer_put(w, BYTES("\r\n"));
        }
        h1_write_last_chunk(w, &out->trailer_message.fields);
    } else {
        writer_put(w, body);
    }
    CHECK(!w->full);
}

static void check_round_trip(const struct outcome *out) {
    static char written_memory[WRITTEN_SIZE];
    static char first_memory[REPORT_SIZE];
    static char second_memory[REPORT_SIZE];
    const struct h1_limits wide = {WRITTEN_SIZE, FIELDS_MAX, INPUT_SIZE_MAX};
    /* HTTP/1.0 without Host has none to write: what is written is refused, and rightly. */
    if (!out->complete || out->parser.kind == H1_TRAILERS) return;
    if (out->parser.kind == H1_REQUEST && out->message.authority.len == 0) return;
    struct writer written = writer_make(written_memory, sizeof(written_memory));
    write_message(&written, out);
    /* Host, framing and Connection may be more fields than came in. */
    if (out->message.fields.count + 4 > FIELDS_MAX) return;

    struct outcome again;
    uint32_t size = (uint32_t)written.len;
    struct feed feed = {writer_bytes(&written), &size, 1};
    read_message(&again, &feed, out->parser.kind, out->parser.request_method, &wide);
    struct writer first = writer_make(first_memory, sizeof(first_memory));
    struct writer second = writer_make(second_memory, sizeof(second_memory));
    report_message(&first, out);
    report_message(&second, &again);
    check_same(&first, &second, "what was written and read again");
    CHECK(again.complete && again.consumed == written.len);
    arena_reset(&again.arena);
}

static uint32_t next_random(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* Parts of 1 to `size_max` bytes. */
static uint32_t cut(uint32_t *ends, uint32_t size, uint32_t size_max, uint32_t seed) {
    uint32_t state = seed * 2654435761u | 1;
    uint32_t count = 0;
    uint32_t at = 0;
    do {
        at += 1 + next_random(&state) % size_max;
        if (at > size) at = size;
        ends[count++] = at;
    } while (at < size);
    return count;
}

static void check_kind(struct bytes input, enum h1_kind kind, const uint8_t *options) {
    static char first_memory[REPORT_SIZE];
    static char second_memory[REPORT_SIZE];
    static uint32_t ends[INPUT_SIZE_MAX + 1];
    const uint32_t parts_max[] = {1, 2 + options[3] % 64u, 1024};
    const struct h1_limits limits = {
        .head_size_max = (const uint32_t[]){16384, 16384, 64, 256}[options[0] & 3],
        .fields_max = (const uint32_t[]){FIELDS_MAX, 2}[options[0] >> 2 & 1],
        .target_size_max = (const uint32_t[]){1024, 8}[options[0] >> 3 & 1],
    };
    enum http_method method = (enum http_method)(options[1] % HTTP_METHOD_COUNT);
    struct outcome whole;
    uint32_t size = (uint32_t)input.len;
    struct feed feed = {input, &size, 1};
    read_message(&whole, &feed, kind, method, &limits);
    struct writer first = writer_make(first_memory, sizeof(first_memory));
    report_outcome(&first, &whole);
    if (whole.head == H1_DONE) check_message(&whole);
    for (size_t i = 0; i < sizeof(parts_max) / sizeof(parts_max[0]); i++) {
        struct outcome split;
        feed.ends = ends;
        feed.end_count = cut(ends, size, parts_max[i], options[2] + 256u * options[3]);
        read_message(&split, &feed, kind, method, &limits);
        struct writer second = writer_make(second_memory, sizeof(second_memory));
        report_outcome(&second, &split);
        check_same(&first, &second, "split input");
        arena_reset(&split.arena);
    }
    /* The body of `whole` was overwritten by those after it. */
    arena_reset(&whole.arena);
    feed = (struct feed){input, &size, 1};
    read_message(&whole, &feed, kind, method, &limits);
    check_round_trip(&whole);
    arena_reset(&whole.arena);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    return arena_pool_init(&pool, 4096, 8, 65536, 16);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < OPTION_BYTES) return 0;
    size_t rest = size - OPTION_BYTES;
    if (rest > INPUT_SIZE_MAX) rest = INPUT_SIZE_MAX;
    struct bytes input = bytes_make((const char *)data + OPTION_BYTES, rest);
    check_kind(input, H1_REQUEST, data);
    check_kind(input, H1_RESPONSE, data);
    check_kind(input, H1_TRAILERS, data);
    return 0;
}
