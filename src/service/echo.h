/* echo.h: a service that gives every byte back, for listeners with mode = tcp.
 *
 * What it receives is not copied: it holds a reference to the lease until the client's side has
 * taken the bytes again. A client that does not read stops being read. After its FIN it gets the
 * rest, then FIN.
 */
#ifndef WEIR_SERVICE_ECHO_H
#define WEIR_SERVICE_ECHO_H

#include "service/service.h"

/* For at most `streams_max` connections at once. NULL when memory is used up. Freed by echo_free
 * (NULL is fine), once no stream of it is open. */
struct service *echo_new(uint32_t streams_max);
void echo_free(struct service *service);

#endif
