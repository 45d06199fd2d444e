#include "proto/h2_flood.h"

#include <string.h>

bool h2_flood_note(struct h2_flood *flood, const struct h2_flood_limits *limits,
                   enum h2_flood_kind kind, uint64_t now_ms) {
    if (now_ms - flood->window_ms >= H2_FLOOD_WINDOW_MS) {
        flood->window_ms = now_ms;
        memset(flood->count, 0, sizeof flood->count);
    }
    if (flood->saved[kind] != 0) {
        flood->saved[kind]--;
        return false;
    }
    flood->count[kind]++;
    return limits->max[kind] != 0 && flood->count[kind] > limits->max[kind];
}

static uint32_t h2_flood_take_off(struct h2_flood *flood, enum h2_flood_kind kind, uint32_t count) {
    uint32_t taken = flood->count[kind] < count ? flood->count[kind] : count;
    flood->count[kind] -= taken;
    return count - taken;
}

void h2_flood_allow(struct h2_flood *flood, enum h2_flood_kind kind, uint32_t count) {
    (void)h2_flood_take_off(flood, kind, count); /* the rest is lost */
}

void h2_flood_save(struct h2_flood *flood, enum h2_flood_kind kind, uint32_t count) {
    uint32_t room = H2_FLOOD_SAVED_MAX - flood->saved[kind];
    count = h2_flood_take_off(flood, kind, count);
    flood->saved[kind] += count < room ? count : room;
}
