/* origin_h2_head.c: header blocks, decoded and encoded. */
#include "origin_h2_head.h"

#include "origin_base.h"

#include <stdio.h>
#include <string.h>

#define TABLE_SIZE 4096

struct h2_request h2_request;

void h2_head_init(struct h2_head *head) {
    if (nghttp2_hd_inflate_new(&head->inflater) != 0 ||
        nghttp2_hd_deflate_new(&head->deflater, TABLE_SIZE) != 0) {
        origin_die("nghttp2");
    }
}

void h2_head_fini(struct h2_head *head) {
    nghttp2_hd_inflate_del(head->inflater);
    nghttp2_hd_deflate_del(head->deflater);
}

static nghttp2_nv field(const char *name, const char *value) {
    return (nghttp2_nv){.name = (uint8_t *)name,
                        .value = (uint8_t *)value,
                        .namelen = strlen(name),
                        .valuelen = strlen(value)};
}

/* nghttp2 puts all but content-length into the table. So the second time that the fields are the
 * same, they are one byte each, and as encoding them changes nothing, the bytes may be sent again:
 * nghttp2 would take a third of what a request costs here. */
void h2_head_encode(struct h2_head *head, uint64_t size) {
    bool is_same = head->block_size > 0 && head->block_length == size &&
                   head->block_second == origin_date_second;
    if (is_same && head->is_repeatable) {
        return;
    }
    char length[24];
    snprintf(length, sizeof length, "%llu", (unsigned long long)size);
    nghttp2_nv fields[] = {field(":status", "200"), field("server", "origin"),
                           field("date", origin_date), field("content-type", "text/plain"),
                           field("content-length", length)};
    ssize_t written = nghttp2_hd_deflate_hd(head->deflater, head->block, sizeof head->block, fields,
                                            sizeof fields / sizeof *fields);
    if (written < 0) {
        origin_die("nghttp2_hd_deflate_hd");
    }
    head->is_repeatable = is_same;
    head->block_size = (size_t)written;
    head->block_length = size;
    head->block_second = origin_date_second;
}

void h2_head_limit(struct h2_head *head, uint32_t table_size) {
    uint32_t size = table_size < TABLE_SIZE ? table_size : TABLE_SIZE;
    if (nghttp2_hd_deflate_change_table_size(head->deflater, size) != 0) {
        origin_die("nghttp2_hd_deflate_change_table_size");
    }
    head->block_size = 0;
}

static void request_take(const nghttp2_nv *nv) {
    struct h2_request *request = &h2_request;
    if (nv->namelen == 5 && memcmp(nv->name, ":path", 5) == 0) {
        size_t size = nv->valuelen < sizeof request->path ? nv->valuelen : sizeof request->path - 1;
        memcpy(request->path, nv->value, size);
        request->path[size] = '\0';
    } else if (nv->namelen == 7 && memcmp(nv->name, ":method", 7) == 0) {
        request->is_post = nv->valuelen > 0 && nv->value[0] == 'P';
    }
    if (request->head_size + nv->namelen + nv->valuelen + 4 > H2_HEADS_MAX) {
        return;
    }
    char *at = request->head + request->head_size;
    memcpy(at, nv->name, nv->namelen);
    at += nv->namelen;
    memcpy(at, ": ", 2);
    memcpy(at + 2, nv->value, nv->valuelen);
    at += 2 + nv->valuelen;
    memcpy(at, "\r\n", 2);
    request->head_size = (size_t)(at + 2 - request->head);
}

bool h2_head_decode(struct h2_head *head, const uint8_t *block, size_t size) {
    h2_request.is_post = false;
    h2_request.path[0] = '\0';
    h2_request.head_size = 0;
    for (;;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t used = nghttp2_hd_inflate_hd2(head->inflater, &nv, &flags, block, size, 1);
        if (used < 0) {
            return false;
        }
        block += used;
        size -= (size_t)used;
        if (flags & NGHTTP2_HD_INFLATE_EMIT) {
            request_take(&nv);
        } else if (flags & NGHTTP2_HD_INFLATE_FINAL || size == 0) {
            return nghttp2_hd_inflate_end_headers(head->inflater) == 0;
        }
    }
}
