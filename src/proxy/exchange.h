/* exchange.h: one request and its answer, between a client stream and an upstream stream (or a
 * service's).
 *
 *   ROUTE --upstream--> CONNECT --stream--> SEND --final head--> RESPOND --both ended--> DONE
 *     |  \              ^  | ^              |                      |
 *     |   all at limit  |  | |              +--no server-----------|--(error answer)---> DONE
 *     |      \          |  | +--try again---+                      |
 *     |       +--> QUEUE <-+                +--101--(a tunnel)-----|-------------------> DONE
 *     |              |                                             |
 *     |              +--full, late--> RESPOND (error answer)       +--reset------------> DONE
 *     +--redirect, respond--> RESPOND
 *
 *   ROUTE    the request head has arrived; lasts for one call (exchange_on_request)
 *   QUEUE    every server is at its limit: waits for its turn; the body is held while it is small,
 *            otherwise the client is paused
 *            (exchange_join_queue -> exchange_on_turn, exchange_on_queue_timeout)
 *   CONNECT  waits for the pool: the body is held, the client paused
 *            (exchange_try -> exchange_on_stream)
 *   SEND     the request went out or is going out; no final head yet
 *            (exchange_on_stream -> exchange_on_answer)
 *   RESPOND  the final head went to the client; bodies still flow
 *            (exchange_on_answer -> exchange_check_end)
 *   DONE     both streams are closed (exchange_end), or belong to a tunnel (exchange_begin_tunnel);
 *            the slot is given back
 *
 * 1. `client` is open until exchange_end; `upstream` is open exactly in SEND, in RESPOND unless the
 * answer is the exchange's own or only the unwanted rest of the request is read.
 * 2. A server's in_flight counts this exchange from exchange_pick until the attempt ends; not in
 * QUEUE, where it has a place in the target's queue instead and no server.
 * 3. Body bytes are kept for another attempt while few (EXCHANGE_KEPT_MAX) and no final head has
 * come; what was not kept cannot be sent again.
 * 4. A tunnel follows a 101, and a 2xx to CONNECT. It counts as its exchange would, at its end.
 * 5. A client gets exactly one final head: `answered` is set with it.
 */
#ifndef WEIR_PROXY_EXCHANGE_H
#define WEIR_PROXY_EXCHANGE_H

#include "proxy/proxy.h"

/* For client sessions: their user is a struct front. */
extern const struct session_host exchange_client_host;

size_t exchange_size(void);
/* Of what is left of one that has become a tunnel. */
size_t exchange_tunnel_size(void);

#endif
