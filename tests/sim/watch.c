#include "sim/watch.h"

#include "base/check.h"
#include "control/worker.h"
#include "session/h2_internal.h"
#include "sim/kernel.h"

#include <string.h>
#include <unistd.h>

#define BUFFERS_MAX 16384 /* of a pool, in a run */

/* What was released last is kept out of the bitmaps. */
static bool is_hot(const struct slab *slab, uint32_t index) {
    for (uint32_t i = 0; i < slab->hot_count; i++)
        if (slab->hot[i] == index) return true;
    return false;
}

static bool is_taken(const struct slab *slab, uint32_t index) {
    if (is_hot(slab, index)) return false;
    return slab->full[0][index / 64] >> index % 64 & 1;
}

/* What the bitmap says is what is counted. */
static void watch_slab(const struct slab *slab) {
    uint32_t taken = 0;
    for (uint32_t word = 0; word < (slab->fresh + 63) / 64; word++)
        taken += (uint32_t)__builtin_popcountll(slab->full[0][word]);
    if (taken == slab->used + slab->hot_count) return;
    sim_fail(INVARIANT_SLOTS, "%s: %u used, %u hot and %u taken of %u", slab->name, slab->used,
             slab->hot_count, taken, slab->fresh);
}

/* Buffers by index of the slab: whether the pool has it lent. Returns how many. */
static uint32_t mark_lent(const struct buf_pool *pool, bool *lent) {
    uint32_t count = 0;
    for (uint32_t id = 0; id < pool->ring_entries; id++) {
        if (!pool->lent[id]) continue;
        lent[slab_index(&pool->slab, pool->lent[id])] = true;
        count++;
    }
    return count;
}

/* Leases that somebody holds. */
static uint32_t count_leased(const struct buf_pool *pool, const bool *lent) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < pool->slab.fresh; i++) {
        if (lent[i] || !is_taken(&pool->slab, i)) continue;
        const struct lease *lease = slab_at(&pool->slab, i);
        if (lease->refs == 0) sim_fail(INVARIANT_BUFFERS, "buffer %u is nobody's", i);
        count++;
    }
    return count;
}

/* Returns how many buffers are leased. */
static uint32_t watch_buffers(const struct buf_pool *pool, uint32_t with_kernel) {
    static bool lent[BUFFERS_MAX];
    CHECK(pool->slab.fresh <= BUFFERS_MAX);
    memset(lent, 0, pool->slab.fresh * sizeof *lent);
    uint32_t lent_count = mark_lent(pool, lent);
    uint32_t leased = count_leased(pool, lent);
    bool sound = lent_count == pool->kernel_count && lent_count == with_kernel &&
                 lent_count + leased + pool->spare_count == pool->total;
    if (sound) return leased;
    sim_fail(INVARIANT_BUFFERS,
             "group %d: %u lent (%u counted, %u with the kernel), %u leased, %u spare of %u",
             (int)pool->group, lent_count, pool->kernel_count, with_kernel, leased,
             pool->spare_count, pool->total);
}

/* When some are lent, as many stay spare to answer with. */
static void watch_lending(const struct buf_pool *pool) {
    static uint32_t before;
    if (kernel_turns() <= 1) before = 0;
    bool lends = pool->kernel_count > before;
    before = pool->kernel_count;
    if (!lends || pool->kernel_count <= pool->spare_count) return;
    sim_fail(INVARIANT_BUFFERS, "%u small buffers are lent, %u are spare", pool->kernel_count,
             pool->spare_count);
}

/* All that is alive of connections. */
struct census {
    uint32_t conns;
    uint32_t ops;
    uint32_t clients;
    uint32_t pumps;
    uint32_t finishing; /* dialled, without a user, and still sending */
    uint32_t ends;      /* with addresses of their own */
    uint32_t wires;     /* with TLS */
};

static struct census count_conns(const struct net *net) {
    struct census census = {0};
    for (uint32_t i = 0; i < net->conns.fresh; i++) {
        const struct conn *conn = slab_at(&net->conns, i);
        if (conn->generation == 0) continue; /* free */
        census.conns++;
        census.ops += conn->ops_in_flight;
        census.clients += conn->listener != NULL;
        census.pumps += conn->pump_out != NULL;
        census.finishing += conn->state == CONN_FINISHING && !conn->is_client;
        census.ends += conn->ends != NULL;
        census.wires += conn->filter != NULL;
    }
    return census;
}

