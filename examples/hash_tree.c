/*
 * hash_tree: prints the SHA-256 of every file under a folder, like sha256sum, with a pool of worker processes.
 *
 *     cc hash_tree.c -o hash_tree $(pkg-config --cflags --libs weirpool libcrypto)
 *     ./hash_tree -j 8 -b 16 FOLDER
 *
 * The lines are sorted by path, byte by byte: `find FOLDER -type f -exec sha256sum {} + | LC_ALL=C sort -k 2` gives the
 * same. A task's payload is a path, not the file's bytes: the worker reads the file, and its result is 32 bytes.
 *
 * What the pool is for: a worker that crashes on a file takes neither this program nor the other files with it. That
 * file is reported, and the rest is hashed. To see it, make the worker crash on purpose:
 *
 *     ./hash_tree --crash-on some_name FOLDER
 */
#define _XOPEN_SOURCE 700 /* nftw() */

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/evp.h>

#include <weirpool.h>

#define DIGEST_SIZE 32

/* ---- In a worker ------------------------------------------------------------------------------------------------ */

static int read_and_hash(int fd, EVP_MD_CTX *hash)
{
    static unsigned char buffer[256 * 1024];
    ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) != 0) {
        if (n > 0) {
            EVP_DigestUpdate(hash, buffer, (size_t)n);
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

/* Returns 0 or an errno. */
static int hash_file(const char *path, unsigned char digest[DIGEST_SIZE])
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    if (hash == NULL || !EVP_DigestInit_ex(hash, EVP_sha256(), NULL)) {
        EVP_MD_CTX_free(hash);
        return ENOMEM;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 ? errno : read_and_hash(fd, hash);
    if (fd >= 0) {
        close(fd);
    }
    if (error == 0 && !EVP_DigestFinal_ex(hash, digest, NULL)) {
        error = EIO;
    }
    EVP_MD_CTX_free(hash);
    return error;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* The handler. The payload is a path with its '\0'; what it returns is the completion's `status`. */
static int handle(const void *payload, size_t size, weirpool_reply *reply, void *context)
{
    const char *path = payload;
    const char *crash_on = context;
    unsigned char digest[DIGEST_SIZE];
    (void)size;
    if (crash_on != NULL && strcmp(last_part(path), crash_on) == 0) {
        abort();
    }
    int error = hash_file(path, digest);
    return error != 0 ? error : -weirpool_answer(reply, digest, sizeof digest);
}

/* ---- The files -------------------------------------------------------------------------------------------------- */

enum state { PENDING, HASHED, FAILED };

struct file {
    char *path;
    enum state state;
    unsigned char digest[DIGEST_SIZE];
};

/* nftw() gives its callback no pointer of ours, so this is global. */
static struct {
    struct file *files;
    size_t count;
    size_t room;
    size_t pending;
    size_t printed; /* all files before this one are */
    bool failed; /* something could not be read or hashed */
} tree;

static void report(const char *path, const char *what)
{
    fprintf(stderr, "hash_tree: %s: %s\n", path, what);
    tree.failed = true;
}

static int add_file(const char *path)
{
    if (tree.count == tree.room) {
        size_t room = tree.room == 0 ? 1024 : 2 * tree.room;
        struct file *files = realloc(tree.files, room * sizeof *files);
        if (files == NULL) {
            return -1;
        }
        tree.files = files;
        tree.room = room;
    }
    char *copy = strdup(path);
    if (copy == NULL) {
        return -1;
    }
    tree.files[tree.count++] = (struct file){.path = copy, .state = PENDING};
    tree.pending++;
    return 0;
}

/* Symbolic links are not followed, so that no file is hashed twice. */
static int visit(const char *path, const struct stat *about, int type, struct FTW *where)
{
    if (where->level == 0 && type == FTW_SL) {
        report(path, "is a symbolic link: name the folder itself");
    } else if (type == FTW_DNR) {
        report(path, "cannot read this folder");
    } else if (type == FTW_NS) {
        report(path, "cannot look at this file");
    } else if (type == FTW_F && S_ISREG(about->st_mode)) {
        return add_file(path);
    }
    return 0;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct file *)a)->path, ((const struct file *)b)->path);
}

/* Fills `tree`; false after an error that was printed. */
static bool find_files(const char *folder)
{
    enum { DESCRIPTORS = 64 };
    struct stat about;
    int error = stat(folder, &about) != 0 ? errno : S_ISDIR(about.st_mode) ? 0 : ENOTDIR;
    if (error == 0 && nftw(folder, visit, DESCRIPTORS, FTW_PHYS) != 0) {
        error = errno;
    }
    if (error != 0) {
        report(folder, strerror(error));
        return false;
    }
    if (tree.count > 0) {
        qsort(tree.files, tree.count, sizeof *tree.files, by_path);
    }
    return true;
}

static void free_files(void)
{
    for (size_t i = 0; i < tree.count; i++) {
        free(tree.files[i].path);
    }
    free(tree.files);
}

/* ---- Output ----------------------------------------------------------------------------------------------------- */

/* As sha256sum does: a line break in a name is escaped, and a line with such a name begins with a backslash. */
static void print_path(const char *path)
{
    for (; *path != '\0'; path++) {
        switch (*path) {
        case '\n':
            fputs("\\n", stdout);
            break;
        case '\r':
            fputs("\\r", stdout);
            break;
        case '\\':
            fputs("\\\\", stdout);
            break;
        default:
            putchar(*path);
        }
    }
}

static void print_line(const struct file *file)
{
    if (strpbrk(file->path, "\n\r\\") != NULL) {
        putchar('\\');
    }
    for (int i = 0; i < DIGEST_SIZE; i++) {
        printf("%02x", file->digest[i]);
    }
    fputs("  ", stdout);
    print_path(file->path);
    putchar('\n');
}

