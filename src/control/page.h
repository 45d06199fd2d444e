/* page.h: text that grows while it is written, in a mapping of its own.
 *
 * Not on the heap, so that reading the metrics does not move the metric that shows whether workers
 * use the heap. For pages made now and then; never on the data path.
 */
#ifndef WEIR_CONTROL_PAGE_H
#define WEIR_CONTROL_PAGE_H

#include "base/bytes.h"

/* Begins zeroed. */
struct page {
    char *ptr; /* NULL when empty */
    size_t len;
    size_t size;
    bool failed; /* no memory: something is missing, and nothing more is written */
};

void page_put(struct page *page, struct bytes bytes);
void page_text(struct page *page, const char *text);
void page_u64(struct page *page, uint64_t value);
/* With 15 digits: what a double holds exactly. */
void page_double(struct page *page, double value);
static inline struct bytes page_bytes(const struct page *page) {
    return bytes_make(page->ptr, page->len);
}
/* Idempotent. */
void page_fini(struct page *page);

#endif
