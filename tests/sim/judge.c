#include "sim/judge.h"

#include "sim/actors.h"
#include "sim/frames.h"

#include <string.h>

/* How often weir asks again what servers refuse. */
#define REFUSALS_MAX 2

static bool any_of(const char *word, const char *const *words) {
    for (; *words; words++) {
        if (strcmp(*words, word) == 0) return true;
    }
    return false;
}

/* Refused by servers without a look at it: so often that weir gives up, or when it has no copy of
 * the body any more, or there is no room elsewhere. What nghttp2 refuses or ignores by itself has
 * no number here. */
static bool was_refused(const struct plan *plan) {
    uint64_t times = requests[plan->id].refusals + world.refusals;
    bool once = plan->request_size != 0 || world.servers_limited;
    /* Nor after an interim answer. */
    if (plan->expects || plan->interims != 0) once = true;
    /* What a limit that falls keeps from being sent is refused by weir itself. */
    if (sim_has(FAULT_SERVER_LIMITS)) return true;
    return times > (once ? 0 : REFUSALS_MAX);
}

/* Its server may break TLS. */
static bool may_break_tls(const struct plan *plan) {
    bool tls = plan->tcp ? world.tls_raw_servers : world.tls_servers;
    return tls && !plan->local && sim_has(FAULT_SERVER_TLS);
}

static bool may_fail_by_tls(const char *reason) {
    static const char *const reasons[] = {"tls_bad_certificate", "tls_protocol",
                                          "tls_nothing_shared",  "tls_alert",
                                          "tls_plain_http",      "handshake_timeout",
                                          "server_timeout",      "server_closed",
                                          "server_reset",        NULL};
    return any_of(reason, reasons);
}

bool judge_may_fail(const struct plan *plan, const char *reason) {
    static const char *const of_server[] = {"server_closed", "server_reset", NULL};
    static const char *const of_queue[] = {"server_busy", "queue_full", "queue_timeout", NULL};
    /* Without memory everything may take until its timeout. */
    if (sim_has(FAULT_FEW_SLOTS)) return true;
    if (may_break_tls(plan) && may_fail_by_tls(reason)) return true;
    if (strcmp(reason, "drain_cut") == 0) return world.draining;
    if (strcmp(reason, "max_connections") == 0) return world.clients_limited;
    /* There are as many requests as clients. */
    if (strcmp(reason, "no_memory") == 0) return world.clients_limited && world.h2_clients;
    if (strcmp(reason, "grpc_deadline") == 0) return judge_is_past(plan);
    if (strcmp(reason, "no_descriptors") == 0) return sim_has(FAULT_SOCKET_SHORT);
    if (strcmp(reason, "connect_failed") == 0)
        return sim_has(FAULT_CONNECT_REFUSED) || sim_has(FAULT_SERVER_DEAD);
    if (strcmp(reason, "connect_timeout") == 0) {
        return sim_has(FAULT_CONNECT_HANGS) || sim_has(FAULT_SERVER_DEAD);
    }
    /* Who has no descriptor waits, too; and once more, in its old place, after a server hung. */
    if (any_of(reason, of_queue)) return world.servers_limited || sim_has(FAULT_SOCKET_SHORT);
    if (strcmp(reason, "server_timeout") == 0) {
        /* What was asked before its limit was known waits for those that take their time. */
        bool waits = world.h2_servers && sim_has(FAULT_SERVER_LIMITS);
        return plan->manner == MANNER_SILENT || waits;
    }
    if (strcmp(reason, "bad_response") == 0) {
        return plan->manner == MANNER_NONSENSE ||
               (plan->manner == MANNER_CLOSES && world.h2_servers);
    }
    /* What is no tunnel would look like one to a client of HTTP/2. */
    if (strcmp(reason, "upgrade_ignored") == 0)
        return plan->tunnel != TUNNEL_NONE && !plan->upgrade && plan->status == 200;
    if (strcmp(reason, "server_refused") == 0) return world.h2_servers && was_refused(plan);
    if (!any_of(reason, of_server)) return false;
    return plan->manner != MANNER_SERVES || sim_has(FAULT_SERVER_RESET) ||
           sim_has(FAULT_SERVER_IDLE_ENDS) || (world.h2_servers && sim_has(FAULT_SERVER_CUTS));
}

bool judge_is_past(const struct plan *plan) {
    uint64_t at_ns = requests[plan->id].asked_ns + plan->timeout_ms * SIM_MS;
    return plan->timeout_ms != 0 && sim.now_ns >= at_ns;
}

void judge_call_time(const struct plan *plan, uint64_t accepted_ns) {
    uint64_t from_ns = requests[plan->id].asked_ns;
    if (accepted_ns > from_ns) from_ns = accepted_ns;
    bool slow = sim_has(FAULT_SLOW_NETWORK) || sim_has(FAULT_FEW_SLOTS);
    uint64_t at_ns = from_ns + plan->timeout_ms * SIM_MS + world.timeout_ns / 2;
    if (plan->timeout_ms == 0 || slow || sim.now_ns <= at_ns) return;
    sim_fail(INVARIANT_TIME, "call %u is under way for %.1f s, it had %u ms", plan->id,
             (double)(sim.now_ns - from_ns) / 1e9, plan->timeout_ms);
}

bool judge_may_end_call(const struct plan *plan, const char *reason, int outcome) {
    static const char *const late[] = {"grpc_deadline", "server_timeout", "connect_timeout",
                                       "handshake_timeout", NULL};
    /* A server's RST_STREAM says more. */
    if (strcmp(reason, "server_reset") == 0 || sim_has(FAULT_FEW_SLOTS)) return outcome > 0;
    if (reason[0] != '\0') return outcome == (any_of(reason, late) ? 4 : 14);
    if (outcome == 4 && judge_is_past(plan)) return true;
    return (outcome == 4 || outcome == 14) && (judge_may_be_cut(plan) || world.draining);
}

/* Whether one end of a tunnel may go before its time. */
static bool may_lose_end(const struct plan *plan) {
    static const enum fault faults[] = {
        FAULT_CLIENT_RESET, FAULT_CLIENT_LEAVES, FAULT_CLIENT_STOPS, FAULT_CLIENT_BAD,
        FAULT_STREAM_STOPS, FAULT_STREAM_RESETS, FAULT_CLIENT_TLS,   FAULT_FEW_SLOTS};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        if (sim_has(faults[i])) return true;
    }
    return judge_may_be_cut(plan);
}

bool judge_may_close(uint32_t id, enum side side, uint32_t code) {
    struct plan plan = plan_of(id);
    enum side own = side == SIDE_ANSWER ? SIDE_REQUEST : SIDE_ANSWER;
    if (code == 1001) return world.draining || plan.breaks || may_lose_end(&plan);
    if (code == 1011) return sim_has(FAULT_FEW_SLOTS);
    return plan.breaks && frames_plan(id, own)->code == code;
}

bool judge_may_be_cut(const struct plan *plan) {
    if (judge_is_bad(plan->manner) || plan->breaks || may_break_tls(plan)) return true;
    bool cuts = world.h2_servers && sim_has(FAULT_SERVER_CUTS);
    return !plan->local && (sim_has(FAULT_SERVER_RESET) || cuts);
}
