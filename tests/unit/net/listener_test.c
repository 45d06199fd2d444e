#include "net/listener.h"

#include "unit/net/net_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define CONNS 32

struct user {
    struct conn *conns[CONNS];
    uint32_t count;
    struct listener_quota quota;
    struct listener listener;
};

static void ignore(struct conn *conn) { (void)conn; }
static void ignore_bytes(struct conn *conn, struct bytes bytes, struct lease *lease) {
    (void)conn;
    (void)bytes;
    lease_unref(lease);
}
static void ignore_lost(struct conn *conn, int error) {
    (void)conn;
    (void)error;
}
static const struct conn_events events = {.on_open = ignore,
                                          .on_bytes = ignore_bytes,
                                          .on_eof = ignore,
                                          .on_drained = ignore,
                                          .on_sent = ignore,
                                          .on_deadline = ignore,
                                          .on_lost = ignore_lost};

static void on_conn(void *user, struct conn *conn) {
    struct user *to = user;
    assert_true(to->count < CONNS);
    conn_attach(conn, &events, user);
    to->conns[to->count++] = conn;
}

static void user_listen(struct user *user, struct net_world *world, int fd, uint32_t conns_max) {
    *user = (struct user){.quota = {.max = conns_max},
                          .listener = {.slot = 0,
                                       .address_text = "test",
                                       .quota = &user->quota,
                                       .backlog = 8,
                                       .on_conn = on_conn,
                                       .user = user}};
    assert_true(fd >= 0);
    listener_start(&user->listener, &world->net, fd);
}

static int open_tcp(struct sockaddr_in *address) {
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct listener_options options = {.address = (const struct sockaddr *)address,
                                       .address_size = sizeof *address,
                                       .address_text = "test",
                                       .backlog = 8,
                                       .nodelay = true};
    int fd = listener_open(&options);
    socklen_t size = sizeof *address;
    if (fd >= 0) assert_int_equal(getsockname(fd, (struct sockaddr *)address, &size), 0);
    return fd;
}

static struct net_world *world_new(uint32_t conns_max) {
    struct net_options options = net_world_options();
    options.conns_max = conns_max;
    return net_world_new(&options);
}

static void world_free(struct net_world *world, struct user *user) {
    listener_stop(&user->listener);
    conn_close_all(&world->net);
    TURN_UNTIL(world, listener_ended(&user->listener));
    net_world_free(world);
}

static void connections_are_accepted(void **state) {
    (void)state;
    struct net_world *world = world_new(64);
    struct sockaddr_in address;
    struct user user;
    user_listen(&user, world, open_tcp(&address), 16);
    int peers[8];
    for (int i = 0; i < 8; i++)
        peers[i] = tcp_connect(&address);
    TURN_UNTIL(world, user.count == 8);
    assert_int_equal(user.listener.conns, 8);
    assert_true(conn_send_copy(user.conns[7], BYTES("hi")));
    peer_expect(world, peers[7], "hi");
    for (int i = 0; i < 8; i++)
        close(peers[i]);
    world_free(world, &user);
}

static void at_its_limit_it_pauses_until_a_connection_ends(void **state) {
    (void)state;
    struct net_world *world = world_new(64);
    struct sockaddr_in address;
    struct user user;
    user_listen(&user, world, open_tcp(&address), 3);
    int peers[8];
    for (int i = 0; i < 3; i++)
        peers[i] = tcp_connect(&address);
    TURN_UNTIL(world, user.count == 3 && !user.listener.armed);
    for (int i = 3; i < 8; i++)
        peers[i] = tcp_connect(&address);
    net_world_turn_for(world, 30);
    assert_int_equal(user.count, 3); /* the rest waits in the backlog */
    for (uint32_t i = 0; i < 5; i++) {
        conn_close(user.conns[i]);
        TURN_UNTIL(world, user.count == 4 + i);
        assert_int_equal(user.listener.conns, 3);
    }
    for (int i = 0; i < 8; i++)
        close(peers[i]);
    world_free(world, &user);
}

/* A multishot accept brings all that wait in the backlog, asked or not. */
static void a_burst_does_not_go_over_the_limit(void **state) {
    (void)state;
    struct net_world *world = world_new(64);
    struct sockaddr_in address;
    struct user user;
    user_listen(&user, world, open_tcp(&address), 12);
    net_world_turn(world);
    int peers[18];
    for (int i = 0; i < 9; i++)
        peers[i] = tcp_connect(&address);
    TURN_UNTIL(world, user.count == 9);
    for (int i = 9; i < 18; i++)
        peers[i] = tcp_connect(&address);
    net_world_turn_for(world, 30);
    assert_int_equal(user.count, 12);
    for (int i = 0; i < 18; i++)
        close(peers[i]);
    world_free(world, &user);
}

