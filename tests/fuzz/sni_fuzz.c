/* sni_fuzz.c: what sni_find does with any bytes. It must stay within them, decide for good once it
 * has decided, and never take back a name when more bytes come. */
#include "base/check.h"
#include "proto/sni.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

/* A copy of its own length, so that one byte too many is seen. */
static enum sni_result find(const uint8_t *input, size_t size, char *memory, struct bytes *name) {
    char *copy = malloc(size + 1);
    CHECK(copy != NULL);
    char *exact = realloc(copy, size ? size : 1);
    CHECK(exact != NULL);
    if (size != 0) memcpy(exact, input, size);
    enum sni_result result = sni_find(bytes_make(exact, size), memory, name);
    free(exact);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    if (size > 1024) size = 1024; /* every prefix of it is tried */
    char whole_memory[SNI_SIZE_MAX];
    struct bytes whole_name = BYTES_NONE;
    enum sni_result whole = find(input, size, whole_memory, &whole_name);
    CHECK((whole == SNI_NAME) == (whole_name.ptr != NULL));
    CHECK(whole_name.len <= SNI_SIZE_MAX);
    enum sni_result before = SNI_MORE;
    for (size_t i = 0; i <= size; i++) {
        char memory[SNI_SIZE_MAX];
        struct bytes name = BYTES_NONE;
        enum sni_result result = find(input, i, memory, &name);
        CHECK(before == SNI_MORE || result == before);
        if (result == SNI_NAME) CHECK(bytes_equal(name, whole_name));
        before = result;
    }
    CHECK(before == whole);
    return 0;
}
