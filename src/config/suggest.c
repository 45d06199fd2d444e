#include "config/suggest.h"

#define WORD_MAX 64

void suggest_init(struct suggest *suggest, struct bytes word) {
    /* A third of the word may be wrong, but no more than three letters: beyond that a suggestion
     * puzzles. */
    size_t near = word.len / 3;
    if (near < 1) near = 1;
    if (near > 3) near = 3;
    *suggest = (struct suggest){.word = word, .best = BYTES_NONE, .distance = near + 1};
}

void suggest_offer(struct suggest *suggest, struct bytes candidate) {
    size_t distance = suggest_distance(suggest->word, candidate);
    /* "a" is one replacement away from any one-letter word, which says nothing. */
    if (distance >= suggest->distance || distance >= candidate.len) return;
    suggest->distance = distance;
    suggest->best = candidate;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Optimal string alignment: rows i-2, i-1 and i of the table of distances between prefixes. */
size_t suggest_distance(struct bytes a, struct bytes b) {
    if (a.len > WORD_MAX || b.len > WORD_MAX) return SIZE_MAX;
    size_t rows[3][WORD_MAX + 1];
    for (size_t j = 0; j <= b.len; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i + 2) % 3];
        const size_t *above_twice = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            size_t change = above[j - 1] + (a.ptr[i - 1] != b.ptr[j - 1]);
            row[j] = least(change, least(above[j], row[j - 1]) + 1);
            bool swapped =
                i > 1 && j > 1 && a.ptr[i - 1] == b.ptr[j - 2] && a.ptr[i - 2] == b.ptr[j - 1];
            if (swapped) row[j] = least(row[j], above_twice[j - 2] + 1);
        }
    }
    return rows[a.len % 3][b.len];
}
