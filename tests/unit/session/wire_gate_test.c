/* Clients before their handshake is done: who may begin, who waits, who is sent away. */
#include "unit/session/wire_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static uint32_t length(const struct list *list) {
    uint32_t count = 0;
    for (const struct list *node = list->next; node != list; node = node->next)
        count++;
    return count;
}

static uint32_t waiting(const struct wire_world *world, enum wire_state state) {
    return length(&world->room.accepted[state]);
}

/* A client that has sent the beginning of its hello, and no more. */
static struct far_end half_greeted(struct wire_world *world) {
    struct far_end far = far_enter(world, 0);
    uint32_t before = waiting(world, WIRE_SHAKING);
    far_step(&far);
    assert_int_equal(far_send(&far, 20), 20);
    TURN_UNTIL(world->net, waiting(world, WIRE_SHAKING) == before + 1);
    return far;
}

static void nothing_is_made_before_the_first_byte(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    struct far_end far = far_enter(world, 0);
    net_world_turn_for(world->net, 20);
    assert_int_equal(waiting(world, WIRE_IDLE), 1);
    struct wire *wire = LIST_OWNER(world->room.accepted[WIRE_IDLE].next, struct wire, link);
    assert_null(wire->tls.ssl);
    far_step(&far);
    assert_int_equal(far_send(&far, 20), 20);
    TURN_UNTIL(world->net, waiting(world, WIRE_SHAKING) == 1);
    assert_non_null(wire->tls.ssl);
    assert_int_equal(world->room.shaking, 1);
    assert_true(far_shake(world, &far));
    TURN_UNTIL(world->net, world->opened == 1);
    assert_int_equal(world->room.shaking, 0);
    assert_int_equal(wire_failures_in_all(world), 0);
    far_free(&far);
    wire_world_free(world);
}

static void a_probe_of_the_port_is_no_failure(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    struct far_end closed = far_enter(world, 0);
    shutdown(closed.fd, SHUT_WR);
    peer_expect_eof(world->net, closed.fd);
    struct far_end reset = far_enter(world, 0);
    tcp_reset(reset.fd);
    reset.fd = -1;
    far_free(&reset);
    TURN_UNTIL(world->net, world->room.wires.used == 0);
    assert_int_equal(wire_failures_in_all(world), 0);
    far_free(&closed);
    wire_world_free(world);
}

static void who_ends_within_the_handshake_is_counted(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    struct far_end closed = half_greeted(world);
    shutdown(closed.fd, SHUT_WR);
    TURN_UNTIL(world->net, wire_failures(world, REASON_CLIENT_CLOSED) == 1);
    struct far_end reset = half_greeted(world);
    tcp_reset(reset.fd);
    reset.fd = -1;
    far_free(&reset);
    TURN_UNTIL(world->net, wire_failures(world, REASON_CLIENT_RESET) == 1);
    assert_int_equal(wire_failures_in_all(world), 2);
    assert_int_equal(world->room.wires.used, 0);
    far_free(&closed);
    wire_world_free(world);
}

static void a_late_handshake_is_reset(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    world->accepting.timeout_handshake_ms = 30;
    struct far_end silent = far_enter(world, 0);
    struct far_end slow = far_enter(world, 0);
    far_step(&slow);
    assert_int_equal(far_send(&slow, 20), 20);
    peer_expect_reset(world->net, silent.fd);
    peer_expect_reset(world->net, slow.fd);
    assert_int_equal(wire_failures(world, REASON_HANDSHAKE_TIMEOUT), 2);
    assert_int_equal(wire_failures_in_all(world), 2);
    far_free(&silent);
    far_free(&slow);
    wire_world_free(world);
}

static void who_speaks_http_is_told_so(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    int fds[2];
    tcp_pair(fds);
    struct conn *conn = conn_accept(&world->net->net, fds[0], NULL, NULL);
    assert_non_null(conn);
    conn->listener = &world->listener;
    wire_enter(&world->room, conn, &world->gate);
    peer_send(fds[1], "GET / HTTP/1.1\r\n\r\n");
    peer_expect(world->net, fds[1], "speak TLS");
    assert_int_equal(world->refused, 1);
    assert_int_equal(world->room.wires.used, 0);
    assert_int_equal(wire_failures(world, REASON_TLS_PLAIN_HTTP), 1);
    assert_int_equal(wire_failures_in_all(world), 1);
    close(fds[1]);
    wire_world_free(world);
}

