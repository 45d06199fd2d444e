#include "config/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>

#include "unit/config/load.h"

#define GOOD                                                                                       \
    "[listener web]\n"                                                                             \
    "bind = 127.0.0.1:8080\n"                                                                      \
    "upstream = app\n"                                                                             \
    "[upstream app]\n"                                                                             \
    "server = 127.0.0.1:9000\n"                                                                    \
    "[service one]\n"                                                                              \
    "type = respond\n"

static void assert_text(struct bytes text, const char *expected) {
    assert_int_equal(text.len, strlen(expected));
    assert_memory_equal(text.ptr, expected, text.len);
}

static uint32_t allowed_cpus(cpu_set_t *set) {
    CPU_ZERO(set);
    assert_int_equal(sched_getaffinity(0, sizeof *set, set), 0);
    return (uint32_t)CPU_COUNT(set);
}

static void what_is_not_said_has_its_default(void **state) {
    (void)state;
    struct config *config = load_good(GOOD);
    cpu_set_t set;
    assert_int_equal(config->workers, allowed_cpus(&set));
    for (uint32_t i = 0; i < config->workers; i++) {
        assert_true(CPU_ISSET((size_t)config->cpus[i], &set));
        assert_true(i == 0 || config->cpus[i] > config->cpus[i - 1]);
    }
    assert_int_equal(config->max_connections, 100000);
    assert_int_equal(config->max_handshakes, 1024);
    assert_int_equal(config->drain_timeout_ms, 30000);
    assert_int_equal(config->log_level, LOG_INFO);
    assert_null(config->user);
    assert_int_equal(config->listener_count, 1); /* no [admin]: no admin listener */
    const struct config_listener *listener = &config->listeners[0];
    assert_int_equal(listener->backlog, 4096);
    assert_int_equal(listener->max_connections, 0);
    assert_int_equal(listener->max_connections_per_ip, 0);
    assert_int_equal(listener->max_connection_rate, 0);
    assert_true(listener->nodelay && listener->via && !listener->is_admin);
    assert_int_equal(listener->forwarded, CONFIG_FORWARDED_X);
    assert_int_equal(listener->limits.timeout_request_ms, 10000);
    assert_int_equal(listener->limits.min_read_rate, 500);
    assert_int_equal(listener->limits.max_header_size, 16384);
    assert_int_equal(listener->limits.max_headers, 100);
    assert_int_equal(listener->limits.max_target, 8192);
    assert_int_equal(listener->limits.max_body_size, 10485760);
    assert_int_equal(listener->websocket.mode, CONFIG_WEBSOCKET_RAW);
    assert_int_equal(listener->websocket.message_max, 1048576);
    assert_int_equal(listener->websocket.ping_ms, 0);
    const struct config_upstream *upstream = &config->upstreams[0];
    assert_int_equal(upstream->balance, CONFIG_BALANCE_ROUND_ROBIN);
    assert_int_equal(upstream->hash_key, CONFIG_HASH_CLIENT_IP);
    assert_int_equal(upstream->keepalive, 256);
    assert_int_equal(upstream->protocol, CONFIG_PROTOCOL_H1);
    assert_int_equal(upstream->keepalive_timeout_ms, 60000);
    assert_int_equal(upstream->limits.timeout_tunnel_ms, 3600000);
    assert_int_equal(upstream->queue, 1000);
    assert_int_equal(upstream->limits.timeout_queue_ms, 5000);
    assert_int_equal(upstream->servers[0].weight, 1);
    assert_int_equal(upstream->servers[0].max_connections, 0);
    assert_false(upstream->servers[0].backup);
    assert_int_equal(config->services[0].status, 200);
    config_free(config);
}

static void sections_override_defaults(void **state) {
    (void)state;
    struct config *config = load_good("[listener a]\nbind = unix:/a\nupstream = app\n"
                                      "timeout_client = 1s\nmax_body_size = 0\n"
                                      "[listener b]\nbind = unix:/b\nupstream = app\n"
                                      "[upstream app]\nserver = unix:/c\ntimeout_server = 7s\n"
                                      "[defaults]\ntimeout_client = 2s\ntimeout_server = 3s\n"
                                      "timeout_connect = 4s\n");
    assert_int_equal(config->listeners[0].limits.timeout_client_ms, 1000);
    assert_int_equal(config->listeners[0].limits.max_body_size, 0);
    assert_int_equal(config->listeners[1].limits.timeout_client_ms, 2000);
    assert_int_equal(config->listeners[1].limits.timeout_server_ms, 3000);
    assert_int_equal(config->upstreams[0].limits.timeout_server_ms, 7000);
    assert_int_equal(config->upstreams[0].limits.timeout_connect_ms, 4000);
    assert_int_equal(config->defaults.timeout_client_ms, 2000);
    config_free(config);
}

