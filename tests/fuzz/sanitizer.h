/* For one file of an executable: under sanitizers memory that a lie asks for is refused, as by a machine that has not got
 * it, where their allocators would end the program. */
#ifndef WP_FUZZ_SANITIZER_H
#define WP_FUZZ_SANITIZER_H

#define REFUSE "allocator_may_return_null=1:max_allocation_size_mb=256"

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return REFUSE;
}

const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return REFUSE;
}

#endif
