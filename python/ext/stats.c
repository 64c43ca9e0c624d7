/* What an engine has measured: the fields of Stats, by their names, and its workers. */
#include "ext.h"

#include <stddef.h>

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

struct count {
    const char *name;
    size_t at; /* in struct weirpool_stats */
};

#define COUNT(name) {#name, offsetof(struct weirpool_stats, name)}

static const struct count counts[] = {
    COUNT(bound),
    COUNT(outstanding),
    COUNT(waiting),
    COUNT(running),
    COUNT(bytes_held),
    COUNT(submitted),
    COUNT(finished),
    COUNT(completed),
    COUNT(failed),
    COUNT(cancelled),
    COUNT(retried),
    COUNT(stopped),
    COUNT(workers_died),
    COUNT(segment_bytes),
    COUNT(peak_outstanding),
    COUNT(admitted_over_bound),
    COUNT(blocked_producers),
};

/* Steals the reference to `value`, which may be NULL with an exception set. */
static int put(PyObject *fields, const char *name, PyObject *value)
{
    int rc = value != NULL ? PyDict_SetItemString(fields, name, value) : -1;
    Py_XDECREF(value);
    return rc;
}

static int put_counts(PyObject *fields, const struct weirpool_stats *stats)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const uint64_t *value = (const uint64_t *)((const char *)stats + counts[i].at);
        if (put(fields, counts[i].name, PyLong_FromUnsignedLongLong(*value)) < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *durations(const struct weirpool_durations *d)
{
    return Py_BuildValue("dddKd", seconds(d->p50), seconds(d->p95), seconds(d->p99), d->count, seconds(d->sum));
}

static int put_times(PyObject *fields, const struct weirpool_stats *stats)
{
    if (put(fields, "wait", durations(&stats->wait)) < 0 || put(fields, "run", durations(&stats->run)) < 0 ||
        put(fields, "refill_lag", durations(&stats->refill_lag)) < 0 ||
        put(fields, "blocked_seconds", PyFloat_FromDouble(seconds(stats->blocked_ns))) < 0 ||
        put(fields, "occupancy", PyFloat_FromDouble(stats->occupancy)) < 0 ||
        put(fields, "tasks_per_second", PyFloat_FromDouble(stats->tasks_per_second)) < 0) {
        return -1;
    }
    return 0;
}

PyObject *engine_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Engine *engine = (Engine *)self;
    struct weirpool_stats stats = engine->last;
    int rc = engine->pool != NULL ? weirpool_stats(engine->pool, &stats) : 0;
    if (rc != 0) {
        return raise_error(state_of(self), rc);
    }
    PyObject *fields = Py_BuildValue("{sK}", "rejected", engine->rejected);
    if (fields != NULL && (put_counts(fields, &stats) < 0 || put_times(fields, &stats) < 0)) {
        Py_CLEAR(fields);
    }
    return fields;
}

static int append_worker(PyObject *list, const struct weirpool_worker_stats *worker)
{
    PyObject *item = Py_BuildValue("iKd", worker->pid, worker->tasks, seconds(worker->busy_ns));
    int rc = item != NULL ? PyList_Append(list, item) : -1;
    Py_XDECREF(item);
    return rc;
}

static PyObject *list_workers(PyObject *self, struct weirpool_worker_stats *workers)
{
    int count = weirpool_workers(((Engine *)self)->pool, workers, WEIRPOOL_MAX_WORKERS);
    if (count < 0) {
        return raise_error(state_of(self), count);
    }
    PyObject *list = PyList_New(0);
    for (int i = 0; list != NULL && i < count; i++) {
        if (append_worker(list, &workers[i]) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

PyObject *engine_workers(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (((Engine *)self)->pool == NULL) {
        return PyList_New(0);
    }
    struct weirpool_worker_stats *workers = PyMem_Calloc(WEIRPOOL_MAX_WORKERS, sizeof *workers);
    if (workers == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *list = list_workers(self, workers);
    PyMem_Free(workers);
    return list;
}
