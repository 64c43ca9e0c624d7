/* The worker's side, for crew.c and tests: what weirpool_worker.h has, in smaller steps. */
#ifndef WP_WORKER_H
#define WP_WORKER_H

#include "segment.h"
#include "weirpool_worker.h"

/* As weirpool_attach(), over a mapping that exists already (tests run workers as threads). Takes `segment` over. */
int wp_worker_open(weirpool_worker **worker, const struct wp_segment *segment, const struct weirpool_channel *channel,
                   uint32_t badge);

/* Puts the result into the slot, or sends it through the stream. weirpool_finish() is this and wp_complete(). */
int wp_deliver(weirpool_worker *worker, const struct iovec *parts, int count);

/* Says that the claimed task is done. -ECANCELED: it was stopped, end this process; -ESHUTDOWN: nobody wants it any
 * more; -ECHILD: this is a fork of the worker. */
int wp_complete(weirpool_worker *worker, int status);

/* Claims and handles tasks until there is nothing more to do. 0: leave as planned; -EOWNERDEAD: the parent is gone;
 * -ECANCELED: the pool is killing this process. */
int wp_serve(weirpool_worker *worker, weirpool_handler *handler, void *context);

#endif
