#include "config/memory.h"

#include "base/check.h"

#include <stdlib.h>

struct memory_block {
    struct memory_block *next;
    _Alignas(16) char bytes[];
};

void *memory_alloc(struct memory *memory, size_t count, size_t size) {
    size_t total;
    CHECK(!__builtin_mul_overflow(count, size, &total));
    CHECK(!__builtin_add_overflow(total, sizeof(struct memory_block), &total));
    struct memory_block *block = calloc(1, total);
    /* Not a limit and not a peer's doing: see the header. */
    CHECK(block != NULL);
    block->next = memory->blocks;
    memory->blocks = block;
    return block->bytes;
}

struct bytes memory_bytes(struct memory *memory, struct bytes text) {
    char *copy = memory_alloc(memory, text.len + 1, 1);
    if (text.len != 0) memcpy(copy, text.ptr, text.len);
    return bytes_make(copy, text.len);
}

char *memory_string(struct memory *memory, struct bytes text) {
    char *copy = memory_alloc(memory, text.len + 1, 1);
    if (text.len != 0) memcpy(copy, text.ptr, text.len);
    return copy;
}

void *memory_grow(struct memory *memory, void *items, size_t count, size_t size) {
    /* Room doubles at each power of two, so the count alone tells whether there is any left. */
    bool is_full = (count & (count - 1)) == 0;
    if (!is_full) return items;
    char *longer = memory_alloc(memory, count == 0 ? 1 : 2 * count, size);
    if (count != 0) memcpy(longer, items, count * size);
    return longer;
}

void memory_fini(struct memory *memory) {
    struct memory_block *block = memory->blocks;
    while (block) {
        struct memory_block *next = block->next;
        free(block);
        block = next;
    }
    memory->blocks = NULL;
}
