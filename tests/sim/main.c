/* main.c: runs seeds, in processes of their own, and reports the ones that fail. */
#include "sim/stage.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define JOBS_MAX 64
#define FAILURES_MAX 5 /* then it ends */
/* A run that takes more of a processor hangs: a run takes some milliseconds. */
#define RUN_SECONDS_MAX 60
/* Of so many runs one is done twice, and must be the same. */
#define REPEAT_ONE_IN 8
/* A defect must be seen in one of so many seeds. */
#define DEFECT_SEEDS 200

struct totals {
    uint64_t runs;
    uint64_t repeated;
    uint64_t answers;
    uint64_t errors;
    uint64_t unanswered;
    uint64_t turns;
    double virtual_seconds;
};

/* What a job tells its parent, in shared memory. */
struct job {
    pid_t pid; /* 0: has ended */
    uint64_t seed;
    struct totals totals;
};

struct command {
    uint64_t first, count;
    uint32_t jobs;
    bool one; /* --seed */
    bool self_test;
    struct sim_options options;
    char without[512]; /* as given, for the command to run again */
};

static const char usage[] =
    "usage: sim [--seeds N] [--first SEED] [--jobs N] [--without FAULT]... [--kind KIND]\n"
    "           [--tls on|off]\n"
    "       sim --seed SEED [--trace] [--without FAULT]... [--defect DEFECT] [--kind KIND]\n"
    "           [--tls on|off]\n"
    "       sim --self-test\n"
    "       sim --faults\n"
    "KIND: h1, h2-clients, h2-servers, h2; without it, and whether there is TLS, the seed says\n";

static _Noreturn void print_faults(void) {
    for (int i = 0; i < FAULT_COUNT; i++)
        printf("%-18s %s\n", sim_fault_word((enum fault)i), sim_fault_text((enum fault)i));
    exit(0);
}

static _Noreturn void bad_usage(const char *what) {
    fprintf(stderr, "sim: %s\n%s", what, usage);
    exit(64);
}

static void add_without(struct command *command, const char *word) {
    for (int i = 0; i < FAULT_COUNT; i++) {
        if (strcmp(sim_fault_word((enum fault)i), word) != 0) continue;
        command->options.without[i] = true;
        size_t len = strlen(command->without);
        snprintf(command->without + len, sizeof command->without - len, " --without %s", word);
        return;
    }
    bad_usage("no such fault; --faults lists them");
}

static void set_defect(struct command *command, const char *word) {
    for (int i = 0; i < DEFECT_COUNT; i++) {
        if (strcmp(sim_defect_word((enum defect)i), word) == 0)
            command->options.defect = (enum defect)i;
    }
    if (command->options.defect == DEFECT_NONE) bad_usage("no such defect; see defects.def");
}

static void set_kind(struct command *command, const char *word) {
    static const char *const kinds[] = {"any", "h1", "h2-clients", "h2-servers", "h2"};
    for (int i = SIM_KIND_H1; i <= SIM_KIND_H2; i++) {
        if (strcmp(kinds[i], word) == 0) command->options.kind = (enum sim_kind)i;
    }
    if (command->options.kind == SIM_KIND_ANY) bad_usage("no such kind");
    size_t len = strlen(command->without);
    snprintf(command->without + len, sizeof command->without - len, " --kind %s", word);
}

static void set_tls(struct command *command, const char *word) {
    bool on = strcmp(word, "on") == 0;
    if (!on && strcmp(word, "off") != 0) bad_usage("--tls is on or off");
    command->options.tls = on ? SIM_TLS_ON : SIM_TLS_OFF;
    size_t len = strlen(command->without);
    snprintf(command->without + len, sizeof command->without - len, " --tls %s", word);
}

