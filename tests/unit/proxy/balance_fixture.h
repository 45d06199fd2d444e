/* balance_fixture.h: an upstream of servers for the tests of the balancers, with names s0, s1...
 * and a seeded generator. */
#ifndef WEIR_UNIT_PROXY_BALANCE_FIXTURE_H
#define WEIR_UNIT_PROXY_BALANCE_FIXTURE_H

#include "proxy/balance.h"

#define FIXTURE_SERVERS_MAX 1000

struct fixture {
    struct balance balance;
    struct balance_server servers[FIXTURE_SERVERS_MAX];
    char texts[FIXTURE_SERVERS_MAX][24];
    const char *names[FIXTURE_SERVERS_MAX];
    uint32_t count;
};

/* All have weight 1, are available and no backups; change that, then call fixture_start. */
struct fixture *fixture_new(uint32_t count);
struct fixture *fixture_new_weighted(const uint32_t *weights, uint32_t count);
void fixture_start(struct fixture *fixture, const struct balance_ops *ops);
void fixture_free(struct fixture *fixture);

/* Without tried servers. */
uint32_t fixture_pick(struct fixture *fixture, uint64_t hash);
/* Adds to counts[index] for each pick; hashes are 0, 1, 2... through a mixer. */
void fixture_pick_many(struct fixture *fixture, uint32_t picks, uint32_t *counts);
/* The pick for each of so many hashes, from 0 on through a mixer. */
void fixture_pick_each(struct fixture *fixture, uint32_t *picks, uint32_t count);
/* Of ten servers the fourth is out: the hashes that were its own (`before`: fixture_pick_each) are
 * shared by all others within `percent`, and no other hash has moved. */
void fixture_lose_server_3(struct fixture *fixture, const uint32_t *before, uint32_t count,
                           double percent);
/* Within `percent` of what is expected. */
void assert_near(uint32_t count, double expected, double percent);

/* Claims every policy keeps, as a list for cmocka: see balance_fixture.c. The tests have the policy
 * as their state. */
void every_policy_skips_tried_servers(void **state);
void every_policy_takes_backups_only_when_all_others_are_out(void **state);
void every_policy_gives_none_when_all_are_out(void **state);
void every_policy_reaches_the_last_of_1000_servers(void **state);
#define EVERY_POLICY(ops)                                                                          \
    cmocka_unit_test_prestate(every_policy_skips_tried_servers, (void *)(uintptr_t)(ops)),         \
        cmocka_unit_test_prestate(every_policy_takes_backups_only_when_all_others_are_out,         \
                                  (void *)(uintptr_t)(ops)),                                       \
        cmocka_unit_test_prestate(every_policy_gives_none_when_all_are_out,                        \
                                  (void *)(uintptr_t)(ops)),                                       \
        cmocka_unit_test_prestate(every_policy_reaches_the_last_of_1000_servers,                   \
                                  (void *)(uintptr_t)(ops))

#endif
