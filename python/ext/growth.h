/* Whether this process has outgrown the memory that it may have resident. */
#ifndef WEIRPOOL_EXT_GROWTH_H
#define WEIRPOOL_EXT_GROWTH_H

#include "ext.h"

struct growth {
    unsigned long long most; /* bytes; 0: no limit */
    int statm; /* a descriptor, kept: opening it costs more than reading */
};

/* -1: exception set. */
int growth_init(struct growth *growth, unsigned long long most);
void growth_clear(struct growth *growth);

/* Where it cannot be told it has not. */
bool has_outgrown(const struct growth *growth);

#endif