static void what_is_no_tls_gets_an_alert(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    struct far_end far = far_enter(world, 0);
    static const char hello[] = {0x16, 3, 1, 0, 4, 7, 7, 7, 7};
    assert_int_equal(send(far.fd, hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    char alert[7] = {0};
    size_t len = 0;
    ssize_t got = 0;
    TURN_UNTIL(world->net, (got = peer_take(far.fd, alert + len, sizeof alert - len)) > 0 &&
                               (len += (size_t)got) == sizeof alert);
    assert_int_equal(alert[0], 21); /* RFC 8446 section 6 */
    assert_int_equal(alert[5], 2);
    peer_expect_eof(world->net, far.fd);
    assert_int_equal(wire_failures(world, REASON_TLS_PROTOCOL), 1);
    assert_int_equal(wire_failures_in_all(world), 1);
    far_free(&far);
    wire_world_free(world);
}

static void without_a_slot_it_is_reset(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(1);
    struct far_end first = far_enter(world, 0);
    struct far_end second = far_enter(world, 0);
    peer_expect_reset(world->net, second.fd);
    assert_int_equal(wire_failures(world, REASON_NO_MEMORY), 1);
    assert_true(far_shake(world, &first));
    far_free(&first);
    far_free(&second);
    wire_world_free(world);
}

static void who_refuses_a_connection_gets_no_bytes(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    world->refuse = true;
    struct far_end far = far_enter(world, 0);
    assert_true(far_shake(world, &far));
    far_write(&far, BYTES("GET /"));
    far_carry(&far);
    peer_expect_reset(world->net, far.fd);
    assert_int_equal(world->opened, 1);
    assert_int_equal(world->user->user.reads, 0);
    far_free(&far);
    wire_world_free(world);
}

static void a_turn_begins_no_more_than_its_share(void **state) {
    (void)state;
    enum { CLIENTS = WIRE_BEGUN_MAX + 8 };
    struct wire_world *world = wire_world_new(CLIENTS);
    struct far_end fars[CLIENTS];
    for (int i = 0; i < CLIENTS; i++)
        fars[i] = far_enter(world, 0);
    net_world_turn_for(world->net, 10); /* all receive */
    for (int i = 0; i < CLIENTS; i++) {
        far_step(&fars[i]);
        (void)far_send(&fars[i], SIZE_MAX);
    }
    uint32_t most = 0;
    for (uint32_t before = 0; world->room.shaking < CLIENTS; before = world->room.shaking) {
        net_world_turn(world->net);
        uint32_t begun = world->room.shaking - before;
        if (begun > most) most = begun;
        assert_int_equal(world->room.shaking + waiting(world, WIRE_WAITING) +
                             waiting(world, WIRE_IDLE),
                         CLIENTS);
    }
    assert_true(most <= WIRE_BEGUN_MAX);
    for (int i = 0; i < CLIENTS; i++) {
        assert_true(far_shake(world, &fars[i]));
        far_free(&fars[i]);
    }
    assert_int_equal(wire_failures_in_all(world), 0);
    wire_world_free(world);
}

static void who_is_slow_gives_its_place_to_who_waits(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    struct far_end slow = half_greeted(world);
    assert_int_equal(waiting(world, WIRE_SHAKING), 1);
    world->room.shaking_max = 1;
    struct list *oldest = world->room.accepted[WIRE_SHAKING].next;
    uint64_t began_ms = LIST_OWNER(oldest, struct wire, link)->began_ms;
    struct far_end next = far_enter(world, 0);
    far_step(&next);
    (void)far_send(&next, SIZE_MAX);
    TURN_UNTIL(world->net, waiting(world, WIRE_WAITING) == 1);
    struct wire *wire = LIST_OWNER(world->room.accepted[WIRE_WAITING].next, struct wire, link);
    assert_true(wire->conn->paused && !wire->tls.ssl);
    assert_true(far_shake(world, &next));
    /* One waits for one: each has half of it. */
    assert_true(world->net->net.now_ms >= began_ms + WIRE_PATIENCE_MS / 2);
    peer_expect_reset(world->net, slow.fd);
    assert_int_equal(wire_failures(world, REASON_HANDSHAKE_TIMEOUT), 1);
    assert_int_equal(wire_failures_in_all(world), 1);
    far_free(&slow);
    far_free(&next);
    wire_world_free(world);
}

static void a_drain_shortens_the_wait(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    struct far_end idle = far_enter(world, 0);
    struct far_end begun = half_greeted(world);
    wire_room_drain(&world->room);
    struct far_end late = far_enter(world, 0);
    peer_expect_eof(world->net, idle.fd);
    peer_expect_reset(world->net, begun.fd);
    peer_expect_eof(world->net, late.fd);
    assert_int_equal(wire_failures(world, REASON_HANDSHAKE_TIMEOUT), 1);
    assert_int_equal(wire_failures_in_all(world), 1);
    far_free(&idle);
    far_free(&begun);
    far_free(&late);
    wire_world_free(world);
}

static void a_cut_resets_who_is_not_open(void **state) {
    (void)state;
    struct wire_world *world = wire_world_new(4);
    struct far_end idle = far_enter(world, 0);
    struct far_end begun = half_greeted(world);
    struct far_end open = far_enter(world, 0);
    assert_true(far_shake(world, &open));
    TURN_UNTIL(world->net, world->opened == 1);
    wire_room_cut(&world->room);
    peer_expect_reset(world->net, idle.fd);
    peer_expect_reset(world->net, begun.fd);
    assert_int_equal(wire_failures(world, REASON_DRAIN_CUT), 2);
    far_write(&open, BYTES("still here"));
    far_carry(&open);
    TURN_UNTIL(world->net, world->user->user.len == 10);
    far_free(&idle);
    far_free(&begun);
    far_free(&open);
    wire_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_made_before_the_first_byte),
        cmocka_unit_test(a_probe_of_the_port_is_no_failure),
        cmocka_unit_test(who_ends_within_the_handshake_is_counted),
        cmocka_unit_test(a_late_handshake_is_reset),
        cmocka_unit_test(who_speaks_http_is_told_so),
        cmocka_unit_test(what_is_no_tls_gets_an_alert),
        cmocka_unit_test(without_a_slot_it_is_reset),
        cmocka_unit_test(who_refuses_a_connection_gets_no_bytes),
        cmocka_unit_test(a_turn_begins_no_more_than_its_share),
        cmocka_unit_test(who_is_slow_gives_its_place_to_who_waits),
        cmocka_unit_test(a_drain_shortens_the_wait),
        cmocka_unit_test(a_cut_resets_who_is_not_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
