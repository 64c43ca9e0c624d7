/* Linux as os.h has it, but time passes faster, so that looks come often. For one file of an executable. */
#ifndef WP_FUZZ_FAST_OS_H
#define WP_FUZZ_FAST_OS_H

#include "os/os.h"

#define wp_os_now linux_now
#define wp_os_futex_wait linux_futex_wait
#define wp_os_watch_wait linux_watch_wait
int64_t linux_now(void);
int linux_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline, enum wp_futex_scope scope);
int linux_watch_wait(int watch, uint32_t *keys, int room, int64_t deadline);
#include "os/linux.c"
#undef wp_os_now
#undef wp_os_futex_wait
#undef wp_os_watch_wait

#include "sanitizer.h"

#define FASTER 100

int64_t wp_os_now(void)
{
    return FASTER * linux_now();
}

int wp_os_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline, enum wp_futex_scope scope)
{
    return linux_futex_wait(word, seen, deadline / FASTER + 1, scope);
}

int wp_os_watch_wait(int watch, uint32_t *keys, int room, int64_t deadline)
{
    return linux_watch_wait(watch, keys, room, deadline / FASTER);
}

#endif
