#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct item {
    int number;
    struct list link;
};

static struct item items[4];
static struct list head;

static int set_up(void **state) {
    (void)state;
    list_init(&head);
    for (int i = 0; i < 4; i++) {
        items[i].number = i;
        list_init(&items[i].link);
    }
    return 0;
}

/* The numbers in order as one decimal number, and the links back checked. */
static int digits(const struct list *ring) {
    int sum = 0;
    for (const struct list *node = ring->next; node != ring; node = node->next) {
        assert_ptr_equal(node->next->prev, node);
        sum = sum * 10 + LIST_OWNER(node, const struct item, link)->number;
    }
    return sum;
}

static void push_and_pop_keep_order(void **state) {
    (void)state;
    list_push_back(&head, &items[2].link);
    list_push_back(&head, &items[3].link);
    list_push_front(&head, &items[1].link);
    assert_int_equal(digits(&head), 123);
    assert_ptr_equal(list_pop_front(&head), &items[1].link);
    assert_false(list_linked(&items[1].link));
    assert_int_equal(digits(&head), 23);
}

static void pop_of_an_empty_list_is_null(void **state) {
    (void)state;
    assert_null(list_pop_front(&head));
    assert_true(list_empty(&head));
}

static void remove_is_harmless_on_an_unlinked_node(void **state) {
    (void)state;
    list_push_back(&head, &items[1].link);
    list_remove(&items[1].link);
    list_remove(&items[1].link);
    assert_true(list_empty(&head));
    assert_false(list_linked(&items[1].link));
}

static void the_current_node_may_go_during_a_walk(void **state) {
    (void)state;
    for (int i = 1; i < 4; i++)
        list_push_back(&head, &items[i].link);
    int seen = 0;
    LIST_FOR_EACH(node, &head) {
        seen = seen * 10 + LIST_OWNER(node, struct item, link)->number;
        if (LIST_OWNER(node, struct item, link)->number != 2) list_remove(node);
    }
    assert_int_equal(seen, 123);
    assert_int_equal(digits(&head), 2);
}

static void take_all_appends_in_order(void **state) {
    (void)state;
    struct list from;
    list_init(&from);
    list_take_all(&head, &from);
    assert_true(list_empty(&head));

    list_push_back(&from, &items[1].link);
    list_push_back(&from, &items[2].link);
    list_take_all(&head, &from);
    assert_true(list_empty(&from));
    assert_int_equal(digits(&head), 12);

    list_push_back(&from, &items[3].link);
    list_take_all(&head, &from);
    assert_true(list_empty(&from));
    assert_int_equal(digits(&head), 123);
    list_take_all(&head, &from);
    assert_int_equal(digits(&head), 123);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(push_and_pop_keep_order, set_up),
        cmocka_unit_test_setup(pop_of_an_empty_list_is_null, set_up),
        cmocka_unit_test_setup(remove_is_harmless_on_an_unlinked_node, set_up),
        cmocka_unit_test_setup(the_current_node_may_go_during_a_walk, set_up),
        cmocka_unit_test_setup(take_all_appends_in_order, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
