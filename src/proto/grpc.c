#include "proto/grpc.h"

#include "base/check.h"
#include "proto/http_error.h"
#include "proto/http_internal.h"

/* Clause of a reason (base/reason.def), every byte of it escaped at worst. */
#define GRPC_MESSAGE_MAX 512

bool grpc_is_content_type(struct bytes value) {
    struct bytes prefix = BYTES("application/grpc");
    if (!bytes_equal_nocase(bytes_slice(value, 0, prefix.len), prefix)) return false;
    struct bytes rest = bytes_slice(value, prefix.len, SIZE_MAX);
    if (rest.len == 0) return true;
    char c = rest.ptr[0];
    return c == '+' || c == ';' || c == ' ' || c == '\t';
}

static bool grpc_has_content_type(const struct http_message *message) {
    const struct http_field *type = http_fields_find(&message->fields, HTTP_FIELD_CONTENT_TYPE);
    return type && grpc_is_content_type(type->value);
}

bool grpc_is_request(const struct http_message *request) {
    return request->method == HTTP_POST && request->version_minor != 0 &&
           grpc_has_content_type(request);
}

bool grpc_is_answer(const struct http_message *answer) {
    return answer->status == 200 && answer->body_length == HTTP_LENGTH_UNKNOWN &&
           grpc_has_content_type(answer);
}

bool grpc_timeout_parse(struct bytes value, uint64_t *ms) {
    uint64_t count;
    if (value.len < 2 || value.len > GRPC_TIMEOUT_SIZE) return false;
    if (!bytes_to_u64(bytes_slice(value, 0, value.len - 1), &count)) return false;
    switch (value.ptr[value.len - 1]) {
    case 'H':
        *ms = count * 3600000;
        return true;
    case 'M':
        *ms = count * 60000;
        return true;
    case 'S':
        *ms = count * 1000;
        return true;
    case 'm':
        *ms = count;
        return true;
    case 'u':
        *ms = (count + 999) / 1000;
        return true;
    case 'n':
        *ms = (count + 999999) / 1000000;
        return true;
    default:
        return false;
    }
}

bool grpc_timeout_write(uint64_t ms, struct writer *text) {
    if (ms > 99999999) return false;
    writer_u64(text, ms);
    writer_char(text, 'm');
    return true;
}

enum grpc_status grpc_status_of_http(int http_status) {
    switch (http_status) {
    case 400:
        return GRPC_INTERNAL;
    case 401:
        return GRPC_UNAUTHENTICATED;
    case 403:
        return GRPC_PERMISSION_DENIED;
    case 404:
        return GRPC_UNIMPLEMENTED;
    case 413:
    case 414:
    case 431:
        return GRPC_RESOURCE_EXHAUSTED;
    case 429:
    case 502:
    case 503:
        return GRPC_UNAVAILABLE;
    case 504:
        return GRPC_DEADLINE_EXCEEDED;
    default:
        return GRPC_UNKNOWN;
    }
}

/* grpc.io, "gRPC over HTTP2", errors: the codes of RFC 9113 section 7. */
enum grpc_status grpc_status_of_reset(uint32_t code) {
    switch (code) {
    case 0x7: /* REFUSED_STREAM */
        return GRPC_UNAVAILABLE;
    case 0x8: /* CANCEL */
        return GRPC_CANCELLED;
    case 0xb: /* ENHANCE_YOUR_CALM */
        return GRPC_RESOURCE_EXHAUSTED;
    case 0xc: /* INADEQUATE_SECURITY */
        return GRPC_PERMISSION_DENIED;
    default:
        return GRPC_INTERNAL;
    }
}

void grpc_put_message(struct writer *text, struct bytes message) {
    for (size_t i = 0; i < message.len; i++) {
        unsigned char c = (unsigned char)message.ptr[i];
        if (c >= 0x20 && c < 0x7f && c != '%') {
            writer_char(text, (char)c);
            continue;
        }
        const char escape[3] = {'%', "0123456789ABCDEF"[c >> 4], "0123456789ABCDEF"[c & 15]};
        writer_put(text, bytes_make(escape, sizeof escape));
    }
}

enum grpc_status grpc_status_of(enum reason reason) {
    int status = reason_entry(reason)->status;
    CHECK(status != 0);
    return grpc_status_of_http(status);
}

bool grpc_put_status(enum grpc_status status, enum reason reason, struct arena *arena,
                     struct http_fields *fields) {
    static const struct bytes numbers[] = {
        [GRPC_CANCELLED] = HTTP_TEXT("1"),          [GRPC_UNKNOWN] = HTTP_TEXT("2"),
        [GRPC_DEADLINE_EXCEEDED] = HTTP_TEXT("4"),  [GRPC_PERMISSION_DENIED] = HTTP_TEXT("7"),
        [GRPC_RESOURCE_EXHAUSTED] = HTTP_TEXT("8"), [GRPC_UNIMPLEMENTED] = HTTP_TEXT("12"),
        [GRPC_INTERNAL] = HTTP_TEXT("13"),          [GRPC_UNAVAILABLE] = HTTP_TEXT("14"),
        [GRPC_UNAUTHENTICATED] = HTTP_TEXT("16"),
    };
    struct writer text = writer_make(arena_alloc(arena, GRPC_MESSAGE_MAX), GRPC_MESSAGE_MAX);
    if (!text.ptr) return false;
    grpc_put_message(&text, bytes_of(reason_entry(reason)->text));
    CHECK(!text.full);
    return http_fields_add(fields, arena, BYTES("grpc-status"), numbers[status]) &&
           http_fields_add(fields, arena, BYTES("grpc-message"), writer_bytes(&text));
}

bool grpc_status_answer(enum grpc_status status, enum reason reason, struct arena *arena,
                        struct http_message *answer) {
    struct http_message message = {
        .status = 200, .reason_phrase = http_reason_phrase(200), .version_minor = 1};
    /* One more for Date. */
    if (!http_fields_init(&message.fields, arena, 5) ||
        !http_fields_add(&message.fields, arena, BYTES("Content-Type"),
                         BYTES("application/grpc")) ||
        !grpc_put_status(status, reason, arena, &message.fields) ||
        !http_add_proxy_status(reason, arena, &message.fields)) {
        return false;
    }
    *answer = message;
    return true;
}

bool grpc_error_answer(enum reason reason, struct arena *arena, struct http_message *answer) {
    return grpc_status_answer(grpc_status_of(reason), reason, arena, answer);
}
