#include "proxy/route.h"

#include "base/check.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <errno.h>
#include <pcre2.h>
#include <stdlib.h>

/* About a millisecond of backtracking. A path is at most max_target bytes, and patterns that are
 * not asking for trouble need a few steps for each. PCRE2's own limit, 10,000,000, would let one
 * request hold a worker for 100 ms. */
#define REGEX_STEPS_MAX 100000
/* JIT code without a stack of its own gets 32 KB: too little for a group repeated over a path of 8
 * KB. This one is address space until used. */
#define REGEX_STACK_SIZE 32768
#define REGEX_STACK_SIZE_MAX 1048576

static bool is_for_listener(const struct config_route *route,
                            const struct config_listener *listener) {
    if (route->listener_count == 0)
        return !listener->is_admin && listener->mode == CONFIG_MODE_HTTP;
    for (uint32_t i = 0; i < route->listener_count; i++) {
        if (route->listeners[i] == listener) return true;
    }
    return false;
}

/* A list that ends with NULL, or NULL without memory. */
static const struct config_route **routes_of(const struct config *config,
                                             const struct config_listener *listener) {
    const struct config_route **routes =
        calloc((size_t)config->route_count + 1, sizeof(const struct config_route *));
    if (!routes) return NULL;
    uint32_t count = 0;
    for (uint32_t i = 0; i < config->route_count; i++) {
        if (is_for_listener(&config->routes[i], listener)) routes[count++] = &config->routes[i];
    }
    return routes;
}

int router_init(struct router *router, const struct config *config) {
    *router = (struct router){.config = config};
    router->match_data = pcre2_match_data_create(1, NULL);
    router->match_context = pcre2_match_context_create(NULL);
    router->by_listener =
        calloc((size_t)config->listener_count + 1, sizeof(const struct config_route **));
    if (!router->match_data || !router->match_context || !router->by_listener) goto cleanup;
    (void)pcre2_set_match_limit(router->match_context, REGEX_STEPS_MAX); /* always returns 0 */
    router->jit_stack = pcre2_jit_stack_create(REGEX_STACK_SIZE, REGEX_STACK_SIZE_MAX, NULL);
    if (router->jit_stack) {
        pcre2_jit_stack_assign(router->match_context, NULL, router->jit_stack);
    }
    for (uint32_t i = 0; i < config->listener_count; i++) {
        router->by_listener[i] = routes_of(config, &config->listeners[i]);
        if (!router->by_listener[i]) goto cleanup;
    }
    return 0;
cleanup:
    router_fini(router);
    return -ENOMEM;
}

void router_fini(struct router *router) {
    for (uint32_t i = 0; router->by_listener && i < router->config->listener_count; i++) {
        free(router->by_listener[i]);
    }
    free(router->by_listener);
    pcre2_match_context_free(router->match_context);
    pcre2_jit_stack_free(router->jit_stack);
    pcre2_match_data_free(router->match_data);
    *router = (struct router){0};
}

/* RFC 9110 section 4.2.3: hosts have no case. */
static bool is_one_of(const struct bytes *names, uint32_t count, struct bytes host) {
    for (uint32_t i = 0; i < count; i++) {
        struct bytes wanted = names[i];
        if (!bytes_starts_with(wanted, BYTES("*."))) {
            if (bytes_equal_nocase(host, wanted)) return true;
            continue;
        }
        struct bytes suffix = bytes_slice(wanted, 1, wanted.len); /* with its dot */
        if (host.len > suffix.len && bytes_ends_with_nocase(host, suffix)) return true;
    }
    return false;
}

static bool host_matches(const struct config_route *route, struct bytes host) {
    return route->host_count == 0 || is_one_of(route->hosts, route->host_count, host);
}

static bool method_matches(const struct config_route *route, const struct http_message *request) {
    if (route->method_count == 0) return true;
    struct bytes method =
        request->method == HTTP_OTHER ? request->method_text : http_method_text(request->method);
    for (uint32_t i = 0; i < route->method_count; i++) {
        if (bytes_equal(method, route->methods[i])) return true;
    }
    return false;
}

/* A pattern that gives up says no, and log and counter say so: guessing yes would open routes.
 * Logged at 1, 2, 4, 8... so that a client that tries cannot fill the log. */
static void regex_gave_up(struct router *router, const struct config_route *route, int error) {
    router->regex_failures++;
    if ((router->regex_failures & (router->regex_failures - 1)) != 0) return;
    log_warn("route %s: a regex gave up on a path of a request (PCRE2 error %d), %llu times so far",
             route->name, error, (unsigned long long)router->regex_failures);
}

static bool regex_matches(struct router *router, const struct config_route *route,
                          const struct config_path *wanted, struct bytes path) {
    PCRE2_SPTR subject = (PCRE2_SPTR)(path.ptr ? path.ptr : "");
    int result = pcre2_match(wanted->regex, subject, path.len, 0, 0, router->match_data,
                             router->match_context);
    /* 0 is a match too: one that had more groups than match_data has room for. */
    if (result >= 0) return true;
    if (result != PCRE2_ERROR_NOMATCH) regex_gave_up(router, route, result);
    return false;
}

static bool path_matches(struct router *router, const struct config_route *route,
                         struct bytes path) {
    if (route->path_count == 0) return true;
    for (uint32_t i = 0; i < route->path_count; i++) {
        const struct config_path *wanted = &route->paths[i];
        bool matches = false;
        switch (wanted->kind) {
        case CONFIG_PATH_PREFIX:
            matches = bytes_starts_with(path, wanted->text);
            break;
        case CONFIG_PATH_EXACT:
            matches = bytes_equal(path, wanted->text);
            break;
        case CONFIG_PATH_REGEX:
            matches = regex_matches(router, route, wanted, path);
            break;
        }
        if (matches) return true;
    }
    return false;
}

