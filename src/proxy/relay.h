/* relay.h: one TCP connection from a client to a server (or a service), for listeners with
 * mode = tcp.
 *
 *   HELLO --the name has come, or none will--> CHOOSE
 *     +--late, the client has reset-----------------------------------------> DONE
 *
 *   CHOOSE --dial--> CONNECT --stream--> TUNNEL --both ended, reset, idle--> DONE
 *     |              ^ |  ^ |
 *     |              | |  +-+ the connect failed: the next server
 *     |              | +--no server is left, the client has reset---------> DONE
 *     |          turn| |the next server is at its limit
 *     |              | v
 *     +--all at----> QUEUE --full, late, the client has reset-------------> DONE
 *     |  their limit
 *     +--a service's stream--> TUNNEL
 *     +--no server may be taken, no route matches--------------------------> DONE
 *
 *   HELLO    looks at what the client sends, until it names the host it means: where there are
 *            routes by sni                                            (relay_on_held)
 *   CHOOSE   a client has connected; lasts for one call               (relay_choose)
 *   QUEUE    waits for its turn; holds what the client sends as CONNECT does
 *                                                            (relay_join_queue -> relay_on_turn)
 *   CONNECT  waits for the pool; what the client sends meanwhile is held by its session, bounded by
 *            one receive buffer                                       (relay_try)
 *   TUNNEL   both streams belong to the tunnel                        (relay_serve)
 *   DONE     both streams are closed, the slot is given back          (relay_end)
 *
 * 1. `client` is open until relay_end; `upstream` is open exactly in TUNNEL.
 * 2. A server's in_flight counts this connection from relay_try until the attempt ends.
 * 3. Every end has one reason, counted in relay_end. One that is not NONE resets both sides: for
 * whoever was still reading nothing looks complete.
 * 4. Every relay has a server connection of its own, dialled for it and ended with it.
 */
#ifndef WEIR_PROXY_RELAY_H
#define WEIR_PROXY_RELAY_H

#include "proxy/proxy.h"

/* For client sessions: their user is a struct front. */
extern const struct session_host relay_client_host;

size_t relay_size(void);

#endif
