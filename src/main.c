/* main.c: the command line (etc/README.md), then the word's own program, or serving. */
#include "control/command.h"
#include "control/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int main_usage(FILE *to, int status) {
    fputs(
        "usage: weir [-c FILE]                       serve, in the foreground\n"
        "       weir [-c FILE] check                 print every error of the configuration\n"
        "       weir [-c FILE] explain METHOD URL [-H 'Name: value']... [--listener NAME]\n"
        "                                         [--client ADDRESS]\n"
        "                                            print where a request would go\n"
        "       weir [-c FILE] doctor                check kernel, limits, sysctls and addresses\n"
        "       weir version\n",
        to);
    return status;
}

/* A socket would get the number of a standard file that was closed, and lines of the log go to who
 * is connected to it. false: there is nothing to put there instead. */
static bool main_open_standard_files(void) {
    for (int number = STDIN_FILENO; number <= STDERR_FILENO; number++) {
        if (fcntl(number, F_GETFD) >= 0 || errno != EBADF) continue;
        /* open(2): the lowest number that is free, and that is this one. */
        if (open("/dev/null", O_RDWR) != number) return false;
    }
    return true;
}

static int main_serve(const char *file) {
    struct config *config = command_load(file);
    if (!config) return 1;
    int status = supervisor_run(config);
    if (status == 0) config_free(config);
    return status;
}

static int main_wrong(const char *what, const char *argument) {
    (void)fprintf(stderr, "weir: %s: %s\n", what, argument);
    return main_usage(stderr, 2);
}

int main(int argc, char **argv) {
    if (!main_open_standard_files()) return 1; /* and nowhere to tell it */
    const char *file = NULL;
    int at = 1;
    while (at < argc && argv[at][0] == '-') {
        if (strcmp(argv[at], "-h") == 0 || strcmp(argv[at], "--help") == 0)
            return main_usage(stdout, 0);
        if (strcmp(argv[at], "--version") == 0) return command_version();
        if (strcmp(argv[at], "-c") != 0) return main_wrong("unknown option", argv[at]);
        if (at + 1 == argc) return main_wrong("a file is missing behind", "-c");
        file = argv[at + 1];
        at += 2;
    }
    const char *word = at < argc ? argv[at++] : NULL;
    /* "weir check -c FILE" is how it is often written. */
    if (word && at + 2 <= argc && strcmp(argv[at], "-c") == 0) {
        file = argv[at + 1];
        at += 2;
    }
    if (!file) file = command_default_file();
    if (!word) return main_serve(file);
    if (strcmp(word, "explain") == 0) return command_explain(file, argc - at, argv + at);
    bool is_check = strcmp(word, "check") == 0;
    bool is_doctor = strcmp(word, "doctor") == 0;
    if (!is_check && !is_doctor && strcmp(word, "version") != 0)
        return main_wrong("unknown word", word);
    if (at != argc) return main_wrong("too much", argv[at]);
    if (is_check) return command_check(file);
    return is_doctor ? command_doctor(file) : command_version();
}