static void watch_slots(const struct worker *worker, const struct census *census) {
    const struct net *net = &worker->net;
    for (uint32_t i = 0; i < net->slab_count; i++)
        watch_slab(net->slabs[i]);
    uint32_t clients = 0, refused = 0;
    for (uint32_t i = 0; i < worker->opened; i++) {
        clients += worker->listeners[i].listener.conns;
        refused += worker->listeners[i].listener.refused;
    }
    bool counted =
        worker->clients.used + worker->admins.used == clients && worker->refusals.used == refused;
    if (census->conns == net->conns.used && census->clients == clients + refused && counted &&
        census->pumps == net->pumps.used && net->pipes.used <= census->pumps &&
        census->finishing == net->dialled_finishing && census->ends == net->ends.used) {
        return;
    }
    sim_fail(INVARIANT_SLOTS,
             "%u connections in %u slots; %u of clients, %u of listeners (and %u refused), %u of "
             "quotas (and %u); %u pumps in %u slots with %u pipes; %u finishing, %u counted; "
             "%u with ends, %u slots of them",
             census->conns, net->conns.used, census->clients, clients, refused,
             worker->clients.used, worker->refusals.used, census->pumps, net->pumps.used,
             net->pipes.used, census->finishing, net->dialled_finishing, census->ends,
             net->ends.used);
}

static uint32_t list_count(const struct list *list) {
    uint32_t count = 0;
    LIST_FOR_EACH(node, list) { count++; }
    return count;
}

/* Wires are those of connections, and handshakes under way, and those that wait, are counted. */
static void watch_wires(const struct worker *worker, const struct census *census) {
    const struct wire_room *room = &worker->room.wires;
    uint32_t shaking = list_count(&room->accepted[WIRE_SHAKING]);
    uint32_t waiting = list_count(&room->accepted[WIRE_WAITING]);
    uint64_t gauge = stat_get(&worker->stats, STAT_TLS_HANDSHAKES_IN_FLIGHT);
    if (room->wires.used == census->wires && room->shaking == shaking && gauge == shaking &&
        room->waiting == waiting && shaking <= room->shaking_max)
        return;
    sim_fail(INVARIANT_SLOTS,
             "%u connections with TLS in %u slots; %u handshakes, %u counted, %llu in the gauge, "
             "%u at most; %u wait, %u counted",
             census->wires, room->wires.used, shaking, room->shaking, (unsigned long long)gauge,
             room->shaking_max, waiting, room->waiting);
}

/* Servers' counts are those of their connections and exchanges. */
static void watch_pools(const struct worker *worker) {
    uint64_t in_flight = 0;
    for (uint32_t i = 0; i < worker->config->upstream_count; i++) {
        const struct upstream *upstream = &worker->proxy.upstreams[i];
        for (uint32_t j = 0; j < upstream->config->server_count; j++) {
            const struct server *server = &upstream->servers[j];
            uint32_t idle = 0;
            LIST_FOR_EACH(node, &server->idle) { idle++; }
            in_flight += server->balance->in_flight;
            if (idle == server->idle_count && idle <= server->connections) continue;
            sim_fail(INVARIANT_SLOTS, "server %u has %u idle connections, %u counted, of %u", j,
                     idle, server->idle_count, server->connections);
        }
    }
    if (in_flight <=
        worker->proxy.exchanges.used + worker->proxy.relays.used + worker->proxy.tunnels.used)
        return;
    sim_fail(INVARIANT_SLOTS, "%llu requests at servers and %u exchanges",
             (unsigned long long)in_flight, worker->proxy.exchanges.used);
}

static void watch_ops(const struct worker *worker, const struct kernel_owed *owed,
                      const struct census *census) {
    uint32_t accepts = 0;
    for (uint32_t i = 0; i < worker->opened; i++)
        accepts += worker->listeners[i].listener.armed;
    uint32_t others = owed->by_kind[RING_NOTHING] + owed->by_kind[RING_MAIL_SENT];
    uint32_t of_conns = owed->all - others - owed->by_kind[RING_ACCEPT];
    if (owed->all == worker->net.ring.ops_in_flight && of_conns == census->ops &&
        accepts == owed->by_kind[RING_ACCEPT]) {
        return;
    }
    sim_fail(INVARIANT_OPERATIONS,
             "the kernel owes %u (%u of connections, %u of listeners); the ring counts %u, "
             "connections %u, listeners %u",
             owed->all, of_conns, owed->by_kind[RING_ACCEPT], worker->net.ring.ops_in_flight,
             census->ops, accepts);
}

