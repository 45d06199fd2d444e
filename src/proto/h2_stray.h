/* h2_stray.h: DATA frames of HTTP/2 that nghttp2 drops without a word, as it does where their
 * stream has ended or is about to be reset.
 *
 * They are found by counting: of all DATA frames whose heads are in the bytes that nghttp2 is fed,
 * those that it has told of are taken off. Frame heads (RFC 9113 section 4.1) are read here a
 * second time for that; what is no frame at all nghttp2 itself ends the session for.
 */
#ifndef WEIR_PROTO_H2_STRAY_H
#define WEIR_PROTO_H2_STRAY_H

#include "base/bytes.h"

/* Zeroed it begins with a frame. */
struct h2_stray {
    uint32_t skip;   /* bytes still to come of the frame under way; or, at first, of a preface */
    uint32_t frames; /* not told of, since h2_stray_feed */
    uint32_t bytes;  /* in them */
    uint32_t head_size;
    uint8_t head[9]; /* of the next frame, as far as it has come */
};

/* Before each call that feeds them to nghttp2. */
void h2_stray_feed(struct h2_stray *stray, struct bytes bytes);
/* Within that call: it has begun a DATA frame with so many bytes. */
void h2_stray_told(struct h2_stray *stray, size_t length);

#endif
