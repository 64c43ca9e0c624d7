/*
 * The program that the C face's workers run, as it was when the pool was opened. What exec() needs is made before
 * fork(): by then the process may have threads, and in its child nothing may be allocated.
 */
#ifndef WP_PROGRAM_H
#define WP_PROGRAM_H

#include "weirpool_worker.h"

struct wp_program;

/* A copy of `argv` and of the environment. NULL: no memory. */
struct wp_program *wp_program_new(char *const *argv);
void wp_program_free(struct wp_program *program);

/* The environment of the worker with this badge, to be freed with free(). NULL: no memory. */
char **wp_program_environment(const struct wp_program *program, const struct weirpool_channel *channel, uint32_t badge);

/* In a child of fork(): becomes the program. */
_Noreturn void wp_program_become(const struct wp_program *program, const struct weirpool_channel *channel,
                                 char **environment);

/* In the program: what wp_program_environment() said. 0; -EINVAL: no pool started this process. */
int wp_program_read(struct weirpool_channel *channel, uint32_t *badge);

#endif
