/* proxy.h: what the proxy of one worker is made of: routes, upstreams, services, exchanges, relays,
 * and its fronts.
 *
 * A front is one listener as a worker sees it: the configuration's listener, the options of its
 * sessions and who is told of them (exchanges, or relays with mode = tcp). The proxy is built from
 * a snapshot by control and belongs to its worker; counters in it are read by other threads.
 */
#ifndef WEIR_PROXY_PROXY_H
#define WEIR_PROXY_PROXY_H

#include "proxy/route.h"
#include "proxy/tunnel_ws.h"
#include "proxy/upstream.h"
#include "service/service.h"

/* Requests of one listener and route, by method and class of status. */
struct request_series {
    uint64_t count[HTTP_METHOD_COUNT][UPSTREAM_CODES]; /* not over HTTP/2 */
    uint64_t h2[HTTP_METHOD_COUNT][UPSTREAM_CODES];
    uint64_t ws[HTTP_METHOD_COUNT][UPSTREAM_CODES]; /* that became WebSockets, over either */
};

struct front {
    struct proxy *proxy;
    const struct config_listener *config;
    const struct session_ops *session_ops;
    const struct session_host *host; /* of its client sessions */
    struct session_options options;
    struct service *service; /* answers everything, instead of routes: the admin's; NULL else */
};

struct proxy {
    /* Fixed after init. */
    const struct config *config;
    struct net *net;
    struct session_room *room;
    struct router router;
    struct upstream *upstreams; /* by index of the configuration */
    struct service **services;  /* by index of the configuration; the owner of the options */
    struct front *fronts;       /* by index of the listener */
    struct slab exchanges;
    struct slab tunnels; /* of exchanges */
    struct tunnel_ws_room checked;
    struct slab relays;
    const struct session_ops *tcp_ops; /* how relays speak to servers */
    /* Changes in routine work. */
    struct net_task dial_room; /* of the net: requests of all upstreams wait for it */
    struct rand_state random;
    uint64_t requests;             /* number of the last request of this worker */
    uint64_t instance;             /* upper part of request ids */
    struct request_series *series; /* [listener index * (routes + 1) + route index + 1] */
    uint64_t cut;                  /* requests and TCP connections that a drain ended early */
};

struct proxy_options {
    const struct config *config;
    uint32_t worker; /* index of the one it is for */
    struct net *net;
    struct session_room *room;
    const struct session_ops *client_ops;   /* how listeners speak */
    const struct session_ops *upstream_ops; /* how servers are spoken to */
    const struct session_ops *h2_ops;       /* how those with protocol = h2 are */
    const struct session_ops *tcp_ops;      /* how both are where the mode is tcp */
    struct service **services;              /* by index of the configuration */
    struct service *admin;                  /* for the admin's listener; NULL when there is none */
    uint32_t exchanges_max;
    uint32_t relays_max; /* 0: no listener has mode = tcp */
    uint32_t idle_max;   /* connections kept idle, to all servers together */
};

/* 0 or -ENOMEM. What the options point at outlives the proxy. */
int proxy_init(struct proxy *proxy, const struct proxy_options *options);
void proxy_fini(struct proxy *proxy);
/* Closes idle upstream connections. */
void proxy_drain(struct proxy *proxy);
/* Counts one request of that session that has ended. */
void proxy_count_request(const struct session *session, struct request_series *series,
                         enum http_method method, int status);
/* The series of a listener and a route (NULL: none). */
struct request_series *proxy_series(const struct proxy *proxy,
                                    const struct config_listener *listener,
                                    const struct config_route *route);

/* For log_level = debug: how a client's session has ended, or a request or tunnel in it. */
void proxy_log_client(struct session *session, const char *what, enum reason reason);

#endif
