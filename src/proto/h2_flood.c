#include "proto/h2_flood.h"

bool h2_flood_note(struct h2_flood *flood, const struct h2_flood_limits *limits,
                   enum h2_flood_kind kind, uint64_t now_ms) {
    if (now_ms - flood->window_ms >= H2_FLOOD_WINDOW_MS)
        *flood = (struct h2_flood){.window_ms = now_ms};
    flood->count[kind]++;
    return limits->max[kind] != 0 && flood->count[kind] > limits->max[kind];
}

void h2_flood_allow(struct h2_flood *flood, enum h2_flood_kind kind, uint32_t count) {
    flood->count[kind] -= flood->count[kind] < count ? flood->count[kind] : count;
}
