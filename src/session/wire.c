/* wire.c: the filter between a connection and its session: bytes both ways, and its life. */
#include "session/wire.h"

#include "base/check.h"
#include "proto/tls_context.h"
#include "session/wire_internal.h"

#include <errno.h>
#include <stdlib.h>

/* Until so much is made, records are added to a send: three full ones, which lie in no more buffers
 * than it takes slices and are still in the processor's cache when the kernel copies them. */
#define WIRE_SEND_SIZE (3 * TLS_RECORD_MAX - TLS_RECORD_MAX / 2)
/* A piece shorter than this shares its record with what follows: a copy costs less than a record.
 */
#define WIRE_GATHER_BELOW 4096

/* From so many bytes of a connection on records are sealed (tls_seal.h): 13 % less CPU for bodies
 * of 1 MB, 11 % for answers of 128 B (measured), for 1.1 KB more of OpenSSL's memory. */
#define WIRE_SEAL_FROM (4 * TLS_RECORD_MAX)

/* Receiving. */

/* A record that began in an earlier buffer: its plaintext may not fit what it has left of this one.
 * False: the connection is lost or closed. */
static enum tls_result wire_read_split(struct wire *wire, struct bytes *plain) {
    struct net *net = wire->room->net;
    size_t size;
    enum tls_result result = tls_next(&wire->tls, &size);
    if (result != TLS_DONE) return result;
    size_t room = (size_t)(wire->tls.input.ptr - plain->ptr) - plain->len;
    while (size != 0) {
        size_t len = 0;
        if (size <= room) {
            char *to = (char *)(uintptr_t)plain->ptr + plain->len;
            result = tls_read(&wire->tls, to, size, &len);
            plain->len += len;
            return result;
        }
        struct lease *lease = buf_take(&net->small);
        if (!lease) {
            wire->tls.failure = REASON_NO_MEMORY;
            return TLS_BAD;
        }
        result = tls_read(&wire->tls, lease->memory, lease->size, &len);
        if (result != TLS_DONE) {
            lease_unref(lease);
            return result;
        }
        size -= len;
        wire->conn->events->on_bytes(wire->conn, bytes_make(lease->memory, len), lease);
        if (wire->conn->state != CONN_OPEN) return TLS_END;
    }
    return TLS_DONE;
}

/* Plaintext takes the place of the records it was made of, so that it arrives as one piece. */
static enum tls_result wire_decrypt(struct wire *wire, struct bytes *plain) {
    struct bytes all = wire->tls.input;
    *plain = bytes_make(all.ptr, 0);
    for (;;) {
        enum tls_result result;
        if (tls_fits(&wire->tls)) {
            char *to = (char *)(uintptr_t)all.ptr + plain->len;
            size_t len = 0;
            if (wire->tls.input.len == 0) return TLS_MORE;
            result = tls_read(&wire->tls, to, all.len - plain->len, &len);
            plain->len += len;
        } else {
            result = wire_read_split(wire, plain);
        }
        if (result != TLS_DONE) return result;
    }
}

void wire_read(struct wire *wire, struct lease *lease) {
    struct conn *conn = wire->conn;
    struct bytes plain = BYTES_NONE;
    enum tls_result result = wire->ended ? TLS_MORE : wire_decrypt(wire, &plain);
    tls_give(&wire->tls, BYTES_NONE);
    if (conn->state == CONN_OPEN && plain.len != 0) {
        conn->events->on_bytes(conn, plain, lease);
    } else {
        lease_unref(lease);
    }
    if (conn->state != CONN_OPEN) return;
    if (result == TLS_BAD) {
        wire_fail(wire, wire->tls.failure);
    } else if (result == TLS_END) {
        wire->ended = true;
        conn->events->on_eof(conn);
    }
}

void wire_receive(struct wire *wire, struct bytes bytes, struct lease *lease) {
    if (wire->conn->state != CONN_OPEN) { /* closed by what came before */
        lease_unref(lease);
        return;
    }
    switch (wire->state) {
    case WIRE_IDLE:
        wire_greet(wire, bytes, lease);
        return;
    case WIRE_WAITING:
        wire_stash(wire, bytes, lease);
        return;
    case WIRE_SHAKING:
        wire_shake(wire, bytes, lease);
        return;
    case WIRE_OPEN:
        tls_give(&wire->tls, bytes);
        wire_read(wire, lease);
        return;
    case WIRE_DIALLING:
    case WIRE_STATE_COUNT:
        break;
    }
    CHECK(false); /* nothing is received while connecting */
}

static void wire_on_bytes(struct conn *conn, struct bytes bytes, struct lease *lease) {
    wire_receive(wire_of_conn(conn), bytes, lease);
}

