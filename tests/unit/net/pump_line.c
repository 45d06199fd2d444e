#include "unit/net/pump_line.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct line *line_new_in(struct net_world *world) {
    struct line *line = calloc(1, sizeof *line);
    assert_non_null(line);
    line->world = world;
    line->from = conn_user_accept(world, &line->source);
    line->to = conn_user_accept(world, &line->sink);
    line->from->pump_limit = UINT64_MAX;
    return line;
}

struct line *line_new(void) {
    struct net_options options = net_world_options();
    return line_new_in(net_world_new(&options));
}

void line_close(struct line *line) {
    if (line->source >= 0) close(line->source);
    if (line->sink >= 0) close(line->sink);
    free(line->from);
    free(line->to);
    free(line);
}

void line_free(struct line *line) {
    struct net_world *world = line->world;
    conn_close_all(&world->net);
    TURN_UNTIL(world, world->net.conns.used == 0);
    net_world_free(world);
    line_close(line);
}

void line_feed(struct line *line, size_t end) {
    static char memory[65536];
    while (line->sent < end) {
        size_t part = end - line->sent < sizeof memory ? end - line->sent : sizeof memory;
        (void)pattern_bytes(memory, line->sent, part);
        ssize_t sent = send(line->source, memory, part, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent <= 0) return;
        line->sent += (size_t)sent;
    }
}

size_t line_drain(struct line *line) {
    line->taken = peer_read_pattern(line->sink, line->taken);
    return line->taken;
}

void line_carry(struct line *line, size_t end) {
    TURN_UNTIL(line->world, (line_feed(line, end), line_drain(line) == end));
}

void line_pump(struct line *line) { assert_true(pump_start(line->from->conn, line->to->conn)); }

uint64_t line_stat(const struct line *line, enum stat_id id) {
    return stat_get(&line->world->stats, id);
}

void line_fill(struct line *line) {
    uint64_t pumped;
    line_pump(line);
    do {
        pumped = line->from->pumped;
        line_feed(line, SIZE_MAX);
        net_world_turn_for(line->world, 20);
    } while (pumped != line->from->pumped || !conn_is_held(line->from->conn));
}
