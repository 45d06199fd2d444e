/* The HTTP/1 session where the other side of a WebSocket speaks HTTP/2 (RFC 8441 section 5): it
 * makes and checks what proves a handshake in HTTP/1.1. */
#include "proto/ws_handshake.h"

#include "unit/session/session_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define UPGRADE_LINES "Connection: upgrade\r\nUpgrade: websocket\r\n"
#define SWITCH "HTTP/1.1 101 Switching Protocols\r\n"

static struct session_world *client_asks(void) {
    struct session_world *world = session_world_client();
    peer_send(world->peer, "GET / HTTP/1.1\r\nHost: a\r\n" UPGRADE_LINES
                           "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " KEY "\r\n\r\n");
    TURN_UNTIL(world->net, world->streams == 1);
    return world;
}

static void switched(struct session_world *world, bool is_h2, struct bytes accept) {
    struct seen *seen = &world->seen[0];
    struct http_field field = {.name = BYTES("Sec-WebSocket-Accept"), .value = accept};
    struct http_message message = {.status = 101,
                                   .version_minor = 1,
                                   .is_h2 = is_h2,
                                   .upgrade = BYTES("websocket"),
                                   .fields = {&field, accept.len != 0, 1}};
    seen->stream->ops->head(seen->stream, &message, false);
    seen->stream->ops->tunnel(seen->stream, 1000);
}

static void end(struct session_world *world) {
    seen_close(&world->seen[0], REASON_SERVER_RESET);
    TURN_UNTIL(world->net, world->closed == 1);
    session_world_free(world);
}

static void an_answer_of_http_2_gets_the_clients_proof(void **state) {
    (void)state;
    struct session_world *world = client_asks();
    switched(world, true, BYTES_NONE);
    peer_expect(world->net, world->peer,
                SWITCH "Sec-WebSocket-Accept: " ACCEPT "\r\n" UPGRADE_LINES "\r\n");
    end(world);
    /* What it says itself means nothing to this client. */
    world = client_asks();
    switched(world, true, BYTES("something"));
    peer_expect(world->net, world->peer,
                SWITCH "Sec-WebSocket-Accept: " ACCEPT "\r\n" UPGRADE_LINES "\r\n");
    end(world);
}

static void an_answer_of_http_1_stays_as_it_is(void **state) {
    (void)state;
    struct session_world *world = client_asks();
    switched(world, false, BYTES_NONE);
    peer_expect(world->net, world->peer, SWITCH UPGRADE_LINES "\r\n");
    end(world);
    world = client_asks();
    switched(world, false, BYTES("wrong"));
    peer_expect(world->net, world->peer,
                SWITCH "Sec-WebSocket-Accept: wrong\r\n" UPGRADE_LINES "\r\n");
    end(world);
}

static void tunnel_begin(struct session_world *world, struct seen *seen) {
    (void)world;
    if (seen->status == 101) seen->stream->ops->tunnel(seen->stream, 1000);
}

static void ask(struct seen *seen, bool is_h2, struct bytes key) {
    struct http_field fields[] = {{.name = BYTES("Sec-WebSocket-Key"), .value = key}};
    struct http_message message = {.method = HTTP_GET,
                                   .method_text = BYTES("GET"),
                                   .authority = BYTES("a"),
                                   .path = BYTES("/"),
                                   .is_h2 = is_h2,
                                   .upgrade = BYTES("websocket"),
                                   .version_minor = 1,
                                   .fields = {fields, key.len != 0, 1}};
    seen->stream->ops->head(seen->stream, &message, true);
}

struct upstream_world {
    struct session_world *world;
    struct arena arena;
    struct seen *seen;
    char accept[WS_ACCEPT_SIZE];
};

