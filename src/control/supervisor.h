/* supervisor.h: the process around the workers: limits, sockets, threads, signals, drain.
 *
 * Runs on the main thread, which is never on the data path.
 */
#ifndef WEIR_CONTROL_SUPERVISOR_H
#define WEIR_CONTROL_SUPERVISOR_H

#include "config/config.h"

/* Exit statuses of sysexits(3) where one fits. */
#define SUPERVISOR_EXIT_FAILED 1
#define SUPERVISOR_EXIT_NO_RING 78

/* Starts everything and returns when a signal has ended it: the exit status. */
int supervisor_run(const struct config *config);

/* Why an address cannot be listened on (-errno), and what can be done: a clause. */
void supervisor_explain_bind(const struct config_address *address, int error, char *text,
                             size_t size);

#endif
