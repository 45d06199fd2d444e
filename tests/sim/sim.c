#include "sim/sim.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/rand.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How often a fault of a run happens, at the places where it can: one of these, drawn once. */
static const uint32_t fault_rates[] = {1000, 10000, 50000, 200000};
/* A run has a fault with this chance. */
#define FAULT_CHANCE_IN_100 30
/* One run of so many has no fault at all: there every request must be answered. */
#define CALM_ONE_IN 8
/* What a run does before its defect is made. */
#define DEFECT_AFTER 3

struct sim_event {
    uint64_t at_ns;
    uint64_t tie;
    sim_action *action; /* NULL: cancelled */
    void *owner;
    uint64_t argument;
    struct sim_event **slot;
};

struct sim sim;

static struct rand_state random_state;
static struct sim_event **heap;
static size_t heap_count, heap_capacity;
static uint64_t last_tie;
static uint32_t defect_chances;

static const char *const fault_words[] = {
#define FAULT(name, word, text) word,
#include "sim/faults.def"
};
static const char *const fault_texts[] = {
#define FAULT(name, word, text) text,
#include "sim/faults.def"
};
static const char *const defect_words[] = {
    "none",
#define DEFECT(name, word, invariant, kind) word,
#include "sim/defects.def"
};
static const enum invariant defect_invariants[] = {
    INVARIANT_CRASH,
#define DEFECT(name, word, invariant, kind) INVARIANT_##invariant,
#include "sim/defects.def"
};
static const enum sim_kind defect_kinds[] = {
    SIM_KIND_ANY,
#define DEFECT(name, word, invariant, kind) SIM_KIND_##kind,
#include "sim/defects.def"
};
static const char *const invariant_words[] = {
#define INVARIANT(name, word, text) word,
#include "sim/invariants.def"
};
static const char *const invariant_texts[] = {
#define INVARIANT(name, word, text) text,
#include "sim/invariants.def"
};

const char *sim_fault_word(enum fault fault) { return fault_words[fault]; }
const char *sim_fault_text(enum fault fault) { return fault_texts[fault]; }
const char *sim_defect_word(enum defect defect) { return defect_words[defect]; }
enum invariant sim_defect_invariant(enum defect defect) { return defect_invariants[defect]; }
enum sim_kind sim_defect_kind(enum defect defect) { return defect_kinds[defect]; }
const char *sim_invariant_word(enum invariant invariant) { return invariant_words[invariant]; }

/* src/ seeds its generators with addresses and the time; here everything comes from the seed. */
void __wrap_rand_seed(struct rand_state *state, uint64_t seed);
void __real_rand_seed(struct rand_state *state, uint64_t seed);
void __wrap_rand_seed(struct rand_state *state, uint64_t seed) {
    (void)seed;
    __real_rand_seed(state, rand_next(&random_state));
}

void sim_seed(struct rand_state *state, uint64_t seed) { __real_rand_seed(state, seed); }

void sim_init(const struct sim_options *options) {
    sim = (struct sim){.options = *options, .now_ns = 1000 * SIM_SECOND};
    sim_seed(&random_state, options->seed * 2 + 1);
    defect_chances = 0;
    last_tie = 0;
    bool calm = sim_one_in(CALM_ONE_IN);
    for (int i = 0; i < FAULT_COUNT; i++) {
        bool chosen = sim_below(100) < FAULT_CHANCE_IN_100;
        uint32_t rate = fault_rates[sim_below(sizeof fault_rates / sizeof *fault_rates)];
        /* Drawn in any case: a run without one fault is otherwise the same run. */
        if (chosen && !calm && !options->without[i]) sim.rates[i] = rate;
        if (sim.rates[i] != 0 && options->verbose)
            printf("faults: %s, %u in a million\n", fault_words[i], rate);
    }
}

void sim_fini(void) {
    for (size_t i = 0; i < heap_count; i++)
        free(heap[i]);
    free(heap);
    heap = NULL;
    heap_count = heap_capacity = 0;
}

uint64_t sim_below(uint64_t bound) {
    CHECK(bound > 0);
    return rand_next(&random_state) % bound;
}

uint64_t sim_between(uint64_t from, uint64_t to) { return from + sim_below(to - from + 1); }

uint64_t sim_skewed(uint64_t most) {
    uint64_t bound = most;
    for (uint64_t shift = sim_below(20); shift != 0 && bound > 1; shift--)
        bound = (bound + 1) / 2;
    return sim_below(bound + 1);
}

