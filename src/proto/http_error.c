#include "proto/http_error.h"

#include "base/check.h"

#define HTTP_ERROR_TEXT_MAX 512

static bool http_error_text(struct arena *arena, struct writer *text) {
    char *memory = arena_alloc(arena, HTTP_ERROR_TEXT_MAX);
    if (!memory) return false;
    *text = writer_make(memory, HTTP_ERROR_TEXT_MAX);
    return true;
}

bool http_add_proxy_status(enum reason reason, struct arena *arena, struct http_fields *fields) {
    const struct reason_entry *entry = reason_entry(reason);
    struct writer status;
    if (!http_error_text(arena, &status)) return false;
    writer_put(&status, BYTES("weir"));
    if (entry->proxy_error[0] != '\0') {
        writer_put(&status, BYTES("; error="));
        writer_put(&status, bytes_of(entry->proxy_error));
    }
    writer_put(&status, BYTES("; details=\""));
    writer_put(&status, bytes_of(entry->name));
    writer_char(&status, '"');
    CHECK(!status.full);
    return http_fields_add(fields, arena, BYTES("Proxy-Status"), writer_bytes(&status));
}

bool http_error_answer(enum reason reason, struct arena *arena, struct http_message *answer,
                       struct bytes *body) {
    const struct reason_entry *entry = reason_entry(reason);
    CHECK(entry->status != 0);
    struct writer text;
    struct bytes phrase = http_reason_phrase(entry->status);
    struct http_message message = {
        .status = (uint16_t)entry->status, .reason_phrase = phrase, .version_minor = 1};
    if (!http_error_text(arena, &text)) return false;
    writer_u64(&text, (uint64_t)entry->status);
    writer_char(&text, ' ');
    writer_put(&text, phrase);
    writer_put(&text, BYTES(": "));
    writer_put(&text, bytes_of(entry->text));
    writer_put(&text, BYTES(".\n"));
    CHECK(!text.full);
    message.body_length = text.len;
    if (!http_fields_init(&message.fields, arena, 3) ||
        !http_fields_add(&message.fields, arena, BYTES("Content-Type"), BYTES("text/plain")) ||
        !http_add_proxy_status(reason, arena, &message.fields)) {
        return false;
    }
    if ((entry->status == 503 || entry->status == 429) &&
        !http_fields_add(&message.fields, arena, BYTES("Retry-After"), BYTES("1"))) {
        return false;
    }
    *answer = message;
    *body = writer_bytes(&text);
    return true;
}
