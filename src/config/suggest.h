/* suggest.h: the nearest of some words to one that is wrong ("did you mean"). */
#ifndef WEIR_CONFIG_SUGGEST_H
#define WEIR_CONFIG_SUGGEST_H

#include "base/bytes.h"

struct suggest {
    struct bytes word;
    struct bytes best; /* BYTES_NONE: nothing near enough so far */
    size_t distance;   /* of best; before: one more than is near enough */
};

/* `word` and all candidates must outlive `suggest`. */
void suggest_init(struct suggest *suggest, struct bytes word);
void suggest_offer(struct suggest *suggest, struct bytes candidate);
/* Insertions, deletions, replacements and swaps of neighbours that make `a` of `b`; words of over
 * 64 bytes count as SIZE_MAX apart. */
size_t suggest_distance(struct bytes a, struct bytes b);

#endif
