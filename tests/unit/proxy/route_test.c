#include "proxy/route.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define LISTENERS 3 /* the last is the admin's */
#define ROUTES_MAX 4
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct world {
    struct config config;
    struct config_listener listeners[LISTENERS];
    struct config_route routes[ROUTES_MAX];
    struct router router;
};

static char route_names[ROUTES_MAX][4] = {"r0", "r1", "r2", "r3"};

static void start(struct world *world, uint32_t route_count) {
    for (uint32_t i = 0; i < LISTENERS; i++) {
        world->listeners[i].index = i;
    }
    world->listeners[LISTENERS - 1].is_admin = true;
    for (uint32_t i = 0; i < route_count; i++) {
        world->routes[i].name = route_names[i];
        world->routes[i].index = i;
    }
    world->config = (struct config){
        .listeners = world->listeners,
        .listener_count = LISTENERS,
        .routes = world->routes,
        .route_count = route_count,
    };
    assert_int_equal(router_init(&world->router, &world->config), 0);
}

static void finish(struct world *world) { router_fini(&world->router); }

static struct http_message get(struct bytes authority, struct bytes path) {
    return (struct http_message){.method = HTTP_GET,
                                 .method_text = BYTES("GET"),
                                 .scheme = BYTES("http"),
                                 .authority = authority,
                                 .path = path,
                                 .version_minor = 1};
}

static bool takes(struct world *world, const struct http_message *request) {
    const struct config_route *route = router_match(&world->router, &world->listeners[0], request);
    assert_true(route == NULL || route == &world->routes[0]);
    return route != NULL;
}

static bool takes_host(struct world *world, struct bytes authority) {
    struct http_message request = get(authority, BYTES("/"));
    return takes(world, &request);
}

static bool takes_path(struct world *world, struct bytes path) {
    struct http_message request = get(BYTES("h"), path);
    return takes(world, &request);
}

static bool takes_field(struct world *world, struct bytes name, struct bytes value) {
    struct http_field items[] = {
        {.name = BYTES("A"), .value = BYTES("b")},
        {.name = name, .value = value, .id = http_field_id_of(name)},
    };
    struct http_message request = get(BYTES("Host.example:80"), BYTES("/"));
    request.fields = (struct http_fields){.items = items, .count = 2};
    return takes(world, &request);
}

static void no_routes_give_none(void **state) {
    (void)state;
    struct world world = {0};
    start(&world, 0);
    assert_false(takes_path(&world, BYTES("/")));
    finish(&world);
}

static void a_route_without_conditions_takes_all_but_the_admins(void **state) {
    (void)state;
    struct world world = {0};
    start(&world, 1);
    struct http_message request = get(BYTES(""), BYTES("*"));
    assert_ptr_equal(router_match(&world.router, &world.listeners[0], &request), &world.routes[0]);
    assert_ptr_equal(router_match(&world.router, &world.listeners[1], &request), &world.routes[0]);
    assert_null(router_match(&world.router, &world.listeners[2], &request));
    finish(&world);
}

static void the_first_match_in_file_order_wins_on_its_listener(void **state) {
    (void)state;
    struct world world = {0};
    const struct config_listener *second[] = {&world.listeners[1]};
    struct config_path path = {.kind = CONFIG_PATH_PREFIX, .text = BYTES("/a")};
    world.routes[0].paths = &path;
    world.routes[0].path_count = 1;
    world.routes[1].listeners = second;
    world.routes[1].listener_count = 1;
    start(&world, 3);
    struct http_message request = get(BYTES("h"), BYTES("/a"));
    assert_ptr_equal(router_match(&world.router, &world.listeners[0], &request), &world.routes[0]);
    assert_ptr_equal(router_match(&world.router, &world.listeners[1], &request), &world.routes[0]);
    request.path = BYTES("/b");
    assert_ptr_equal(router_match(&world.router, &world.listeners[0], &request), &world.routes[2]);
    assert_ptr_equal(router_match(&world.router, &world.listeners[1], &request), &world.routes[1]);
    finish(&world);
}

