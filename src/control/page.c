#include "control/page.h"

#include <sys/mman.h>

#define PAGE_SIZE_FIRST 65536

static void page_grow(struct page *page, size_t needed) {
    size_t size = page->size != 0 ? page->size : PAGE_SIZE_FIRST;
    while (size < needed)
        size *= 2;
    void *memory =
        page->ptr ? mremap(page->ptr, page->size, size, MREMAP_MAYMOVE)
                  : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        page->failed = true; /* what there is stays valid (mremap(2)) */
        return;
    }
    page->ptr = memory;
    page->size = size;
}

void page_put(struct page *page, struct bytes bytes) {
    if (page->failed || bytes.len == 0) return;
    if (bytes.len > page->size - page->len) page_grow(page, page->len + bytes.len);
    if (page->failed) return;
    memcpy(page->ptr + page->len, bytes.ptr, bytes.len);
    page->len += bytes.len;
}

void page_text(struct page *page, const char *text) { page_put(page, bytes_of(text)); }

void page_u64(struct page *page, uint64_t value) {
    char digits[24];
    struct writer writer = writer_make(digits, sizeof digits);
    writer_u64(&writer, value);
    page_put(page, writer_bytes(&writer));
}

void page_double(struct page *page, double value) {
    char digits[32];
    struct writer writer = writer_make(digits, sizeof digits);
    writer_print(&writer, "%.15g", value);
    page_put(page, writer_bytes(&writer));
}

void page_fini(struct page *page) {
    if (page->ptr) (void)munmap(page->ptr, page->size); /* our own mapping: cannot fail */
    *page = (struct page){0};
}
