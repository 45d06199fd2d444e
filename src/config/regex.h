/* regex.h: compiles the expressions of routes with PCRE2; proxy/route matches them. */
#ifndef WEIR_CONFIG_REGEX_H
#define WEIR_CONFIG_REGEX_H

#include "base/bytes.h"

/* A pcre2_code over bytes (not UTF), compiled to machine code where PCRE2 can; or NULL and a
 * sentence in `why` with the offset. */
void *regex_compile(struct bytes pattern, struct writer *why);
/* NULL is fine. */
void regex_free(void *regex);

#endif
