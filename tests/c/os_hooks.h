/*
 * Linux as os.h has it, with waits that a test controls: what is defined here takes the place of the library's, as os.h
 * allows. For one file of an executable.
 */
#ifndef WP_TEST_OS_HOOKS_H
#define WP_TEST_OS_HOOKS_H

#include "os/os.h"

/* Takes away the look once a second that everybody has: a wake-up that is lost then hangs, and the test fails. */
static _Atomic bool without_looks;

/* Called by a thread before it sleeps on a futex, and after. */
static void (*_Atomic before_futex_wait)(void);
static void (*_Atomic after_futex_wait)(void);

#define wp_os_futex_wait linux_futex_wait
#define wp_os_watch_wait linux_watch_wait
int linux_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline, enum wp_futex_scope scope);
int linux_watch_wait(int watch, uint32_t *keys, int room, int64_t deadline);
#include "os/linux.c"
#undef wp_os_futex_wait
#undef wp_os_watch_wait

/* The deadlines that these tests give themselves are shorter than a look. */
static int64_t without_look(int64_t deadline)
{
    bool is_look = deadline > wp_os_now() + INT64_C(900000000);
    return atomic_load(&without_looks) && is_look ? INT64_MAX : deadline;
}

static void call(void (*_Atomic *hook)(void))
{
    void (*function)(void) = atomic_load(hook);
    if (function != NULL) {
        function();
    }
}

int wp_os_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline, enum wp_futex_scope scope)
{
    call(&before_futex_wait);
    int rc = linux_futex_wait(word, seen, without_look(deadline), scope);
    call(&after_futex_wait);
    return rc;
}

int wp_os_watch_wait(int watch, uint32_t *keys, int room, int64_t deadline)
{
    return linux_watch_wait(watch, keys, room, without_look(deadline));
}

#endif
