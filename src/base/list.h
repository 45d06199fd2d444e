/* list.h: an intrusive doubly linked ring.
 *
 * The head is a node of its own; an unlinked node points at itself. Owns nothing: a node must be
 * removed before its owner's memory goes. Nodes and heads cannot be copied or moved.
 */
#ifndef WEIR_BASE_LIST_H
#define WEIR_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next;
    struct list *prev;
};

#define LIST_OWNER(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))
/* Safe against removal of the current node, not of the next one. */
#define LIST_FOR_EACH(node, head)                                                                  \
    for (struct list *node = (head)->next, *node##_next = node->next; node != (head);              \
         node = node##_next, node##_next = node->next)

static inline void list_init(struct list *node) { node->next = node->prev = node; }
static inline bool list_empty(const struct list *head) { return head->next == head; }
static inline bool list_linked(const struct list *node) { return node->next != node; }
static inline void list_insert_between(struct list *node, struct list *prev, struct list *next) {
    node->prev = prev;
    node->next = next;
    prev->next = node;
    next->prev = node;
}
static inline void list_push_front(struct list *head, struct list *node) {
    list_insert_between(node, head, head->next);
}
static inline void list_push_back(struct list *head, struct list *node) {
    list_insert_between(node, head->prev, head);
}
/* Unlinks and re-initialises; harmless on an unlinked node. */
static inline void list_remove(struct list *node) {
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}
/* NULL when empty. */
static inline struct list *list_pop_front(struct list *head) {
    struct list *node = head->next;
    if (node == head) return NULL;
    list_remove(node);
    return node;
}
/* Moves all nodes of `from`, in their order, behind those of `to` (both are initialised heads). */
static inline void list_take_all(struct list *to, struct list *from) {
    if (list_empty(from)) return;
    to->prev->next = from->next;
    from->next->prev = to->prev;
    to->prev = from->prev;
    from->prev->next = to;
    list_init(from);
}

#endif
