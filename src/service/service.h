/* service.h: origins that live inside the proxy, behind one vtable.
 *
 * A service gives streams, as an upstream session does: the exchange writes the request into them
 * and gets the response as events; a relay carries bytes to and from them. Events are never sent
 * from inside a call: a service defers them (net_defer).
 */
#ifndef WEIR_SERVICE_SERVICE_H
#define WEIR_SERVICE_SERVICE_H

#include "session/stream.h"

struct net;
struct service;

struct service_ops {
    const char *type; /* as in the configuration: "respond" */
    /* A stream for one request whose received message is built in `arena`, or for one tunnel
     * (`arena` NULL: nothing is built); NULL when the service is at its limit. */
    struct stream *(*open)(struct service *service, struct net *net, struct arena *arena);
};

/* Embedded in each service's own struct. */
struct service {
    const struct service_ops *ops;
};

#endif
