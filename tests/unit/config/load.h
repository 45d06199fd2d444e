/* load.h: loads configurations that stand in the test itself. */
#ifndef WEIR_TESTS_UNIT_CONFIG_LOAD_H
#define WEIR_TESTS_UNIT_CONFIG_LOAD_H

#include "config/config.h"

/* What config_load makes of these bytes. The errors name the file "F". */
struct config *load_bytes(const char *text, size_t size, struct config_errors *errors);
/* The text must be good: fails the test with its errors. The caller frees. */
struct config *load_good(const char *text);
/* The text must give exactly these lines (of "LINE: TEXT\n", without a file). */
void assert_errors(const char *text, const char *expected);

#endif