static void tcp_listeners_go_to_an_upstream_or_an_echo(void **state) {
    (void)state;
    /* What only requests have any use for may come from [defaults]. */
    struct config *config =
        load_good("[defaults]\nmax_headers = 50\ntimeout_client = 5s\ntimeout_tunnel = 7s\n"
                  "[listener raw]\nmode = tcp\nbind = unix:/a\nupstream = app\n"
                  "[listener back]\nmode = tcp\nbind = unix:/b\nservice = back\n"
                  "[listener web]\nmode = http\nbind = unix:/c\nupstream = app\n"
                  "[route all]\nrespond = 200 x\n"
                  "[upstream app]\nserver = unix:/s\nbalance = maglev\nhash_key = client_ip\n"
                  "[service back]\ntype = echo\n");
    assert_int_equal(config->listeners[0].mode, CONFIG_MODE_TCP);
    assert_int_equal(config->listeners[0].action.kind, CONFIG_ACTION_UPSTREAM);
    assert_ptr_equal(config->listeners[0].action.splits[0].upstream, &config->upstreams[0]);
    assert_int_equal(config->listeners[1].mode, CONFIG_MODE_TCP);
    assert_int_equal(config->listeners[1].action.kind, CONFIG_ACTION_SERVICE);
    assert_ptr_equal(config->listeners[1].action.service, &config->services[0]);
    assert_int_equal(config->services[0].type, CONFIG_SERVICE_ECHO);
    assert_int_equal(config->listeners[2].mode, CONFIG_MODE_HTTP);
    assert_int_equal(config->upstreams[0].limits.timeout_tunnel_ms, 7000);
    config_free(config);
}

static void the_admin_listener_comes_last(void **state) {
    (void)state;
    /* Times that are for the public are not for who looks after it. */
    struct config *config = load_good("[admin]\nbind = 127.0.0.1:9900\n"
                                      "[defaults]\ntimeout_request = 1ms\ntimeout_client = 1ms\n"
                                      "timeout_keepalive = 1ms\nmax_headers = 7\n" GOOD);
    assert_int_equal(config->listeners[0].limits.timeout_request_ms, 1);
    assert_int_equal(config->listeners[1].limits.timeout_request_ms, 10000);
    assert_int_equal(config->listeners[1].limits.timeout_client_ms, 60000);
    assert_int_equal(config->listeners[1].limits.timeout_keepalive_ms, 60000);
    assert_int_equal(config->listeners[1].limits.max_headers, 7);
    assert_int_equal(config->listener_count, 2);
    assert_string_equal(config->listeners[0].name, "web");
    assert_string_equal(config->listeners[1].name, "admin");
    assert_true(config->listeners[1].is_admin);
    assert_int_equal(config->listeners[1].index, 1);
    assert_int_equal(config->listeners[1].line, 1);
    assert_int_equal(config->listeners[1].action.kind, CONFIG_ACTION_NONE);
    config_free(config);
}

static void cpus_are_given_out_in_order(void **state) {
    (void)state;
    struct config *config = load_good(GOOD "[global]\nworkers = 256\ncpu_affinity = auto\n");
    cpu_set_t set;
    uint32_t count = allowed_cpus(&set);
    assert_int_equal(config->workers, 256);
    for (uint32_t i = count; i < 256; i++) {
        assert_int_equal(config->cpus[i], config->cpus[i % count]);
    }
    config_free(config);
    config = load_good(GOOD "[global]\nworkers = 3\ncpu_affinity = off\n");
    assert_int_equal(config->workers, 3);
    assert_null(config->cpus);
    config_free(config);
}

static void a_list_of_cpus_makes_as_many_workers(void **state) {
    (void)state;
    cpu_set_t set;
    uint32_t count = allowed_cpus(&set);
    if (count < 2 || !CPU_ISSET(0, &set) || !CPU_ISSET(1, &set)) skip();
    struct config *config = load_good(GOOD "[global]\ncpu_affinity = 1 0\n");
    assert_int_equal(config->workers, 2);
    assert_int_equal(config->cpus[0], 1);
    assert_int_equal(config->cpus[1], 0);
    config_free(config);
    config = load_good(GOOD "[global]\ncpu_affinity = 0-1\nworkers = 1\n");
    assert_int_equal(config->workers, 1);
    assert_int_equal(config->cpus[0], 0);
    config_free(config);
    assert_errors(GOOD "[global]\ncpu_affinity = 0-1\nworkers = 3\n",
                  "9: global.cpu_affinity: 2 CPUs are too few for 3 workers\n");
    assert_errors(GOOD "[global]\ncpu_affinity = 0 1,0\n",
                  "9: global.cpu_affinity: CPU 0 is listed twice\n");
}

