/* What an HTTP/2 session in upstream role tells its host of the streams it takes. */
#include "session/h2_internal.h"

#include "unit/session/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <sys/socket.h>

static void peer_send_bytes(int fd, const char *bytes, size_t size) {
    assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), size);
}

/* Turns until something has come, and drops it. */
static void peer_skip(struct session_world *world) {
    char bytes[4096];
    TURN_UNTIL(world->net, peer_take(world->peer, bytes, sizeof bytes) > 0);
}

/* RFC 9113 section 5.1.1: ids do not come again. */
static void a_connection_without_ids_takes_no_more(void **state) {
    (void)state;
    struct session_options options = session_world_options();
    struct net_options net_options = net_world_options();
    struct session_world *world = session_world_new(&options, &net_options);
    world->ops = &session_h2;
    session_world_connect(world);
    struct session *session = world->session;
    struct arena arena;
    arena_init(&arena, &world->room.arenas);
    assert_int_equal(session->streams_max, H2_STREAMS_GUESS);

    struct h2 *h2 = h2_of_session(session);
    assert_int_equal(nghttp2_session_set_next_stream_id(h2->ng, (int32_t)H2_ID_MAX), 0);
    struct seen *seen = session_world_open(world, &arena);
    assert_int_equal(session->streams_open, 1);
    seen_request(seen, HTTP_GET, 0, true);
    peer_skip(world);
    static const char settings[] = "\0\0\0\4\0\0\0\0\0";
    peer_send_bytes(world->peer, settings, 9);
    /* ":status: 200" and the end, on the id that was set. */
    char answer[] = "\0\0\1\1\5\x7f\xfe\xff\xff\x88";
    peer_send_bytes(world->peer, answer, 10);
    TURN_UNTIL(world->net, seen->ended);
    assert_true(session->streams_max > 0);
    seen_close(seen, REASON_NONE);
    assert_int_equal(session->streams_open, 0);
    assert_int_equal(session->streams_max, 0);
    session->ops->close(session, REASON_SERVER_IDLE); /* as its host does */
    TURN_UNTIL(world->net, world->closed == 1);
    assert_int_equal(world->closed_reason, REASON_SERVER_IDLE);
    arena_reset(&arena);
    session_world_free(world);
}

/* So many answers that go out at once: in the turn of their flush they are queued. */
static void answer_pings(struct session_world *world, uint32_t count) {
    static const char ping[17] = {0, 0, 8, NGHTTP2_PING};
    char bytes[64 * sizeof ping];
    for (uint32_t i = 0; i < count; i++)
        memcpy(bytes + i * sizeof ping, ping, sizeof ping);
    peer_send_bytes(world->peer, bytes, count * sizeof ping);
    TURN_UNTIL(world->net, conn_queued(world->session->conn) != 0);
}

static void requests_that_share_a_connection_let_others_gather(void **state) {
    (void)state;
    struct session_options options = session_world_options();
    struct net_options net_options = net_world_options();
    struct session_world *world = session_world_new(&options, &net_options);
    struct net *net = &world->net->net;
    world->ops = &session_h2;
    session_world_connect(world);
    peer_skip(world);
    TURN_UNTIL(world->net, !net->gathers); /* of the preface */
    struct arena arena;
    arena_init(&arena, &world->room.arenas);
    struct seen *seen = session_world_open(world, &arena);
    seen_request(seen, HTTP_GET, 0, true);
    net_world_turn(world->net);
    assert_true(net->gathers);
    net_world_turn(world->net);
    assert_false(net->gathers);
    static const char settings[9] = {0, 0, 0, NGHTTP2_SETTINGS};
    peer_send_bytes(world->peer, settings, sizeof settings);
    TURN_UNTIL(world->net, h2_of_session(world->session)->settings_received);
    TURN_UNTIL(world->net, conn_queued(world->session->conn) == 0);
    answer_pings(world, 40);
    assert_true(net->gathers);
    TURN_UNTIL(world->net, conn_queued(world->session->conn) == 0);
    answer_pings(world, 60); /* more would make none of them cheaper */
    assert_false(net->gathers);
    seen_close(seen, REASON_CLIENT_RESET);
    arena_reset(&arena);
    session_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_without_ids_takes_no_more),
        cmocka_unit_test(requests_that_share_a_connection_let_others_gather),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
