/*
 * The smallest program with a pool: each line of the input is turned around by a worker process.
 *
 *     cc hello.c -o hello $(pkg-config --cflags --libs weirpool) && ls | ./hello
 */
#include <stdio.h>
#include <string.h>

#include <weirpool.h>

/* Runs in a worker. */
static int turn_around(const void *text, size_t size, weirpool_reply *reply, void *context)
{
    char turned[1000];
    (void)context;
    for (size_t i = 0; i < size; i++) {
        turned[i] = ((const char *)text)[size - 1 - i];
    }
    return weirpool_answer(reply, turned, size);
}

int main(void)
{
    weirpool *pool;
    struct weirpool_options options = {.size = sizeof options, .workers = 4, .handler = turn_around};
    int rc = weirpool_open(&pool, &options);
    char line[1000];
    while (rc == 0 && fgets(line, sizeof line, stdin) != NULL) {
        rc = weirpool_submit(pool, line, strcspn(line, "\n"), NULL, WEIRPOOL_FOREVER, NULL);
    }
    if (rc != 0) {
        fprintf(stderr, "hello: %s\n", strerror(-rc));
        return 1;
    }
    weirpool_shutdown(pool);
    struct weirpool_completion done;
    while (weirpool_next(pool, &done, WEIRPOOL_FOREVER) == 0) { /* as they finish */
        printf("%.*s\n", (int)done.result_size, (const char *)done.result);
        weirpool_release(pool, done.task);
    }
    weirpool_close(pool);
    return 0;
}
