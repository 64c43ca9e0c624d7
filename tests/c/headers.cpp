// The public headers are C++ too, and their functions keep their C names there: else this does not link.
#include "weirpool_worker.h"

extern int (*const headers_open)(weirpool **, const struct weirpool_options *);
int (*const headers_open)(weirpool **, const struct weirpool_options *) = weirpool_open;

static_assert(WEIRPOOL_FOREVER > WEIRPOOL_NOW, "deadlines are constants");
