#include "control/admin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit/control/world.h"

static struct world *world;
static struct net net;
static struct arena_pool pool;
static struct arena arena;

/* What came of one request. */
static struct {
    int status;
    char type[64];
    char allow[64];
    uint64_t length;
    char body[65536];
    size_t size;
    bool ended;
} got;

static int set_up(void **state) {
    (void)state;
    world = world_new();
    list_init(&net.tasks);
    assert_int_equal(arena_pool_init(&pool, 4096, 2, 65536, 4), 0);
    arena_init(&arena, &pool);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    arena_reset(&arena);
    arena_pool_fini(&pool);
    world_free(world);
    return 0;
}

static void copy_field(const struct http_message *message, struct bytes name, char *to,
                       size_t size) {
    const struct http_field *field = http_fields_find_name(&message->fields, name);
    struct bytes value = field ? field->value : BYTES_NONE;
    assert_true(value.len < size);
    if (value.len != 0) memcpy(to, value.ptr, value.len);
    to[value.len] = '\0';
}

static void on_head(struct stream *stream, struct http_message *message, bool end) {
    (void)stream;
    got.status = message->status;
    got.length = message->body_length;
    got.ended = end;
    copy_field(message, BYTES("Content-Type"), got.type, sizeof got.type);
    copy_field(message, BYTES("Allow"), got.allow, sizeof got.allow);
}

static void on_data(struct stream *stream, struct bytes data, struct lease *lease) {
    (void)stream;
    assert_null(lease);
    assert_true(got.size + data.len < sizeof got.body);
    memcpy(got.body + got.size, data.ptr, data.len);
    got.size += data.len;
    got.body[got.size] = '\0';
}

static void on_end(struct stream *stream, const struct http_fields *trailers) {
    (void)stream;
    assert_null(trailers);
    got.ended = true;
}

static const struct stream_events events = {
    .on_head = on_head, .on_data = on_data, .on_end = on_end};

static void ask(enum http_method method, const char *path) {
    struct http_message request = {.method = method, .path = bytes_of(path)};
    struct service *service = &world->admin.service;
    struct stream *stream = service->ops->open(service, &net, &arena);
    assert_non_null(stream);
    stream->events = &events;
    memset(&got, 0, sizeof got);
    stream->ops->head(stream, &request, true);
    assert_int_equal(got.status, 0); /* never from within a call */
    struct list *node = list_pop_front(&net.tasks);
    struct net_task *task = LIST_OWNER(node, struct net_task, link);
    task->run(task);
    assert_true(got.ended);
    stream->ops->close(stream, REASON_NONE);
    arena_reset(&arena);
}

static void every_path_answers_as_text(void **state) {
    (void)state;
    ask(HTTP_GET, "/healthz");
    assert_int_equal(got.status, 200);
    assert_string_equal(got.body, "ok\n");
    assert_string_equal(got.type, "text/plain");
    ask(HTTP_GET, "/readyz");
    assert_int_equal(got.status, 200);
    assert_string_equal(got.body, "ready\n");
    ask(HTTP_GET, "/");
    assert_int_equal(got.status, 200);
    assert_non_null(strstr(got.body, "/metrics"));
    assert_non_null(strstr(got.body, "/healthz"));
    assert_non_null(strstr(got.body, "/readyz"));
    ask(HTTP_GET, "/metrics");
    assert_int_equal(got.status, 200);
    assert_string_equal(got.type, "text/plain; version=0.0.4");
    assert_non_null(strstr(got.body, "\nweir_build_info{version="));
    assert_int_equal(got.length, got.size);
}

static void head_has_the_length_and_no_body(void **state) {
    (void)state;
    ask(HTTP_HEAD, "/healthz");
    assert_int_equal(got.status, 200);
    assert_int_equal(got.length, 3);
    assert_int_equal(got.size, 0);
    ask(HTTP_HEAD, "/metrics");
    assert_true(got.length > 1000);
    assert_int_equal(got.size, 0);
}

static void other_paths_are_not_found(void **state) {
    (void)state;
    static const char *const paths[] = {"", "*", "/metrics/", "/Metrics", "/healthz2", "//"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        ask(HTTP_GET, paths[i]);
        assert_int_equal(got.status, 404);
        ask(HTTP_POST, paths[i]);
        assert_int_equal(got.status, 404);
    }
}

static void other_methods_are_not_allowed(void **state) {
    (void)state;
    static const char *const paths[] = {"/", "/metrics", "/healthz", "/readyz"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        for (enum http_method method = HTTP_POST; method < HTTP_METHOD_COUNT; method++) {
            ask(method, paths[i]);
            assert_int_equal(got.status, 405);
            assert_string_equal(got.allow, "GET, HEAD");
        }
    }
}

static void ready_means_that_every_worker_runs(void **state) {
    (void)state;
    static const struct {
        enum worker_state first, second;
        int status;
        const char *body;
    } rows[] = {
        {WORKER_RUNNING, WORKER_STARTING, 503, "starting\n"},
        {WORKER_RUNNING, WORKER_RUNNING, 200, "ready\n"},
        {WORKER_RUNNING, WORKER_DRAINING, 503, "draining\n"},
        {WORKER_DRAINED, WORKER_RUNNING, 503, "draining\n"},
        {WORKER_ENDED, WORKER_ENDED, 503, "draining\n"},
        {WORKER_RUNNING, WORKER_FAILED, 503, "failed\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        world->workers[0]->state = rows[i].first;
        world->workers[1]->state = rows[i].second;
        ask(HTTP_GET, "/readyz");
        assert_int_equal(got.status, rows[i].status);
        assert_string_equal(got.body, rows[i].body);
        ask(HTTP_GET, "/healthz");
        assert_int_equal(got.status, 200);
    }
}

static void a_full_arena_is_no_stream(void **state) {
    (void)state;
    while (arena_alloc(&arena, 1024)) {
    }
    while (arena_alloc(&arena, 16)) {
    }
    assert_null(world->admin.service.ops->open(&world->admin.service, &net, &arena));
}

int main(void) {
#define TEST(claim) cmocka_unit_test_setup_teardown(claim, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_path_answers_as_text),         TEST(head_has_the_length_and_no_body),
        TEST(other_paths_are_not_found),          TEST(other_methods_are_not_allowed),
        TEST(ready_means_that_every_worker_runs), TEST(a_full_arena_is_no_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