static void hosts_match_without_case_port_and_trailing_dot(void **state) {
    (void)state;
    struct world world = {0};
    struct bytes hosts[] = {BYTES("api.example.com"), BYTES("[::1]")};
    world.routes[0].hosts = hosts;
    world.routes[0].host_count = COUNT(hosts);
    start(&world, 1);
    assert_true(takes_host(&world, BYTES("api.example.com")));
    assert_true(takes_host(&world, BYTES("API.Example.COM:8080")));
    assert_true(takes_host(&world, BYTES("api.example.com.:80")));
    assert_true(takes_host(&world, BYTES("[::1]:80")));
    assert_false(takes_host(&world, BYTES("xapi.example.com")));
    assert_false(takes_host(&world, BYTES("api.example.com.evil")));
    assert_false(takes_host(&world, BYTES("")));
    assert_false(takes_host(&world, BYTES_NONE));
    finish(&world);
}

static void a_star_stands_for_one_or_more_labels(void **state) {
    (void)state;
    struct world world = {0};
    struct bytes hosts[] = {BYTES("*.example.com")};
    world.routes[0].hosts = hosts;
    world.routes[0].host_count = 1;
    start(&world, 1);
    assert_true(takes_host(&world, BYTES("a.example.com")));
    assert_true(takes_host(&world, BYTES("A.b.EXAMPLE.com:1")));
    assert_false(takes_host(&world, BYTES("example.com")));
    assert_false(takes_host(&world, BYTES(".example.com")));
    assert_false(takes_host(&world, BYTES("badexample.com")));
    finish(&world);
}

static void prefixes_match_by_bytes_and_exact_paths_as_a_whole(void **state) {
    (void)state;
    struct world world = {0};
    struct config_path paths[] = {{.kind = CONFIG_PATH_PREFIX, .text = BYTES("/v1/")},
                                  {.kind = CONFIG_PATH_EXACT, .text = BYTES("/x")}};
    world.routes[0].paths = paths;
    world.routes[0].path_count = COUNT(paths);
    start(&world, 1);
    assert_true(takes_path(&world, BYTES("/v1/")));
    assert_true(takes_path(&world, BYTES("/v1/a")));
    assert_true(takes_path(&world, BYTES("/x")));
    assert_false(takes_path(&world, BYTES("/v1")));
    assert_false(takes_path(&world, BYTES("/V1/")));
    assert_false(takes_path(&world, BYTES("/%761/")));
    assert_false(takes_path(&world, BYTES("/x/")));
    assert_false(takes_path(&world, BYTES("")));
    assert_false(takes_path(&world, BYTES_NONE));
    finish(&world);
}

static pcre2_code *compile(const char *pattern) {
    int error;
    size_t offset;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, 0, &error, &offset, NULL);
    assert_non_null(code);
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* slower without */
    return code;
}

static void a_regex_sees_the_path_as_sent(void **state) {
    (void)state;
    struct world world = {0};
    struct config_path path = {.kind = CONFIG_PATH_REGEX,
                               .regex = compile("^/(user)s?/([0-9]+)(\\.json)?$|^$")};
    world.routes[0].paths = &path;
    world.routes[0].path_count = 1;
    start(&world, 1);
    assert_true(takes_path(&world, BYTES("/users/42")));
    assert_true(takes_path(&world, BYTES("/user/42.json")));
    assert_true(takes_path(&world, BYTES_NONE));
    assert_false(takes_path(&world, BYTES("/users/4%32")));
    assert_false(takes_path(&world, BYTES("/users/x")));
    assert_int_equal(world.router.regex_failures, 0);
    finish(&world);
    pcre2_code_free(path.regex);
}

static void a_regex_that_backtracks_forever_gives_up(void **state) {
    (void)state;
    struct world world = {0};
    struct config_path path = {.kind = CONFIG_PATH_REGEX, .regex = compile("^/(a+|a)+$")};
    world.routes[0].paths = &path;
    world.routes[0].path_count = 1;
    start(&world, 1);
    char text[64];
    memset(text, 'a', sizeof(text));
    text[0] = '/';
    assert_true(takes_path(&world, bytes_make(text, sizeof(text))));
    text[63] = '!';
    assert_false(takes_path(&world, bytes_make(text, sizeof(text))));
    assert_int_equal(world.router.regex_failures, 1);
    finish(&world);
    pcre2_code_free(path.regex);
}