/* A request that came over HTTP/2 has been asked of the server by a key of weir's own. */
static struct upstream_world *server_asked(struct bytes key) {
    struct upstream_world *up = calloc(1, sizeof *up);
    assert_non_null(up);
    up->world = session_world_new(NULL, NULL);
    session_world_connect(up->world);
    arena_init(&up->arena, &up->world->room.arenas);
    up->world->on_head = tunnel_begin;
    up->world->on_reset = seen_on_reset_close;
    up->seen = session_world_open(up->world, &up->arena);
    ask(up->seen, true, key);
    peer_expect(up->world->net, up->world->peer,
                "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: ");
    char made[WS_KEY_SIZE + 1] = "";
    assert_int_equal(peer_take(up->world->peer, made, WS_KEY_SIZE), WS_KEY_SIZE);
    assert_true(ws_key_valid(bytes_of(made)));
    assert_string_not_equal(made, KEY);
    ws_accept_of(made, up->accept);
    peer_expect(up->world->net, up->world->peer,
                "\r\nSec-WebSocket-Version: 13\r\n" UPGRADE_LINES "\r\n");
    return up;
}

static void server_switches(struct upstream_world *up, const char *lines) {
    char text[512];
    (void)snprintf(text, sizeof text, SWITCH "%s\r\n", lines);
    peer_send(up->world->peer, text);
    TURN_UNTIL(up->world->net, up->seen->heads != 0 || up->seen->resets != 0);
}

static void up_free(struct upstream_world *up) {
    if (up->seen->resets == 0) seen_close(up->seen, REASON_CLIENT_RESET);
    TURN_UNTIL(up->world->net, up->world->closed == 1);
    arena_reset(&up->arena);
    session_world_free(up->world);
    free(up);
}

static void a_request_of_http_2_is_proven_by_the_server(void **state) {
    (void)state;
    for (int own_key = 0; own_key < 2; own_key++) {
        struct upstream_world *up = server_asked(own_key ? BYTES(KEY) : BYTES_NONE);
        char lines[256];
        (void)snprintf(lines, sizeof lines, UPGRADE_LINES "Sec-WebSocket-Accept: %.*s\r\n",
                       WS_ACCEPT_SIZE, up->accept);
        server_switches(up, lines);
        assert_int_equal(up->seen->status, 101);
        up_free(up);
    }
}

static void a_server_that_proves_nothing_is_a_bad_answer(void **state) {
    (void)state;
    static const char *const lines[] = {
        UPGRADE_LINES,
        UPGRADE_LINES "Sec-WebSocket-Accept: " ACCEPT "\r\n",
        "Connection: upgrade\r\nUpgrade: chat\r\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct upstream_world *up = server_asked(BYTES_NONE);
        server_switches(up, lines[i]);
        assert_int_equal(up->seen->resets, 1);
        assert_int_equal(up->seen->reason, REASON_BAD_RESPONSE);
        up_free(up);
    }
}

static void a_refusal_needs_no_proof(void **state) {
    (void)state;
    struct upstream_world *up = server_asked(BYTES_NONE);
    peer_send(up->world->peer, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    TURN_UNTIL(up->world->net, up->seen->heads != 0);
    assert_int_equal(up->seen->status, 403);
    seen_close(up->seen, REASON_NONE);
    assert_int_equal(up->world->idle, 1);
    /* The connection's next request asks for nothing. */
    up->seen = session_world_open(up->world, &up->arena);
    ask(up->seen, false, BYTES(KEY));
    peer_expect(up->world->net, up->world->peer,
                "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: " KEY "\r\n" UPGRADE_LINES "\r\n");
    server_switches(up, UPGRADE_LINES);
    assert_int_equal(up->seen->status, 101);
    up_free(up);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_of_http_2_gets_the_clients_proof),
        cmocka_unit_test(an_answer_of_http_1_stays_as_it_is),
        cmocka_unit_test(a_request_of_http_2_is_proven_by_the_server),
        cmocka_unit_test(a_server_that_proves_nothing_is_a_bad_answer),
        cmocka_unit_test(a_refusal_needs_no_proof),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
