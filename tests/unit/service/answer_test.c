#include "service/answer.h"

#include "unit/net/net_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum close_in { CLOSE_NEVER, CLOSE_IN_HEAD, CLOSE_IN_DATA, CLOSE_IN_END, CLOSE_IN_RESET };

/* A user of a service's stream: what it was told, and where it closes. */
struct user {
    struct net_world *net;
    struct arena_pool pool;
    struct arena arena;
    struct answer *answer;
    struct bytes body; /* what the service will answer */
    bool no_memory;
    uint32_t heads;
    bool head_ended;
    uint64_t body_length;
    size_t len;
    uint32_t datas;
    uint32_t ends;
    uint32_t resets;
    enum reason reason;
    uint32_t dones;
    uint32_t pause_each; /* pauses after so many pieces; 0: never */
    enum close_in close;
};

static void user_close(struct user *user) {
    struct stream *stream = &user->answer->stream;
    stream->ops->close(stream, REASON_NONE);
    /* As an exchange does: what the stream lived in goes with it. */
    arena_reset(&user->arena);
    user->answer = NULL;
}

static void on_head(struct stream *stream, struct http_message *message, bool end) {
    struct user *user = stream->user;
    assert_int_equal(message->status, 200);
    user->heads++;
    user->head_ended = end;
    user->body_length = message->body_length;
    if (user->close == CLOSE_IN_HEAD) user_close(user);
}

static void on_data(struct stream *stream, struct bytes data, struct lease *lease) {
    struct user *user = stream->user;
    assert_null(lease);
    assert_in_range(data.len, 1, STREAM_COPY_MAX);
    assert_memory_equal(data.ptr, user->body.ptr + user->len, data.len);
    assert_int_equal(user->ends, 0);
    user->len += data.len;
    user->datas++;
    if (user->pause_each != 0 && user->datas % user->pause_each == 0) stream->ops->pause(stream);
    if (user->close == CLOSE_IN_DATA) user_close(user);
}

static void on_end(struct stream *stream, const struct http_fields *trailers) {
    struct user *user = stream->user;
    assert_null(trailers);
    user->ends++;
    if (user->close == CLOSE_IN_END) user_close(user);
}

static void on_drained(struct stream *stream) { (void)stream; }

static void on_reset(struct stream *stream, enum reason reason) {
    struct user *user = stream->user;
    user->resets++;
    user->reason = reason;
    if (user->close == CLOSE_IN_RESET) user_close(user);
}

static const struct stream_events events = {.on_head = on_head,
                                            .on_data = on_data,
                                            .on_end = on_end,
                                            .on_drained = on_drained,
                                            .on_reset = on_reset};

static bool make(struct answer *answer, const struct http_message *request,
                 struct http_message *message, struct bytes *body) {
    struct user *user = answer->service;
    (void)request;
    if (user->no_memory) return false;
    message->status = 200;
    *body = user->body;
    return true;
}

static void done(struct answer *answer) { ((struct user *)answer->service)->dones++; }

static struct user *user_new(const char *body, size_t size) {
    struct net_options options = net_world_options();
    struct user *user = calloc(1, sizeof *user);
    assert_non_null(user);
    user->net = net_world_new(&options);
    assert_int_equal(arena_pool_init(&user->pool, 1024, 4, 4096, 4), 0);
    arena_init(&user->arena, &user->pool);
    user->body = bytes_make(body, size);
    user->answer = answer_open(&user->net->net, &user->arena);
    assert_non_null(user->answer);
    user->answer->service = user;
    user->answer->make = make;
    user->answer->done = done;
    user->answer->stream.events = &events;
    user->answer->stream.user = user;
    return user;
}

static void user_ask(struct user *user, enum http_method method) {
    struct http_message request = {.method = method, .path = BYTES("/")};
    struct stream *stream = &user->answer->stream;
    stream->ops->head(stream, &request, false);
    assert_int_equal(user->heads, 0); /* never from within a call */
}

static void user_free(struct user *user) {
    if (user->answer) user_close(user);
    assert_int_equal(user->dones, 1);
    net_world_turn_for(user->net, 10); /* nothing comes after the close */
    arena_pool_fini(&user->pool);
    net_world_free(user->net);
    free(user);
}

static void a_body_comes_in_pieces_and_ends_once(void **state) {
    (void)state;
    static char body[50000];
    memset(body, 'x', sizeof body);
    struct user *user = user_new(body, sizeof body);
    user_ask(user, HTTP_GET);
    TURN_UNTIL(user->net, user->ends == 1);
    assert_int_equal(user->len, sizeof body);
    assert_int_equal(user->body_length, sizeof body);
    assert_false(user->head_ended);
    net_world_turn_for(user->net, 10);
    assert_int_equal(user->heads, 1);
    assert_int_equal(user->ends, 1);
    user_free(user);
}

