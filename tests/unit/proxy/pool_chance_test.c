/* The pool with connections that carry many streams, whatever happens to them: things happen in
 * an order drawn from a seed, and after each everything must be where it belongs. */
#include "base/rand.h"

#include "unit/proxy/mux_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define CONFIG                                                                                     \
    "[global]\nworkers = 1\ncpu_affinity = off\n"                                                  \
    "[listener web]\nbind = 127.0.0.1:8080\nupstream = app\n"                                      \
    "[upstream app]\nkeepalive = 2\nserver = 127.0.0.1:9001\n"

static uint32_t list_count(const struct list *list) {
    uint32_t count = 0;
    for (const struct list *node = list->next; node != list; node = node->next)
        count++;
    return count;
}

/* Every connection is where what it carries says. */
static void assert_all_in_place(struct proxy_world *world) {
    struct server *server = proxy_world_server(world, 0);
    uint32_t dialling = 0, shared = 0, loaded = 0, idle = 0, active = 0, dials = 0, all = 0;
    for (uint32_t i = 0; i < mux_count; i++) {
        const struct mux *mux = muxes[i];
        const struct session *session = &mux->session;
        uint32_t max = session->streams_max;
        uint32_t open = session->streams_open;
        if (mux->gone) continue;
        all++;
        assert_int_equal(list_count(&session->waiters), session->waiting);
        if (!mux->ready) {
            assert_true(session->waiting <= 4);
            dials++;
            dialling += session->waiting < max;
            continue;
        }
        assert_int_equal(session->waiting, 0);
        if (mux->closed) continue;
        active += open != 0;
        idle += open == 0;
        shared += open != 0 && open < max - max / 4;
        loaded += open < max && open >= max - max / 4;
        assert_true(open != 0 || max != 0);
    }
    assert_int_equal(list_count(&server->dialling), dialling);
    assert_int_equal(list_count(&server->shared), shared);
    assert_int_equal(list_count(&server->loaded), loaded);
    assert_int_equal(list_count(&server->idle), idle);
    assert_int_equal(server->connections, all);
    assert_gauges(world, dials, active, idle);
}

enum { REQUESTS = 24 };

/* One thing happens to one request. */
static void request_step(struct proxy_world *world, struct waiter *waiter,
                         struct rand_state *draw) {
    if (waiter->stream) {
        waiter_close(waiter);
    } else if (waiter->wait.session) {
        if (rand_below(draw, 8) == 0) pool_cancel(&waiter->wait);
    } else if (mux_count < MUX_SESSIONS - REQUESTS) {
        take_as(world, waiter, rand_below(draw, 8) == 0, &mux_ops);
    }
}

/* One thing happens to one connection. */
static void mux_step(struct mux *mux, struct waiter *waiters, struct rand_state *draw) {
    if (mux->gone) return;
    if (mux->closed || rand_below(draw, 12) == 0) {
        for (uint32_t i = 0; i < REQUESTS; i++) {
            struct stream *stream = waiters[i].stream;
            if (stream && stream->session == &mux->session) waiters[i].stream = NULL;
        }
        mux_gone(mux, REASON_SERVER_RESET);
    } else if (!mux->ready) {
        mux_ready(mux);
    } else {
        mux_set(mux, rand_below(draw, 9));
    }
}

static void any_order_of_events_leaves_all_in_place(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct proxy_world *world = shared_world(CONFIG);
        static struct waiter waiters[REQUESTS];
        struct rand_state draw;
        rand_seed(&draw, seed);
        memset(waiters, 0, sizeof waiters);
        for (uint32_t step = 0; step < 400; step++) {
            if (mux_count != 0 && rand_below(&draw, 4) == 0) {
                mux_step(muxes[rand_below(&draw, mux_count)], waiters, &draw);
            } else {
                request_step(world, &waiters[rand_below(&draw, REQUESTS)], &draw);
            }
            assert_all_in_place(world);
        }
        for (uint32_t i = 0; i < REQUESTS; i++) {
            if (waiters[i].stream) waiter_close(&waiters[i]);
            pool_cancel(&waiters[i].wait);
        }
        shared_world_free(world);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_order_of_events_leaves_all_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