static struct command parse(int argc, char **argv) {
    static const struct option options[] = {
        {"seeds", required_argument, NULL, 'n'},  {"first", required_argument, NULL, 'f'},
        {"seed", required_argument, NULL, 's'},   {"jobs", required_argument, NULL, 'j'},
        {"trace", no_argument, NULL, 't'},        {"without", required_argument, NULL, 'w'},
        {"defect", required_argument, NULL, 'd'}, {"self-test", no_argument, NULL, 'T'},
        {"faults", no_argument, NULL, 'F'},       {"kind", required_argument, NULL, 'k'},
        {"tls", required_argument, NULL, 'S'},    {0}};
    struct command command = {.first = 1, .count = 500, .jobs = 2};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'n') command.count = strtoull(optarg, NULL, 10);
        if (c == 'k') set_kind(&command, optarg);
        if (c == 'f') command.first = strtoull(optarg, NULL, 10);
        if (c == 'j') command.jobs = (uint32_t)strtoul(optarg, NULL, 10);
        if (c == 't') command.options.verbose = true;
        if (c == 'w') add_without(&command, optarg);
        if (c == 'd') set_defect(&command, optarg);
        if (c == 'S') set_tls(&command, optarg);
        if (c == 'T') command.self_test = true;
        if (c == 'F') print_faults();
        if (c == '?') bad_usage("what is that?");
        if (c != 's') continue;
        command.one = true;
        command.options.seed = strtoull(optarg, NULL, 10);
    }
    if (command.jobs == 0 || command.jobs > JOBS_MAX) bad_usage("--jobs is 1 to 64");
    return command;
}

static void print_result(const struct sim_options *options, const struct stage_result *result) {
    printf("seed %llu: ok: %llu answers, %llu errors, %llu without; %llu turns in %.1f s; "
           "trace %016llx (%llu lines)\n",
           (unsigned long long)options->seed, (unsigned long long)result->answers,
           (unsigned long long)result->errors, (unsigned long long)result->unanswered,
           (unsigned long long)result->turns, result->virtual_seconds,
           (unsigned long long)result->hash, (unsigned long long)result->notes);
}

/* Not in real time: the machine may be busy with other things. */
static void limit_run(void) {
    const struct itimerval limit = {.it_value.tv_sec = RUN_SECONDS_MAX};
    setitimer(ITIMER_PROF, &limit, NULL);
}

static void run_seed(const struct sim_options *options, struct totals *totals) {
    limit_run();
    struct stage_result result = stage_run(options);
    totals->runs++;
    totals->answers += result.answers;
    totals->errors += result.errors;
    totals->unanswered += result.unanswered;
    totals->turns += result.turns;
    totals->virtual_seconds += result.virtual_seconds;
    if (options->seed % REPEAT_ONE_IN != 0) return;
    struct stage_result again = stage_run(options);
    totals->repeated++;
    if (again.hash == result.hash && again.notes == result.notes) return;
    fprintf(stderr, "sim: seed %llu gives two different runs\n", (unsigned long long)options->seed);
    exit(3);
}

/* The child's part: its share of the seeds. */
static _Noreturn void run_job(const struct command *command, struct job *job) {
    struct sim_options options = command->options;
    for (; job->seed < command->first + command->count; job->seed += command->jobs) {
        options.seed = job->seed;
        run_seed(&options, &job->totals);
    }
    exit(0);
}

static void start_job(const struct command *command, struct job *job) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        perror("sim: fork");
        exit(71);
    }
    if (pid == 0) run_job(command, job);
    job->pid = pid; /* shared memory: only the parent writes it */
}

static void report(const struct command *command, const struct job *job, int status) {
    const char *how = WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "";
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF) how = "it hangs";
    fprintf(stderr, "sim: FAILED seed %llu%s%s\nsim: again: make sim SEED=%llu V=1%s%s%s\n",
            (unsigned long long)job->seed, *how ? ": " : "", how, (unsigned long long)job->seed,
            command->without[0] ? " SIM=\"" : "", command->without,
            command->without[0] ? "\"" : "");
}

