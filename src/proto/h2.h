/* h2.h: nghttp2 as weir uses it: its memory, its options, and what weir says of itself in SETTINGS.
 *
 * One h2_codec belongs to one worker and is shared by all of its HTTP/2 sessions: what nghttp2
 * allocates for them comes from that worker's thread and is counted here, and is bounded: past
 * `memory_max` an allocation fails (a large one past half of it), and its session ends with a
 * reason. nghttp2 frames, compresses
 * and counts windows; what a message may look like is judged by h2_head.h, so nghttp2's own checks
 * of messages are off. Windows are opened by the session, never by nghttp2 itself.
 */
#ifndef WEIR_PROTO_H2_H
#define WEIR_PROTO_H2_H

#include "base/bytes.h"
#include "base/slab.h"

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdint.h>

/* How many streams a connection is taken to carry until its other side has said so. */
#define H2_STREAMS_GUESS 32
/* And at most, whatever it says. */
#define H2_STREAMS_MAX 1024
/* What a stream, and what a connection, may have under way towards us. */
#define H2_CLIENT_STREAM_WINDOW (256 * 1024)
#define H2_UPSTREAM_STREAM_WINDOW (64 * 1024)
#define H2_CONNECTION_WINDOW (1024 * 1024)
/* The dynamic table with which we compress, at most. */
#define H2_DEFLATE_TABLE 4096

/* What nghttp2 asks for once a session, to put frames together: 16384 bytes of payload and a head,
 * whose number it may change a little. */
#define H2_FRAME_BUFFER_MIN 16384
#define H2_FRAME_BUFFER_SIZE 20480

/* What it asks for with each stream (the stream, a frame to be sent, the fields of a head; in bits:
 * a value that it does not index) and gives back soon comes from slabs: malloc(3), free(3) and the
 * size of what is freed took a twentieth of a request. When all are taken, it comes from the heap.
 */
#define H2_BIT_SIZE 64
#define H2_BLOCK_LEAST 128
#define H2_BLOCK_SIZE 512
#define H2_BLOCKS 4096 /* of each */

/* What a session takes of nghttp2's memory at most, beside its streams: both of HPACK's tables full
 * of the smallest fields, a name and a value of the greatest length begun, as many answers waiting
 * as nghttp2 lets wait. And a stream, with a head to be sent of so many bytes and fields: nghttp2
 * keeps a copy until it can be sent. Measured (h2_memory_test.c). */
#define H2_SESSION_MEMORY UINT64_C(393216)
#define H2_STREAM_MEMORY UINT64_C(640)
static inline uint64_t h2_stream_memory(uint64_t head_size, uint64_t fields) {
    /* The allocator rounds up by a quarter at most. */
    return H2_STREAM_MEMORY + (head_size + fields * (sizeof(nghttp2_nv) + 2)) * 5 / 4;
}

struct h2_codec {
    /* Fixed after init. */
    struct slab frames; /* where they are put together: idle connections have no memory there */
    struct slab blocks;
    struct slab bits;
    nghttp2_session_callbacks *callbacks; /* set by the owner, between init and the first session */
    nghttp2_option *option;
    nghttp2_mem memory;
    uint64_t memory_max; /* bytes */
    /* Changes in routine work; read by other threads. */
    uint64_t memory_used; /* without what is in slabs */
    uint32_t frame_last;  /* index in frames of the buffer taken last; SLAB_NONE: none was left */
};

/* 0 or -ENOMEM. `continuations_max`: of one header block. */
int h2_codec_init(struct h2_codec *codec, uint64_t memory_max, uint32_t continuations_max,
                  uint32_t sessions_max);
/* CHECKs that all memory has come back. Harmless on a zeroed codec. */
void h2_codec_fini(struct h2_codec *codec);

struct h2_settings {
    uint32_t head_size_max;
    bool no_websocket; /* client role: extended CONNECT (RFC 8441) is not offered */
};
/* A session in client role (that of a server), its SETTINGS queued: the first frame of all that it
 * sends. They say nothing of how many streams there may be: for one too many, nghttp2 would end the
 * connection. NULL: no memory. */
nghttp2_session *h2_server_new(struct h2_codec *codec, const struct h2_settings *settings,
                               void *user);
/* That frame with the limit in it, of which nghttp2 does not know: `to` has the room. */
#define H2_SETTINGS_FRAME_MAX 64
struct bytes h2_settings_limit(struct bytes frame, uint32_t streams_max,
                               char to[H2_SETTINGS_FRAME_MAX]);
/* The SETTINGS of a client that asks in HTTP/1.1 to go on in HTTP/2 (RFC 7540 section 3.2.1):
 * base64url without padding. Their bytes, or 0: they are malformed, or none (a client has some). */
#define H2_UPGRADE_SETTINGS_MAX 240
size_t h2_upgrade_settings(struct bytes text, uint8_t settings[H2_UPGRADE_SETTINGS_MAX]);
/* In upstream role (that of a client), its preface and SETTINGS queued. */
nghttp2_session *h2_client_new(struct h2_codec *codec, const struct h2_settings *settings,
                               void *user);

#endif
