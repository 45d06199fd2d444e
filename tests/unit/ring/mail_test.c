#include "ring/mail.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>

struct box {
    struct ring ring;
    struct stat_block stats;
    uint32_t count;
    uint32_t subjects[64];
    int32_t values[64];
    uint32_t sent;
};

static void on_mail(void *owner, const struct ring_completion *completion) {
    struct box *box = owner;
    assert_true(box->count < 64);
    box->subjects[box->count] = completion->token.slot;
    box->values[box->count++] = completion->result;
}

static void on_sent(void *owner, const struct ring_completion *completion) {
    struct box *box = owner;
    assert_int_equal(completion->result, 0);
    box->sent++;
}

static struct box *box_new(void) {
    struct box *box = aligned_alloc(64, (sizeof *box + 63) / 64 * 64);
    assert_non_null(box);
    memset(box, 0, sizeof *box);
    struct ring_options options = {8, 128};
    assert_int_equal(ring_init(&box->ring, &options, &box->stats), 0);
    ring_handle(&box->ring, RING_MAIL, on_mail, box);
    ring_handle(&box->ring, RING_MAIL_SENT, on_sent, box);
    return box;
}

static void box_free(struct box *box) {
    assert_int_equal(box->ring.ops_in_flight, 0);
    ring_fini(&box->ring);
    free(box);
}

static void turn(struct box *box) {
    assert_int_equal(ring_wait(&box->ring, 10 * 1000000), 0);
    (void)ring_run(&box->ring); /* the box has what came */
}

struct reader {
    struct box *box;
    uint32_t wanted;
    sem_t enabled;
};

/* As a worker does: it enables its ring and sleeps in it until mail comes. */
static void *read_mail(void *argument) {
    struct reader *reader = argument;
    struct box *box = reader->box;
    assert_int_equal(ring_enable(&box->ring), 0);
    sem_post(&reader->enabled);
    while (box->count < reader->wanted) {
        assert_int_equal(ring_wait(&box->ring, -1), 0);
        (void)ring_run(&box->ring); /* the box has what came */
    }
    return NULL;
}

static void mail_wakes_another_thread_and_comes_in_order(void **state) {
    (void)state;
    struct box *from = box_new();
    struct box *to = box_new();
    assert_int_equal(ring_enable(&from->ring), 0);
    struct reader reader = {.box = to, .wanted = 40};
    assert_int_equal(sem_init(&reader.enabled, 0, 0), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, read_mail, &reader), 0);
    while (sem_wait(&reader.enabled) != 0)
        continue;
    for (uint32_t i = 0; i < 40; i++) {
        mail_send(&from->ring, &to->ring, i % 2 ? MAIL_CUT : MAIL_DRAIN, i);
        if (i % 5 == 0) turn(from);
    }
    while (from->sent < 40)
        turn(from);
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(to->subjects[i], i % 2 ? MAIL_CUT : MAIL_DRAIN);
        assert_int_equal(to->values[i], i);
    }
    assert_int_equal(to->sent, 0);
    sem_destroy(&reader.enabled);
    box_free(from);
    box_free(to);
}

static void mail_may_go_to_the_sender_itself(void **state) {
    (void)state;
    struct box *box = box_new();
    assert_int_equal(ring_enable(&box->ring), 0);
    mail_send(&box->ring, &box->ring, MAIL_END, 7);
    while (box->sent + box->count < 2)
        turn(box);
    assert_int_equal(box->subjects[0], MAIL_END);
    assert_int_equal(box->values[0], 7);
    box_free(box);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_wakes_another_thread_and_comes_in_order),
        cmocka_unit_test(mail_may_go_to_the_sender_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