/* An accepted connection without a byte is a probe of the port: nothing was refused. */
static void wire_on_eof(struct conn *conn) {
    struct wire *wire = wire_of_conn(conn);
    if (wire->state == WIRE_OPEN) {
        if (wire->ended) return; /* told already */
        conn->cut = true;
        conn->events->on_eof(conn);
    } else if (wire->gate) {
        if (wire->state != WIRE_IDLE) wire_count_failure(wire, REASON_CLIENT_CLOSED);
        conn_close(wire_leave(wire));
    } else {
        wire->tls.failure = REASON_SERVER_CLOSED;
        conn_fail(conn, ECONNRESET);
    }
}

/* Sending. */

/* The next record's plaintext, at most `most` bytes. */
static struct bytes wire_next_record(const struct wire *wire, size_t most) {
    const struct conn_out *plain = &wire->filter.plain;
    struct bytes front = conn_out_front(plain);
    if (most > TLS_RECORD_MAX) most = TLS_RECORD_MAX;
    if (front.len >= WIRE_GATHER_BELOW || front.len == plain->queued)
        return bytes_slice(front, 0, most);
    size_t len = conn_out_peek(plain, wire->room->record, most);
    return bytes_make(wire->room->record, len);
}

/* All that was queued is the kernel's; close_notify is left to be said, and to be waited for. */
static bool wire_flush_offloaded(struct wire *wire) {
    tls_shutdown(&wire->tls);
    if (wire->alert_waits) {
        struct bytes alert = bytes_make(wire->alert, sizeof wire->alert);
        wire->alert_waits = conn_filter_say(wire->conn, SSL3_RT_ALERT, alert) == -EAGAIN;
    }
    wire->filter.ended = !wire->alert_waits && conn_filter_is_sent(wire->conn);
    return true;
}

/* Long enough a stream begins: the kernel goes on where OpenSSL stops (tls.h). */
static bool wire_offload(struct conn *conn) {
    struct wire *wire = wire_of_conn(conn);
    if (wire->state != WIRE_OPEN || !tls_may_hand_over(&wire->tls)) return false;
    if (!conn_filter_offload(conn, tls_keys_bytes(&wire->tls.keys))) return false;
    tls_hand_over(&wire->tls);
    return true;
}

/* Whether the next record is sealed; from a certain length of the stream on. */
static bool wire_seals(struct wire *wire) {
    const struct conn *conn = wire->conn;
    struct tls *tls = &wire->tls;
    if (tls->maker == TLS_BY_SEAL) return tls_seals(tls);
    if (conn->sent_total + conn_queued(conn) < WIRE_SEAL_FROM || !tls_may_hand_over(tls))
        return false;
    return tls_start_sealing(tls, tls_context_library(wire->options->tls));
}

/* Plaintext from the front of the queue to where it is sent from. */
static bool wire_seal_bytes(struct wire *wire, size_t size) {
    struct conn *conn = wire->conn;
    struct conn_out *plain = &wire->filter.plain;
    while (size != 0) {
        size_t room;
        char *to = conn_filter_reserve(conn, 1, &room);
        if (!to) return false;
        struct bytes piece = bytes_slice(conn_out_front(plain), 0, size < room ? size : room);
        if (!tls_record_add(&wire->tls, piece, to)) return false;
        conn_filter_commit(conn, piece.len);
        conn_out_take(conn->net, plain, piece.len);
        size -= piece.len;
    }
    return true;
}

/* One record of at most `most` bytes, for which there is room. False: TLS has failed. */
static bool wire_seal(struct wire *wire, size_t most) {
    struct conn *conn = wire->conn;
    size_t room, size = wire->filter.plain.queued;
    if (size > TLS_RECORD_MAX) size = TLS_RECORD_MAX;
    if (size > most) size = most;
    char *to = conn_filter_reserve(conn, TLS_SEAL_HEAD_MAX, &room);
    if (!to) return false;
    size_t head = tls_record_begin(&wire->tls, size, to);
    conn_filter_commit(conn, head);
    if (head == 0 || !wire_seal_bytes(wire, size)) return false;
    to = conn_filter_reserve(conn, TLS_SEAL_TAIL_MAX, &room);
    if (!to) return false;
    size_t tail = tls_record_end(&wire->tls, to);
    conn_filter_commit(conn, tail);
    return tail != 0;
}

/* The same by OpenSSL. */
static enum tls_result wire_write(struct wire *wire, size_t most) {
    struct bytes record = wire_next_record(wire, most);
    enum tls_result result = tls_write(&wire->tls, record);
    if (result == TLS_DONE) conn_out_take(wire->conn->net, &wire->filter.plain, record.len);
    return result;
}

