/* hash.h: a stable 64-bit hash of bytes.
 *
 * It is the same on every run and machine: maglev and source_ip rely on that. It spreads well and
 * is fast; it does not resist somebody who chooses keys to collide. Changing a single result moves
 * clients to other servers on upgrade: hash_test pins some of them.
 */
#ifndef WEIR_BASE_HASH_H
#define WEIR_BASE_HASH_H

#include "base/bytes.h"

uint64_t hash_bytes(struct bytes b, uint64_t seed);
/* A finaliser: every input bit reaches every output bit. A bijection, and 0 gives 0. */
uint64_t hash_u64(uint64_t value);

#endif
