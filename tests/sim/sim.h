/* sim.h: a simulated run: its seed, its clock, what is to happen when, and what has happened.
 *
 * One run at a time, in one thread. Everything that is left to chance is drawn from the seed, and
 * time is a number that moves from event to event, so a seed gives the same run every time: the
 * trace's hash proves it. A run that breaks an invariant ends the process (sim_fail).
 */
#ifndef WEIR_TESTS_SIM_SIM_H
#define WEIR_TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_MS 1000000ull
#define SIM_SECOND 1000000000ull

/* What the kernel, the network and the actors may do to weir; a run has some of them. */
enum fault {
#define FAULT(name, word, text) FAULT_##name,
#include "sim/faults.def"
    FAULT_COUNT
};

/* Mistakes made on purpose, to prove that the invariants see them. */
enum defect {
    DEFECT_NONE,
#define DEFECT(name, word, invariant, kind) DEFECT_##name,
#include "sim/defects.def"
    DEFECT_COUNT
};

/* What must hold: the first word of a failure. */
enum invariant {
#define INVARIANT(name, word, text) INVARIANT_##name,
#include "sim/invariants.def"
    INVARIANT_COUNT
};

/* Who speaks HTTP/2. */
enum sim_kind { SIM_KIND_ANY, SIM_KIND_H1, SIM_KIND_H2_CLIENTS, SIM_KIND_H2_SERVERS, SIM_KIND_H2 };

/* Whether TLS is spoken, on some side or other. */
enum sim_tls { SIM_TLS_ANY, SIM_TLS_ON, SIM_TLS_OFF };

struct sim_options {
    uint64_t seed;
    bool verbose;              /* the trace on stdout */
    bool without[FAULT_COUNT]; /* faults that do not happen */
    enum defect defect;
    enum sim_kind kind;
    enum sim_tls tls;
};

struct sim {
    /* Fixed after init. */
    struct sim_options options;
    uint32_t rates[FAULT_COUNT]; /* in a million; 0: not in this run */
    /* Changes in routine work. */
    uint64_t now_ns;
    uint64_t hash; /* of the trace so far */
    uint64_t notes;
    uint64_t defects; /* times the defect has been done */
};
extern struct sim sim;

void sim_init(const struct sim_options *options);
/* Frees what the run still has of events. */
void sim_fini(void);

/* A generator of one's own, from a seed. */
struct rand_state;
void sim_seed(struct rand_state *state, uint64_t seed);
/* Uniform in [0, bound). */
uint64_t sim_below(uint64_t bound);
/* Uniform in [from, to]. */
uint64_t sim_between(uint64_t from, uint64_t to);
/* True once in `bound`. */
static inline bool sim_one_in(uint64_t bound) { return sim_below(bound) == 0; }
/* Mostly small, sometimes up to `most`. */
uint64_t sim_skewed(uint64_t most);
/* Whether the fault happens here. */
bool sim_fault(enum fault fault);
static inline bool sim_has(enum fault fault) { return sim.rates[fault] != 0; }
/* Whether the mistake is to be made here; the first times it is not, so that a run has begun. */
bool sim_defect(enum defect defect);

/* An event happens once, at a time. */
struct sim_event;
typedef void sim_action(void *owner, uint64_t argument);
/* `slot` (may be NULL) is set to the event and, when it has happened, to NULL. */
void sim_at(uint64_t at_ns, sim_action *action, void *owner, uint64_t argument);
struct sim_event *sim_event(uint64_t at_ns, sim_action *action, void *owner,
                            struct sim_event **slot);
void sim_event_argument(struct sim_event *event, uint64_t argument);
/* Harmless for an empty slot. */
void sim_cancel(struct sim_event **slot);
/* Runs what is due, in the order of its time, what is due at one time in any order. */
void sim_run_due(void);
/* UINT64_MAX: nothing will happen. */
uint64_t sim_next_ns(void);

/* One line of the trace. */
void sim_note(const char *what, int64_t a, int64_t b, int64_t c);
/* Ends the process: exit status 2, the invariant and what was seen on stderr. */
_Noreturn void sim_fail(enum invariant invariant, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

const char *sim_fault_word(enum fault fault);
const char *sim_fault_text(enum fault fault);
const char *sim_defect_word(enum defect defect);
enum invariant sim_defect_invariant(enum defect defect);
/* The kind of run in which it is made; any: HTTP/1 and TLS. */
enum sim_kind sim_defect_kind(enum defect defect);
const char *sim_invariant_word(enum invariant invariant);

#endif