static bool wire_flush(struct conn *conn, bool end) {
    struct wire *wire = wire_of_conn(conn);
    if (wire->filter.offloaded) return wire_flush_offloaded(wire);
    struct conn_out *plain = &wire->filter.plain;
    if (wire->state != WIRE_OPEN) {
        wire->filter.ended = end;
        return true;
    }
    while (plain->queued != 0 && conn->out.queued < WIRE_SEND_SIZE) {
        size_t room = conn_filter_room(conn);
        if (room <= TLS_RECORD_OVERHEAD) return true;
        size_t most = room - TLS_RECORD_OVERHEAD;
        if (wire_seals(wire)) {
            if (!wire_seal(wire, most)) return false;
            continue;
        }
        enum tls_result result = wire_write(wire, most);
        if (result != TLS_DONE) return result == TLS_MORE;
    }
    if (!end || plain->queued != 0 || wire->filter.ended) return true;
    tls_shutdown(&wire->tls);
    wire->filter.ended = true;
    return true;
}

/* The life of a wire. */

static void wire_on_released(struct conn_filter *filter) {
    struct wire *wire = wire_of_filter(filter);
    struct wire_room *room = wire->room;
    wire_set_state(wire, WIRE_OPEN); /* out of all lists */
    for (struct lease *lease; (lease = wire_pop_pending(wire));)
        lease_unref(lease);
    tls_fini(&wire->tls);
    slab_release(&room->wires, wire);
}

static void wire_on_open(struct conn *conn) {
    struct wire *wire = wire_of_conn(conn);
    conn_deadline(conn, conn->net->now_ms + wire->options->timeout_handshake_ms);
    if (wire_begin(wire)) {
        wire_shake(wire, BYTES_NONE, NULL);
    } else {
        wire_fail(wire, REASON_NO_MEMORY);
    }
}

static const struct conn_filter_ops wire_filter_ops = {
    .on_open = wire_on_open,
    .on_bytes = wire_on_bytes,
    .on_eof = wire_on_eof,
    .flush = wire_flush,
    .offload = wire_offload,
    .on_released = wire_on_released,
};

struct wire *wire_acquire(struct wire_room *room, struct conn *conn,
                          const struct session_options *options) {
    struct wire *wire = slab_acquire(&room->wires);
    if (!wire) return NULL;
    *wire = (struct wire){
        .filter = {.ops = &wire_filter_ops}, .room = room, .conn = conn, .options = options};
    list_init(&wire->link);
    conn_set_filter(conn, &wire->filter);
    return wire;
}

bool wire_dial(struct wire_room *room, struct conn *conn, const struct session_options *options,
               const struct session_address *to) {
    struct wire *wire = wire_acquire(room, conn, options);
    if (!wire) return false;
    wire->state = WIRE_DIALLING;
    wire->name = to->tls_name;
    wire->sessions = to->tls_sessions;
    return true;
}

enum reason wire_late_reason(const struct conn *conn) {
    bool is_shaking = conn->filter && wire_of_conn(conn)->state == WIRE_SHAKING;
    return is_shaking ? REASON_HANDSHAKE_TIMEOUT : REASON_CONNECT_TIMEOUT;
}

enum reason wire_lost_reason(const struct conn *conn, int error) {
    const struct wire *wire = conn->filter ? wire_of_conn(conn) : NULL;
    if (!wire || wire->state == WIRE_DIALLING)
        return error == ETIMEDOUT ? REASON_CONNECT_TIMEOUT : REASON_CONNECT_FAILED;
    return wire->tls.failure != REASON_NONE ? wire->tls.failure : REASON_SERVER_RESET;
}

const char *wire_lost_words(const struct conn *conn) {
    return conn->filter ? wire_of_conn(conn)->tls.words : NULL;
}

const struct tls *wire_tls(const struct conn *conn) {
    return conn->filter ? &wire_of_conn(conn)->tls : NULL;
}

struct bytes wire_alpn(const struct conn *conn) {
    struct tls_facts facts = {.alpn = BYTES_NONE};
    if (conn->filter) tls_facts(&wire_of_conn(conn)->tls, &facts);
    return facts.alpn;
}

int wire_room_init(struct wire_room *room, struct net *net, uint32_t wires_max,
                   uint32_t shaking_max) {
    CHECK(wires_max == 0 || shaking_max != 0); /* or nobody would ever be let in */
    *room = (struct wire_room){.net = net, .shaking_max = shaking_max};
    wire_gate_init(room);
    int error = slab_init(&room->wires, "wire", sizeof(struct wire), wires_max);
    if (error < 0) return error;
    net_add_slab(net, &room->wires);
    room->record = wires_max != 0 ? malloc(TLS_RECORD_MAX) : NULL;
    return room->record || wires_max == 0 ? 0 : -ENOMEM;
}

void wire_room_fini(struct wire_room *room) {
    if (!room->net) return;
    wire_gate_fini(room);
    slab_fini(&room->wires); /* CHECKs that none is used */
    free(room->record);
    *room = (struct wire_room){0};
}
