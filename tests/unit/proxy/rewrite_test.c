#include "proxy/rewrite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* An exchange as far as rewriting sees one: GET http://Host.Example:8080/v1/a?q=1 by
 * 192.0.2.7:4711. */
struct world {
    struct arena_pool pool;
    struct arena arena;
    struct http_message request;
    struct http_message response;
    struct config_listener listener;
    struct config_route route;
    struct rewrite_facts facts;
};

static void start(struct world *world) {
    *world = (struct world){0};
    assert_int_equal(arena_pool_init(&world->pool, 4096, 4, 16384, 4), 0);
    arena_init(&world->arena, &world->pool);
    world->request = (struct http_message){.method = HTTP_GET,
                                           .method_text = BYTES("GET"),
                                           .scheme = BYTES("http"),
                                           .authority = BYTES("Host.Example:8080"),
                                           .path = BYTES("/v1/a"),
                                           .query = BYTES("q=1"),
                                           .version_minor = 1};
    world->response = (struct http_message){.status = 200, .version_minor = 1};
    world->listener = (struct config_listener){.forwarded = CONFIG_FORWARDED_OFF};
    world->facts = (struct rewrite_facts){.request = &world->request,
                                          .client_ip = BYTES("192.0.2.7"),
                                          .client_port = 4711,
                                          .original_path = world->request.path,
                                          .listener = "web",
                                          .route = "api",
                                          .upstream = "app",
                                          .server = "10.0.0.1:80",
                                          .request_id = 0xabc};
}

static void finish(struct world *world) {
    arena_reset(&world->arena);
    arena_pool_fini(&world->pool);
}

static void add(struct world *world, const char *name, const char *value) {
    assert_true(
        http_fields_add(&world->request.fields, &world->arena, bytes_of(name), bytes_of(value)));
}

static void rewrite(struct world *world) {
    assert_true(rewrite_request(&world->request, &world->listener, &world->route, &world->facts,
                                &world->arena));
}

/* All fields as "Name: value\n". */
static void assert_fields(const struct http_fields *fields, const char *expected) {
    char text[2048];
    struct writer w = writer_make(text, sizeof(text));
    for (uint32_t i = 0; i < fields->count; i++) {
        const struct http_field *field = &fields->items[i];
        assert_int_equal(field->id, http_field_id_of(field->name));
        writer_print(&w, "%.*s: %.*s\n", BYTES_FMT(field->name), BYTES_FMT(field->value));
    }
    writer_char(&w, '\0');
    assert_false(w.full);
    assert_string_equal(text, expected);
}

static void assert_bytes(struct bytes text, const char *expected) {
    assert_int_equal(text.len, strlen(expected));
    if (text.len != 0) assert_memory_equal(text.ptr, expected, text.len);
}

static struct template_part variable(enum template_variable variable) {
    return (struct template_part){.variable = variable};
}
static struct template_part literal(const char *text) {
    return (struct template_part){.variable = TEMPLATE_LITERAL, .text = bytes_of(text)};
}
static struct template_part header(const char *name) {
    return (struct template_part){.variable = TEMPLATE_HEADER, .text = bytes_of(name)};
}

static struct bytes expand_parts(struct world *world, struct template_part *parts, uint32_t count) {
    struct template template = {.parts = parts, .count = count};
    struct bytes text;
    assert_true(rewrite_expand(&template, &world->facts, &world->arena, &text));
    return text;
}

static struct bytes expand(struct world *world, struct template_part part) {
    return expand_parts(world, &part, 1);
}

static struct config_edit edit(enum config_edit_kind kind, char *name,
                               struct template_part *value) {
    return (struct config_edit){
        .kind = kind, .name = name, .value = {.parts = value, .count = value ? 1 : 0}};
}

static void use_edits(struct world *world, struct config_edit *edits, size_t count) {
    world->route.request_edits = world->route.response_edits =
        (struct config_edits){.items = edits, .count = (uint32_t)count};
}

