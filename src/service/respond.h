/* respond.h: a service that gives every request the same answer, set in the configuration. */
#ifndef WEIR_SERVICE_RESPOND_H
#define WEIR_SERVICE_RESPOND_H

#include "config/config.h"
#include "service/service.h"

/* NULL when memory is used up. `config` outlives the service. Freed by respond_free (NULL is fine),
 * once no stream of it is open. */
struct service *respond_new(const struct config_service *config);
void respond_free(struct service *service);

#endif
