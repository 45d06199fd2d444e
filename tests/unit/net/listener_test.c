#include "net/listener.h"

#include "unit/net/net_fixture.h"

#include <errno.h>
#include <poll.h>
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
    struct listener_quota refusals;
    enum reason refused[CONNS]; /* by listener_refuse, in this order */
    uint32_t refused_count;
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

static void on_refused(void *user, struct conn *conn, enum reason reason) {
    struct user *to = user;
    assert_true(to->refused_count < CONNS);
    to->refused[to->refused_count++] = reason;
    assert_true(conn_send_copy(conn, BYTES("no")));
    conn_finish(conn, 1000, true);
}

static void user_init(struct user *user, uint32_t conns_max) {
    *user = (struct user){.quota = {.max = conns_max},
                          .refusals = {.max = 2},
                          .listener = {.slot = 0,
                                       .address_text = "test",
                                       .quotas = {&user->quota},
                                       .refusals = &user->refusals,
                                       .backlog = 8,
                                       .on_conn = on_conn,
                                       .on_refused = on_refused,
                                       .user = user}};
}

static void user_listen(struct user *user, struct net_world *world, int fd, uint32_t conns_max) {
    user_init(user, conns_max);
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

/* What an accept under way brings though there is no room: told so as long as few are being told,
 * reset else; and no place is taken. */
static void the_overrun_is_refused(void **state) {
    (void)state;
    struct net_world *world = world_new(64);
    struct sockaddr_in address;
    struct user user;
    user_listen(&user, world, open_tcp(&address), 1);
    int first = tcp_connect(&address);
    TURN_UNTIL(world, user.count == 1);
    int peers[3];
    for (int i = 0; i < 3; i++) {
        peers[i] = tcp_connect(&address);
        int fd = accept4(user.listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        assert_true(fd >= 0);
        user.listener.armed_all = true;
        struct ring_completion completion = {
            .token = {.kind = RING_ACCEPT}, .result = fd, .more = true};
        listener_on_accept(&world->net, &completion);
    }
    assert_int_equal(user.count, 1);
    assert_int_equal(user.quota.used, 1);
    assert_int_equal(user.listener.refused, 3);
    assert_int_equal(user.refused_count, 2);
    assert_int_equal(user.refused[0], REASON_MAX_CONNECTIONS);
    assert_int_equal(world->stats.rejected[REASON_MAX_CONNECTIONS], 3);
    peer_expect(world, peers[0], "no");
    peer_expect_eof(world, peers[0]);
    peer_expect_reset(world, peers[2]);
    for (int i = 0; i < 3; i++)
        close(peers[i]);
    TURN_UNTIL(world, user.listener.refused == 0 && user.refusals.used == 0);
    conn_close(user.conns[0]);
    close(first);
    world_free(world, &user);
}

/* Who is refused after it was counted (for what it says, not for being there) does not count while
 * it is being told so. */
static void a_refused_connection_gives_its_addresss_place_back(void **state) {
    (void)state;
    struct net_world *world = world_new(64);
    struct sockaddr_in address;
    struct user user;
    int fd = open_tcp(&address);
    user_init(&user, 16);
    struct limit_options options = {.per_ip = 1, .connections_max = 1, .seed = 1};
    user.listener.limit = limit_new(&options);
    listener_start(&user.listener, &world->net, fd);
    int peers[3];
    for (uint32_t i = 0; i < 3; i++) {
        peers[i] = tcp_connect(&address);
        TURN_UNTIL(world, user.count == i + 1);
        assert_true(listener_admit(user.conns[i]));
        if (i < 2) listener_refuse(user.conns[i], REASON_TLS_PLAIN_HTTP);
    }
    assert_int_equal(user.listener.refused, 2);
    assert_int_equal(user.listener.conns, 1);
    assert_int_equal(world->stats.rejected[REASON_MAX_CONNECTIONS_PER_IP], 0);
    for (int i = 0; i < 3; i++)
        close(peers[i]);
    struct limit *limit = user.listener.limit;
    world_free(world, &user);
    limit_free(limit); /* CHECKs that nobody is counted */
}

static void the_smallest_of_its_quotas_counts(void **state) {
    (void)state;
    struct net_world *world = world_new(64);
    struct sockaddr_in address;
    struct user user;
    int fd = open_tcp(&address);
    user_init(&user, 10);
    struct listener_quota own = {.max = 2};
    user.listener.quotas[1] = &own;
    listener_start(&user.listener, &world->net, fd);
    int peers[4];
    for (int i = 0; i < 4; i++)
        peers[i] = tcp_connect(&address);
    for (uint32_t i = 0; i < 3; i++) {
        TURN_UNTIL(world, user.count == 2 + i);
        net_world_turn_for(world, 10);
        assert_int_equal(own.used, 2);
        assert_int_equal(user.quota.used, 2);
        assert_int_equal(user.count, 2 + i);
        conn_close(user.conns[i]);
    }
    assert_int_equal(user.refused_count, 0);
    for (int i = 0; i < 4; i++)
        close(peers[i]);
    world_free(world, &user);
}

static struct ring_completion failed(int error, bool more) {
    return (struct ring_completion){.token = {.kind = RING_ACCEPT}, .result = -error, .more = more};
}

static void errors_of_one_connection_go_on_at_once(void **state) {
    (void)state;
    static const int errors[] = {ECONNABORTED, EPROTO, EINTR, EPERM, ENETDOWN, EHOSTUNREACH};
    struct net_world *world = world_new(64);
    struct sockaddr_in address;
    struct user user;
    user_listen(&user, world, open_tcp(&address), 16);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct ring_completion completion = failed(errors[i], true);
        listener_on_accept(&world->net, &completion);
        assert_false(user.listener.resting);
        assert_true(user.listener.armed);
    }
    int peer = tcp_connect(&address);
    TURN_UNTIL(world, user.count == 1);
    close(peer);
    world_free(world, &user);
}

/* Not known, or known and coming again and again without a success between. */
static void errors_that_are_not_known_do_not_spin(void **state) {
    (void)state;
    static const int errors[] = {EINVAL, EACCES, EIO, EPERM};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct net_world *world = world_new(64);
        struct sockaddr_in address;
        struct user user;
        user_listen(&user, world, open_tcp(&address), 16);
        uint32_t tries = 0;
        while (!user.listener.resting) {
            struct ring_completion completion = failed(errors[i], true);
            listener_on_accept(&world->net, &completion);
            assert_true(++tries <= 64);
        }
        assert_int_equal(tries, errors[i] == EPERM ? 64 : 1);
        assert_int_equal(user.listener.backoff_ms, 50);
        assert_int_equal(world->stats.accept_pauses[REASON_ACCEPT_FAILED], 1);
        int peer = tcp_connect(&address);
        TURN_UNTIL(world, user.count == 1 && !user.listener.resting);
        assert_int_equal(user.listener.backoff_ms, 0);
        close(peer);
        world_free(world, &user);
    }
}