static void a_route_has_all_it_says(void **state) {
    (void)state;
    struct config *config = load_good(
        GOOD "[upstream canary]\nserver = unix:/c\n"
             "[route api]\nlistener = web\nhost = API.Example.com. *.x.org\nhost = [::1]\n"
             "path = /v1/, /v2\npath = = /exact\npath = ~ ^/r[0-9]+$ ; comment\n"
             "method = GET POST, PURGE\nheader = X-Canary: 1\nheader = X-Any\n"
             "header = X-Empty:\ncontent_type = Application/JSON image/*\n"
             "upstream = app 95, canary 5\nstrip_prefix = /v1\n");
    const struct config_route *route = &config->routes[0];
    assert_string_equal(route->name, "api");
    assert_int_equal(route->listener_count, 1);
    assert_ptr_equal(route->listeners[0], &config->listeners[0]);
    assert_int_equal(route->host_count, 3);
    assert_text(route->hosts[0], "api.example.com");
    assert_text(route->hosts[1], "*.x.org");
    assert_text(route->hosts[2], "[::1]");
    assert_int_equal(route->path_count, 4);
    assert_int_equal(route->paths[1].kind, CONFIG_PATH_PREFIX);
    assert_text(route->paths[1].text, "/v2");
    assert_int_equal(route->paths[2].kind, CONFIG_PATH_EXACT);
    assert_text(route->paths[2].text, "/exact");
    assert_int_equal(route->paths[3].kind, CONFIG_PATH_REGEX);
    assert_text(route->paths[3].text, "^/r[0-9]+$");
    assert_non_null(route->paths[3].regex);
    assert_int_equal(route->method_count, 3);
    assert_text(route->methods[2], "PURGE");
    assert_int_equal(route->header_count, 3);
    assert_text(route->headers[0].value, "1");
    assert_null(route->headers[1].value.ptr);
    assert_non_null(route->headers[2].value.ptr);
    assert_text(route->content_types[0], "application/json");
    assert_text(route->content_types[1], "image/*");
    assert_text(route->strip_prefix, "/v1");
    assert_int_equal(route->action.kind, CONFIG_ACTION_UPSTREAM);
    assert_int_equal(route->action.split_count, 2);
    assert_int_equal(route->action.weight_sum, 100);
    assert_ptr_equal(route->action.splits[1].upstream, &config->upstreams[1]);
    config_free(config);
}

static void actions_without_an_upstream_are_ready(void **state) {
    (void)state;
    struct config *config = load_good(GOOD "[route a]\nredirect = 308 https://$host$uri\n"
                                           "[route b]\nrespond = 503 come back later\n"
                                           "[route c]\nrespond = 204\n"
                                           "[route d]\nservice = one\n");
    assert_int_equal(config->routes[0].action.kind, CONFIG_ACTION_REDIRECT);
    assert_int_equal(config->routes[0].action.status, 308);
    assert_int_equal(config->routes[0].action.text.count, 3);
    assert_int_equal(config->routes[1].action.kind, CONFIG_ACTION_RESPOND);
    assert_text(config->routes[1].action.text.parts[0].text, "come back later");
    assert_int_equal(config->routes[2].action.text.count, 0);
    assert_int_equal(config->routes[3].action.kind, CONFIG_ACTION_SERVICE);
    assert_ptr_equal(config->routes[3].action.service, &config->services[0]);
    config_free(config);
}

static void edits_keep_the_order_of_the_file(void **state) {
    (void)state;
    struct config *config = load_good(GOOD "[route a]\nupstream = app\n"
                                           "set_request_header = Host: in.side\n"
                                           "remove_response_header = Server, X-B\n"
                                           "add_request_header = \"X-A:  $client_ip ; x \"\n"
                                           "set_request_header = X-Empty:\n"
                                           "set_response_header = X-S: $status\n");
    const struct config_edits *request = &config->routes[0].request_edits;
    assert_int_equal(request->count, 3);
    assert_string_equal(request->items[0].name, "Host");
    assert_int_equal(request->items[1].kind, CONFIG_EDIT_ADD);
    assert_string_equal(request->items[1].name, "X-A");
    assert_int_equal(request->items[1].value.parts[0].variable, TEMPLATE_CLIENT_IP);
    assert_text(request->items[1].value.parts[1].text, " ; x");
    assert_int_equal(request->items[2].value.count, 0);
    const struct config_edits *response = &config->routes[0].response_edits;
    assert_int_equal(response->count, 3);
    assert_int_equal(response->items[0].kind, CONFIG_EDIT_REMOVE);
    assert_string_equal(response->items[1].name, "X-B");
    assert_int_equal(response->items[2].kind, CONFIG_EDIT_SET);
    config_free(config);
}