static void a_regex_takes_a_path_of_8_kilobytes(void **state) {
    (void)state;
    struct world world = {0};
    struct config_path path = {.kind = CONFIG_PATH_REGEX, .regex = compile("^(/(a|b)*)+$")};
    world.routes[0].paths = &path;
    world.routes[0].path_count = 1;
    start(&world, 1);
    static char text[8192];
    memset(text, 'b', sizeof(text));
    text[0] = '/';
    assert_true(takes_path(&world, bytes_make(text, sizeof(text))));
    assert_int_equal(world.router.regex_failures, 0);
    finish(&world);
    pcre2_code_free(path.regex);
}

static void a_route_says_of_websockets_what_it_wants(void **state) {
    (void)state;
    struct config_listener listener = {.websocket = {CONFIG_WEBSOCKET_RAW, 100, 5}};
    struct config_route route = {.websocket = {CONFIG_UNSAID, CONFIG_UNSAID, CONFIG_UNSAID}};
    struct config_websocket got = route_websocket(&listener, NULL);
    assert_memory_equal(&got, &listener.websocket, sizeof got);
    got = route_websocket(&listener, &route);
    assert_memory_equal(&got, &listener.websocket, sizeof got);
    route.websocket = (struct config_websocket){CONFIG_WEBSOCKET_CHECKED, CONFIG_UNSAID, 0};
    got = route_websocket(&listener, &route);
    assert_int_equal(got.mode, CONFIG_WEBSOCKET_CHECKED);
    assert_int_equal(got.message_max, 100);
    assert_int_equal(got.ping_ms, 0);
}

static void methods_have_case_and_may_be_unknown_ones(void **state) {
    (void)state;
    struct world world = {0};
    struct bytes methods[] = {BYTES("GET"), BYTES("PURGE")};
    world.routes[0].methods = methods;
    world.routes[0].method_count = COUNT(methods);
    start(&world, 1);
    struct http_message request = get(BYTES("h"), BYTES("/"));
    assert_true(takes(&world, &request));
    request.method = HTTP_HEAD;
    assert_false(takes(&world, &request));
    request.method = HTTP_OTHER;
    request.method_text = BYTES("PURGE");
    assert_true(takes(&world, &request));
    request.method_text = BYTES("purge");
    assert_false(takes(&world, &request));
    finish(&world);
}

static void headers_match_by_value_or_presence(void **state) {
    (void)state;
    struct world world = {0};
    struct config_header_match headers[] = {
        {.name = BYTES("X-Canary"), .value = BYTES("1")},
        {.name = BYTES("X-Any"), .value = BYTES_NONE},
        {.name = BYTES("X-Empty"), .value = BYTES("")},
    };
    world.routes[0].headers = headers;
    world.routes[0].header_count = COUNT(headers);
    start(&world, 1);
    assert_true(takes_field(&world, BYTES("x-canary"), BYTES("1")));
    assert_true(takes_field(&world, BYTES("X-ANY"), BYTES("")));
    assert_true(takes_field(&world, BYTES("X-Empty"), BYTES("")));
    assert_false(takes_field(&world, BYTES("X-Canary"), BYTES("11")));
    assert_false(takes_field(&world, BYTES("X-Canary"), BYTES("")));
    assert_false(takes_field(&world, BYTES("X-Empty"), BYTES("a")));
    assert_false(takes_field(&world, BYTES("X-Canary2"), BYTES("1")));
    finish(&world);
}

static void a_second_field_of_the_name_can_match(void **state) {
    (void)state;
    struct world world = {0};
    struct config_header_match header = {.name = BYTES("A"), .value = BYTES("c")};
    world.routes[0].headers = &header;
    world.routes[0].header_count = 1;
    start(&world, 1);
    assert_true(takes_field(&world, BYTES("a"), BYTES("c")));
    assert_false(takes_field(&world, BYTES("a"), BYTES("C")));
    finish(&world);
}

