/* judge.h: what may go wrong in a run, and so excuses an answer that is not the planned one. */
#ifndef WEIR_TESTS_SIM_JUDGE_H
#define WEIR_TESTS_SIM_JUDGE_H

#include "sim/plan.h"

/* What a server does is no whole answer. */
static inline bool judge_is_bad(enum manner manner) { return manner >= MANNER_SILENT; }
/* Whether weir may give its own error with this reason (base/reason.def). */
bool judge_may_fail(const struct plan *plan, const char *reason);
/* Whether weir may send a Close with this code to who reads `side` of a tunnel's frames. */
bool judge_may_close(uint32_t id, enum side side, uint32_t code);
/* Of a call, when it ends: whether weir may give the outcome it gives for this reason, ""; behind
 * the planned head there is none. */
bool judge_may_end_call(const struct plan *plan, const char *reason, int outcome);
/* Whether the call's time has passed. */
bool judge_is_past(const struct plan *plan);
/* Ends the run when it has passed for so long that its end should have come, to a client that has
 * been accepted at `accepted_ns` and reads. */
void judge_call_time(const struct plan *plan, uint64_t accepted_ns);
/* Whether an answer may be cut, by the fault of its server or of the way there. */
bool judge_may_be_cut(const struct plan *plan);

#endif
