/* Bytes through an open wire, both ways, and its ends. */
#include "unit/session/wire_fixture.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

struct stage {
    struct wire_world *world;
    struct far_end far;
    struct conn_user *user;
    struct conn *conn;
};

static struct stage stage_open(int version) {
    struct stage stage = {.world = wire_world_new(4)};
    stage.far = far_enter(stage.world, version);
    assert_true(far_shake(stage.world, &stage.far));
    TURN_UNTIL(stage.world->net, stage.world->opened == 1);
    stage.user = &stage.world->user->user;
    stage.conn = stage.user->conn;
    return stage;
}

static void stage_end(struct stage *stage) {
    far_free(&stage->far);
    wire_world_free(stage->world);
}

/* The far end says `text`, in pieces of the connection. */
static void say(struct stage *stage, struct bytes text, size_t piece) {
    size_t before = stage->user->len;
    far_write(&stage->far, text);
    while (far_send(&stage->far, piece) != 0)
        net_world_turn(stage->world->net);
    TURN_UNTIL(stage->world->net, stage->user->len == before + text.len);
    assert_memory_equal(stage->user->bytes + before, text.ptr, text.len);
}

static void bytes_pass_both_ways(void **state) {
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct stage stage = stage_open(versions[i]);
        say(&stage, BYTES("question"), SIZE_MAX);
        assert_int_equal(stage.user->reads, 1);
        assert_true(conn_send_copy(stage.conn, BYTES("answer")));
        far_expect(stage.world, &stage.far, BYTES("answer"));
        assert_int_equal(conn_queued(stage.conn), 0);
        stage_end(&stage);
    }
}

static void records_may_come_in_any_pieces(void **state) {
    (void)state;
    static const struct {
        size_t size;
        size_t piece;
    } rows[] = {{1, 1}, {100, 1}, {300, 7}, {TLS_RECORD_MAX, 1000}, {60000, 4096}, {60000, 4097}};
    char *text = malloc(60000);
    for (size_t i = 0; i < 2; i++) {
        struct stage stage = stage_open(versions[i]);
        for (size_t j = 0; j < sizeof rows / sizeof rows[0]; j++)
            say(&stage, pattern_bytes(text, j, rows[j].size), rows[j].piece);
        assert_int_equal(buf_pool_leased(&stage.world->net->net.small), 0);
        stage_end(&stage);
    }
    free(text);
}

static void small_pieces_share_a_record(void **state) {
    (void)state;
    struct stage stage = stage_open(TLS1_3_VERSION);
    TURN_UNTIL(stage.world->net, conn_queued(stage.conn) == 0); /* the ticket */
    for (int i = 0; i < 3; i++)
        assert_true(conn_send_copy(stage.conn, BYTES("0123456789")));
    assert_int_equal(conn_queued(stage.conn), 30);
    char got[64];
    int len = 0;
    TURN_UNTIL(stage.world->net, ({
                   far_carry(&stage.far);
                   len = SSL_read(stage.far.ssl, got, sizeof got);
                   len > 0;
               }));
    assert_int_equal(len, 30); /* SSL_read gives one record at most */
    stage_end(&stage);
}

static void a_slow_reader_is_waited_for(void **state) {
    (void)state;
    enum { SIZE = 300000 };
    char *text = malloc(SIZE);
    struct stage stage = stage_open(0);
    conn_user_narrow(stage.user, stage.far.fd);
    (void)pattern_bytes(text, 0, SIZE);
    for (size_t at = 0; at < SIZE; at += 3000)
        assert_true(conn_send_copy(stage.conn, bytes_make(text + at, 3000)));
    net_world_turn_for(stage.world->net, 20);
    assert_true(conn_is_full(stage.conn));
    assert_true(stage.conn->filter->plain.queued > 0); /* plaintext waits, records do not */
    assert_true(stage.conn->out.queued <= 4 * (TLS_RECORD_MAX + TLS_RECORD_OVERHEAD));
    far_expect(stage.world, &stage.far, bytes_make(text, SIZE));
    TURN_UNTIL(stage.world->net, stage.user->drained == 1);
    free(text);
    stage_end(&stage);
}

/* Pieces of other sizes than records and buffers have, so that records begin anywhere in them. */
static void send_pieces(struct stage *stage, struct bytes text) {
    for (size_t at = 0, piece = 1; at < text.len; piece = piece * 3 % 9973) {
        struct bytes part = bytes_slice(text, at, piece);
        assert_true(conn_send_copy(stage->conn, part));
        at += part.len;
    }
}

static enum tls_maker maker_of(const struct stage *stage) {
    return wire_of_conn(stage->conn)->tls.maker;
}

