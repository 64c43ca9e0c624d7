/* A ring of links with a head: constant-time append, remove and pop. The links are members of what is listed. */
#ifndef WP_LIST_H
#define WP_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct wp_link {
    struct wp_link *next;
    struct wp_link *previous;
};

#define wp_container_of(link, type, member) ((type *)(void *)((char *)(link) - offsetof(type, member)))

static inline void wp_list_init(struct wp_link *head)
{
    head->next = head->previous = head;
}

static inline bool wp_list_is_empty(const struct wp_link *head)
{
    return head->next == head;
}

static inline void wp_list_append(struct wp_link *head, struct wp_link *link)
{
    link->next = head;
    link->previous = head->previous;
    head->previous->next = link;
    head->previous = link;
}

static inline void wp_list_remove(struct wp_link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
    link->next = link->previous = link;
}

/* The oldest link, removed; NULL if there is none. */
static inline struct wp_link *wp_list_pop(struct wp_link *head)
{
    struct wp_link *link = head->next;
    if (link == head) {
        return NULL;
    }
    wp_list_remove(link);
    return link;
}

#endif
