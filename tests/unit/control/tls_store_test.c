/* Files that change are taken over, and keys of tickets turn: by a clock of the test. */
#include "control/tls_store.h"

#include "control/worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "unit/config/load.h"
#include "unit/proto/tls_fixture.h"

#define LOOK_MS 1000
#define ROTATION_MS 60000

/* A store with one section, whose files are links that the test turns to others. */
struct shop {
    char directory[64];
    struct config *config;
    struct worker *worker;
    struct tls_seat seats[8];
    const struct tls_context *places[8];
    struct tls_store store;
    uint64_t now_ms;
};

static void write_file(const struct shop *shop, const char *name, struct bytes text) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", shop->directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text.ptr, 1, text.len, file), text.len);
    assert_int_equal(fclose(file), 0);
}

/* In one step: nobody finds no file, or half of one. */
static void turn_link(const struct shop *shop, const char *name, const char *to) {
    char path[128], next[128];
    snprintf(path, sizeof path, "%s/%s", shop->directory, name);
    snprintf(next, sizeof next, "%s/next", shop->directory);
    assert_int_equal(symlink(to, next), 0);
    assert_int_equal(rename(next, path), 0);
}

static void make_files(struct shop *shop) {
    strcpy(shop->directory, "/tmp/weir-store-XXXXXX");
    assert_non_null(mkdtemp(shop->directory));
    static const char *const names[] = {"a", "b"};
    for (size_t i = 0; i < 2; i++) {
        const struct made *made = make_certificate(&(struct wish){.subject = names[i]});
        char name[8];
        snprintf(name, sizeof name, "%s.crt", names[i]);
        write_file(shop, name, made->certificate_pem);
        snprintf(name, sizeof name, "%s.key", names[i]);
        write_file(shop, name, made->key_pem);
    }
    turn_link(shop, "site.crt", "a.crt");
    turn_link(shop, "site.key", "a.key");
}

static struct shop *shop_new(void) {
    struct shop *shop = calloc(1, sizeof *shop);
    char text[512];
    assert_non_null(shop);
    make_files(shop);
    snprintf(text, sizeof text,
             "[global]\nworkers = 1\n[tls site]\ncertificate = %s/site.crt\nkey = %s/site.key\n"
             "watch = 1s\nticket_rotation = 1m\n[listener web]\nbind = 127.0.0.1:8443\n"
             "tls = site\nservice = hello\n[service hello]\ntype = respond\nbody = hello\n",
             shop->directory, shop->directory);
    shop->config = load_good(text);
    shop->worker = aligned_alloc(_Alignof(struct worker), sizeof *shop->worker);
    assert_non_null(shop->worker);
    memset(shop->worker, 0, sizeof *shop->worker);
    shop->worker->config = shop->config;
    shop->worker->seats = shop->seats;
    for (size_t i = 0; i < 8; i++)
        shop->seats[i].place = &shop->places[i];
    assert_int_equal(tls_store_init(&shop->store, shop->config, &shop->worker), 0);
    assert_int_equal(tls_store_equip(&shop->store, shop->worker), 0);
    shop->now_ms = shop->store.sources[0].look_ms;
    return shop;
}

static void shop_free(struct shop *shop) {
    static const char *const names[] = {"a.crt", "a.key", "b.crt", "b.key", "site.crt", "site.key"};
    char path[128];
    for (size_t i = 0; i < 8; i++) {
        tls_context_free(shop->seats[i].current);
        tls_context_free(shop->seats[i].next);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", shop->directory, names[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(shop->directory), 0);
    tls_store_fini(&shop->store);
    config_free(shop->config);
    fixture_end();
    free(shop->worker);
    free(shop);
}

/* The next look, when it is due. True: there is something new for the worker. */
static bool look(struct shop *shop) {
    uint64_t wait_ms = UINT64_MAX;
    bool has_new = tls_store_tick(&shop->store, shop->now_ms, &wait_ms);
    if (has_new) tls_store_count_told(&shop->store);
    assert_int_equal(wait_ms, LOOK_MS);
    shop->now_ms += wait_ms;
    return has_new;
}

static void assert_reloads(const struct shop *shop, uint64_t good, uint64_t failed) {
    assert_int_equal(shop->store.reloads, good);
    assert_int_equal(shop->store.reloads_failed, failed);
}

static void files_that_stand_still_are_not_read_again(void **state) {
    (void)state;
    struct shop *shop = shop_new();
    for (int i = 0; i < 3; i++)
        assert_false(look(shop));
    assert_reloads(shop, 0, 0);
    shop_free(shop);
}

/* The certificate comes before its key: for a moment the two do not fit. */
static void what_has_changed_waits_until_it_stands_still(void **state) {
    (void)state;
    struct shop *shop = shop_new();
    const struct tls_context *before = shop->places[0];
    turn_link(shop, "site.crt", "b.crt");
    assert_false(look(shop));
    turn_link(shop, "site.key", "b.key");
    assert_false(look(shop));
    assert_reloads(shop, 0, 0);
    assert_true(look(shop));
    assert_reloads(shop, 1, 0);
    assert_ptr_equal(shop->places[0], before);
    tls_seats_take(shop->seats, 1);
    assert_ptr_not_equal(shop->places[0], before);
    assert_false(look(shop));
    assert_reloads(shop, 1, 0);
    shop_free(shop);
}

static void what_was_refused_is_not_tried_again_until_it_changes(void **state) {
    (void)state;
    struct shop *shop = shop_new();
    turn_link(shop, "site.crt", "b.crt");
    for (int i = 0; i < 4; i++)
        assert_false(look(shop));
    assert_reloads(shop, 0, 1);
    turn_link(shop, "site.key", "b.key");
    assert_false(look(shop));
    assert_true(look(shop));
    assert_reloads(shop, 1, 1);
    shop_free(shop);
}

static void keys_of_tickets_turn_when_it_is_time(void **state) {
    (void)state;
    struct shop *shop = shop_new();
    struct tls_source *source = &shop->store.sources[0];
    source->look_ms = UINT64_MAX;
    uint64_t due_ms = source->rotate_ms;
    uint64_t wait_ms = UINT64_MAX;
    struct tls_ticket_key first = *tls_tickets_current(source->tickets);
    assert_false(tls_store_tick(&shop->store, due_ms - 1, &wait_ms));
    assert_int_equal(wait_ms, 1);
    assert_memory_equal(tls_tickets_current(source->tickets), &first, sizeof first);
    wait_ms = UINT64_MAX;
    assert_false(tls_store_tick(&shop->store, due_ms, &wait_ms));
    assert_int_equal(wait_ms, ROTATION_MS);
    assert_memory_not_equal(tls_tickets_current(source->tickets), &first, sizeof first);
    assert_non_null(tls_tickets_find(source->tickets, first.name));
    assert_false(tls_store_tick(&shop->store, due_ms + ROTATION_MS, &wait_ms));
    assert_null(tls_tickets_find(source->tickets, first.name));
    shop_free(shop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_that_stand_still_are_not_read_again),
        cmocka_unit_test(what_has_changed_waits_until_it_stands_still),
        cmocka_unit_test(what_was_refused_is_not_tried_again_until_it_changes),
        cmocka_unit_test(keys_of_tickets_turn_when_it_is_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