static struct totals add_up(const struct job *jobs, uint32_t count) {
    struct totals sum = {0};
    for (uint32_t i = 0; i < count; i++) {
        const struct totals *part = &jobs[i].totals;
        sum.runs += part->runs;
        sum.repeated += part->repeated;
        sum.answers += part->answers;
        sum.errors += part->errors;
        sum.unanswered += part->unanswered;
        sum.turns += part->turns;
        sum.virtual_seconds += part->virtual_seconds;
    }
    return sum;
}

static int run_seeds(const struct command *command) {
    size_t size = JOBS_MAX * sizeof(struct job);
    struct job *jobs = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (jobs == MAP_FAILED) return 71;
    uint32_t running = 0, failures = 0;
    for (uint32_t i = 0; i < command->jobs; i++, running++) {
        jobs[i].seed = command->first + i;
        start_job(command, &jobs[i]);
    }
    while (running != 0) {
        int status;
        pid_t pid = wait(&status);
        if (pid < 0 && errno != EINTR) break;
        uint32_t i = 0;
        while (i < command->jobs && jobs[i].pid != pid)
            i++;
        if (i == command->jobs) continue;
        jobs[i].pid = 0;
        running--;
        if (status == 0) continue;
        report(command, &jobs[i], status);
        /* The others go on, so that one run shows more than one find. */
        jobs[i].seed += command->jobs;
        if (++failures >= FAILURES_MAX) continue;
        start_job(command, &jobs[i]);
        running++;
    }
    struct totals sum = add_up(jobs, command->jobs);
    printf("sim: %llu seeds passed, %u failed (%llu repeated; %llu answers, %llu errors and %llu "
           "requests without, all with a reason; %.1f million turns, %.0f simulated seconds)\n",
           (unsigned long long)sum.runs, failures, (unsigned long long)sum.repeated,
           (unsigned long long)sum.answers, (unsigned long long)sum.errors,
           (unsigned long long)sum.unanswered, (double)sum.turns / 1e6, sum.virtual_seconds);
    munmap(jobs, size);
    return failures == 0 && sum.runs == command->count ? 0 : 1;
}

/* The exit status of one run with a defect, in a process of its own that says nothing. */
static int run_defect(const struct command *command, enum defect defect, uint64_t seed) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) return -1;
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr)) exit(71);
        struct sim_options options = command->options;
        options.seed = seed;
        options.defect = defect;
        options.kind = sim_defect_kind(defect);
        options.tls = options.kind == SIM_KIND_ANY ? SIM_TLS_ON : SIM_TLS_OFF;
        if (options.kind == SIM_KIND_ANY) options.kind = SIM_KIND_H1;
        limit_run();
        stage_run(&options);
        _exit(0);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) < 16 && WEXITSTATUS(status) != 0)
        return 16 + INVARIANT_CRASH;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 16 + INVARIANT_CRASH;
}

static int self_test(const struct command *command) {
    uint32_t failed = 0;
    for (int i = DEFECT_NONE + 1; i < DEFECT_COUNT; i++) {
        enum defect defect = (enum defect)i;
        enum invariant wanted = sim_defect_invariant(defect);
        uint64_t seed = command->first;
        int status = 0;
        while (status == 0 && seed < command->first + DEFECT_SEEDS)
            status = run_defect(command, defect, seed++);
        bool ok = status == 16 + (int)wanted;
        printf("%s %s: %s", ok ? "ok" : "failed", sim_defect_word(defect),
               sim_invariant_word(wanted));
        if (status == 0) printf(" has not seen it");
        if (!ok && status != 0) printf(", but seen was %d", status - 16);
        printf(" (seed %llu)\n", (unsigned long long)seed - 1);
        failed += !ok;
    }
    return failed == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    struct command command = parse(argc, argv);
    /* weir's main thread does the same before a worker runs. */
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    if (command.self_test) return self_test(&command);
    if (!command.one) return run_seeds(&command);
    struct stage_result result = stage_run(&command.options);
    print_result(&command.options, &result);
    return 0;
}
