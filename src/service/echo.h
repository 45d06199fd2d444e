/* echo.h: a service that gives every byte back, for listeners with mode = tcp.
 *
 * What it receives is not copied: it holds a reference to the lease until the client's side has
 * taken the bytes again. A client that does not read stops being read. After its FIN it gets the
 * rest, then FIN.
 */
#ifndef WEIR_SERVICE_ECHO_H
#define WEIR_SERVICE_ECHO_H

#include "base/slab.h"
#include "service/service.h"

/* The slots of all echo services of a worker: for at most `streams_max` connections at once. 0 or
 * -ENOMEM. Ended by slab_fini. */
int echo_room_init(struct slab *streams, struct net *net, uint32_t streams_max);
/* `streams` outlives it. NULL when memory is used up. Freed by echo_free (NULL is fine), once no
 * stream of it is open. */
struct service *echo_new(struct slab *streams);
void echo_free(struct service *service);

#endif