static void without_a_body_the_head_is_all(void **state) {
    (void)state;
    struct user *user = user_new(NULL, 0);
    user_ask(user, HTTP_GET);
    TURN_UNTIL(user->net, user->heads == 1);
    net_world_turn_for(user->net, 10);
    assert_true(user->head_ended);
    assert_int_equal(user->ends + user->datas, 0);
    user_free(user);

    user = user_new("hello", 5);
    user_ask(user, HTTP_HEAD);
    TURN_UNTIL(user->net, user->heads == 1);
    net_world_turn_for(user->net, 10);
    assert_true(user->head_ended);
    assert_int_equal(user->body_length, 5);
    assert_int_equal(user->ends + user->datas, 0);
    user_free(user);
}

static void a_pause_holds_it_until_the_resume(void **state) {
    (void)state;
    static char body[20000];
    struct user *user = user_new(body, sizeof body);
    user->pause_each = 1;
    user_ask(user, HTTP_GET);
    for (uint32_t i = 1; i <= 5; i++) {
        TURN_UNTIL(user->net, user->datas == i);
        net_world_turn_for(user->net, 10);
        assert_int_equal(user->datas, i);
        user->answer->stream.ops->resume(&user->answer->stream);
    }
    TURN_UNTIL(user->net, user->ends == 1);
    assert_int_equal(user->len, sizeof body);
    user_free(user);
}

/* The user goes on reading while the request still comes: the end came before. */
static void a_resume_after_the_end_gives_no_second_end(void **state) {
    (void)state;
    struct user *user = user_new("hello", 5);
    user->pause_each = 1;
    user_ask(user, HTTP_GET);
    TURN_UNTIL(user->net, user->ends == 1);
    user->answer->stream.ops->resume(&user->answer->stream);
    net_world_turn_for(user->net, 10);
    assert_int_equal(user->ends, 1);
    user_free(user);
}

static void it_may_be_closed_in_each_event(void **state) {
    (void)state;
    static char body[20000];
    for (int in_event = CLOSE_IN_HEAD; in_event <= CLOSE_IN_END; in_event++) {
        struct user *user = user_new(body, sizeof body);
        user->close = (enum close_in)in_event;
        user_ask(user, HTTP_GET);
        TURN_UNTIL(user->net, user->dones == 1);
        net_world_turn_for(user->net, 10);
        assert_int_equal(user->datas, in_event == CLOSE_IN_HEAD   ? 0
                                      : in_event == CLOSE_IN_DATA ? 1
                                                                  : 5);
        user_free(user);
    }
}

static void it_may_be_closed_before_it_answers(void **state) {
    (void)state;
    struct user *user = user_new("hello", 5);
    user_ask(user, HTTP_GET);
    user_close(user);
    net_world_turn_for(user->net, 10);
    assert_int_equal(user->heads, 0);
    user_free(user);

    user = user_new("hello", 5);
    user_close(user); /* not even asked */
    user_free(user);
}

static void without_memory_it_is_reset(void **state) {
    (void)state;
    struct user *user = user_new("hello", 5);
    user->no_memory = true;
    user->close = CLOSE_IN_RESET;
    user_ask(user, HTTP_GET);
    TURN_UNTIL(user->net, user->resets == 1);
    assert_int_equal(user->reason, REASON_NO_MEMORY);
    user_free(user);
}

static void a_full_arena_opens_nothing(void **state) {
    (void)state;
    struct net_options options = net_world_options();
    struct net_world *world = net_world_new(&options);
    struct arena_pool pool;
    assert_int_equal(arena_pool_init(&pool, 256, 0, 256, 0), 0);
    struct arena arena;
    arena_init(&arena, &pool);
    assert_null(answer_open(&world->net, &arena));
    arena_pool_fini(&pool);
    net_world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_comes_in_pieces_and_ends_once),
        cmocka_unit_test(without_a_body_the_head_is_all),
        cmocka_unit_test(a_pause_holds_it_until_the_resume),
        cmocka_unit_test(a_resume_after_the_end_gives_no_second_end),
        cmocka_unit_test(it_may_be_closed_in_each_event),
        cmocka_unit_test(it_may_be_closed_before_it_answers),
        cmocka_unit_test(without_memory_it_is_reset),
        cmocka_unit_test(a_full_arena_opens_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
