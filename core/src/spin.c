#include "spin.h"

#include "os/os.h"

#define LOOKS_A_CLOCK 16
#define MOST_MISSES 64
#define SHORT_NS (4 * WP_SPIN_NS) /* a sleep that spinning might have saved: most of it is the wake-up */

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* yield does nothing on most of them */
#endif
}

bool wp_spin(struct wp_spin *spin, bool (*is_over)(const void *what), const void *what)
{
    int64_t end = wp_os_now() + WP_SPIN_NS;
    bool over = is_over(what);
    while (!over && wp_os_now() < end) {
        for (int i = 0; !over && i < LOOKS_A_CLOCK; i++) {
            pause_briefly();
            over = is_over(what);
        }
    }
    if (over) {
        spin->misses = 0;
    } else {
        spin->misses = spin->misses < MOST_MISSES ? 2 * spin->misses + 1 : MOST_MISSES;
    }
    spin->slept = 0;
    return over;
}

void wp_spin_slept(struct wp_spin *spin, int64_t ns)
{
    if (ns < SHORT_NS && spin->slept < spin->misses) {
        spin->slept++;
    }
}
