#include "service/echo.h"

#include "unit/net/net_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum close_in { CLOSE_NEVER, CLOSE_IN_DATA, CLOSE_IN_DRAINED, CLOSE_IN_END };

/* A user of the service's stream: what came back, and where it closes. */
struct user {
    struct net_world *net;
    struct service *service;
    struct slab streams;
    struct stream *stream; /* NULL once closed */
    char text[256];
    size_t len;
    uint32_t datas;
    uint32_t drained;
    uint32_t ends;
    bool pause_each;
    enum close_in close;
};

static void user_close(struct user *user) {
    struct stream *stream = user->stream;
    user->stream = NULL;
    stream->ops->close(stream, REASON_NONE);
}

static void on_data(struct stream *stream, struct bytes data, struct lease *lease) {
    struct user *user = stream->user;
    assert_true(data.ptr >= lease->memory && data.ptr + data.len <= lease->memory + lease->size);
    assert_int_equal(user->ends, 0);
    if (user->len + data.len < sizeof user->text)
        memcpy(user->text + user->len, data.ptr, data.len);
    user->len += data.len;
    user->datas++;
    if (user->pause_each) stream->ops->pause(stream);
    if (user->close == CLOSE_IN_DATA) user_close(user);
}

static void on_end(struct stream *stream, const struct http_fields *trailers) {
    struct user *user = stream->user;
    assert_null(trailers);
    user->ends++;
    if (user->close == CLOSE_IN_END) user_close(user);
}

static void on_drained(struct stream *stream) {
    struct user *user = stream->user;
    user->drained++;
    if (user->close == CLOSE_IN_DRAINED) user_close(user);
}

static const struct stream_events events = {
    .on_data = on_data, .on_end = on_end, .on_drained = on_drained};

static struct user *user_new(void) {
    struct net_options options = net_world_options();
    struct user *user = calloc(1, sizeof *user);
    assert_non_null(user);
    options.small_count = 64; /* half of them for the kernel */
    user->net = net_world_new(&options);
    assert_int_equal(echo_room_init(&user->streams, &user->net->net, 1), 0);
    user->service = echo_new(&user->streams);
    assert_non_null(user->service);
    user->stream = user->service->ops->open(user->service, &user->net->net, NULL);
    assert_non_null(user->stream);
    user->stream->events = &events;
    user->stream->user = user;
    user->stream->ops->tunnel(user->stream, 1000);
    return user;
}

static void user_free(struct user *user) {
    if (user->stream) user_close(user);
    net_world_turn_for(user->net, 10); /* nothing comes after the close */
    assert_int_equal(user->streams.used, 0);
    echo_free(user->service);
    slab_fini(&user->streams);
    net_world_free(user->net); /* all leases are back */
    free(user);
}

/* As from a receive: a lease of its own, whose reference goes when the call has returned. */
static enum stream_room says(struct user *user, const char *text, size_t size) {
    struct lease *lease = buf_take(&user->net->net.small);
    assert_non_null(lease);
    assert_true(size <= lease->size);
    memset(lease->memory, 'x', size);
    if (text) memcpy(lease->memory, text, strlen(text));
    uint32_t datas = user->datas;
    enum stream_room room =
        user->stream->ops->data(user->stream, bytes_make(lease->memory, size), lease, false);
    assert_int_equal(user->datas, datas); /* never from within a call */
    lease_unref(lease);
    return room;
}

static void bytes_come_back_in_order(void **state) {
    (void)state;
    struct user *user = user_new();
    assert_int_equal(says(user, "one ", 4), STREAM_ROOM);
    assert_int_equal(says(user, "two ", 4), STREAM_FULL); /* until both are back */
    TURN_UNTIL(user->net, user->datas == 2);
    assert_int_equal(says(user, "three", 5), STREAM_ROOM);
    TURN_UNTIL(user->net, user->datas == 3);
    assert_string_equal(user->text, "one two three");
    assert_int_equal(buf_pool_leased(&user->net->net.small), 0);
    user_free(user);
}

static void the_end_follows_the_rest(void **state) {
    (void)state;
    struct user *user = user_new();
    user->pause_each = true;
    says(user, "a", 1);
    says(user, "b", 1);
    user->stream->ops->end(user->stream, NULL);
    for (uint32_t i = 1; i <= 2; i++) {
        TURN_UNTIL(user->net, user->datas == i);
        net_world_turn_for(user->net, 10);
        assert_int_equal(user->datas, i);
        assert_int_equal(user->ends, i / 2); /* a pause holds bytes, not the end */
        user->stream->ops->resume(user->stream);
    }
    net_world_turn_for(user->net, 10);
    assert_int_equal(user->ends, 1);
    assert_string_equal(user->text, "ab");
    user_free(user);
}

static void an_end_alone_comes_back(void **state) {
    (void)state;
    struct user *user = user_new();
    user->stream->ops->end(user->stream, NULL);
    assert_int_equal(user->ends, 0);
    TURN_UNTIL(user->net, user->ends == 1);
    user_free(user);
}

/* 64 KB may wait; small buffers have 4 KB here. */
static void who_does_not_take_is_told_full(void **state) {
    (void)state;
    struct user *user = user_new();
    user->stream->ops->pause(user->stream);
    for (int i = 0; i < 3; i++)
        assert_int_equal(says(user, NULL, 4096), STREAM_FULL);
    net_world_turn_for(user->net, 10);
    assert_int_equal(user->datas + user->drained, 0);
    user->pause_each = true;
    for (uint32_t i = 1; i <= 3; i++) {
        user->stream->ops->resume(user->stream);
        TURN_UNTIL(user->net, user->datas == i);
        net_world_turn_for(user->net, 10);
        assert_int_equal(user->drained, 0);
    }
    user->stream->ops->resume(user->stream); /* nothing is left, and it takes more */
    TURN_UNTIL(user->net, user->drained == 1);
    user_free(user);
}

static void it_may_be_closed_in_each_event(void **state) {
    (void)state;
    for (int in_event = CLOSE_IN_DATA; in_event <= CLOSE_IN_END; in_event++) {
        struct user *user = user_new();
        user->close = (enum close_in)in_event;
        user->stream->ops->pause(user->stream);
        for (int i = 0; i < 17; i++)
            says(user, NULL, 4096);
        user->stream->ops->end(user->stream, NULL);
        user->stream->ops->resume(user->stream);
        TURN_UNTIL(user->net, !user->stream);
        user_free(user);
    }
}

static void it_may_be_closed_with_bytes_in_it(void **state) {
    (void)state;
    struct user *user = user_new();
    says(user, "never seen", 10);
    user_close(user);
    net_world_turn_for(user->net, 10);
    assert_int_equal(user->datas, 0);
    user_free(user);
}

static void it_has_so_many_streams(void **state) {
    (void)state;
    struct user *user = user_new();
    assert_null(user->service->ops->open(user->service, &user->net->net, NULL));
    user_free(user);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_back_in_order),
        cmocka_unit_test(the_end_follows_the_rest),
        cmocka_unit_test(an_end_alone_comes_back),
        cmocka_unit_test(who_does_not_take_is_told_full),
        cmocka_unit_test(it_may_be_closed_in_each_event),
        cmocka_unit_test(it_may_be_closed_with_bytes_in_it),
        cmocka_unit_test(it_has_so_many_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
