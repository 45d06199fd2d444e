/* conn_ends.h: whose connection it is: the ends of a client's connection, as the kernel or a PROXY
 * header (pp.h) knows them.
 */
#ifndef WEIR_NET_CONN_ENDS_H
#define WEIR_NET_CONN_ENDS_H

#include "base/reason.h"
#include "net/addr.h"
#include "net/conn.h"

/* Keeps a copy of what a PROXY header has told; false when all slots for that are in use. */
bool conn_set_ends(struct conn *conn, const struct addr_pair *ends);
/* Where an accepted connection comes from, and where its client connected to: as a PROXY header
 * told, else as the kernel knows (getpeername(2), getsockname(2)). false: it has forgotten. */
bool conn_source(const struct conn *conn, union addr *address);
bool conn_destination(const struct conn *conn, union addr *address);

/* For log_level = debug: an accepted connection gets no session, and why. */
void conn_log_refused(const struct conn *conn, enum reason reason);

#endif