static bool has_field(const struct http_message *request,
                      const struct config_header_match *wanted) {
    for (uint32_t i = 0; i < request->fields.count; i++) {
        const struct http_field *field = &request->fields.items[i];
        if (!bytes_equal_nocase(field->name, wanted->name)) continue;
        if (!wanted->value.ptr || bytes_equal(field->value, wanted->value)) return true;
    }
    return false;
}

static bool headers_match(const struct config_route *route, const struct http_message *request) {
    if (route->header_count == 0) return true;
    for (uint32_t i = 0; i < route->header_count; i++) {
        if (has_field(request, &route->headers[i])) return true;
    }
    return false;
}

/* RFC 9110 section 8.3.1: type/subtype without case, parameters behind ";". */
static bool content_type_matches(const struct config_route *route,
                                 const struct http_message *request) {
    if (route->content_type_count == 0) return true;
    const struct http_field *field = http_fields_find(&request->fields, HTTP_FIELD_CONTENT_TYPE);
    if (!field) return false;
    struct bytes type = bytes_trim(bytes_slice(field->value, 0, bytes_find(field->value, ';')));
    for (uint32_t i = 0; i < route->content_type_count; i++) {
        struct bytes wanted = route->content_types[i];
        bool any_subtype = wanted.len > 2 && memcmp(wanted.ptr + wanted.len - 2, "/*", 2) == 0;
        if (any_subtype) wanted.len--;
        struct bytes compared = any_subtype ? bytes_slice(type, 0, wanted.len) : type;
        if (bytes_equal_nocase(compared, wanted)) return true;
    }
    return false;
}

/* The cheap questions first. */
static bool route_matches(struct router *router, const struct config_route *route,
                          const struct http_message *request, struct bytes host) {
    return method_matches(route, request) && host_matches(route, host) &&
           path_matches(router, route, request->path) && headers_match(route, request) &&
           content_type_matches(route, request);
}

const struct config_route *router_match(struct router *router,
                                        const struct config_listener *listener,
                                        const struct http_message *request) {
    CHECK(listener->index < router->config->listener_count);
    const struct config_route *const *routes = router->by_listener[listener->index];
    if (!*routes) return NULL;
    struct bytes host = http_authority_host(request->authority);
    for (; *routes; routes++) {
        if (route_matches(router, *routes, request, host)) return *routes;
    }
    return NULL;
}

struct config_websocket route_websocket(const struct config_listener *listener,
                                        const struct config_route *route) {
    struct config_websocket websocket = listener->websocket;
    if (!route) return websocket;
    const struct config_websocket *own = &route->websocket;
    if (own->mode != CONFIG_UNSAID) websocket.mode = own->mode;
    if (own->message_max != CONFIG_UNSAID) websocket.message_max = own->message_max;
    if (own->ping_ms != CONFIG_UNSAID) websocket.ping_ms = own->ping_ms;
    return websocket;
}

bool router_takes_websocket(const struct router *router, const struct config_listener *listener) {
    const struct config_route *const *routes = router->by_listener[listener->index];
    bool takes = listener->action.kind != CONFIG_ACTION_NONE &&
                 listener->websocket.mode != CONFIG_WEBSOCKET_OFF;
    for (; !takes && *routes; routes++)
        takes = route_websocket(listener, *routes).mode != CONFIG_WEBSOCKET_OFF;
    return takes;
}

enum reason route_refusal(const struct config_listener *listener, const struct config_route *route,
                          const struct http_message *request) {
    bool in_vain = request->upgrade_only && request->upgrade.len == 0;
    /* A tunnel goes past everything the routes decide by: only where one says so. */
    if (in_vain || (request->method == HTTP_CONNECT && !(route && route->connect)))
        return REASON_CONNECT_REFUSED;
    const struct config_action *action = route ? &route->action : &listener->action;
    bool no_websocket = route_websocket(listener, route).mode == CONFIG_WEBSOCKET_OFF;
    /* To who asks for nothing else a 2xx would say that it is there. */
    bool no_upgrade = action->kind == CONFIG_ACTION_RESPOND && request->upgrade_only;
    if ((no_websocket && http_is_websocket(request)) || no_upgrade) return REASON_WEBSOCKET_REFUSED;
    return REASON_NONE;
}

bool router_wants_sni(const struct router *router, const struct config_listener *listener) {
    return listener->mode == CONFIG_MODE_TCP && *router->by_listener[listener->index] != NULL;
}

const struct config_route *
router_match_sni(struct router *router, const struct config_listener *listener, struct bytes name) {
    CHECK(listener->index < router->config->listener_count);
    const struct config_route *const *routes = router->by_listener[listener->index];
    for (; *routes; routes++) {
        if (is_one_of((*routes)->sni_names, (*routes)->sni_count, name)) return *routes;
    }
    return NULL;
}

const struct config_upstream *route_split(const struct config_action *action, uint32_t draw) {
    CHECK(draw < action->weight_sum);
    uint32_t i = 0;
    while (draw >= action->splits[i].weight) {
        draw -= action->splits[i].weight;
        i++;
        CHECK(i < action->split_count);
    }
    return action->splits[i].upstream;
}
