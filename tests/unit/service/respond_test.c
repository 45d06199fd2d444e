#include "service/respond.h"

#include "unit/config/load.h"
#include "unit/net/net_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct seen {
    int status;
    char fields[512];
    char body[512];
    bool ended;
};

static void on_head(struct stream *stream, struct http_message *message, bool end) {
    struct seen *seen = stream->user;
    seen->status = message->status;
    seen->ended = end;
    for (uint32_t i = 0; i < message->fields.count; i++) {
        const struct http_field *field = &message->fields.items[i];
        strncat(seen->fields, field->name.ptr, field->name.len);
        strcat(seen->fields, "=");
        strncat(seen->fields, field->value.ptr ? field->value.ptr : "", field->value.len);
        strcat(seen->fields, ";");
    }
}

static void on_data(struct stream *stream, struct bytes data, struct lease *lease) {
    (void)lease;
    strncat(((struct seen *)stream->user)->body, data.ptr, data.len);
}

static void on_end(struct stream *stream, const struct http_fields *trailers) {
    (void)trailers;
    ((struct seen *)stream->user)->ended = true;
}

static const struct stream_events events = {
    .on_head = on_head, .on_data = on_data, .on_end = on_end};

static struct seen ask(const char *service_text) {
    char text[1024] = "[global]\nworkers = 1\n[listener web]\nbind = 127.0.0.1:1\nservice = it\n"
                      "[service it]\ntype = respond\n";
    strcat(text, service_text);
    struct config *config = load_good(text);
    struct net_options options = net_world_options();
    struct net_world *world = net_world_new(&options);
    struct arena_pool pool;
    assert_int_equal(arena_pool_init(&pool, 2048, 4, 4096, 4), 0);
    struct arena arena;
    arena_init(&arena, &pool);
    struct seen seen = {0};
    struct service *service = respond_new(&config->services[0]);
    assert_non_null(service);
    assert_string_equal(service->ops->type, "respond");
    for (int round = 0; round < 2; round++) { /* each request gets the same */
        seen = (struct seen){0};
        struct stream *stream = service->ops->open(service, &world->net, &arena);
        assert_non_null(stream);
        stream->events = &events;
        stream->user = &seen;
        struct http_message request = {.method = HTTP_GET, .path = BYTES("/")};
        stream->ops->head(stream, &request, true);
        TURN_UNTIL(world, seen.ended);
        stream->ops->close(stream, REASON_NONE);
        arena_reset(&arena);
    }
    respond_free(service);
    respond_free(NULL);
    arena_pool_fini(&pool);
    net_world_free(world);
    config_free(config);
    return seen;
}

static void it_answers_what_the_configuration_says(void **state) {
    (void)state;
    struct seen seen = ask("status = 418\nbody = short and stout\nheader = X-Pot: tea\n");
    assert_int_equal(seen.status, 418);
    assert_string_equal(seen.body, "short and stout");
    assert_non_null(strstr(seen.fields, "X-Pot=tea;"));
}

static void an_empty_body_is_fine(void **state) {
    (void)state;
    struct seen seen = ask("status = 204\n");
    assert_int_equal(seen.status, 204);
    assert_string_equal(seen.body, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_answers_what_the_configuration_says),
        cmocka_unit_test(an_empty_body_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
