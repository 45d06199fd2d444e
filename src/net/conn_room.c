/* conn_room.c: all connections of a worker. */
#include "base/check.h"
#include "net/conn_internal.h"
#include "net/pump.h"

#include <errno.h>

uint32_t conn_close_finishing(struct net *net) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < net->conns.fresh; i++) {
        struct conn *conn = slab_at(&net->conns, i);
        if (conn->generation == 0 || conn->state != CONN_FINISHING) continue;
        conn_reset(conn);
        count++;
    }
    return count;
}

void conn_close_all(struct net *net) {
    for (uint32_t i = 0; i < net->conns.fresh; i++) {
        struct conn *conn = slab_at(&net->conns, i);
        if (conn->generation != 0) conn_lose(conn, ECANCELED);
    }
}

void conn_fini_room(struct net *net) {
    slab_fini(&net->conns);
    slab_fini(&net->queues);
    slab_fini(&net->pumps);
    slab_fini(&net->ends);
    pipe_pool_fini(&net->pipes);
}

int conn_init_room(struct net *net) {
    int error = slab_init(&net->conns, "conn", sizeof(struct conn), net->options.conns_max);
    if (error == 0) {
        /* One for each queue, and as many as it takes to name a part of each buffer: those who
         * write hold buffers, and find a block whenever they find a buffer. */
        uint32_t count = net->options.conns_max * 2 + net->options.small_count / 4;
        error = slab_init(&net->queues, "send_queue", sizeof(struct conn_queue), count);
    }
    if (error == 0) {
        error = slab_init(&net->pumps, "pump", sizeof(struct pump), net->options.conns_max);
    }
    if (error == 0) {
        error = slab_init(&net->ends, "conn_ends", sizeof(struct addr_pair), net->options.ends_max);
    }
    pipe_pool_init(&net->pipes, net->options.pipes_max, net->stats);
    if (error != 0) {
        conn_fini_room(net);
        return error;
    }
    net_add_slab(net, &net->conns);
    net_add_slab(net, &net->queues);
    net_add_slab(net, &net->pumps);
    net_add_slab(net, &net->ends);
    ring_handle(&net->ring, RING_POLL_IN, conn_on_completion, net);
    ring_handle(&net->ring, RING_POLL_OUT, conn_on_completion, net);
    ring_handle(&net->ring, RING_WATCH, conn_on_completion, net);
    ring_handle(&net->ring, RING_RECV, conn_on_completion, net);
    ring_handle(&net->ring, RING_SEND, conn_on_completion, net);
    ring_handle(&net->ring, RING_CONNECT, conn_on_completion, net);
    return 0;
}
