/* metrics.h: everything weir measures, as one page in the Prometheus text format 0.0.4.
 *
 * All names, types and labels are listed in etc/METRICS.md. The work grows with the configuration
 * (listeners, routes, servers, workers), never with the connections.
 */
#ifndef WEIR_CONTROL_METRICS_H
#define WEIR_CONTROL_METRICS_H

#include "control/admin.h"
#include "control/page.h"

/* Appends. Reads what all workers count with relaxed loads: each number is whole, but they are not
 * all of one instant. Tell from page->failed whether the page is complete. */
void metrics_write(struct page *page, const struct admin *admin);

#endif
