/* Errors of the core for which no caller has a meaning of its own become exceptions here. */
#include "ext.h"

#include <errno.h>

const char forked_text[] = "this pool belongs to the process that created it and cannot be used in a forked child: "
                           "create a new pool there";

/* The standard library's: programs and tests look for parts of them. */
const char shut_down_text[] = "cannot schedule new futures after shutdown";
const char unusable_text[] = "A child process terminated abruptly, the process pool is not usable anymore";

PyObject *raise_error(struct state *state, int rc)
{
    switch (-rc) {
    case ESHUTDOWN:
        PyErr_SetString(PyExc_RuntimeError, shut_down_text);
        return NULL;
    case EPIPE:
        PyErr_SetString(state->broken_pool, unusable_text);
        return NULL;
    case ECHILD:
        PyErr_SetString(PyExc_RuntimeError, forked_text);
        return NULL;
    case ENOMEM:
        PyErr_SetString(PyExc_MemoryError, "there is no memory for it, or a limit of this process is reached "
                                           "(RLIMIT_AS, RLIMIT_FSIZE)");
        return NULL;
    case EMSGSIZE:
        PyErr_SetString(PyExc_MemoryError, "the pickled task is larger than the shared memory that the pool could get");
        return NULL;
    default:
        errno = -rc;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
}

PyObject *raise_pool_error(Engine *engine, int rc)
{
    struct state *state = state_of((PyObject *)engine);
    if (rc != -EPIPE) {
        return raise_error(state, rc);
    }
    PyObject *error = engine_broken(engine, unusable_text, 0);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return NULL;
}

#if PY_VERSION_HEX >= 0x030c0000

PyObject *take_exception(void)
{
    return PyErr_GetRaisedException();
}

void restore_exception(PyObject *error)
{
    PyErr_SetRaisedException(error);
}

#else

PyObject *take_exception(void)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(error, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return error;
}

void restore_exception(PyObject *error)
{
    PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
}

#endif
