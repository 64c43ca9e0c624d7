/* Knowing that this process is a fork of the one that made a pool or attached a worker. */
#ifndef WP_FORK_H
#define WP_FORK_H

#include <stdbool.h>

/* The generation of this process, to be kept with what must not be used in a fork. */
unsigned wp_fork_generation(void);

/* Was the process forked since `generation` was read? */
bool wp_forked_since(unsigned generation);

#endif
