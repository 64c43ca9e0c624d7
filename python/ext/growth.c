/* The worker looks at its own memory, after each task: one read of a small file that the kernel makes up. */
#include "growth.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int growth_init(struct growth *growth, unsigned long long most)
{
    growth->most = most;
    growth->statm = most > 0 ? open("/proc/self/statm", O_RDONLY | O_CLOEXEC) : -1;
    if (most > 0 && growth->statm < 0) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, "/proc/self/statm");
        return -1;
    }
    return 0;
}

void growth_clear(struct growth *growth)
{
    if (growth->most > 0 && growth->statm >= 0) {
        close(growth->statm);
        growth->statm = -1;
    }
}

/* The second number: pages. 0: unknown. */
static unsigned long long resident_pages(int statm)
{
    char text[128], *end;
    ssize_t size = pread(statm, text, sizeof text - 1, 0);
    if (size <= 0) {
        return 0;
    }
    text[size] = 0;
    (void)strtoull(text, &end, 10);
    return strtoull(end, NULL, 10);
}

bool has_outgrown(const struct growth *growth)
{
    if (growth->most == 0) {
        return false;
    }
    return resident_pages(growth->statm) * (unsigned long long)sysconf(_SC_PAGESIZE) > growth->most;
}