/* Prints what is known, up to the first file that is not. */
static void print_known(void)
{
    for (; tree.printed < tree.count && tree.files[tree.printed].state != PENDING; tree.printed++) {
        if (tree.files[tree.printed].state == HASHED) {
            print_line(&tree.files[tree.printed]);
        }
    }
}

/* ---- The pool --------------------------------------------------------------------------------------------------- */

static void report_crash(const char *path, int status)
{
    char what[100];
    if (WIFSIGNALED(status)) {
        int number = WTERMSIG(status);
        snprintf(what, sizeof what, "the worker was killed by signal %d (%s)", number, strsignal(number));
    } else {
        snprintf(what, sizeof what, "the worker exited with status %d", WEXITSTATUS(status));
    }
    report(path, what);
}

/* What became of a file. One that the pool never finished stays pending, for the next pool. */
static void take_in(const struct weirpool_completion *done)
{
    struct file *file = done->user;
    if (done->error == -EPIPE) {
        return;
    }
    file->state = FAILED;
    tree.pending--;
    if (done->error == -EOWNERDEAD) {
        report_crash(file->path, done->worker_status);
    } else if (done->error != 0) {
        report(file->path, strerror(-done->error));
    } else if (done->status != 0) {
        report(file->path, strerror(done->status));
    } else {
        memcpy(file->digest, done->result, DIGEST_SIZE);
        file->state = HASHED;
    }
}

/* Fetches completions until there is none by `deadline`; returns why there is none. */
static int fetch(weirpool *pool, int64_t deadline)
{
    for (;;) {
        struct weirpool_completion done;
        int rc = weirpool_next(pool, &done, deadline);
        if (rc == 0) {
            take_in(&done);
            weirpool_release(pool, done.task);
        } else if (rc != -EINTR) { /* for example stopped with Ctrl-Z, and continued */
            print_known();
            return rc;
        }
    }
}

/* Waits while the pool is full: that is what keeps memory flat, however many files there are. */
static int submit(weirpool *pool, struct file *file)
{
    int rc;
    do {
        rc = weirpool_submit(pool, file->path, strlen(file->path) + 1, file, WEIRPOOL_FOREVER, NULL);
    } while (rc == -EINTR);
    return rc;
}

/* Submits what is pending and fetches what is finished. 0: all is done; -EPIPE: the pool broke on the way. */
static int run(weirpool *pool)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < tree.count; i++) {
        if (tree.files[i].state == PENDING) {
            rc = submit(pool, &tree.files[i]);
            (void)fetch(pool, WEIRPOOL_NOW); /* completions that nobody fetches would pile up */
        }
    }
    if (rc == 0) {
        rc = weirpool_shutdown(pool);
    }
    if (rc == 0 || rc == -EPIPE) {
        rc = fetch(pool, WEIRPOOL_FOREVER); /* the last ones; of a broken pool those that it gave up */
    }
    return rc == -ESHUTDOWN ? 0 : rc;
}

/* A worker that dies breaks its pool: a new one goes on with what is still pending. */
static int hash_files(const struct weirpool_options *options)
{
    int rc = -EPIPE;
    while (rc == -EPIPE && tree.pending > 0) {
        weirpool *pool;
        size_t pending = tree.pending;
        rc = weirpool_open(&pool, options);
        if (rc == 0) {
            rc = run(pool);
            weirpool_close(pool);
        }
        if (rc == -EPIPE && tree.pending == pending) {
            return rc; /* the workers die by themselves: more pools would not help */
        }
    }
    return tree.pending > 0 ? rc : 0;
}

/* ---- The command line ------------------------------------------------------------------------------------------- */

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: hash_tree [-j WORKERS] [-b BOUND] [--crash-on NAME] FOLDER\n"
                    "  -j WORKERS       worker processes (default: one for each core)\n"
                    "  -b BOUND         the most files submitted and not finished (default: twice the workers)\n"
                    "  --crash-on NAME  crash the worker on each file of that name, to see what happens\n");
    exit(2);
}

static unsigned long number(const char *text, unsigned long most)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || n < 1 || n > most) {
        fprintf(stderr, "hash_tree: %s: not a number from 1 to %lu\n", text, most);
        usage();
    }
    return n;
}

/* Returns the folder. */
static const char *parse(int argc, char **argv, struct weirpool_options *options)
{
    static const struct option names[] = {{"crash-on", required_argument, NULL, 'c'}, {0}};
    int option;
    while ((option = getopt_long(argc, argv, "j:b:", names, NULL)) != -1) {
        switch (option) {
        case 'j':
            options->workers = (uint32_t)number(optarg, WEIRPOOL_MAX_WORKERS);
            break;
        case 'b':
            options->bound = number(optarg, 1000000000);
            break;
        case 'c':
            options->context = optarg;
            break;
        default:
            usage();
        }
    }
    if (optind != argc - 1) {
        usage();
    }
    return argv[optind];
}

int main(int argc, char **argv)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct weirpool_options options = {.size = sizeof options, .handler = handle};
    options.workers = cores > 0 && cores < WEIRPOOL_MAX_WORKERS ? (uint32_t)cores : 1;
    const char *folder = parse(argc, argv, &options);
    if (options.bound == 0) {
        options.bound = 2 * (uint64_t)options.workers;
    }
    if (find_files(folder)) {
        int rc = hash_files(&options);
        if (rc != 0) {
            report(folder, rc == -EPIPE ? "workers die before they have hashed anything" : strerror(-rc));
        }
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        report("standard output", "cannot be written");
    }
    free_files();
    return tree.failed ? 1 : 0;
}
