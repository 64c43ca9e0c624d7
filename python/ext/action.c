/*
 * What the kernel does at a signal: more than the handler that Python knows of. signal.signal() forgets the rest: that
 * system calls go on (signal.siginterrupt), and that a handler in C stands before that of Python's
 * (faulthandler.register).
 */
#include "ext.h"

#include <signal.h>

static PyObject *raise_errno(void)
{
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* The rest of what sigaction() has filled in is undefined: of the mask it knows only that of the kernel's. */
static struct sigaction what_is_known(const struct sigaction *found)
{
    struct sigaction action = {.sa_flags = found->sa_flags};
    action.sa_sigaction = found->sa_sigaction;
    sigemptyset(&action.sa_mask);
    for (int signum = 1; signum < NSIG; signum++) {
        if (sigismember(&found->sa_mask, signum) == 1) {
            sigaddset(&action.sa_mask, signum);
        }
    }
    return action;
}

PyObject *signal_action(PyObject *Py_UNUSED(module), PyObject *number)
{
    struct sigaction found = {.sa_flags = 0};
    int signum = (int)PyLong_AsLong(number);
    if (signum == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (sigaction(signum, NULL, &found) != 0) {
        return raise_errno();
    }
    struct sigaction action = what_is_known(&found);
    return PyBytes_FromStringAndSize((const char *)&action, sizeof action);
}

PyObject *set_signal_action(PyObject *Py_UNUSED(module), PyObject *args)
{
    int signum;
    const char *bytes;
    Py_ssize_t size;
    struct sigaction action;
    if (!PyArg_ParseTuple(args, "iy#", &signum, &bytes, &size)) {
        return NULL;
    }
    if (size != sizeof action) {
        PyErr_SetString(PyExc_ValueError, "this is not what signal_action() returned");
        return NULL;
    }
    memcpy(&action, bytes, sizeof action);
    if (sigaction(signum, &action, NULL) != 0) {
        return raise_errno();
    }
    Py_RETURN_NONE;
}
