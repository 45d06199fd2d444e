#include "unit/session/wire_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "unit/proto/tls_fixture.h"
#include <openssl/err.h>

static struct wire_user *wire_user_new(struct wire_world *world, struct conn *conn) {
    struct wire_user *user = calloc(1, sizeof *user);
    assert_non_null(user);
    user->before = world->user;
    world->user = user;
    user->user.world = world->net;
    user->user.conn = conn;
    return user;
}

static void on_lost(struct conn *conn, int error) {
    struct wire_user *user = conn->user; /* its first member is conn_user_events' user */
    user->lost_reason = wire_lost_reason(conn, error);
    conn_user_events.on_lost(conn, error);
}

static const struct conn_events *user_events(void) {
    static struct conn_events events;
    events = conn_user_events;
    events.on_lost = on_lost;
    return &events;
}

static void on_conn(void *owner, struct conn *conn) {
    struct wire_world *world = owner;
    world->opened++;
    assert_null(conn->events);
    assert_int_equal(conn->deadline_ms, 0);
    struct wire_user *user = wire_user_new(world, conn);
    if (world->refuse) {
        conn_reset(conn);
    } else {
        conn_attach(conn, user_events(), user);
    }
}

static void on_refused(void *owner, struct conn *conn, enum reason reason) {
    struct wire_world *world = owner;
    assert_int_equal(reason, REASON_TLS_PLAIN_HTTP);
    world->refused++;
    assert_true(conn_send_copy(conn, BYTES("speak TLS")));
    conn_finish(conn, 1000, true);
}

static struct tls_context *make_context(bool is_server, struct tls_context_options options) {
    struct tls_fault fault;
    struct tls_context *context = is_server ? tls_context_new_server(&options, &fault)
                                            : tls_context_new_client(&options, &fault);
    if (!context) fail_msg("%s", fault.text);
    return context;
}