static void a_long_stream_is_sealed(void **state) {
    (void)state;
    enum { SIZE = 300000, LITTLE = 30000 };
    char *text = malloc(SIZE);
    (void)pattern_bytes(text, 0, SIZE);
    for (size_t i = 0; i < 2; i++) {
        struct stage stage = stage_open(versions[i]);
        send_pieces(&stage, bytes_make(text, LITTLE));
        far_expect(stage.world, &stage.far, bytes_make(text, LITTLE));
        assert_int_equal(maker_of(&stage), TLS_BY_OPENSSL);
        send_pieces(&stage, bytes_make(text, SIZE));
        far_expect(stage.world, &stage.far, bytes_make(text, SIZE));
        assert_int_equal(maker_of(&stage), TLS_BY_SEAL);
        say(&stage, BYTES("heard as before"), SIZE_MAX);
        assert_true(conn_send_copy(stage.conn, BYTES("last words")));
        conn_send_fin(stage.conn);
        far_expect(stage.world, &stage.far, BYTES("last words"));
        far_expect_end(stage.world, &stage.far);
        assert_int_equal(buf_pool_leased(&stage.world->net->net.small), 0);
        stage_end(&stage);
    }
    free(text);
}

/* The first record of a long answer already, and many short ones in time. */
static void what_waits_and_what_went_make_it_long(void **state) {
    (void)state;
    enum { LONG = 66000, SHORT = 2000 };
    char *text = malloc(LONG);
    (void)pattern_bytes(text, 0, LONG);
    for (int is_long = 0; is_long < 2; is_long++) {
        struct stage stage = stage_open(TLS1_3_VERSION);
        TURN_UNTIL(stage.world->net, conn_queued(stage.conn) == 0); /* the ticket */
        uint32_t answers = 0;
        while (maker_of(&stage) == TLS_BY_OPENSSL && answers < 40) {
            answers++;
            struct bytes answer = bytes_make(text, is_long ? LONG : SHORT);
            uint64_t before = stage.conn->sent_total;
            send_pieces(&stage, answer);
            net_world_turn(stage.world->net);
            assert_true(!is_long || maker_of(&stage) == TLS_BY_SEAL);
            /* Records that one send carries. */
            uint64_t made = stage.conn->sent_total - before + stage.conn->out.queued;
            assert_true(!is_long || made > 2 * TLS_RECORD_MAX);
            far_expect(stage.world, &stage.far, answer);
        }
        if (!is_long) assert_in_range(answers, 25, 35);
        stage_end(&stage);
    }
    free(text);
}