static void servers_and_their_parameters_are_read(void **state) {
    (void)state;
    struct config *config =
        load_good("[listener w]\nbind = unix:/w\nupstream = a\n[upstream a]\n"
                  "server = 10.0.0.1:80 weight=1000 max_connections=200\n"
                  "server = unix:/run/x backup\nbalance = maglev\nhash_key = header:X-User\n"
                  "keepalive = 0\nqueue = 0\ntimeout_queue = 200ms\nprotocol = h2\n");
    const struct config_upstream *upstream = &config->upstreams[0];
    assert_int_equal(upstream->queue, 0);
    assert_int_equal(upstream->limits.timeout_queue_ms, 200);
    assert_int_equal(upstream->server_count, 2);
    assert_string_equal(upstream->servers[0].name, "10.0.0.1:80");
    assert_int_equal(upstream->servers[0].weight, 1000);
    assert_int_equal(upstream->servers[0].max_connections, 200);
    assert_int_equal(upstream->servers[1].index, 1);
    assert_true(upstream->servers[1].backup);
    assert_int_equal(upstream->hash_key, CONFIG_HASH_HEADER);
    assert_string_equal(upstream->hash_name, "X-User");
    assert_int_equal(upstream->keepalive, 0);
    assert_int_equal(upstream->protocol, CONFIG_PROTOCOL_H2);
    config_free(config);
}

static void a_service_takes_its_values_as_they_are(void **state) {
    (void)state;
    struct config *config = load_good(GOOD "status = 418\nheader = X-Price: 5$\nheader = X-B:\n"
                                           "body = costs $host 5$\n");
    const struct config_service *service = &config->services[0];
    assert_int_equal(service->status, 418);
    assert_string_equal(service->body, "costs $host 5$");
    assert_int_equal(service->headers.count, 2);
    assert_int_equal(service->headers.items[0].kind, CONFIG_EDIT_ADD);
    assert_int_equal(service->headers.items[0].value.count, 1);
    assert_text(service->headers.items[0].value.parts[0].text, "5$");
    config_free(config);
}

static void a_listener_may_live_by_routes_alone(void **state) {
    (void)state;
    struct config *config =
        load_good("[listener a]\nbind = unix:/a\n[route r]\nrespond = 200 hello\n");
    assert_int_equal(config->listeners[0].action.kind, CONFIG_ACTION_NONE);
    config_free(config);
    assert_errors("[listener a]\nbind = unix:/a\n[listener b]\nbind = unix:/b\n"
                  "[route r]\nlistener = b\nrespond = 200 hello\n",
                  "1: listener a: needs upstream = NAME or service = NAME, or a route\n");
}

static void the_sample_is_good(void **state) {
    (void)state;
    struct config_errors errors;
    struct config *config = config_load("etc/weir.ini", &errors);
    if (!config && strstr(errors.text, "cannot read")) {
        config_errors_fini(&errors);
        skip(); /* not run from the top of the tree */
    }
    if (errors.count != 0) fail_msg("%s", errors.text);
    config_free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_said_has_its_default),
        cmocka_unit_test(sections_override_defaults),
        cmocka_unit_test(tcp_listeners_go_to_an_upstream_or_an_echo),
        cmocka_unit_test(the_admin_listener_comes_last),
        cmocka_unit_test(cpus_are_given_out_in_order),
        cmocka_unit_test(a_list_of_cpus_makes_as_many_workers),
        cmocka_unit_test(a_route_has_all_it_says),
        cmocka_unit_test(actions_without_an_upstream_are_ready),
        cmocka_unit_test(edits_keep_the_order_of_the_file),
        cmocka_unit_test(servers_and_their_parameters_are_read),
        cmocka_unit_test(a_service_takes_its_values_as_they_are),
        cmocka_unit_test(a_listener_may_live_by_routes_alone),
        cmocka_unit_test(the_sample_is_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