static void make_contexts(struct wire_world *world) {
    const struct made *ca = make_certificate(&(struct wish){.subject = "ca", .is_ca = true});
    const struct made *own = make_certificate(
        &(struct wish){.subject = "weir", .names = "DNS:weir.example", .issuer = ca});
    struct tls_identity identity = identity_of(own);
    assert_true(tls_tickets_init(&world->tickets, 60));
    world->accepting.tls =
        make_context(true, (struct tls_context_options){.identities = &identity,
                                                        .identity_count = 1,
                                                        .min_version = 2,
                                                        .alpn = BYTES("\x02h2\x08http/1.1"),
                                                        .tickets = &world->tickets,
                                                        .scope = BYTES("site")});
    world->dialling.tls = make_context(
        false,
        (struct tls_context_options){.min_version = 2, .ca = ca->certificate_pem, .verify = true});
    world->far_client = SSL_CTX_new(TLS_client_method());
    world->far_server = SSL_CTX_new(TLS_server_method());
    assert_true(world->far_client && world->far_server);
    assert_int_equal(SSL_CTX_use_certificate(world->far_server, own->certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(world->far_server, own->key), 1);
}

struct wire_world *wire_world_new(uint32_t wires_max) {
    struct wire_world *world = calloc(1, sizeof *world);
    struct net_options options = net_world_options();
    assert_non_null(world);
    options.small_count = 256;
    world->net = net_world_new(&options);
    make_contexts(world);
    world->accepting.timeout_handshake_ms = 60000;
    world->dialling.timeout_handshake_ms = 60000;
    world->gate =
        (struct wire_gate){.options = &world->accepting, .on_conn = on_conn, .user = world};
    world->refusals.max = 4;
    world->listener = (struct listener){.net = &world->net->net,
                                        .refusals = &world->refusals,
                                        .on_refused = on_refused,
                                        .user = world};
    assert_int_equal(wire_room_init(&world->room, &world->net->net, wires_max, wires_max), 0);
    return world;
}

void wire_world_free(struct wire_world *world) {
    struct net *net = &world->net->net;
    conn_close_all(net);
    TURN_UNTIL(world->net, net->conns.used == 0);
    assert_int_equal(world->room.shaking, 0);
    for (int i = 0; i < WIRE_STATE_COUNT; i++)
        assert_true(list_empty(&world->room.accepted[i]));
    wire_room_fini(&world->room);
    net_world_free(world->net);
    tls_context_free((struct tls_context *)(uintptr_t)world->accepting.tls);
    tls_context_free((struct tls_context *)(uintptr_t)world->dialling.tls);
    tls_tickets_fini(&world->tickets);
    SSL_CTX_free(world->far_client);
    SSL_CTX_free(world->far_server);
    fixture_end();
    for (struct wire_user *user = world->user, *before; user; user = before) {
        before = user->before;
        free(user);
    }
    free(world);
    assert_int_equal(ERR_peek_error(), 0);
}

static struct far_end far_new(int fd, SSL_CTX *context, bool is_server) {
    struct far_end far = {.fd = fd, .ssl = SSL_new(context)};
    assert_non_null(far.ssl);
    SSL_set_bio(far.ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    if (is_server) {
        SSL_set_accept_state(far.ssl);
    } else {
        SSL_set_connect_state(far.ssl);
    }
    return far;
}

struct far_end far_enter(struct wire_world *world, int version) {
    int fds[2];
    tcp_pair(fds);
    struct conn *conn = conn_accept(&world->net->net, fds[0], NULL, NULL);
    assert_non_null(conn);
    wire_enter(&world->room, conn, &world->gate);
    struct far_end far = far_new(fds[1], world->far_client, false);
    if (version == 0) return far;
    assert_int_equal(SSL_set_min_proto_version(far.ssl, version), 1);
    assert_int_equal(SSL_set_max_proto_version(far.ssl, version), 1);
    return far;
}

struct far_end far_dial(struct wire_world *world, const struct session_address *to) {
    struct sockaddr_in address;
    int listening = tcp_listen(&address);
    struct wire_user *user = wire_user_new(world, NULL);
    struct conn_dial_options dial = {.address = (const struct sockaddr *)&address,
                                     .address_size = sizeof address,
                                     .deadline_ms = world->net->net.now_ms + 5000};
    int error = 0;
    user->user.conn = conn_dial(&world->net->net, &dial, user_events(), user, &error);
    assert_non_null(user->user.conn);
    assert_true(wire_dial(&world->room, user->user.conn, &world->dialling, to));
    assert_int_equal(wire_late_reason(user->user.conn), REASON_CONNECT_TIMEOUT);
    TURN_UNTIL(world->net, user->user.conn->state == CONN_OPEN);
    int fd = accept(listening, NULL, NULL);
    assert_true(fd >= 0);
    close(listening);
    return far_new(fd, world->far_server, true);
}

void far_free(struct far_end *far) {
    SSL_free(far->ssl);
    if (far->fd >= 0) close(far->fd);
    ERR_clear_error();
}

void far_step(struct far_end *far) {
    if (far->is_done) return;
    far->is_done = SSL_do_handshake(far->ssl) == 1;
    ERR_clear_error();
}

size_t far_send(struct far_end *far, size_t most) {
    char *waiting = NULL;
    long size = BIO_get_mem_data(SSL_get_wbio(far->ssl), &waiting);
    size_t part = (size_t)size < most ? (size_t)size : most;
    if (part == 0) return 0;
    ssize_t sent = send(far->fd, waiting, part, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return 0;
    char *gone = malloc((size_t)sent);
    assert_int_equal(BIO_read(SSL_get_wbio(far->ssl), gone, (int)sent), sent);
    free(gone);
    return (size_t)sent;
}

void far_carry(struct far_end *far) {
    char some[4096];
    ssize_t got;
    (void)far_send(far, SIZE_MAX); /* what does not fit waits */
    while ((got = peer_take(far->fd, some, sizeof some)) > 0)
        assert_int_equal(BIO_write(SSL_get_rbio(far->ssl), some, (int)got), got);
    if (got != -EAGAIN) far->has_ended = true;
}

bool far_shake(struct wire_world *world, struct far_end *far) {
    TURN_UNTIL(world->net, ({
                   far_step(far);
                   far_carry(far);
                   far->is_done || far->has_ended;
               }));
    return far->is_done;
}

void far_write(struct far_end *far, struct bytes plain) {
    assert_int_equal(SSL_write(far->ssl, plain.ptr, (int)plain.len), plain.len);
}

void far_expect(struct wire_world *world, struct far_end *far, struct bytes plain) {
    char *got = malloc(plain.len);
    size_t len = 0;
    TURN_UNTIL(world->net, ({
                   far_carry(far);
                   int part = SSL_read(far->ssl, got + len, (int)(plain.len - len));
                   len += part > 0 ? (size_t)part : 0;
                   len == plain.len;
               }));
    assert_memory_equal(got, plain.ptr, plain.len);
    free(got);
}

void far_expect_end(struct wire_world *world, struct far_end *far) {
    char byte;
    TURN_UNTIL(world->net, ({
                   far_carry(far);
                   assert_int_equal(SSL_read(far->ssl, &byte, 1) > 0, 0);
                   SSL_get_shutdown(far->ssl) & SSL_RECEIVED_SHUTDOWN;
               }));
}

uint64_t wire_failures(const struct wire_world *world, enum reason reason) {
    return world->net->stats.tls_failures[reason];
}

uint64_t wire_failures_in_all(const struct wire_world *world) {
    uint64_t sum = 0;
    for (int i = 0; i < REASON_COUNT; i++)
        sum += world->net->stats.tls_failures[i];
    return sum;
}
