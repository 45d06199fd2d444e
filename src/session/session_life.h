/* session_life.h: what all protocols do alike with a session and its connection: it begins, takes
 * an accepted connection or dials one, gives it up, and its slot goes back. For the files of a
 * protocol only.
 *
 * A protocol's own struct begins with its struct session: the connection's user is both.
 */
#ifndef WEIR_SESSION_SESSION_LIFE_H
#define WEIR_SESSION_SESSION_LIFE_H

#include "session/session.h"

/* In a slot just acquired, with ops, options, host and room set and all else zero. */
void session_begin(struct session *session);
/* Client role: `conn` is the session's from now on. */
void session_attach(struct session *session, struct conn *conn, const struct conn_events *events);
/* Upstream role, with streams_max set: dials, with TLS if the options say so. REASON_NONE, or why
 * it cannot even begin: the session has no connection then. */
enum reason session_dial(struct session *session, const struct session_address *to,
                         const struct conn_events *events);
/* In on_lost of a connection that was being dialled, with its `error`: why. */
enum reason session_undialled_reason(struct session *session, int error);
/* Why an established connection was lost, with conn_events' `error`. */
enum reason session_lost_reason(const struct session *session, int error);

/* Give the connection up: what is queued is still sent, as long as the other side takes some of it
 * in its timeout (`linger`: of conn_finish); at once; with RST. */
void session_finish(struct session *session, bool linger);
void session_drop(struct session *session);
void session_reset(struct session *session);

/* The slot goes back to `slab`: the last that is done with a session. `task` is its own. */
void session_release(struct session *session, struct slab *slab, struct net_task *task);

#endif
