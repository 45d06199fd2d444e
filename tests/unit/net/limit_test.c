#include "net/limit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "unit/base/death.h"

#define SECOND_NS 1000000000ull

static struct limit *make(uint32_t per_second, uint32_t per_ip, uint32_t connections_max) {
    struct limit_options options = {
        .per_second = per_second, .per_ip = per_ip, .connections_max = connections_max, .seed = 42};
    struct limit *limit = limit_new(&options);
    assert_non_null(limit);
    return limit;
}

static void without_a_rate_there_is_always_room(void **state) {
    (void)state;
    struct limit *limit = make(0, 0, 0);
    for (int i = 0; i < 100; i++)
        limit_rate_take(limit, 5);
    assert_int_equal(limit_rate_room(limit, 5), UINT32_MAX);
    assert_int_equal(limit_rate_wait_ns(limit, 5), 0);
    assert_false(limit_is_per_ip(limit));
    limit_free(limit);
    limit_free(NULL);
}

static void a_burst_of_one_second_and_then_one_by_one(void **state) {
    (void)state;
    static const uint32_t rates[] = {1, 3, 7, 1000, 1000000};
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        uint32_t rate = rates[i];
        struct limit *limit = make(rate, 0, 0);
        uint64_t now_ns = 77 * SECOND_NS;
        for (uint32_t left = rate; left != 0; left--) {
            assert_int_equal(limit_rate_room(limit, now_ns), left);
            assert_int_equal(limit_rate_wait_ns(limit, now_ns), 0);
            limit_rate_take(limit, now_ns);
        }
        for (int more = 0; more < 5; more++) {
            assert_int_equal(limit_rate_room(limit, now_ns), 0);
            uint64_t wait_ns = limit_rate_wait_ns(limit, now_ns);
            assert_int_equal(wait_ns, SECOND_NS / rate);
            assert_int_equal(limit_rate_room(limit, now_ns + wait_ns - 1), 0);
            now_ns += wait_ns;
            assert_int_equal(limit_rate_room(limit, now_ns), 1);
            limit_rate_take(limit, now_ns);
        }
        assert_int_equal(limit_rate_room(limit, now_ns + 10 * SECOND_NS), rate);
        limit_free(limit);
    }
}

static void what_was_taken_too_much_is_paid_back(void **state) {
    (void)state;
    struct limit *limit = make(10, 0, 0);
    for (int i = 0; i < 14; i++)
        limit_rate_take(limit, SECOND_NS);
    assert_int_equal(limit_rate_room(limit, SECOND_NS), 0);
    assert_int_equal(limit_rate_wait_ns(limit, SECOND_NS), SECOND_NS / 2);
    assert_int_equal(limit_rate_room(limit, SECOND_NS * 3 / 2), 1);
    limit_free(limit);
}

static uint64_t key_of(const char *text) {
    struct sockaddr_storage address = {0};
    void *any = &address;
    if (inet_pton(AF_INET, text, &((struct sockaddr_in *)any)->sin_addr) == 1) {
        address.ss_family = AF_INET;
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)any)->sin6_addr), 1);
        address.ss_family = AF_INET6;
    }
    uint64_t key = 0;
    assert_true(limit_ip_key((const struct sockaddr *)&address, &key));
    return key;
}

static void clients_are_ipv4_addresses_and_ipv6_networks(void **state) {
    (void)state;
    assert_int_not_equal(key_of("10.0.0.1"), key_of("10.0.0.2"));
    assert_int_equal(key_of("10.0.0.1"), key_of("::ffff:10.0.0.1"));
    assert_int_equal(key_of("2001:db8:1:2::1"), key_of("2001:db8:1:2:ffff:ffff:ffff:ffff"));
    assert_int_not_equal(key_of("2001:db8:1:2::1"), key_of("2001:db8:1:3::1"));
    assert_int_not_equal(key_of("::1"), key_of("127.0.0.1"));
    struct sockaddr_storage local = {.ss_family = AF_UNIX};
    uint64_t key;
    assert_false(limit_ip_key((const struct sockaddr *)&local, &key));
}

