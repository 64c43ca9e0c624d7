#include "fork.h"

#include <pthread.h>

#include "atomic.h"

static _Atomic unsigned generation;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void in_child(void)
{
    wp_store_relaxed(&generation, wp_load_relaxed(&generation) + 1);
}

static void watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, in_child);
}

unsigned wp_fork_generation(void)
{
    pthread_once(&once, watch_forks);
    return wp_load_relaxed(&generation);
}

bool wp_forked_since(unsigned then)
{
    return wp_load_relaxed(&generation) != then;
}
