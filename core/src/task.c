#include "task.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_NS (UINT64_C(1) << 62) /* a limit past it is none: 146 years */

struct weirpool_task *wp_task_new(const struct weirpool_request *request, size_t size)
{
    struct weirpool_task *task = calloc(1, sizeof *task);
    if (task != NULL) {
        task->user = request->user;
        task->word = request->interest;
        task->retries = request->retries;
        task->size = size;
        task->limit_ns = request->limit_ns < LONGEST_NS ? (int64_t)request->limit_ns : 0;
        wp_list_init(&task->link);
        wp_list_init(&task->limit_link);
    }
    return task;
}

void wp_task_free(struct weirpool_task *task)
{
    free(task->bytes);
    free(task->result);
    free(task);
}

size_t wp_parts_size(const struct iovec *parts, int count)
{
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        size += parts[i].iov_len;
    }
    return size;
}

void wp_parts_copy(unsigned char *to, const struct iovec *parts, int count)
{
    for (int i = 0; i < count; i++) {
        if (parts[i].iov_len > 0) {
            memcpy(to, parts[i].iov_base, parts[i].iov_len);
            to += parts[i].iov_len;
        }
    }
}

int wp_task_keep(struct weirpool_task *task, const struct iovec *parts, int count)
{
    task->bytes = malloc(task->size > 0 ? task->size : 1);
    if (task->bytes == NULL) {
        return -ENOMEM;
    }
    wp_parts_copy(task->bytes, parts, count);
    return 0;
}

bool weirpool_interest(weirpool_task *task, unsigned interest)
{
    /* Pairs with the fetch_or in wp_end_task(): exactly one of the two sees the other. */
    return !wp_is_settled(wp_fetch_or_acq_rel(&task->word, interest));
}

void weirpool_describe(weirpool_task *task, struct weirpool_completion *completion)
{
    *completion = (struct weirpool_completion){
        .task = task,
        .user = task->user,
        .error = task->error,
        .status = task->status,
        .result = task->result,
        .result_size = task->result_size,
        .worker_pid = task->worker_pid,
        .worker_status = task->worker_status,
        .attempts = task->attempts,
        .limit_ns = (uint64_t)task->limit_ns,
    };
}

void weirpool_drop_result(weirpool_task *task)
{
    free(task->result);
    task->result = NULL;
    task->result_size = 0;
}

void *weirpool_keep_result(weirpool_task *task, size_t *size)
{
    void *result = task->result;
    *size = task->result_size;
    task->result = NULL;
    task->result_size = 0;
    return result;
}

void weirpool_release(weirpool *pool, weirpool_task *task)
{
    (void)pool;
    wp_task_free(task);
}
