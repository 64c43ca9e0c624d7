#include "program.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/os.h"

#define VARIABLE "WEIRPOOL_WORKER"
#define VARIABLE_SIZE 96

extern char **environ;

struct wp_program {
    char **argv;
    char **environment; /* without our variable */
};

static size_t count(char *const *strings)
{
    size_t n = 0;
    while (strings[n] != NULL) {
        n++;
    }
    return n;
}

static void free_strings(char **strings)
{
    for (size_t i = 0; strings != NULL && strings[i] != NULL; i++) {
        free(strings[i]);
    }
    free(strings);
}

/* A worker that opens a pool itself has the variable of its own pool. */
static bool is_ours(const char *string)
{
    return strncmp(string, VARIABLE "=", sizeof VARIABLE) == 0;
}

static char **copy_strings(char *const *strings)
{
    char **copy = calloc(count(strings) + 1, sizeof *copy);
    for (size_t i = 0, n = 0; copy != NULL && strings[i] != NULL; i++) {
        if (!is_ours(strings[i]) && (copy[n++] = strdup(strings[i])) == NULL) {
            free_strings(copy);
            copy = NULL;
        }
    }
    return copy;
}

struct wp_program *wp_program_new(char *const *argv)
{
    static char *const nothing[] = {NULL};
    struct wp_program *program = calloc(1, sizeof *program);
    if (program == NULL) {
        return NULL;
    }
    program->argv = copy_strings(argv);
    program->environment = copy_strings(environ != NULL ? environ : (char **)nothing);
    if (program->argv == NULL || program->environment == NULL) {
        wp_program_free(program);
        return NULL;
    }
    return program;
}

void wp_program_free(struct wp_program *program)
{
    if (program != NULL) {
        free_strings(program->argv);
        free_strings(program->environment);
        free(program);
    }
}

/* One block: the pointers, and behind them the variable. */
char **wp_program_environment(const struct wp_program *program, const struct weirpool_channel *channel, uint32_t badge)
{
    size_t n = count(program->environment);
    char **environment = malloc((n + 2) * sizeof *environment + VARIABLE_SIZE);
    if (environment != NULL) {
        char *variable = (char *)(environment + n + 2);
        snprintf(variable, VARIABLE_SIZE, VARIABLE "=%d,%d,%d,%u", channel->segment, channel->doorbell, channel->parent,
                 badge);
        memcpy(environment, program->environment, n * sizeof *environment);
        environment[n] = variable;
        environment[n + 1] = NULL;
    }
    return environment;
}

_Noreturn void wp_program_become(const struct wp_program *program, const struct weirpool_channel *channel,
                                 char **environment)
{
    bool ready = wp_os_pass_on(channel->segment) == 0 && wp_os_pass_on(channel->doorbell) == 0 &&
                 wp_os_pass_on(channel->parent) == 0;
    if (ready) {
        environ = environment;
        execvp(program->argv[0], program->argv);
    }
    _exit(127);
}

int wp_program_read(struct weirpool_channel *channel, uint32_t *badge)
{
    const char *value = getenv(VARIABLE);
    int n = value == NULL
                ? 0
                : sscanf(value, "%d,%d,%d,%" SCNu32, &channel->segment, &channel->doorbell, &channel->parent, badge);
    return n == 4 ? 0 : -EINVAL;
}
