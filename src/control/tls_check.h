/* tls_check.h: what only OpenSSL can say about a configuration: whether files are what they should
 * be, keys fit their certificates, words are ciphers. Said as the errors of the configuration are:
 * one line each, with file and line, in file order. Main thread. */
#ifndef WEIR_CONTROL_TLS_CHECK_H
#define WEIR_CONTROL_TLS_CHECK_H

#include "control/tls_files.h"

#include <stdio.h>

/* Days before its end from which a certificate is worth a warning. */
#define TLS_CHECK_DAYS 14

/* Writes all errors and, if `warns`, as `warning:` what works and hardly should: certificates and
 * authorities that have run out, or will soon; authorities without a root; servers that are not
 * verified. Returns how many errors there are. `config` may have errors of its own. */
uint32_t tls_check(const struct config *config, bool warns, FILE *to);
/* After new files were taken into use: such warnings about them go into the log. What is an error
 * by now has changed once more, and whoever watches the files will say so. */
void tls_check_again(const struct tls_subject *subject);

#endif
