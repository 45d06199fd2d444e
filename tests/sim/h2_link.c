#include "sim/h2_link.h"

#include "base/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define READ_SIZE 65536
/* What is taken from nghttp2 at once: what is there cannot be taken back, nor overtaken. */
#define OUT_SIZE 20000
/* nghttp2's limit of streams that are reset: weir's own faults are found otherwise. */
#define RESETS_UNLIMITED (UINT64_C(1) << 62)

/* Those of weir are looked at (watch_h2.c), these are not. */
void __real_nghttp2_session_callbacks_set_on_frame_recv_callback(
    nghttp2_session_callbacks *callbacks, nghttp2_on_frame_recv_callback callback);
void __real_nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
    nghttp2_session_callbacks *callbacks, nghttp2_on_data_chunk_recv_callback callback);

void h2_link_on_frame(nghttp2_session_callbacks *callbacks,
                      nghttp2_on_frame_recv_callback callback) {
    __real_nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, callback);
}

void h2_link_on_bytes(nghttp2_session_callbacks *callbacks,
                      nghttp2_on_data_chunk_recv_callback callback) {
    __real_nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, callback);
}

static int on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *frame, int error,
                            void *user) {
    const struct h2_link *link = user;
    (void)ng;
    /* More streams than it takes, before weir knows of it. */
    if (link->may_break || error == NGHTTP2_ERR_REFUSED_STREAM) return 0;
    sim_fail(INVARIANT_BYTES, "%s: a frame of type %d on stream %d breaks a rule: %s", link->name,
             (int)frame->hd.type, frame->hd.stream_id, nghttp2_strerror(error));
}

static int on_invalid_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                             size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                             void *user) {
    const struct h2_link *link = user;
    (void)ng;
    (void)flags;
    sim_fail(INVARIANT_BYTES, "%s: a field on stream %d is not valid: '%.*s: %.*s'", link->name,
             frame->hd.stream_id, (int)name_len, (const char *)name, (int)value_len,
             (const char *)value);
}

nghttp2_session_callbacks *h2_link_callbacks(void) {
    nghttp2_session_callbacks *callbacks;
    CHECK(nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header);
    return callbacks;
}

void h2_link_init(struct h2_link *link, nghttp2_session_callbacks *callbacks, bool is_server) {
    nghttp2_option *option;
    CHECK(nghttp2_option_new(&option) == 0);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_stream_reset_rate_limit(option, RESETS_UNLIMITED, RESETS_UNLIMITED);
    int error = is_server ? nghttp2_session_server_new2(&link->ng, callbacks, link, option)
                          : nghttp2_session_client_new2(&link->ng, callbacks, link, option);
    CHECK(error == 0);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
}

bool h2_link_begins_shut(void) { return sim_has(FAULT_SETTINGS_LATE) && sim_one_in(4); }

void h2_link_open_window(struct h2_link *link) {
    const nghttp2_settings_entry entry = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 65535};
    CHECK(nghttp2_submit_settings(link->ng, NGHTTP2_FLAG_NONE, &entry, 1) == 0);
}

void h2_link_fini(struct h2_link *link) {
    nghttp2_session_del(link->ng);
    link->ng = NULL;
    text_free(&link->out);
}

void h2_link_feed(struct h2_link *link, const char *bytes, size_t size) {
    ssize_t used = nghttp2_session_mem_recv(link->ng, (const uint8_t *)bytes, size);
    if (used >= 0) return;
    link->broken = true;
    if (link->may_break) return;
    sim_fail(INVARIANT_BYTES, "%s: nghttp2 gives up what it reads: %s", link->name,
             nghttp2_strerror((int)used));
}

void h2_link_read(struct h2_link *link) {
    static char bytes[READ_SIZE];
    while (!link->fin && !link->reset && !link->broken && sim.now_ns >= link->next_read_ns) {
        ssize_t got = sock_read(link->sock, bytes, link->read_max);
        if (got == -EAGAIN) return;
        if (got > 0) {
            link->moved += (uint64_t)got;
            h2_link_feed(link, bytes, (size_t)got);
            if (link->pace_ns) link->next_read_ns = sim.now_ns + sim_below(link->pace_ns);
        } else if (got == 0) {
            link->fin = true;
        } else {
            link->reset = true;
        }
    }
}

static void fill(struct h2_link *link) {
    link->out.len = link->out_at = 0;
    while (link->out.len < OUT_SIZE) {
        const uint8_t *frame;
        ssize_t size = nghttp2_session_mem_send(link->ng, &frame);
        CHECK(size >= 0);
        if (size == 0) return;
        text_add(&link->out, (const char *)frame, (size_t)size);
    }
}

void h2_link_write(struct h2_link *link) {
    while (!link->reset && !link->broken && sim.now_ns >= link->next_write_ns) {
        if (link->out_at == link->out.len) fill(link);
        size_t left = link->out.len - link->out_at;
        if (left == 0) return;
        size_t size = left < link->write_max ? left : link->write_max;
        ssize_t put = sock_write(link->sock, link->out.bytes + link->out_at, size);
        if (put == -EAGAIN) return;
        if (put < 0) {
            link->reset = true;
            return;
        }
        link->out_at += (size_t)put;
        link->moved += (uint64_t)put;
        if (link->pace_ns) link->next_write_ns = sim.now_ns + sim_below(link->pace_ns);
    }
}

bool h2_link_is_done(const struct h2_link *link) {
    if (link->fin || link->reset || link->broken) return true;
    return !nghttp2_session_want_read(link->ng) && !nghttp2_session_want_write(link->ng) &&
           link->out_at == link->out.len;
}

uint64_t h2_link_next_ns(const struct h2_link *link) {
    uint64_t at_ns = UINT64_MAX;
    if (link->next_write_ns > sim.now_ns) at_ns = link->next_write_ns;
    if (link->next_read_ns > sim.now_ns && link->next_read_ns < at_ns) at_ns = link->next_read_ns;
    return at_ns;
}

size_t h2_link_planned(struct frames *frames, bool has_frames, const char **bytes, size_t size) {
    static char planned[READ_SIZE + FRAMES_CONTROL_MAX];
    if (!has_frames) return size;
    CHECK(size <= READ_SIZE);
    size = frames_take(frames, *bytes, size, planned);
    *bytes = planned;
    return size;
}

void h2_fields_add(struct h2_fields *fields, const char *name, const char *format, ...) {
    CHECK(fields->count < H2_FIELDS_MAX);
    char *text = fields->text[fields->count];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof fields->text[0], format, arguments);
    va_end(arguments);
    CHECK(size >= 0 && (size_t)size < sizeof fields->text[0]);
    fields->items[fields->count++] = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                                                  .value = (uint8_t *)text,
                                                  .namelen = strlen(name),
                                                  .valuelen = (size_t)size};
}

bool h2_field_is(const nghttp2_nv *field, const char *name, char *value, size_t size) {
    if (field->namelen != strlen(name) || memcmp(field->name, name, field->namelen) != 0)
        return false;
    snprintf(value, size, "%.*s", (int)field->valuelen, (const char *)field->value);
    return true;
}
