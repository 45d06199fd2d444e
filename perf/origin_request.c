/* origin_request.c: finds the few things that matter in a request's head, in one pass. */
#include "origin_request.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void field_read(struct request *request, const char *line, const char *end) {
    if (strncasecmp(line, "content-length:", 15) == 0) {
        request->body_size = strtoull(line + 15, NULL, 10);
    } else if (strncasecmp(line, "transfer-encoding:", 18) == 0) {
        request->is_chunked = true;
    } else if (strncasecmp(line, "connection:", 11) == 0) {
        for (line += 11; line < end && *line == ' '; line++) {
        }
        request->wants_close = strncasecmp(line, "close", 5) == 0;
    }
}

bool request_read(struct request *request, const char *head, size_t size) {
    *request = (struct request){.is_head = memcmp(head, "HEAD ", 5) == 0};
    const char *end = head + size;
    const char *line_end = memchr(head, '\n', size);
    const char *blank = memchr(head, ' ', (size_t)(line_end - head));
    if (blank == NULL) {
        return false;
    }
    request->target = blank + 1;
    const char *target_end = memchr(blank + 1, ' ', (size_t)(line_end - blank));
    if (target_end == NULL) {
        return false;
    }
    request->target_size = (size_t)(target_end - request->target);
    request->wants_close = memcmp(target_end + 1, "HTTP/1.0", 8) == 0;
    for (const char *line = line_end + 1; line < end; line = line_end + 1) {
        line_end = memchr(line, '\n', (size_t)(end - line));
        char first = (char)(*line | 0x20);
        if (first == 'c' || first == 't') {
            field_read(request, line, line_end);
        }
    }
    return true;
}
