/* Handshakes in both roles, and sessions of servers that are resumed. */
#include "unit/session/wire_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t counted(const struct wire_world *world, enum stat_id id) {
    return stat_get(&world->net->stats, id);
}

/* Reads until `got` sessions were given, or at least once. */
static SSL_SESSION *session_of(struct wire_world *world, struct far_end *far) {
    char byte;
    TURN_UNTIL(world->net, ({
                   far_carry(far);
                   (void)SSL_read(far->ssl, &byte, 1);
                   SSL_SESSION_is_resumable(SSL_get_session(far->ssl));
               }));
    return SSL_get1_session(far->ssl);
}

static void handshakes_of_clients_are_counted_by_version(void **state) {
    (void)state;
    static const struct {
        int version;
        enum stat_id full;
        enum stat_id resumed;
    } rows[] = {{TLS1_2_VERSION, STAT_TLS_12, STAT_TLS_12_RESUMED},
                {TLS1_3_VERSION, STAT_TLS_13, STAT_TLS_13_RESUMED}};
    for (size_t i = 0; i < 2; i++) {
        struct wire_world *world = wire_world_new(4);
        struct far_end full = far_enter(world, rows[i].version);
        assert_true(far_shake(world, &full));
        TURN_UNTIL(world->net, world->opened == 1);
        assert_int_equal(counted(world, rows[i].full), 1);
        SSL_SESSION *session = session_of(world, &full);
        SSL_set_shutdown(full.ssl, SSL_SENT_SHUTDOWN);
        far_free(&full);
        struct far_end again = far_enter(world, rows[i].version);
        assert_int_equal(SSL_set_session(again.ssl, session), 1);
        assert_true(far_shake(world, &again));
        TURN_UNTIL(world->net, world->opened == 2);
        assert_int_equal(counted(world, rows[i].full), 1);
        assert_int_equal(counted(world, rows[i].resumed), 1);
        SSL_SESSION_free(session);
        far_free(&again);
        wire_world_free(world);
    }
}

static void the_protocol_agreed_on_is_known(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    struct far_end far = far_enter(world, 0);
    assert_int_equal(SSL_set_alpn_protos(far.ssl, (const unsigned char *)"\x08http/1.1", 9), 0);
    assert_true(far_shake(world, &far));
    TURN_UNTIL(world->net, world->opened == 1);
    assert_true(bytes_equal(wire_alpn(world->user->user.conn), BYTES("http/1.1")));
    assert_ptr_equal(wire_tls(world->user->user.conn), &wire_of_conn(world->user->user.conn)->tls);
    far_free(&far);
    wire_world_free(world);
}

/* What comes in the same piece as the end of the handshake is not lost. */
static void bytes_right_behind_the_handshake_arrive(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    struct far_end far = far_enter(world, TLS1_3_VERSION);
    TURN_UNTIL(world->net, ({
                   far_step(&far);
                   if (!far.is_done) far_carry(&far);
                   far.is_done;
               }));
    far_write(&far, BYTES("early bird"));
    far_carry(&far);
    TURN_UNTIL(world->net, world->opened == 1 && world->user->user.len == 10);
    assert_memory_equal(world->user->user.bytes, "early bird", 10);
    far_free(&far);
    wire_world_free(world);
}

static void a_dialled_user_hears_of_it_after_the_handshake(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    struct session_address to = {.tls_name = "weir.example"};
    struct far_end far = far_dial(world, &to);
    net_world_turn_for(world->net, 10);
    assert_int_equal(world->user->user.opened, 0);
    assert_int_equal(wire_late_reason(world->user->user.conn), REASON_HANDSHAKE_TIMEOUT);
    assert_true(far_shake(world, &far));
    TURN_UNTIL(world->net, world->user->user.opened == 1);
    assert_int_equal(counted(world, STAT_UPSTREAM_TLS_13), 1);
    assert_string_equal(SSL_get_servername(far.ssl, TLSEXT_NAMETYPE_host_name), "weir.example");
    assert_true(conn_send_copy(world->user->user.conn, BYTES("GET /")));
    far_expect(world, &far, BYTES("GET /"));
    far_free(&far);
    wire_world_free(world);
}

