/* A task as the parent knows it, in private memory, and the word by which its end is seen. */
#ifndef WP_TASK_H
#define WP_TASK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "atomic.h"
#include "list.h"
#include "weirpool_worker.h"

/* Bits of a task's word and of a ticket's. The two lowest are enum weirpool_interest. */
enum {
    WP_SETTLED = 1u << 2, /* the task was taken; the producer was admitted or turned away */
    WP_WAITED = 1u << 3, /* somebody sleeps on the word */
    WP_POKED = 1u << 4, /* from this bit on: counts how often a sleeper was offered the helper's role */
};

enum wp_place {
    WP_NOWHERE, /* being made, or ended */
    WP_IN_OVERFLOW, /* admitted; it did not fit the table or the arena yet */
    WP_IN_SLOT,
};

struct wp_extent;

/*
 * field                    writer                         protection
 * user, size               the submitting thread          before publication
 * word                     anybody                        atomic: SETTLED is released by wp_end_task(), acquired by
 *                                                         weirpool_phase() and weirpool_wait()
 * place, position, link,   queue.c, take.c, repair.c      pool lock
 * holding, watched, error,
 * unplaced, started,
 * attempts
 * retries                  the submitting thread          before publication
 * limit_ns                 the submitting thread          before publication
 * limit_link, published,   limits.c                       pool lock
 * seen_running
 * condemned, runner,       condemn.c, queue.c             pool lock
 * forced
 * streaming, received      take.c, repair.c               pool lock; a drainer reads `received` without it: nobody else
 *                                                         writes it meanwhile
 * bytes, extent            queue.c                        pool lock (before publication: the submitting thread)
 * accepted, full_at        times.c                        pool lock
 * result*, status          take.c; stream: its drainer    pool lock until SETTLED, then the task's owner
 * worker_*                 repair.c                       pool lock until SETTLED, then the task's owner
 */
struct weirpool_task {
    struct wp_link link; /* in the overflow, or in a list of tasks to tell */
    void *user;
    _Atomic uint32_t word;
    uint8_t place;
    bool holding; /* taken, and keeps its permit until it is told */
    bool watched; /* taken, and the collector's to tell */
    bool streaming; /* its result's head came through a stream */
    bool unplaced; /* in the overflow, and needs a place in the arena */
    bool started; /* a worker is known to have started it, or it has ended */
    bool condemned; /* its worker is being killed: it is not to finish any more */
    bool forced; /* condemned by weirpool_stop(), whose caller tells it */
    uint32_t runner; /* of a condemned task: the worker, whatever its slot says */
    uint32_t retries; /* how often it may run again after an attempt was lost */
    uint32_t attempts; /* that are over */
    int64_t limit_ns; /* how long an attempt may run; 0: no limit */
    struct wp_link limit_link; /* in the list of limited tasks in slots */
    int64_t published; /* this attempt */
    int64_t seen_running; /* when we first saw that; 0: not yet */
    uint64_t position;
    size_t size; /* of the payload */
    unsigned char *bytes; /* a private copy of the payload, while it is in neither slot nor arena */
    struct wp_extent *extent; /* or its place in the arena */
    int64_t accepted; /* when table or overflow had it */
    int64_t full_at; /* when, before that, a producer that had waited was last admitted */
    unsigned char *result; /* NULL with a result_size: there was no memory for it */
    size_t result_size;
    size_t received; /* of a streamed result */
    int error;
    int status;
    int worker_pid;
    int worker_status;
};

/* `size` is the sum of the request's parts, which are not kept. */
struct weirpool_task *wp_task_new(const struct weirpool_request *request, size_t size);
void wp_task_free(struct weirpool_task *task);

/* Keeps a private copy of the payload. */
int wp_task_keep(struct weirpool_task *task, const struct iovec *parts, int count);

size_t wp_parts_size(const struct iovec *parts, int count);
void wp_parts_copy(unsigned char *to, const struct iovec *parts, int count);

static inline bool wp_is_settled(uint32_t word)
{
    return (word & WP_SETTLED) != 0;
}

#endif