static void a_shortage_doubles_its_pause_and_ends_with_a_success(void **state) {
    (void)state;
    static const uint32_t pauses_ms[] = {50, 100, 200, 400, 500, 500};
    struct net_world *world = world_new(64);
    struct sockaddr_in address;
    struct user user;
    user_listen(&user, world, open_tcp(&address), 16);
    for (size_t i = 0; i < sizeof pauses_ms / sizeof pauses_ms[0]; i++) {
        struct ring_completion completion = failed(i % 2 == 0 ? EMFILE : ENOBUFS, true);
        listener_on_accept(&world->net, &completion);
        assert_true(user.listener.resting);
        assert_int_equal(user.listener.backoff_ms, pauses_ms[i]);
        assert_int_equal(user.listener.timer.deadline_ms, world->net.now_ms + pauses_ms[i]);
    }
    assert_int_equal(world->stats.accept_pauses[REASON_NO_DESCRIPTORS], 3);
    assert_int_equal(world->stats.accept_pauses[REASON_NO_MEMORY], 3);
    int peer = tcp_connect(&address);
    TURN_UNTIL(world, user.count == 1);
    assert_int_equal(user.listener.backoff_ms, 0);
    close(peer);
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
    peer_expect_reset(world, refused);
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

/* Who comes later is not let in, as closing the socket would reset it, but refused. */
static void a_drain_accepts_who_waits_and_then_stops(void **state) {
    (void)state;
    struct net_world *world = world_new(64);
    struct sockaddr_in address;
    struct user user;
    user_listen(&user, world, open_tcp(&address), 16);
    int waits = tcp_connect(&address);
    listener_drain(&user.listener);
    listener_drain(&user.listener); /* harmless */
    int late = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(late, (const struct sockaddr *)&address, sizeof address), -1);
    assert_int_equal(errno, EINPROGRESS);
    TURN_UNTIL(world, user.listener.stopped);
    assert_int_equal(user.count, 1);
    /* The kernel asks again after a second. */
    struct pollfd polled = {.fd = late, .events = POLLOUT};
    assert_int_equal(poll(&polled, 1, 60000), 1);
    int error = 0;
    socklen_t size = sizeof error;
    assert_int_equal(getsockopt(late, SOL_SOCKET, SO_ERROR, &error, &size), 0);
    assert_int_equal(error, ECONNREFUSED);
    conn_close(user.conns[0]);
    TURN_UNTIL(world, listener_ended(&user.listener));
    close(late);
    close(waits);
    world_free(world, &user);
}

