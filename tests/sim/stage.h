/* stage.h: one run: a configuration, a worker with all that control gives it, clients, servers, the
 * drain and the end. */
#ifndef WEIR_TESTS_SIM_STAGE_H
#define WEIR_TESTS_SIM_STAGE_H

#include "sim/sim.h"

struct stage_result {
    uint64_t hash; /* of everything that has happened */
    uint64_t turns;
    uint64_t answers;
    uint64_t errors;
    uint64_t unanswered;
    uint64_t notes;
    double virtual_seconds;
};

/* Returns when the run has ended well; sim_fail or a CHECK ends the process else. */
struct stage_result stage_run(const struct sim_options *options);

#endif