bool sim_fault(enum fault fault) {
    return sim.rates[fault] != 0 && sim_below(1000000) < sim.rates[fault];
}

bool sim_defect(enum defect defect) {
    if (sim.options.defect != defect || ++defect_chances < DEFECT_AFTER) return false;
    sim.defects++;
    return true;
}

static bool event_before(const struct sim_event *a, const struct sim_event *b) {
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->tie < b->tie;
}

static void heap_swap(size_t a, size_t b) {
    struct sim_event *event = heap[a];
    heap[a] = heap[b];
    heap[b] = event;
}

static void heap_push(struct sim_event *event) {
    if (heap_count == heap_capacity) {
        heap_capacity = heap_capacity ? heap_capacity * 2 : 1024;
        heap = realloc(heap, heap_capacity * sizeof(struct sim_event *));
        CHECK(heap);
    }
    size_t at = heap_count++;
    heap[at] = event;
    for (; at != 0 && event_before(heap[at], heap[(at - 1) / 2]); at = (at - 1) / 2)
        heap_swap(at, (at - 1) / 2);
}

static struct sim_event *heap_pop(void) {
    struct sim_event *first = heap[0];
    heap[0] = heap[--heap_count];
    for (size_t at = 0;;) {
        size_t least = at;
        for (size_t child = at * 2 + 1; child <= at * 2 + 2 && child < heap_count; child++) {
            if (event_before(heap[child], heap[least])) least = child;
        }
        if (least == at) return first;
        heap_swap(at, least);
        at = least;
    }
}

struct sim_event *sim_event(uint64_t at_ns, sim_action *action, void *owner,
                            struct sim_event **slot) {
    struct sim_event *event = malloc(sizeof *event);
    CHECK(event);
    /* Ties are broken by chance, but never the same way for two. */
    uint64_t tie = (rand_next(&random_state) & ~0xffffffffull) | (++last_tie & 0xffffffff);
    *event =
        (struct sim_event){at_ns > sim.now_ns ? at_ns : sim.now_ns, tie, action, owner, 0, slot};
    if (slot) {
        CHECK(!*slot);
        *slot = event;
    }
    heap_push(event);
    return event;
}

void sim_event_argument(struct sim_event *event, uint64_t argument) { event->argument = argument; }

void sim_at(uint64_t at_ns, sim_action *action, void *owner, uint64_t argument) {
    sim_event(at_ns, action, owner, NULL)->argument = argument;
}

void sim_cancel(struct sim_event **slot) {
    if (!*slot) return;
    (*slot)->action = NULL;
    (*slot)->slot = NULL;
    *slot = NULL;
}

static void drop_cancelled(void) {
    while (heap_count != 0 && !heap[0]->action)
        free(heap_pop());
}

uint64_t sim_next_ns(void) {
    drop_cancelled();
    return heap_count == 0 ? UINT64_MAX : heap[0]->at_ns;
}

void sim_run_due(void) {
    while (sim_next_ns() <= sim.now_ns) {
        struct sim_event *event = heap_pop();
        if (event->slot) *event->slot = NULL;
        sim_action *action = event->action;
        void *owner = event->owner;
        uint64_t argument = event->argument;
        free(event);
        action(owner, argument);
    }
}

void sim_note(const char *what, int64_t a, int64_t b, int64_t c) {
    uint64_t words[5] = {sim.now_ns, hash_bytes(bytes_of(what), 0), (uint64_t)a, (uint64_t)b,
                         (uint64_t)c};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        sim.hash = hash_u64(sim.hash ^ words[i]);
    sim.notes++;
    if (!sim.options.verbose) return;
    printf("%10.3f ms  %-24s %8lld %8lld %8lld\n", (double)(sim.now_ns - 1000 * SIM_SECOND) / 1e6,
           what, (long long)a, (long long)b, (long long)c);
}

void sim_fail(enum invariant invariant, const char *format, ...) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fflush(stdout);
    fprintf(stderr, "sim: seed %llu at %.3f ms: %s: %s\nsim: what must hold: %s\n",
            (unsigned long long)sim.options.seed, (double)(sim.now_ns - 1000 * SIM_SECOND) / 1e6,
            invariant_words[invariant], text, invariant_texts[invariant]);
    fflush(stderr);
    _exit(16 + (int)invariant);
}