/* The slots are used by connections that are not this listener's: none of them wakes it up. */
static void without_slots_it_goes_on_by_itself(void **state) {
    (void)state;
    struct net_world *world = world_new(2);
    struct sockaddr_in address;
    struct user user;
    user_listen(&user, world, open_tcp(&address), 16);
    struct conn *others[2];
    int fds[2][2];
    for (int i = 0; i < 2; i++) {
        tcp_pair(fds[i]);
        others[i] = conn_accept(&world->net, fds[i][0], &events, &user);
        assert_non_null(others[i]);
    }
    int refused = tcp_connect(&address);
    TURN_UNTIL(world, world->stats.rejected[REASON_NO_MEMORY] == 1);
    int peer = tcp_connect(&address);
    conn_close(others[0]);
    TURN_UNTIL(world, user.count == 1);
    conn_close(others[1]);
    close(fds[0][1]);
    close(fds[1][1]);
    close(refused);
    close(peer);
    world_free(world, &user);
}

static void a_stop_takes_what_waits_and_refuses_the_rest(void **state) {
    (void)state;
    struct net_world *world = world_new(64);
    struct sockaddr_in address;
    struct user user;
    user_listen(&user, world, open_tcp(&address), 16);
    net_world_turn(world);
    int waits = tcp_connect(&address);
    listener_stop(&user.listener);
    assert_int_equal(user.count, 1);
    listener_stop(&user.listener); /* harmless */
    int late = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(late, (struct sockaddr *)&address, sizeof address), -1);
    assert_int_equal(errno, ECONNREFUSED);
    assert_false(listener_ended(&user.listener));
    conn_close(user.conns[0]);
    TURN_UNTIL(world, listener_ended(&user.listener));
    close(late);
    close(waits);
    world_free(world, &user);
}

static void a_drain_accepts_for_a_little_while_and_then_stops(void **state) {
    (void)state;
    struct net_world *world = world_new(64);
    struct sockaddr_in address;
    struct user user;
    user_listen(&user, world, open_tcp(&address), 16);
    int waits = tcp_connect(&address);
    listener_drain(&user.listener);
    listener_drain(&user.listener);
    TURN_UNTIL(world, user.listener.stopped);
    assert_int_equal(user.count, 1);
    conn_close(user.conns[0]);
    TURN_UNTIL(world, listener_ended(&user.listener));
    close(waits);
    world_free(world, &user);
}

static void an_address_in_use_is_an_error(void **state) {
    (void)state;
    struct sockaddr_in address;
    int other = tcp_listen(&address); /* without SO_REUSEPORT */
    struct listener_options options = {
        .address = (const struct sockaddr *)&address, .address_size = sizeof address, .backlog = 8};
    assert_int_equal(listener_open(&options), -EADDRINUSE);
    close(other);
}

static void a_stale_unix_socket_is_replaced_a_live_one_is_not(void **state) {
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/weir_listener_test.%d", getpid());
    struct listener_options options = {
        .address = (const struct sockaddr *)&address, .address_size = sizeof address, .backlog = 8};
    int first = listener_open(&options);
    assert_true(first >= 0);
    assert_int_equal(listener_open(&options), -EADDRINUSE);
    close(first); /* as a crash would: the file stays */
    assert_int_equal(access(address.sun_path, F_OK), 0);

    struct net_world *world = world_new(64);
    struct user user;
    user_listen(&user, world, listener_open(&options), 16);
    int peer = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(peer, (struct sockaddr *)&address, sizeof address), 0);
    TURN_UNTIL(world, user.count == 1);
    close(peer);
    world_free(world, &user);
    unlink(address.sun_path);
}

/* Runs in a child: the limit would hit the test itself. Exit status 0 says that all went well. */
static void accept_without_descriptors(struct net_world *world, struct user *user,
                                       const struct sockaddr_in *address) {
    int peers[4];
    for (int i = 0; i < 4; i++)
        peers[i] = tcp_connect(address);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    int next = dup(0);
    close(next);
    struct rlimit few = {.rlim_cur = (rlim_t)next + 2, .rlim_max = files.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
    TURN_UNTIL(world, user->listener.short_of);
    assert_true(user->count < 4);
    uint64_t entered = stat_get(&world->stats, STAT_URING_SQE);
    net_world_turn_for(world, 200);
    assert_true(stat_get(&world->stats, STAT_URING_SQE) - entered < 10); /* it does not spin */
    setrlimit(RLIMIT_NOFILE, &files);
    TURN_UNTIL(world, user->count == 4);
    for (int i = 0; i < 4; i++)
        close(peers[i]);
}

static void without_descriptors_it_waits_and_goes_on(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        assert_non_null(freopen("/dev/null", "w", stderr)); /* the warning is expected */
        struct net_world *world = world_new(64);
        struct sockaddr_in address;
        struct user user;
        user_listen(&user, world, open_tcp(&address), 16);
        accept_without_descriptors(world, &user, &address);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_are_accepted),
        cmocka_unit_test(at_its_limit_it_pauses_until_a_connection_ends),
        cmocka_unit_test(a_burst_does_not_go_over_the_limit),
        cmocka_unit_test(without_slots_it_goes_on_by_itself),
        cmocka_unit_test(a_stop_takes_what_waits_and_refuses_the_rest),
        cmocka_unit_test(a_drain_accepts_for_a_little_while_and_then_stops),
        cmocka_unit_test(an_address_in_use_is_an_error),
        cmocka_unit_test(a_stale_unix_socket_is_replaced_a_live_one_is_not),
        cmocka_unit_test(without_descriptors_it_waits_and_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