static void content_types_match_without_case_and_parameters(void **state) {
    (void)state;
    struct world world = {0};
    struct bytes types[] = {BYTES("application/json"), BYTES("image/*")};
    world.routes[0].content_types = types;
    world.routes[0].content_type_count = COUNT(types);
    start(&world, 1);
    struct bytes name = BYTES("Content-Type");
    assert_true(takes_field(&world, name, BYTES("application/json")));
    assert_true(takes_field(&world, name, BYTES("Application/JSON ; charset=utf-8")));
    assert_true(takes_field(&world, name, BYTES("image/png")));
    assert_true(takes_field(&world, name, BYTES("IMAGE/svg+xml;x=y")));
    assert_false(takes_field(&world, name, BYTES("application/json2")));
    assert_false(takes_field(&world, name, BYTES("application/jso")));
    assert_false(takes_field(&world, name, BYTES("image")));
    assert_false(takes_field(&world, name, BYTES("ximage/png")));
    assert_false(takes_field(&world, name, BYTES("")));
    assert_false(takes_path(&world, BYTES("/")));
    finish(&world);
}

static void all_conditions_must_hold(void **state) {
    (void)state;
    struct world world = {0};
    struct bytes host = BYTES("h");
    struct bytes method = BYTES("GET");
    struct config_path path = {.kind = CONFIG_PATH_EXACT, .text = BYTES("/x")};
    world.routes[0].hosts = &host;
    world.routes[0].methods = &method;
    world.routes[0].paths = &path;
    world.routes[0].host_count = world.routes[0].method_count = world.routes[0].path_count = 1;
    start(&world, 1);
    struct http_message request = get(host, BYTES("/x"));
    assert_true(takes(&world, &request));
    struct http_message other = request;
    other.method = HTTP_POST;
    assert_false(takes(&world, &other));
    other = request;
    other.authority = BYTES("g");
    assert_false(takes(&world, &other));
    other = request;
    other.path = BYTES("/y");
    assert_false(takes(&world, &other));
    finish(&world);
}

static void a_split_gives_each_upstream_its_weight(void **state) {
    (void)state;
    struct config_upstream upstreams[3] = {0};
    struct config_split splits[] = {
        {.upstream = &upstreams[0], .weight = 95},
        {.upstream = &upstreams[1], .weight = 0},
        {.upstream = &upstreams[2], .weight = 5},
    };
    struct config_action action = {
        .kind = CONFIG_ACTION_UPSTREAM, .splits = splits, .split_count = 3, .weight_sum = 100};
    uint32_t counts[3] = {0};
    for (uint32_t draw = 0; draw < 100; draw++) {
        counts[route_split(&action, draw) - upstreams]++;
    }
    assert_int_equal(counts[0], 95);
    assert_int_equal(counts[1], 0);
    assert_int_equal(counts[2], 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_routes_give_none),
        cmocka_unit_test(a_route_without_conditions_takes_all_but_the_admins),
        cmocka_unit_test(the_first_match_in_file_order_wins_on_its_listener),
        cmocka_unit_test(hosts_match_without_case_port_and_trailing_dot),
        cmocka_unit_test(a_star_stands_for_one_or_more_labels),
        cmocka_unit_test(prefixes_match_by_bytes_and_exact_paths_as_a_whole),
        cmocka_unit_test(a_regex_sees_the_path_as_sent),
        cmocka_unit_test(a_regex_that_backtracks_forever_gives_up),
        cmocka_unit_test(a_regex_takes_a_path_of_8_kilobytes),
        cmocka_unit_test(a_route_says_of_websockets_what_it_wants),
        cmocka_unit_test(methods_have_case_and_may_be_unknown_ones),
        cmocka_unit_test(headers_match_by_value_or_presence),
        cmocka_unit_test(a_second_field_of_the_name_can_match),
        cmocka_unit_test(content_types_match_without_case_and_parameters),
        cmocka_unit_test(all_conditions_must_hold),
        cmocka_unit_test(a_split_gives_each_upstream_its_weight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
