#include "config/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

void *regex_compile(struct bytes pattern, struct writer *why) {
    int error;
    PCRE2_SIZE offset;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern.ptr, pattern.len, PCRE2_DOLLAR_ENDONLY,
                                     &error, &offset, NULL);
    if (!code) {
        PCRE2_UCHAR text[128] = {0};
        (void)pcre2_get_error_message(error, text, sizeof text); /* cut is fine */
        writer_print(why, "bad expression at offset %zu: %s", offset, (const char *)text);
        return NULL;
    }
    /* Without JIT (pcre2jit(3): some architectures, or no memory that may be executed) it is
     * interpreted. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    return code;
}

void regex_free(void *regex) { pcre2_code_free(regex); }