static void an_exclusive_socket_has_its_address_alone(void **state) {
    (void)state;
    struct sockaddr_in address;
    int other = open_tcp(&address); /* with SO_REUSEPORT */
    struct listener_options options = {.address = (const struct sockaddr *)&address,
                                       .address_size = sizeof address,
                                       .backlog = 8,
                                       .exclusive = true};
    assert_int_equal(listener_open(&options), -EADDRINUSE);
    close(other);
    int first = listener_open(&options);
    assert_true(first >= 0);
    assert_int_equal(listener_open(&options), -EADDRINUSE);
    options.exclusive = false; /* the other workers join */
    int second = listener_open(&options);
    assert_true(second >= 0);
    /* The kernel spreads connections over both. */
    int from[2] = {0, 0};
    for (int i = 0; i < 64; i++) {
        int peer = tcp_connect(&address);
        int fd = accept4(first, NULL, NULL, SOCK_NONBLOCK);
        int at = fd < 0;
        if (fd < 0) fd = accept4(second, NULL, NULL, SOCK_NONBLOCK);
        assert_true(fd >= 0);
        from[at]++;
        close(fd);
        close(peer);
    }
    assert_true(from[0] > 8 && from[1] > 8);
    close(first);
    close(second);
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
    TURN_UNTIL(world, user->listener.resting);
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
        cmocka_unit_test(the_overrun_is_refused),
        cmocka_unit_test(a_refused_connection_gives_its_addresss_place_back),
        cmocka_unit_test(the_smallest_of_its_quotas_counts),
        cmocka_unit_test(errors_of_one_connection_go_on_at_once),
        cmocka_unit_test(errors_that_are_not_known_do_not_spin),
        cmocka_unit_test(a_shortage_doubles_its_pause_and_ends_with_a_success),
        cmocka_unit_test(without_slots_it_goes_on_by_itself),
        cmocka_unit_test(a_stop_takes_what_waits_and_refuses_the_rest),
        cmocka_unit_test(a_drain_accepts_who_waits_and_then_stops),
        cmocka_unit_test(an_exclusive_socket_has_its_address_alone),
        cmocka_unit_test(an_address_in_use_is_an_error),
        cmocka_unit_test(a_stale_unix_socket_is_replaced_a_live_one_is_not),
        cmocka_unit_test(without_descriptors_it_waits_and_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