static void a_long_stream_survives_new_keys(void **state) {
    (void)state;
    enum { SIZE = 300000 };
    char *text = malloc(2 * SIZE);
    (void)pattern_bytes(text, 0, 2 * SIZE);
    struct stage stage = stage_open(TLS1_3_VERSION);
    conn_user_narrow(stage.user, stage.far.fd);
    send_pieces(&stage, bytes_make(text, SIZE));
    net_world_turn_for(stage.world->net, 20);
    assert_int_equal(maker_of(&stage), TLS_BY_SEAL);
    assert_true(stage.conn->filter->plain.queued > 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(SSL_key_update(stage.far.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        say(&stage, BYTES("with new keys"), SIZE_MAX);
        struct bytes part = bytes_make(text + (i == 0 ? 0 : SIZE), SIZE);
        far_expect(stage.world, &stage.far, part);
        assert_int_equal(maker_of(&stage), TLS_BY_OPENSSL);
        if (i == 0) send_pieces(&stage, bytes_make(text + SIZE, SIZE));
    }
    free(text);
    stage_end(&stage);
}

/* Room for half a record, then for none: what waits is plaintext, and goes on afterwards. Its
 * buffer is another's, too: none comes back as it is taken. */
static void a_long_stream_waits_for_buffers(void **state) {
    (void)state;
    enum { PIECES = 70 };
    struct lease **taken = calloc(1 << 16, sizeof *taken);
    for (uint32_t left = 2; left < 7; left++) {
        struct stage stage = stage_open(versions[left % 2]);
        struct buf_pool *pool = &stage.world->net->net.small;
        struct lease *lease = buf_take(pool);
        char *text = malloc(PIECES * (size_t)pool->buffer_size);
        struct bytes piece = pattern_bytes(lease->memory, 0, pool->buffer_size);
        uint32_t count = 0;
        conn_user_narrow(stage.user, stage.far.fd);
        for (size_t i = 0; i < PIECES; i++) {
            memcpy(text + i * piece.len, piece.ptr, piece.len);
            assert_true(conn_send_lease(stage.conn, piece, lease));
        }
        while (pool->spare_count > left)
            taken[count++] = buf_take(pool);
        net_world_turn_for(stage.world->net, 50);
        assert_true(stage.conn->filter->plain.queued > 0);
        assert_int_equal(maker_of(&stage), TLS_BY_SEAL);
        while (count > 0)
            lease_unref(taken[--count]);
        far_expect(stage.world, &stage.far, bytes_make(text, PIECES * piece.len));
        assert_int_equal(stage.user->lost, 0);
        lease_unref(lease);
        free(text);
        stage_end(&stage);
    }
    free(taken);
}

/* A record was not put: what is sealed behind it would not be understood. */
static void a_stream_with_a_hole_is_lost(void **state) {
    (void)state;
    enum { LONG = 66000 };
    char *text = malloc(LONG);
    struct stage stage = stage_open(TLS1_2_VERSION);
    (void)pattern_bytes(text, 0, LONG);
    send_pieces(&stage, bytes_make(text, LONG));
    far_expect(stage.world, &stage.far, bytes_make(text, LONG));
    wire_of_conn(stage.conn)->tls.no_memory = true;
    assert_true(conn_send_copy(stage.conn, BYTES("no more")));
    TURN_UNTIL(stage.world->net, stage.user->lost == 1);
    assert_int_equal(stage.world->user->lost_reason, REASON_NO_MEMORY);
    free(text);
    stage_end(&stage);
}

/* As an alert would be put, of any length. */
static void put_record(struct stage *stage, struct bytes text) {
    struct tls *tls = &wire_of_conn(stage->conn)->tls;
    static char record[TLS_SEAL_HEAD_MAX + 8192 + TLS_SEAL_TAIL_MAX];
    size_t size = tls_record_begin(tls, text.len, record);
    assert_true(tls_record_add(tls, text, record + size));
    size += text.len;
    size += tls_record_end(tls, record + size);
    assert_true(conn_filter_put(stage->conn, bytes_make(record, size)));
}

/* Behind each record head and tail have the rest of a buffer, where they fit. */
static void records_end_anywhere_in_a_buffer(void **state) {
    (void)state;
    enum { LONG = 66000 };
    char *text = malloc(LONG);
    (void)pattern_bytes(text, 0, LONG);
    for (size_t i = 0; i < 2; i++) {
        struct stage stage = stage_open(versions[i]);
        size_t size = stage.world->net->net.small.buffer_size;
        const int on = 1;
        assert_int_equal(setsockopt(stage.conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
        send_pieces(&stage, bytes_make(text, LONG));
        far_expect(stage.world, &stage.far, bytes_make(text, LONG));
        assert_int_equal(maker_of(&stage), TLS_BY_SEAL);
        for (size_t len = size - 45; len < size; len++) {
            TURN_UNTIL(stage.world->net, conn_queued(stage.conn) == 0);
            assert_true(conn_send_copy(stage.conn, bytes_make(text, len)));
            far_expect(stage.world, &stage.far, bytes_make(text, len));
            TURN_UNTIL(stage.world->net, conn_queued(stage.conn) == 0);
            put_record(&stage, bytes_make(text, len));
            assert_true(conn_send_copy(stage.conn, bytes_make(text + len, 100)));
            far_expect(stage.world, &stage.far, bytes_make(text, len + 100));
        }
        stage_end(&stage);
    }
    free(text);
}

static void the_end_is_said_before_fin(void **state) {
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct stage stage = stage_open(versions[i]);
        assert_true(conn_send_copy(stage.conn, BYTES("last words")));
        conn_send_fin(stage.conn);
        far_expect(stage.world, &stage.far, BYTES("last words"));
        far_expect_end(stage.world, &stage.far);
        TURN_UNTIL(stage.world->net, (far_carry(&stage.far), stage.far.has_ended));
        /* The other direction goes on. */
        say(&stage, BYTES("still talking"), SIZE_MAX);
        stage_end(&stage);
    }
}

static void close_notify_ends_the_stream_once(void **state) {
    (void)state;
    struct stage stage = stage_open(0);
    say(&stage, BYTES("bye"), SIZE_MAX);
    assert_true(SSL_shutdown(stage.far.ssl) >= 0);
    far_carry(&stage.far);
    TURN_UNTIL(stage.world->net, stage.user->eofs == 1);
    shutdown(stage.far.fd, SHUT_WR);
    net_world_turn_for(stage.world->net, 20);
    assert_int_equal(stage.user->eofs, 1);
    assert_false(stage.conn->cut);
    stage_end(&stage);
}

static void fin_alone_ends_it_too_but_shows(void **state) {
    (void)state;
    struct stage stage = stage_open(0);
    say(&stage, BYTES("bye"), SIZE_MAX);
    shutdown(stage.far.fd, SHUT_WR);
    TURN_UNTIL(stage.world->net, stage.user->eofs == 1);
    assert_true(stage.conn->cut);
    stage_end(&stage);
}

static void a_broken_record_loses_the_connection(void **state) {
    (void)state;
    struct stage stage = stage_open(0);
    static const char record[] = {0x17, 3, 3, 0, 4, 7, 7, 7, 7};
    assert_int_equal(send(stage.far.fd, record, sizeof record, MSG_NOSIGNAL), sizeof record);
    TURN_UNTIL(stage.world->net, stage.user->lost == 1);
    assert_int_equal(stage.user->lost_error, EPROTO);
    assert_int_equal(wire_failures_in_all(stage.world), 0); /* it was no handshake */
    stage_end(&stage);
}

/* As thousands of answers would: the kernel takes its part, the rest waits. */
static void fill_with_answers(struct stage *stage, uint32_t size) {
    const struct conn_out *out = &stage->conn->out;
    char other[4096] = {0};
    conn_user_narrow(stage->user, stage->far.fd);
    while (out->queued < size) {
        size_t left = size - out->queued;
        assert_true(conn_filter_put(stage->conn, bytes_make(other, left < 4096 ? left : 4096)));
        if (out->queued == size) net_world_turn_for(stage->world->net, 20);
    }
}

/* Each attempt at a renegotiation is refused by an alert, which whoever asks need not read. */
static void who_reads_no_answers_of_tls_is_lost(void **state) {
    (void)state;
    enum { ANSWERS_MAX = 256 * 1024, KERNEL = 256 * 1024 };
    for (int over = 0; over < 2; over++) {
        struct stage stage = stage_open(TLS1_2_VERSION);
        fill_with_answers(&stage, over ? ANSWERS_MAX + KERNEL : ANSWERS_MAX - 1);
        assert_int_equal(SSL_renegotiate(stage.far.ssl), 1);
        assert_int_equal(SSL_do_handshake(stage.far.ssl), -1);
        assert_int_not_equal(far_send(&stage.far, SIZE_MAX), 0);
        if (over) {
            TURN_UNTIL(stage.world->net, stage.user->lost == 1);
            assert_int_equal(stage.world->user->lost_reason, REASON_NO_MEMORY);
        } else {
            TURN_UNTIL(stage.world->net, wire_of_conn(stage.conn)->tls.useless != 0);
            assert_int_equal(stage.user->lost, 0);
        }
        stage_end(&stage);
    }
}

/* Three records in one piece: what follows the first is dropped with the connection. */
static void a_user_may_close_on_its_first_bytes(void **state) {
    (void)state;
    struct stage stage = stage_open(0);
    stage.user->close_on_bytes = true;
    far_write(&stage.far, BYTES("one"));
    far_write(&stage.far, BYTES("two"));
    assert_true(SSL_shutdown(stage.far.ssl) >= 0);
    (void)far_send(&stage.far, SIZE_MAX);
    TURN_UNTIL(stage.world->net, stage.world->net->net.conns.used == 0);
    assert_int_equal(stage.user->reads, 1);
    assert_int_equal(stage.user->eofs, 0);
    assert_int_equal(stage.world->room.wires.used, 0);
    stage_end(&stage);
}

static void in_clear_there_is_no_wire(void **state) {
    (void)state;
    struct conn conn = {.filter = NULL};
    assert_null(wire_tls(&conn));
    assert_int_equal(wire_alpn(&conn).len, 0);
    assert_int_equal(wire_late_reason(&conn), REASON_CONNECT_TIMEOUT);
    assert_int_equal(wire_lost_reason(&conn, ETIMEDOUT), REASON_CONNECT_TIMEOUT);
    assert_int_equal(wire_lost_reason(&conn, ECONNREFUSED), REASON_CONNECT_FAILED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_pass_both_ways),
        cmocka_unit_test(records_may_come_in_any_pieces),
        cmocka_unit_test(small_pieces_share_a_record),
        cmocka_unit_test(a_slow_reader_is_waited_for),
        cmocka_unit_test(a_long_stream_is_sealed),
        cmocka_unit_test(what_waits_and_what_went_make_it_long),
        cmocka_unit_test(a_long_stream_survives_new_keys),
        cmocka_unit_test(a_long_stream_waits_for_buffers),
        cmocka_unit_test(a_stream_with_a_hole_is_lost),
        cmocka_unit_test(records_end_anywhere_in_a_buffer),
        cmocka_unit_test(the_end_is_said_before_fin),
        cmocka_unit_test(close_notify_ends_the_stream_once),
        cmocka_unit_test(fin_alone_ends_it_too_but_shows),
        cmocka_unit_test(a_broken_record_loses_the_connection),
        cmocka_unit_test(who_reads_no_answers_of_tls_is_lost),
        cmocka_unit_test(a_user_may_close_on_its_first_bytes),
        cmocka_unit_test(in_clear_there_is_no_wire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