static void each_address_has_its_own_number(void **state) {
    (void)state;
    struct limit *limit = make(0, 2, 8);
    uint64_t a = key_of("::1"), b = key_of("10.0.0.1"); /* the first is key 0 */
    assert_int_equal(a, 0);
    assert_true(limit_ip_enter(limit, a) && limit_ip_enter(limit, a) && limit_ip_enter(limit, b));
    assert_false(limit_ip_enter(limit, a));
    assert_true(limit_ip_enter(limit, b));
    assert_false(limit_ip_enter(limit, b));
    limit_ip_leave(limit, a);
    assert_true(limit_ip_enter(limit, a));
    assert_false(limit_ip_enter(limit, a));
    for (int i = 0; i < 2; i++) {
        limit_ip_leave(limit, a);
        limit_ip_leave(limit, b);
    }
    limit_free(limit);
}

/* Against counts in an array: addresses come and go in a table that is as full as it gets. */
static void the_table_counts_exactly(void **state) {
    (void)state;
    enum { ADDRESSES = 300, CONNECTIONS = 64, PER_IP = 3, STEPS = 400000 };
    uint32_t model[ADDRESSES] = {0};
    uint64_t held[CONNECTIONS];
    uint32_t held_count = 0;
    struct limit *limit = make(0, PER_IP, CONNECTIONS);
    struct rand_state random;
    rand_seed(&random, 7);
    for (int step = 0; step < STEPS; step++) {
        bool enters = held_count == 0 || (held_count < CONNECTIONS && rand_below(&random, 5) < 3);
        if (enters) {
            uint64_t key = rand_below(&random, ADDRESSES);
            bool entered = limit_ip_enter(limit, key);
            assert_int_equal(entered, model[key] < PER_IP);
            if (!entered) continue;
            model[key]++;
            held[held_count++] = key;
        } else {
            uint32_t at = rand_below(&random, held_count);
            uint64_t key = held[at];
            held[at] = held[--held_count];
            model[key]--;
            limit_ip_leave(limit, key);
        }
    }
    while (held_count != 0)
        limit_ip_leave(limit, held[--held_count]);
    limit_free(limit); /* CHECKs that nothing is left */
}

/* Several workers at once. */
enum { THREADS = 4, ROUNDS = 100000, SHARED_MAX = 3 };

struct share {
    struct limit *limit;
    int32_t inside; /* atomic */
    int32_t too_many;
    uint32_t entered;
};

static void *come_and_go(void *argument) {
    struct share *share = argument;
    for (int i = 0; i < ROUNDS; i++) {
        limit_rate_take(share->limit, SECOND_NS);
        if (!limit_ip_enter(share->limit, 9)) continue;
        int32_t inside = __atomic_add_fetch(&share->inside, 1, __ATOMIC_SEQ_CST);
        if (inside > SHARED_MAX) __atomic_store_n(&share->too_many, inside, __ATOMIC_SEQ_CST);
        __atomic_add_fetch(&share->entered, 1, __ATOMIC_SEQ_CST);
        __atomic_sub_fetch(&share->inside, 1, __ATOMIC_SEQ_CST);
        limit_ip_leave(share->limit, 9);
    }
    return NULL;
}

static void workers_together_are_counted_exactly(void **state) {
    (void)state;
    struct share share = {.limit = make(1000, SHARED_MAX, 16)};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &share), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(share.too_many, 0);
    assert_true(share.entered >= ROUNDS); /* with one thread alone nobody is refused */
    /* Every one of them is owed: none was lost between the threads. */
    uint64_t owed_ns = (uint64_t)THREADS * ROUNDS * (SECOND_NS / 1000);
    assert_int_equal(limit_rate_wait_ns(share.limit, SECOND_NS),
                     owed_ns + SECOND_NS / 1000 - SECOND_NS);
    limit_free(share.limit);
}

static void leave_what_is_not_there(void) { limit_ip_leave(make(0, 1, 4), 5); }
static void free_with_a_client(void) {
    struct limit *limit = make(0, 1, 4);
    (void)limit_ip_enter(limit, 5);
    limit_free(limit);
}

static void wrong_use_ends_in_a_report(void **state) {
    (void)state;
    assert_true(death_by_abort(leave_what_is_not_there, NULL, 0));
    assert_true(death_by_abort(free_with_a_client, NULL, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_rate_there_is_always_room),
        cmocka_unit_test(a_burst_of_one_second_and_then_one_by_one),
        cmocka_unit_test(what_was_taken_too_much_is_paid_back),
        cmocka_unit_test(clients_are_ipv4_addresses_and_ipv6_networks),
        cmocka_unit_test(each_address_has_its_own_number),
        cmocka_unit_test(the_table_counts_exactly),
        cmocka_unit_test(workers_together_are_counted_exactly),
        cmocka_unit_test(wrong_use_ends_in_a_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
