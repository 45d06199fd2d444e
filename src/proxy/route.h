/* route.h: from a request to a route, in file order (the first match wins). No state but PCRE2
 * match data. */
#ifndef WEIR_PROXY_ROUTE_H
#define WEIR_PROXY_ROUTE_H

#include "base/reason.h"
#include "config/config.h"
#include "proto/http.h"

/* One per worker. */
struct router {
    const struct config *config;
    void *match_data;    /* pcre2_match_data */
    void *match_context; /* pcre2_match_context, with the match limit and the stack */
    void *jit_stack;     /* pcre2_jit_stack; NULL when this PCRE2 has no JIT */
    /* Per listener index: its routes in file order up to a NULL, so that a request looks at no
     * other. */
    const struct config_route ***by_listener;
    /* Changes in routine work. */
    uint64_t regex_failures; /* patterns that gave up (match limit): taken as no match, and logged
                              */
};

/* 0 or -ENOMEM. `config` must outlive the router. */
int router_init(struct router *router, const struct config *config);
void router_fini(struct router *router);
/* NULL when no route matches: the listener's own action applies. The path is matched as sent,
 * without decoding. */
const struct config_route *router_match(struct router *router,
                                        const struct config_listener *listener,
                                        const struct http_message *request);
/* What holds for WebSockets: what the route (NULL: none) says, else what its listener does. */
struct config_websocket route_websocket(const struct config_listener *listener,
                                        const struct config_route *route);
/* Whether any request to the listener could become one. */
bool router_takes_websocket(const struct router *router, const struct config_listener *listener);
/* Why a request may not go where its route (NULL: none) or its listener leads: a tunnel that nobody
 * allows, or an upgrade. NONE: it may. */
enum reason route_refusal(const struct config_listener *listener, const struct config_route *route,
                          const struct http_message *request);
/* For listeners with mode = tcp: by the name of a ClientHello, BYTES_NONE for none. Whether any
 * route could ask for it. */
const struct config_route *
router_match_sni(struct router *router, const struct config_listener *listener, struct bytes name);
bool router_wants_sni(const struct router *router, const struct config_listener *listener);
/* The split's upstream for a number drawn uniformly from [0, action->weight_sum). */
const struct config_upstream *route_split(const struct config_action *action, uint32_t draw);

#endif