static void every_variable_has_its_text(void **state) {
    (void)state;
    struct world world;
    start(&world);
    add(&world, "X-User", "ann");
    world.facts.status = 204;
    const struct {
        enum template_variable variable;
        const char *text;
    } rows[] = {
        {TEMPLATE_CLIENT_IP, "192.0.2.7"},
        {TEMPLATE_CLIENT_PORT, "4711"},
        {TEMPLATE_HOST, "host.example"},
        {TEMPLATE_AUTHORITY, "Host.Example:8080"},
        {TEMPLATE_METHOD, "GET"},
        {TEMPLATE_SCHEME, "http"},
        {TEMPLATE_PATH, "/v1/a"},
        {TEMPLATE_QUERY, "q=1"},
        {TEMPLATE_URI, "/v1/a?q=1"},
        {TEMPLATE_LISTENER, "web"},
        {TEMPLATE_ROUTE, "api"},
        {TEMPLATE_UPSTREAM, "app"},
        {TEMPLATE_SERVER, "10.0.0.1:80"},
        {TEMPLATE_STATUS, "204"},
        {TEMPLATE_REQUEST_ID, "0000000000000abc"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_bytes(expand(&world, variable(rows[i].variable)), rows[i].text);
    }
    assert_bytes(expand(&world, literal("$x")), "$x");
    assert_bytes(expand(&world, header("x-user")), "ann");
    assert_bytes(expand(&world, header("Host")), "Host.Example:8080");
    finish(&world);
}

static void what_is_unknown_expands_to_nothing(void **state) {
    (void)state;
    struct world world;
    start(&world);
    world.request.authority = BYTES("");
    world.request.query = BYTES_NONE;
    world.facts = (struct rewrite_facts){.request = &world.request};
    const enum template_variable rows[] = {
        TEMPLATE_CLIENT_IP, TEMPLATE_CLIENT_PORT, TEMPLATE_HOST,  TEMPLATE_AUTHORITY,
        TEMPLATE_QUERY,     TEMPLATE_LISTENER,    TEMPLATE_ROUTE, TEMPLATE_UPSTREAM,
        TEMPLATE_SERVER,    TEMPLATE_STATUS,
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_bytes(expand(&world, variable(rows[i])), "");
    }
    assert_bytes(expand(&world, header("X-User")), "");
    assert_bytes(expand(&world, header("Host")), "");
    assert_bytes(expand_parts(&world, NULL, 0), "");
    finish(&world);
}

static void parts_are_joined(void **state) {
    (void)state;
    struct world world;
    start(&world);
    struct template_part parts[] = {literal("https://"), variable(TEMPLATE_HOST),
                                    variable(TEMPLATE_URI), literal("#"),
                                    variable(TEMPLATE_CLIENT_PORT)};
    assert_bytes(expand_parts(&world, parts, COUNT(parts)), "https://host.example/v1/a?q=1#4711");
    finish(&world);
}

static void uri_is_as_sent_also_after_strip_prefix(void **state) {
    (void)state;
    struct world world;
    start(&world);
    world.request.path = BYTES("/a");
    assert_bytes(expand(&world, variable(TEMPLATE_URI)), "/v1/a?q=1");
    assert_bytes(expand(&world, variable(TEMPLATE_PATH)), "/v1/a");
    world.request.query = BYTES("");
    assert_bytes(expand(&world, variable(TEMPLATE_URI)), "/v1/a?");
    world.request.query = BYTES_NONE;
    assert_bytes(expand(&world, variable(TEMPLATE_URI)), "/v1/a");
    finish(&world);
}

static void an_unknown_method_is_its_text(void **state) {
    (void)state;
    struct world world;
    start(&world);
    world.request.method = HTTP_OTHER;
    world.request.method_text = BYTES("PURGE");
    assert_bytes(expand(&world, variable(TEMPLATE_METHOD)), "PURGE");
    finish(&world);
}

static void via_names_the_version_received(void **state) {
    (void)state;
    struct world world;
    start(&world);
    world.listener.via = true;
    world.request.version_minor = 0;
    add(&world, "Via", "1.1 edge");
    rewrite(&world);
    assert_fields(&world.request.fields, "Via: 1.1 edge\nVia: 1.0 weir\n");
    assert_true(
        rewrite_response(&world.response, &world.listener, NULL, &world.facts, &world.arena));
    assert_fields(&world.response.fields, "Via: 1.1 weir\n");
    finish(&world);
}

static void all_off_changes_nothing(void **state) {
    (void)state;
    struct world world;
    start(&world);
    add(&world, "X-Forwarded-For", "10.1.1.1");
    assert_true(rewrite_request(&world.request, &world.listener, NULL, &world.facts, &world.arena));
    assert_true(
        rewrite_response(&world.response, &world.listener, NULL, &world.facts, &world.arena));
    assert_fields(&world.request.fields, "X-Forwarded-For: 10.1.1.1\n");
    assert_fields(&world.response.fields, "");
    assert_bytes(world.request.path, "/v1/a");
    finish(&world);
}

static void x_forwarded_fields_are_made(void **state) {
    (void)state;
    struct world world;
    start(&world);
    world.listener.via = true;
    world.listener.forwarded = CONFIG_FORWARDED_X;
    add(&world, "Accept", "*/*");
    rewrite(&world);
    assert_fields(&world.request.fields, "Accept: */*\n"
                                         "Via: 1.1 weir\n"
                                         "X-Forwarded-For: 192.0.2.7\n"
                                         "X-Forwarded-Proto: http\n"
                                         "X-Forwarded-Host: Host.Example:8080\n");
    finish(&world);
}

static void forwarded_for_grows_and_the_others_are_replaced(void **state) {
    (void)state;
    struct world world;
    start(&world);
    world.listener.forwarded = CONFIG_FORWARDED_X;
    add(&world, "x-forwarded-for", "10.1.1.1");
    add(&world, "X-Forwarded-Proto", "https");
    add(&world, "X-Forwarded-Host", "evil");
    add(&world, "Accept", "*/*");
    add(&world, "X-Forwarded-For", "10.1.1.2, 10.1.1.3");
    add(&world, "X-Forwarded-Proto", "wss");
    add(&world, "X-Last", "1");
    rewrite(&world);
    assert_fields(&world.request.fields, "x-forwarded-for: 10.1.1.1\n"
                                         "X-Forwarded-Proto: http\n"
                                         "X-Forwarded-Host: Host.Example:8080\n"
                                         "Accept: */*\n"
                                         "X-Forwarded-For: 10.1.1.2, 10.1.1.3, 192.0.2.7\n"
                                         "X-Last: 1\n");
    finish(&world);
}

static void an_empty_forwarded_for_gets_no_comma(void **state) {
    (void)state;
    struct world world;
    start(&world);
    world.listener.forwarded = CONFIG_FORWARDED_X;
    add(&world, "X-Forwarded-For", "");
    rewrite(&world);
    assert_bytes(world.request.fields.items[0].value, "192.0.2.7");
    finish(&world);
}

static void without_an_authority_no_forwarded_host_gets_through(void **state) {
    (void)state;
    struct world world;
    start(&world);
    world.listener.forwarded = CONFIG_FORWARDED_X;
    world.request.authority = BYTES("");
    add(&world, "X-Forwarded-Host", "evil");
    add(&world, "X-Forwarded-Host", "evil2");
    rewrite(&world);
    assert_fields(&world.request.fields, "X-Forwarded-For: 192.0.2.7\n"
                                         "X-Forwarded-Proto: http\n");
    finish(&world);
}

static void forwarded_follows_rfc_7239(void **state) {
    (void)state;
    const struct {
        struct bytes client;
        struct bytes authority;
        const char *value;
    } rows[] = {
        {BYTES("192.0.2.7"), BYTES("h.example"), "for=192.0.2.7;host=h.example;proto=http"},
        {BYTES("2001:db8::1"), BYTES("h:80"), "for=\"[2001:db8::1]\";host=\"h:80\";proto=http"},
        {BYTES("unix"), BYTES("[::1]"), "for=unknown;host=\"[::1]\";proto=http"},
        {BYTES("2001:db8:1:2:3:4:5:6"), BYTES(""), "for=\"[2001:db8:1:2:3:4:5:6]\";proto=http"},
        {BYTES("::1"), BYTES("(a)"), "for=\"[::1]\";host=\"(a)\";proto=http"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct world world;
        start(&world);
        world.listener.forwarded = CONFIG_FORWARDED_RFC7239;
        world.facts.client_ip = rows[i].client;
        world.request.authority = rows[i].authority;
        rewrite(&world);
        assert_int_equal(world.request.fields.count, 1);
        assert_bytes(world.request.fields.items[0].name, "Forwarded");
        assert_bytes(world.request.fields.items[0].value, rows[i].value);
        finish(&world);
    }
}

static void forwarded_is_appended_to(void **state) {
    (void)state;
    struct world world;
    start(&world);
    world.listener.forwarded = CONFIG_FORWARDED_RFC7239;
    add(&world, "Forwarded", "for=a");
    add(&world, "forwarded", "for=b");
    rewrite(&world);
    assert_fields(&world.request.fields,
                  "Forwarded: for=a\n"
                  "forwarded: for=b, for=192.0.2.7;host=\"Host.Example:8080\";proto=http\n");
    finish(&world);
}

static void what_trusted_proxies_say_stays(void **state) {
    (void)state;
    struct cidr near = {.family = AF_INET, .bits = 24, .bytes = {192, 0, 2}};
    static const char *const expected[] = {
        "X-Forwarded-For: a, 192.0.2.7\nX-Forwarded-Proto: b\nX-Forwarded-Host: h.example\n",
        "X-Forwarded-For: 192.0.3.7\nX-Forwarded-Proto: http\nX-Forwarded-Host: h.example\n"};
    for (size_t i = 0; i < COUNT(expected); i++) {
        struct world world;
        start(&world);
        world.listener.forwarded = CONFIG_FORWARDED_X;
        world.listener.trusted = (struct cidr_list){&near, 1};
        if (i == 1) world.facts.client_ip = BYTES("192.0.3.7");
        world.request.authority = BYTES("h.example");
        add(&world, "X-Forwarded-For", "a");
        add(&world, "X-Forwarded-Proto", "b");
        rewrite(&world);
        assert_fields(&world.request.fields, expected[i]);
        finish(&world);
    }
}

static void a_unix_client_is_unknown(void **state) {
    (void)state;
    struct world world;
    start(&world);
    world.listener.forwarded = CONFIG_FORWARDED_X;
    world.facts.client_ip = BYTES("unix");
    add(&world, "X-Forwarded-For", "10.1.1.1");
    rewrite(&world);
    assert_bytes(world.request.fields.items[0].value, "10.1.1.1, unknown");
    finish(&world);
}

static void strip_prefix_takes_whole_segments(void **state) {
    (void)state;
    const struct {
        const char *prefix;
        const char *path;
        const char *stripped;
    } rows[] = {
        {"/v1", "/v1/x", "/x"},
        {"/v1", "/v1", "/"},
        {"/v1", "/v1/", "/"},
        {"/v1", "/v1//x", "/x"},
        {"/v1", "/v1///", "/"},
        {"/v1", "/v10/x", "/v10/x"},
        {"/v1", "/V1/x", "/V1/x"},
        {"/v1", "/", "/"},
        {"/v1", "*", "*"},
        {"/v1", "/v1//evil/", "/evil/"},
        {"/v1", "/v1/x//y", "/x//y"},
        {"/v1/", "/v1/x", "/x"},
        {"/v1/", "/v1", "/"},
        {"/v1/", "/v1//x", "/x"},
        {"/a/b", "/a/b/c", "/c"},
        {"/a/b", "/a/c", "/a/c"},
        {"/", "//x", "//x"},
        {"", "//x", "//x"},
        {"", "", ""},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct world world;
        start(&world);
        world.route.strip_prefix = bytes_of(rows[i].prefix);
        world.request.path = bytes_of(rows[i].path);
        rewrite(&world);
        assert_bytes(world.request.path, rows[i].stripped);
        assert_bytes(world.request.query, "q=1");
        finish(&world);
    }
}

static void edits_set_add_and_remove_in_order(void **state) {
    (void)state;
    struct world world;
    start(&world);
    add(&world, "A", "1");
    add(&world, "B", "2");
    add(&world, "a", "3");
    add(&world, "Cookie", "c=d");
    struct template_part ip = variable(TEMPLATE_CLIENT_IP);
    struct template_part b = header("b");
    struct template_part x = literal("x");
    struct config_edit edits[] = {
        edit(CONFIG_EDIT_SET, "A", &ip),          edit(CONFIG_EDIT_ADD, "B", &b),
        edit(CONFIG_EDIT_REMOVE, "cookie", NULL), edit(CONFIG_EDIT_SET, "User-Agent", &x),
        edit(CONFIG_EDIT_ADD, "E", &x),           edit(CONFIG_EDIT_REMOVE, "E", NULL),
        edit(CONFIG_EDIT_ADD, "E", &ip),
    };
    use_edits(&world, edits, COUNT(edits));
    rewrite(&world);
    assert_fields(&world.request.fields, "A: 192.0.2.7\n"
                                         "B: 2\n"
                                         "B: 2\n"
                                         "User-Agent: x\n"
                                         "E: 192.0.2.7\n");
    finish(&world);
}

static void an_empty_value_removes_or_adds_nothing(void **state) {
    (void)state;
    struct world world;
    start(&world);
    add(&world, "A", "1");
    add(&world, "B", "1");
    add(&world, "a", "2");
    struct template_part none = header("X-None");
    struct config_edit edits[] = {
        edit(CONFIG_EDIT_SET, "A", &none),
        edit(CONFIG_EDIT_ADD, "B", &none),
        edit(CONFIG_EDIT_SET, "C", NULL),
    };
    use_edits(&world, edits, COUNT(edits));
    rewrite(&world);
    assert_fields(&world.request.fields, "B: 1\n");
    finish(&world);
}

static void a_field_can_be_set_from_itself(void **state) {
    (void)state;
    struct world world;
    start(&world);
    add(&world, "A", "1");
    add(&world, "A", "2");
    struct template_part parts[] = {header("A"), literal(", 3")};
    struct config_edit edits[] = {
        {.kind = CONFIG_EDIT_SET, .name = (char[]){"A"}, .value = {.parts = parts, .count = 2}}};
    use_edits(&world, edits, 1);
    rewrite(&world);
    assert_fields(&world.request.fields, "A: 1, 3\n");
    finish(&world);
}

static void edits_see_what_the_proxy_added(void **state) {
    (void)state;
    struct world world;
    start(&world);
    world.listener.via = true;
    world.listener.forwarded = CONFIG_FORWARDED_X;
    struct template_part one = literal("1");
    struct config_edit edits[] = {
        edit(CONFIG_EDIT_REMOVE, "Via", NULL),
        edit(CONFIG_EDIT_REMOVE, "X-Forwarded-Proto", NULL),
        edit(CONFIG_EDIT_SET, "X-Forwarded-For", &one),
    };
    use_edits(&world, edits, COUNT(edits));
    rewrite(&world);
    assert_fields(&world.request.fields, "X-Forwarded-For: 1\n"
                                         "X-Forwarded-Host: Host.Example:8080\n");
    finish(&world);
}

static void host_is_the_authority_and_never_a_field(void **state) {
    (void)state;
    struct world world;
    start(&world);
    world.listener.forwarded = CONFIG_FORWARDED_X;
    struct template_part host = literal("inner:81");
    struct config_edit edits[] = {edit(CONFIG_EDIT_SET, "host", &host),
                                  edit(CONFIG_EDIT_REMOVE, "Host", NULL)};
    use_edits(&world, edits, COUNT(edits));
    rewrite(&world);
    assert_bytes(world.request.authority, "inner:81");
    assert_fields(&world.request.fields, "X-Forwarded-For: 192.0.2.7\n"
                                         "X-Forwarded-Proto: http\n"
                                         "X-Forwarded-Host: Host.Example:8080\n");
    finish(&world);
}

static void a_host_that_is_no_authority_changes_nothing(void **state) {
    (void)state;
    struct world world;
    start(&world);
    add(&world, "X-Host", "a/b c");
    struct template_part bad = header("X-Host");
    struct template_part none = header("X-None");
    struct config_edit edits[] = {edit(CONFIG_EDIT_SET, "Host", &bad),
                                  edit(CONFIG_EDIT_SET, "Host", &none)};
    use_edits(&world, edits, COUNT(edits));
    rewrite(&world);
    assert_bytes(world.request.authority, "Host.Example:8080");
    finish(&world);
}

static void responses_get_via_and_edits(void **state) {
    (void)state;
    struct world world;
    start(&world);
    world.listener.via = true;
    world.listener.forwarded = CONFIG_FORWARDED_X;
    world.route.strip_prefix = BYTES("/v1");
    assert_true(
        http_fields_add(&world.response.fields, &world.arena, BYTES("Server"), BYTES("Apache")));
    struct template_part server = variable(TEMPLATE_SERVER);
    struct config_edit edits[] = {edit(CONFIG_EDIT_REMOVE, "Server", NULL),
                                  edit(CONFIG_EDIT_SET, "X-Served-By", &server)};
    use_edits(&world, edits, COUNT(edits));
    assert_true(rewrite_response(&world.response, &world.listener, &world.route, &world.facts,
                                 &world.arena));
    assert_fields(&world.response.fields, "Via: 1.1 weir\nX-Served-By: 10.0.0.1:80\n");
    finish(&world);
}

/* Rewrites with ever less of the arena left, until not even the first text fits. */
static void a_full_arena_is_said_and_nothing_breaks(void **state) {
    (void)state;
    struct template_part parts[] = {header("A"), literal("!")};
    struct config_edit edits[] = {
        {.kind = CONFIG_EDIT_ADD, .name = (char[]){"B"}, .value = {.parts = parts, .count = 2}}};
    bool fitted = false;
    bool failed = false;
    for (size_t left = 0; left <= 1024; left += 16) {
        struct world world;
        start(&world);
        add(&world, "A", "1");
        add(&world, "X-Forwarded-For", "10.1.1.1");
        world.listener.via = true;
        world.listener.forwarded = CONFIG_FORWARDED_X;
        use_edits(&world, edits, 1);
        world.pool.chunks_max = 1;
        while ((size_t)(world.arena.end - world.arena.cursor) > left) {
            assert_non_null(arena_alloc(&world.arena, 16));
        }
        bool done = rewrite_request(&world.request, &world.listener, &world.route, &world.facts,
                                    &world.arena);
        assert_false(fitted && !done);
        fitted = done;
        failed = failed || !done;
        finish(&world);
    }
    assert_true(fitted && failed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variable_has_its_text),
        cmocka_unit_test(what_is_unknown_expands_to_nothing),
        cmocka_unit_test(parts_are_joined),
        cmocka_unit_test(uri_is_as_sent_also_after_strip_prefix),
        cmocka_unit_test(an_unknown_method_is_its_text),
        cmocka_unit_test(via_names_the_version_received),
        cmocka_unit_test(all_off_changes_nothing),
        cmocka_unit_test(x_forwarded_fields_are_made),
        cmocka_unit_test(forwarded_for_grows_and_the_others_are_replaced),
        cmocka_unit_test(an_empty_forwarded_for_gets_no_comma),
        cmocka_unit_test(without_an_authority_no_forwarded_host_gets_through),
        cmocka_unit_test(forwarded_follows_rfc_7239),
        cmocka_unit_test(forwarded_is_appended_to),
        cmocka_unit_test(what_trusted_proxies_say_stays),
        cmocka_unit_test(a_unix_client_is_unknown),
        cmocka_unit_test(strip_prefix_takes_whole_segments),
        cmocka_unit_test(edits_set_add_and_remove_in_order),
        cmocka_unit_test(an_empty_value_removes_or_adds_nothing),
        cmocka_unit_test(a_field_can_be_set_from_itself),
        cmocka_unit_test(edits_see_what_the_proxy_added),
        cmocka_unit_test(host_is_the_authority_and_never_a_field),
        cmocka_unit_test(a_host_that_is_no_authority_changes_nothing),
        cmocka_unit_test(responses_get_via_and_edits),
        cmocka_unit_test(a_full_arena_is_said_and_nothing_breaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
