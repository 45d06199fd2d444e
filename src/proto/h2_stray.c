#include "proto/h2_stray.h"

#include "base/check.h"

#include <nghttp2/nghttp2.h>

static void h2_stray_begin(struct h2_stray *stray) {
    const uint8_t *head = stray->head;
    stray->skip = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
    stray->head_size = 0;
    if (head[3] != NGHTTP2_DATA) return;
    stray->frames++;
    stray->bytes += stray->skip;
}

void h2_stray_feed(struct h2_stray *stray, struct bytes bytes) {
    stray->frames = stray->bytes = 0;
    while (bytes.len != 0) {
        size_t wanted = stray->skip != 0 ? stray->skip : sizeof stray->head - stray->head_size;
        size_t part = wanted < bytes.len ? wanted : bytes.len;
        if (stray->skip != 0) {
            stray->skip -= (uint32_t)part;
        } else {
            memcpy(stray->head + stray->head_size, bytes.ptr, part);
            stray->head_size += (uint32_t)part;
            if (part == wanted) h2_stray_begin(stray);
        }
        bytes = bytes_slice(bytes, part, SIZE_MAX);
    }
}

void h2_stray_told(struct h2_stray *stray, size_t length) {
    CHECK(stray->frames != 0 && length <= stray->bytes);
    stray->frames--;
    stray->bytes -= (uint32_t)length;
}