/* The mistakes a --self-test makes in weir's place. */
static void make_defects(const struct worker *worker) {
    struct net *net = (struct net *)(uintptr_t)&worker->net;
    if (sim.defects != 0) return;
    if (sim_defect(DEFECT_LEAK_LEASE)) (void)buf_take(&net->small);
    if (sim_defect(DEFECT_LOSE_BUFFER)) buf_take(&net->small)->refs = 0;
    if (sim_defect(DEFECT_LEAK_SLOT)) ((struct conn *)slab_acquire(&net->conns))->generation = 0;
    struct slab *wires = (struct slab *)(uintptr_t)&worker->room.wires.wires;
    if (wires->used != 0 && sim_defect(DEFECT_LEAK_WIRE)) (void)slab_acquire(wires);
    if (sim_defect(DEFECT_LEAK_DESCRIPTOR)) (void)socket(AF_INET, SOCK_STREAM, 0);
    for (uint32_t i = 0; i < net->conns.fresh; i++) {
        struct conn *conn = slab_at(&net->conns, i);
        if (conn->generation == 0 || conn->ops_in_flight == 0) continue;
        if (sim_defect(DEFECT_CLOSE_EARLY)) (void)close(conn->fd);
        if (sim_defect(DEFECT_BREAK_LIST)) conn->generation ^= 1;
    }
}

void watch_turn(const struct worker *worker) {
    struct kernel_owed owed = kernel_owed(&worker->net.ring);
    watch_lending(&worker->net.small);
    make_defects(worker);
    struct census census = count_conns(&worker->net);
    uint32_t leased = watch_buffers(&worker->net.small, owed.buffers[BUF_SMALL]);
    leased += watch_buffers(&worker->net.bulk, owed.buffers[BUF_BULK]);
    watch_slots(worker, &census);
    watch_wires(worker, &census);
    watch_pools(worker);
    watch_ops(worker, &owed, &census);
    watch_h2_turn(worker);
    uint32_t open = kernel_open_socks() - owed.accepted;
    if (open != census.conns) {
        sim_fail(INVARIANT_DESCRIPTORS, "%u open sockets and %u connections", open, census.conns);
    }
    bool at_rest = census.conns == 0 && worker->room.sessions.used == 0 &&
                   worker->room.tcp.used == 0 && worker->room.h2->sessions.used == 0;
    if (at_rest && leased != 0) {
        sim_fail(INVARIANT_REST, "%u buffers are held and no connection is there", leased);
    }
}

void watch_end(const struct worker *worker) {
    const struct net *net = &worker->net;
    const struct session_room *room = &worker->room;
    struct {
        const char *name;
        uint32_t count;
    } left[] = {
        {"connections", net->conns.used},
        {"parts of queues", net->queues.used},
        {"sessions", room->sessions.used},
        {"kept heads", room->heads.used},
        {"arenas", room->arenas.small.used + room->arenas.large.used},
        {"TCP sessions", room->tcp.used},
        {"echoes", worker->echoes.used},
        {"connections without their PROXY header", worker->gates.gates.used},
        {"addresses of PROXY headers", net->ends.used},
        {"HTTP/2 sessions", room->h2->sessions.used},
        {"HTTP/2 streams", room->h2->streams.used},
        {"heads of HTTP/2", room->h2->heads.used},
        {"queues of HTTP/2", room->h2->blocks.used},
        {"tunnels", worker->proxy.tunnels.used},
        {"exchanges", worker->proxy.exchanges.used},
        {"relays", worker->proxy.relays.used},
        {"pumps", net->pumps.used},
        {"pipes", net->pipes.used},
        {"buffers", buf_pool_leased(&net->small) + buf_pool_leased(&net->bulk)},
        {"operations", net->ring.ops_in_flight},
        {"connections of clients", worker->clients.used},
        {"wires", room->wires.wires.used},
        {"timers", net->wheel.armed - wheel_timer_armed(&net->trim_timer) -
                       wheel_timer_armed(&room->wires.timer)},
    };
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        if (left[i].count == 0) continue;
        sim_fail(INVARIANT_REST, "%u %s are left at the end", left[i].count, left[i].name);
    }
    for (uint32_t i = 0; i < worker->config->upstream_count; i++) {
        const struct upstream *upstream = &worker->proxy.upstreams[i];
        for (uint32_t j = 0; j < upstream->config->server_count; j++) {
            const struct server *server = &upstream->servers[j];
            if (server->connections == 0 && server->balance->in_flight == 0) continue;
            sim_fail(INVARIANT_REST, "server %u still counts %u connections, %llu requests", j,
                     server->connections, (unsigned long long)server->balance->in_flight);
        }
    }
}
