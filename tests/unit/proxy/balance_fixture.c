#include "unit/proxy/balance_fixture.h"

#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct fixture *fixture_new(uint32_t count) {
    assert_true(count <= FIXTURE_SERVERS_MAX);
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    fixture->count = count;
    for (uint32_t i = 0; i < count; i++) {
        snprintf(fixture->texts[i], sizeof(fixture->texts[i]), "10.0.%u.%u:80", i / 256, i % 256);
        fixture->names[i] = fixture->texts[i];
        fixture->servers[i] = (struct balance_server){.weight = 1, .available = true};
    }
    return fixture;
}

struct fixture *fixture_new_weighted(const uint32_t *weights, uint32_t count) {
    struct fixture *fixture = fixture_new(count);
    for (uint32_t i = 0; i < count; i++) {
        fixture->servers[i].weight = weights[i];
    }
    return fixture;
}

void fixture_start(struct fixture *fixture, const struct balance_ops *ops) {
    assert_int_equal(
        balance_init(&fixture->balance, ops, fixture->servers, fixture->names, fixture->count), 0);
    rand_seed(&fixture->balance.random, 42);
}

void fixture_free(struct fixture *fixture) {
    balance_fini(&fixture->balance);
    free(fixture);
}

uint32_t fixture_pick(struct fixture *fixture, uint64_t hash) {
    struct balance_pick pick = {.hash = hash};
    return balance_pick(&fixture->balance, &pick);
}

void fixture_pick_many(struct fixture *fixture, uint32_t picks, uint32_t *counts) {
    for (uint32_t i = 0; i < picks; i++) {
        uint32_t index = fixture_pick(fixture, hash_u64(i));
        assert_true(index < fixture->count);
        counts[index]++;
    }
}

void assert_near(uint32_t count, double expected, double percent) {
    double off = (count - expected) / expected * 100;
    if (off < -percent || off > percent) print_error("%u, expected %f\n", count, expected);
    assert_true(off >= -percent && off <= percent);
}

void fixture_pick_each(struct fixture *fixture, uint32_t *picks, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        picks[i] = fixture_pick(fixture, hash_u64(i));
    }
}

void fixture_lose_server_3(struct fixture *fixture, const uint32_t *before, uint32_t count,
                           double percent) {
    fixture->servers[3].available = false;
    uint32_t moved_to[10] = {0};
    for (uint32_t i = 0; i < count; i++) {
        uint32_t after = fixture_pick(fixture, hash_u64(i));
        if (before[i] == 3) {
            moved_to[after]++;
        } else {
            assert_int_equal(after, before[i]);
        }
    }
    for (uint32_t i = 0; i < 10; i++) {
        if (i != 3) assert_near(moved_to[i], count / 10 / 9.0, percent);
    }
}

void every_policy_skips_tried_servers(void **state) {
    struct fixture *fixture = fixture_new(5);
    fixture->servers[4].backup = true;
    fixture_start(fixture, *state);
    for (uint64_t round = 0; round < 100; round++) {
        struct balance_pick pick = {.hash = hash_u64(round)};
        uint32_t seen = 0;
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t index = balance_pick(&fixture->balance, &pick);
            assert_true(index < 4);
            assert_int_equal(seen & 1u << index, 0);
            seen |= 1u << index;
            assert_true(balance_mark_tried(&pick, index));
        }
        uint32_t backup = balance_pick(&fixture->balance, &pick);
        assert_int_equal(backup, 4);
        assert_true(balance_mark_tried(&pick, backup));
        assert_int_equal(balance_pick(&fixture->balance, &pick), BALANCE_NONE);
    }
    fixture_free(fixture);
}

void every_policy_takes_backups_only_when_all_others_are_out(void **state) {
    const uint32_t weights[] = {3, 2, 1, 1, 4};
    struct fixture *fixture = fixture_new_weighted(weights, 5);
    fixture->servers[0].backup = true;
    fixture->servers[3].backup = true;
    fixture_start(fixture, *state);
    uint32_t counts[5] = {0};
    fixture_pick_many(fixture, 200, counts);
    assert_int_equal(counts[0] + counts[3], 0);

    fixture->servers[1].available = false;
    fixture->servers[4].available = false;
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(fixture_pick(fixture, hash_u64(i)), 2);
    }
    fixture->servers[2].available = false;
    for (uint64_t i = 0; i < 100; i++) {
        uint32_t index = fixture_pick(fixture, hash_u64(i));
        assert_true(index == 0 || index == 3);
    }
    fixture->servers[1].available = true;
    assert_int_equal(fixture_pick(fixture, 7), 1);
    fixture_free(fixture);
}

void every_policy_gives_none_when_all_are_out(void **state) {
    struct fixture *fixture = fixture_new(3);
    fixture->servers[2].backup = true;
    fixture_start(fixture, *state);
    for (uint32_t i = 0; i < 3; i++) {
        fixture->servers[i].available = false;
    }
    assert_int_equal(fixture_pick(fixture, 1), BALANCE_NONE);
    fixture->servers[1].available = true;
    assert_int_equal(fixture_pick(fixture, 1), 1);
    fixture_free(fixture);
}

void every_policy_reaches_the_last_of_1000_servers(void **state) {
    struct fixture *fixture = fixture_new(1000);
    for (uint32_t i = 0; i < 1000; i++) {
        fixture->servers[i].weight = 1 + i % 3;
    }
    fixture_start(fixture, *state);
    for (uint32_t i = 0; i < 1000; i++) {
        fixture->servers[i].available = i == 999;
    }
    for (uint64_t i = 0; i < 50; i++) {
        assert_int_equal(fixture_pick(fixture, hash_u64(i)), 999);
    }
    fixture_free(fixture);
}
