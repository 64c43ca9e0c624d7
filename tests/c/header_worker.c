/* weirpool_worker.h needs no other header before it, and no feature macro. */
#include "weirpool_worker.h"

extern int (*const header_worker_attach)(weirpool_worker **, const struct weirpool_channel *, uint32_t);
int (*const header_worker_attach)(weirpool_worker **, const struct weirpool_channel *, uint32_t) = weirpool_attach;
