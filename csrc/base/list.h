/* list: a circular doubly linked list whose links live in its members.
 *
 * The head is a link of its own; an empty list points at itself.  A member that
 * is in no list may be left uninitialised, unless list_is_linked() is asked.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef OBD_BASE_LIST_H
#define OBD_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next;
    struct list *previous;
};

#define LIST_ENTRY(link, type, member) ((type *)((char *)(link)-offsetof(type, member)))

static inline void list_init(struct list *list)
{
    list->next = list->previous = list;
}

static inline bool list_is_empty(const struct list *head)
{
    return head->next == head;
}

/* Only for members that list_init() or list_remove() has touched. */
static inline bool list_is_linked(const struct list *link)
{
    return link->next != link;
}

static inline void list_append(struct list *head, struct list *link)
{
    link->previous = head->previous;
    link->next = head;
    head->previous->next = link;
    head->previous = link;
}

static inline void list_remove(struct list *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
    list_init(link);
}

/* The first member's link, taken out of the list; NULL when it is empty. */
static inline struct list *list_pop(struct list *head)
{
    if (list_is_empty(head))
        return NULL;
    struct list *link = head->next;
    list_remove(link);
    return link;
}

#endif
