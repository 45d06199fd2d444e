/* death.h: does a function end in abort(3)? It runs in a child whose stderr goes to a pipe. */
#ifndef WEIR_TESTS_UNIT_BASE_DEATH_H
#define WEIR_TESTS_UNIT_BASE_DEATH_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the child wrote on stderr, cut to size and ended with a NUL, goes to `said` unless that is
 * NULL. */
static inline bool death_by_abort(void (*run)(void), char *said, size_t size) {
    int pipe_ends[2];
    if (pipe(pipe_ends) != 0) return false;
    pid_t child = fork();
    if (child == 0) {
        struct rlimit no_core = {0};
        (void)setrlimit(RLIMIT_CORE, &no_core);
        (void)signal(SIGABRT, SIG_DFL);
        (void)dup2(pipe_ends[1], STDERR_FILENO);
        run();
        _exit(0);
    }
    close(pipe_ends[1]);
    size_t len = 0;
    char piece[4096];
    ssize_t got;
    while ((got = read(pipe_ends[0], piece, sizeof piece)) > 0) {
        for (ssize_t i = 0; said && i < got && len + 1 < size; i++)
            said[len++] = piece[i];
    }
    if (said) said[len] = '\0';
    close(pipe_ends[0]);
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
           WTERMSIG(status) == SIGABRT;
}

#endif
