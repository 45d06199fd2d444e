/* check.h: assertions that stay in every build.
 *
 * CHECK says "this is our bug": it prints the expression, the place and a backtrace on stderr, and
 * aborts. Nothing a client or an upstream can send may trip one. Limits and the outside world have
 * reasons (base/reason.h), never a CHECK. The expression is evaluated once, in every build.
 */
#ifndef WEIR_BASE_CHECK_H
#define WEIR_BASE_CHECK_H

_Noreturn void check_failed(const char *expression, const char *file, int line);

#define CHECK(expression)                                                                          \
    do {                                                                                           \
        if (__builtin_expect(!(expression), 0)) check_failed(#expression, __FILE__, __LINE__);     \
    } while (0)

#endif
