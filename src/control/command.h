/* command.h: what `weir WORD` does instead of serving: check, explain, doctor, version.
 *
 * Each function is a whole program run: it prints to stdout (errors to stderr) and returns the exit
 * status. Main thread, before any worker exists.
 */
#ifndef WEIR_CONTROL_COMMAND_H
#define WEIR_CONTROL_COMMAND_H

#include "config/config.h"

#define WEIR_VERSION "0.1.0"

/* The file used without -c: etc/weir.ini of the checkout the program was built in, else
 * /etc/weir/weir.ini. Static memory, never NULL. */
const char *command_default_file(void);
/* A snapshot, or NULL with every error printed to stderr. */
struct config *command_load(const char *file);

/* 0: no errors; 1: they are on stderr, all of them. */
int command_check(const char *file);
/* `argv` is what follows the word explain: METHOD URL [-H 'Name: value']... [--listener NAME]
 * [--client ADDRESS]. Opens no socket. 0; 1: bad configuration, or a request that would be refused;
 * 2: usage. */
int command_explain(const char *file, int argc, char **argv);
/* 0: nothing fails (warnings may); 1: something does. */
int command_doctor(const char *file);
int command_version(void);

#endif
