#include "unit/net/conn_user.h"

#include "net/pump.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct conn_user *user_of(struct conn *conn) { return conn->user; }

static void on_open(struct conn *conn) { user_of(conn)->opened++; }

static void on_bytes(struct conn *conn, struct bytes bytes, struct lease *lease) {
    struct conn_user *user = user_of(conn);
    assert_true(user->len + bytes.len < sizeof user->bytes);
    memcpy(user->bytes + user->len, bytes.ptr, bytes.len);
    user->len += bytes.len;
    user->reads++;
    user->reads_bulk += lease->pool->group == BUF_BULK;
    if (user->echo) assert_true(conn_send_copy(conn, bytes));
    if (user->echo_lease) assert_true(conn_send_lease(conn, bytes, lease));
    if (user->send_on) assert_true(conn_send_lease(user->pump_to, bytes, lease));
    if (user->pump_to && !conn->pump_out && !user->pump_to->pump_in)
        assert_true(pump_start(conn, user->pump_to));
    if (user->keep) {
        lease_ref(lease);
        *user->keep++ = lease;
    }
    if (user->close_on_bytes) conn_close(conn);
    lease_unref(lease);
}

static void on_eof(struct conn *conn) {
    struct conn_user *user = user_of(conn);
    user->eofs++;
    user->pumped_at_eof = user->pumped;
    user->pumping_at_eof = conn->pump_out != NULL;
}

static uint64_t pump_limit(struct conn *conn) { return user_of(conn)->pump_limit; }

static void on_pumped(struct conn *conn, uint64_t bytes) {
    struct conn_user *user = user_of(conn);
    assert_true(bytes <= user->pump_limit);
    if (user->pump_limit != UINT64_MAX) user->pump_limit -= bytes;
    user->pumped += bytes;
    user->pumped_calls++;
    for (int i = 0; i < 2; i++) {
        if (user->reset_on_pumped[i]) conn_reset(user->reset_on_pumped[i]);
    }
}
static void on_drained(struct conn *conn) { user_of(conn)->drained++; }
static void on_sent(struct conn *conn) { user_of(conn)->sent++; }
static void on_deadline(struct conn *conn) { user_of(conn)->deadlines++; }

static void on_lost(struct conn *conn, int error) {
    user_of(conn)->lost++;
    user_of(conn)->lost_error = error;
}

const struct conn_events conn_user_events = {
    .on_open = on_open,
    .on_bytes = on_bytes,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_sent = on_sent,
    .pump_limit = pump_limit,
    .on_pumped = on_pumped,
    .on_deadline = on_deadline,
    .on_lost = on_lost,
};

struct conn_user *conn_user_accept(struct net_world *world, int *peer) {
    int fds[2];
    tcp_pair(fds);
    struct conn_user *user = calloc(1, sizeof *user);
    assert_non_null(user);
    user->world = world;
    user->conn = conn_accept(&world->net, fds[0], &conn_user_events, user);
    assert_non_null(user->conn);
    *peer = fds[1];
    return user;
}

void conn_user_narrow(struct conn_user *user, int peer) {
    int size = 32768;
    setsockopt(user->conn->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    setsockopt(peer, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
}

struct conn_line conn_line_new(void) {
    struct net_options options = net_world_options();
    return conn_line_with(&options);
}

struct conn_line conn_line_with(const struct net_options *options) {
    struct conn_line line = {.world = net_world_new(options)};
    line.user = conn_user_accept(line.world, &line.peer);
    return line;
}

void conn_line_hang_up(struct conn_line *line) {
    close(line->peer);
    line->peer = -1;
}

void conn_line_free(struct conn_line *line) {
    if (line->peer >= 0) close(line->peer);
    net_world_free(line->world);
    free(line->user);
}

static char pattern(size_t at) { return (char)('a' + at % 23); }

struct bytes pattern_bytes(char *memory, size_t at, size_t size) {
    for (size_t i = 0; i < size; i++)
        memory[i] = pattern(at + i);
    return bytes_make(memory, size);
}

size_t peer_read_pattern(int fd, size_t at) {
    char some[8192];
    for (ssize_t got; (got = peer_take(fd, some, sizeof some)) > 0;) {
        for (ssize_t i = 0; i < got; i++)
            assert_int_equal(some[i], pattern(at++));
    }
    return at;
}