/* Dials, does something, and gives what on_lost was told. */
static enum reason lost(struct wire_world *world, const char *name,
                        void (*act)(struct far_end *far)) {
    struct session_address to = {.tls_name = name};
    struct far_end far = far_dial(world, &to);
    if (act) {
        act(&far);
    } else {
        (void)far_shake(world, &far);
    }
    TURN_UNTIL(world->net, world->user->user.lost == 1);
    assert_int_equal(world->user->user.opened, 0);
    far_free(&far);
    return world->user->lost_reason;
}

static void speak_http(struct far_end *far) { peer_send(far->fd, "HTTP/1.1 400 No\r\n\r\n"); }
static void half_close(struct far_end *far) { shutdown(far->fd, SHUT_WR); }
static void reset(struct far_end *far) {
    tcp_reset(far->fd);
    far->fd = -1;
}

static void why_a_server_was_lost_is_known(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    assert_int_equal(lost(world, "another.example", NULL), REASON_TLS_BAD_CERTIFICATE);
    assert_int_equal(lost(world, "weir.example", speak_http), REASON_TLS_PROTOCOL);
    assert_int_equal(lost(world, "weir.example", half_close), REASON_SERVER_CLOSED);
    assert_int_equal(lost(world, "weir.example", reset), REASON_SERVER_RESET);
    assert_int_equal(wire_failures_in_all(world), 0); /* these are of clients */
    wire_world_free(world);
}

/* One connection to the server with these sessions; whether it was resumed. */
static bool dial_resumes(struct wire_world *world, struct wire_sessions *sessions) {
    struct session_address to = {.tls_name = "weir.example", .tls_sessions = sessions};
    struct far_end far = far_dial(world, &to);
    assert_true(far_shake(world, &far));
    TURN_UNTIL(world->net, world->user->user.opened == 1);
    bool is_resumed = SSL_session_reused(far.ssl) == 1;
    far_write(&far, BYTES("x")); /* behind its tickets */
    far_carry(&far);
    TURN_UNTIL(world->net, world->user->user.len == 1);
    conn_close(world->user->user.conn);
    far_expect_end(world, &far);
    far_free(&far);
    return is_resumed;
}

static void sessions_of_a_server_are_resumed(void **state) {
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < 2; i++) {
        struct wire_world *world = wire_world_new(4);
        struct wire_sessions sessions = {0};
        SSL_CTX_set_max_proto_version(world->far_server, versions[i]);
        SSL_CTX_set_num_tickets(world->far_server, 1);
        assert_false(dial_resumes(world, &sessions));
        assert_int_equal(sessions.count, 1);
        SSL_SESSION *first = sessions.items[0];
        assert_true(dial_resumes(world, &sessions));
        assert_int_equal(sessions.count, 1);
        /* A ticket of TLS 1.3 is used once (RFC 8446 appendix C.4). */
        assert_int_equal(sessions.items[0] == first, versions[i] == TLS1_2_VERSION);
        wire_sessions_fini(&sessions);
        assert_null(sessions.context);
        wire_world_free(world);
    }
}

static void no_more_sessions_are_kept_than_there_is_room_for(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    struct wire_sessions sessions = {0};
    SSL_CTX_set_num_tickets(world->far_server, WIRE_SESSIONS_MAX + 2);
    assert_false(dial_resumes(world, &sessions));
    assert_int_equal(sessions.count, WIRE_SESSIONS_MAX);
    /* They are good only in the context that believed the server. */
    const struct tls_context *before = world->dialling.tls;
    SSL_CTX *old = tls_context_ssl(before);
    assert_ptr_equal(sessions.context, old);
    struct wire_world *other = wire_world_new(4);
    assert_false(dial_resumes(other, &sessions));
    assert_ptr_equal(sessions.context, tls_context_ssl(other->dialling.tls));
    wire_sessions_fini(&sessions);
    wire_world_free(other);
    wire_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handshakes_of_clients_are_counted_by_version),
        cmocka_unit_test(the_protocol_agreed_on_is_known),
        cmocka_unit_test(bytes_right_behind_the_handshake_arrive),
        cmocka_unit_test(a_dialled_user_hears_of_it_after_the_handshake),
        cmocka_unit_test(why_a_server_was_lost_is_known),
        cmocka_unit_test(sessions_of_a_server_are_resumed),
        cmocka_unit_test(no_more_sessions_are_kept_than_there_is_room_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
