/* The module: its state, its types, and what the other files share. */
#include "memory.h"
#include "warm.h"

#include <errno.h>
#include <math.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NS_PER_S 1e9
#define SLICE_NS INT64_C(50000000)

struct state *state_of(PyObject *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

PyObject *call_support(struct state *state, const char *name, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    PyObject *args = Py_VaBuildValue(format, arguments);
    va_end(arguments);
    PyObject *function = args != NULL ? PyObject_GetAttrString(state->support, name) : NULL;
    PyObject *result = function != NULL ? PyObject_CallObject(function, args) : NULL;
    Py_XDECREF(function);
    Py_XDECREF(args);
    return result;
}

/* ---- waiting ---- */

/* Asked of the kernel: a call of Python's would let a signal handler run here, whose exception would be lost. */
int is_main_thread(void)
{
    return syscall(SYS_gettid) == getpid();
}

int64_t short_slice(int64_t deadline)
{
    int64_t slice = weirpool_deadline(SLICE_NS);
    return slice < deadline ? slice : deadline;
}

int64_t wait_slice(int64_t deadline)
{
    return is_main_thread() ? short_slice(deadline) : deadline;
}

int is_early(int rc, int64_t deadline)
{
    return rc == -EINTR || ((rc == -ETIMEDOUT || rc == -EAGAIN) && weirpool_deadline(0) < deadline);
}

int timed_out(int rc)
{
    return rc == -ETIMEDOUT || rc == -EAGAIN;
}

int parse_timeout(PyObject *timeout, int64_t *deadline)
{
    if (timeout == NULL || timeout == Py_None) {
        *deadline = WEIRPOOL_FOREVER;
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "timeout must be a number, not NaN");
        return -1;
    }
    if (seconds <= 0) {
        *deadline = WEIRPOOL_NOW;
    } else {
        *deadline = seconds * NS_PER_S >= (double)INT64_MAX ? WEIRPOOL_FOREVER
                                                            : weirpool_deadline((int64_t)(seconds * NS_PER_S));
    }
    return 0;
}

/* ---- setting up ---- */

static PyObject *import_attribute(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *value = module != NULL ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return value;
}

static int import_all(struct state *state)
{
    const struct {
        PyObject **where;
        const char *module;
        const char *name;
    } wanted[] = {
        {&state->base_future, "concurrent.futures", "Future"},
        {&state->cancelled_error, "concurrent.futures", "CancelledError"},
        {&state->broken_pool, "concurrent.futures.process", "BrokenProcessPool"},
        {&state->state_names[PENDING], "concurrent.futures._base", "PENDING"},
        {&state->state_names[RUNNING], "concurrent.futures._base", "RUNNING"},
        {&state->state_names[FINISHED], "concurrent.futures._base", "FINISHED"},
        {&state->state_names[CANCELLED], "concurrent.futures._base", "CANCELLED_AND_NOTIFIED"},
        {&state->state_names[UNNOTIFIED], "concurrent.futures._base", "CANCELLED"},
        {&state->loads, "pickle", "loads"},
        {&state->pickler_type, "_pickle", "Pickler"},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        *wanted[i].where = import_attribute(wanted[i].module, wanted[i].name);
        if (*wanted[i].where == NULL) {
            return -1;
        }
    }
    return 0;
}

/* The mapping that a ForkingPickler makes for each dump; both of its parts are live. */
static PyObject *make_dispatch_table(void)
{
    PyObject *forking = import_attribute("multiprocessing.reduction", "ForkingPickler");
    PyObject *chain = import_attribute("collections", "ChainMap");
    PyObject *copyreg = import_attribute("copyreg", "dispatch_table");
    PyObject *extra = forking != NULL ? PyObject_GetAttrString(forking, "_extra_reducers") : NULL;
    PyObject *table = NULL;
    if (extra != NULL && chain != NULL && copyreg != NULL) {
        table = PyObject_CallFunctionObjArgs(chain, extra, copyreg, NULL);
    }
    Py_XDECREF(forking);
    Py_XDECREF(chain);
    Py_XDECREF(copyreg);
    Py_XDECREF(extra);
    return table;
}

static PyTypeObject *add_type(PyObject *module, PyObject *type)
{
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0) {
        Py_CLEAR(type);
    }
    return (PyTypeObject *)type;
}

static int add_types(PyObject *module, struct state *state)
{
    state->engine_type = add_type(module, PyType_FromModuleAndSpec(module, &engine_spec, NULL));
    state->handle_type = add_type(module, PyType_FromModuleAndSpec(module, &handle_spec, NULL));
    state->condition_type = add_type(module, PyType_FromModuleAndSpec(module, &condition_spec, NULL));
    state->sink_type = add_type(module, PyType_FromModuleAndSpec(module, &sink_spec, NULL));
    state->memory_type = add_type(module, PyType_FromModuleAndSpec(module, &memory_spec, NULL));
    state->ticket_type = add_type(module, PyType_FromModuleAndSpec(module, &ticket_spec, NULL));
    state->worker_type = add_type(module, PyType_FromModuleAndSpec(module, &worker_spec, NULL));
    state->gate_type = add_type(module, PyType_FromModuleAndSpec(module, &gate_spec, NULL));
    state->permit_type = add_type(module, PyType_FromModuleAndSpec(module, &permit_spec, NULL));
    state->starter_type = add_type(module, PyType_FromModuleAndSpec(module, &starter_spec, NULL));
    state->place_type = add_type(module, PyType_FromModuleAndSpec(module, &place_spec, NULL));
    state->future_type = add_type(module, make_future_type(module, state->base_future));
    return PyErr_Occurred() ? -1 : 0;
}

static int refuse_subinterpreters(void)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "weirpool cannot be used in a subinterpreter: import it in the main one");
        return -1;
    }
    return 0;
}

static int module_exec(PyObject *module)
{
    struct state *state = PyModule_GetState(module);
    if (refuse_subinterpreters() < 0 || import_all(state) < 0) {
        return -1;
    }
    state->support = PyImport_ImportModule("weirpool._support");
    state->dispatch_table = make_dispatch_table();
    state->idle_picklers = PyList_New(0);
    state->dump_name = PyUnicode_InternFromString("dump");
    state->clear_memo_name = PyUnicode_InternFromString("clear_memo");
    if (state->dump_name == NULL || state->clear_memo_name == NULL) {
        return -1;
    }
    if (state->support == NULL || state->dispatch_table == NULL || state->idle_picklers == NULL) {
        return -1;
    }
    if (PyModule_AddIntConstant(module, "WORKER_LEFT", WEIRPOOL_WORKER_LEFT) < 0 ||
        PyModule_AddIntConstant(module, "BROKE", WEIRPOOL_BROKE) < 0 ||
        PyModule_AddIntConstant(module, "DRAINED", WEIRPOOL_DRAINED) < 0 ||
        PyModule_AddIntConstant(module, "UP", WEIRPOOL_UP) < 0 ||
        PyModule_AddIntConstant(module, "LEAVES", WEIRPOOL_LEAVES) < 0 ||
        PyModule_AddIntConstant(module, "INIT_FAILED", WEIRPOOL_INIT_FAILED) < 0 ||
        PyModule_AddIntConstant(module, "DEATHS_IN_A_ROW", WEIRPOOL_DEATHS_IN_A_ROW) < 0 ||
        PyModule_AddIntConstant(module, "FAULT_DEATHS_IN_A_ROW", WEIRPOOL_FAULT_DEATHS_IN_A_ROW) < 0 ||
        PyModule_AddIntConstant(module, "FAULT_CORRUPT", WEIRPOOL_FAULT_CORRUPT) < 0 ||
        PyModule_AddIntConstant(module, "INLINE_PAYLOAD", WEIRPOOL_INLINE_PAYLOAD) < 0 ||
        PyModule_AddIntConstant(module, "INLINE_RESULT", WEIRPOOL_INLINE_RESULT) < 0 ||
        PyModule_AddIntConstant(module, "MAX_WORKERS", WEIRPOOL_MAX_WORKERS) < 0 ||
        PyModule_AddStringConstant(module, "FORKED", forked_text) < 0 ||
        PyModule_AddStringConstant(module, "SHUT_DOWN", shut_down_text) < 0 ||
        PyModule_AddStringConstant(module, "UNUSABLE", unusable_text) < 0) {
        return -1;
    }
    return add_types(module, state);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct state *state = PyModule_GetState(module);
    Py_VISIT(state->engine_type);
    Py_VISIT(state->future_type);
    Py_VISIT(state->handle_type);
    Py_VISIT(state->condition_type);
    Py_VISIT(state->sink_type);
    Py_VISIT(state->memory_type);
    Py_VISIT(state->ticket_type);
    Py_VISIT(state->worker_type);
    Py_VISIT(state->gate_type);
    Py_VISIT(state->permit_type);
    Py_VISIT(state->starter_type);
    Py_VISIT(state->place_type);
    Py_VISIT(state->base_future);
    Py_VISIT(state->cancelled_error);
    Py_VISIT(state->broken_pool);
    Py_VISIT(state->loads);
    Py_VISIT(state->pickler_type);
    Py_VISIT(state->dispatch_table);
    Py_VISIT(state->idle_picklers);
    Py_VISIT(state->support);
    return 0;
}

/* Nothing is needed afterwards: finalizers have run by then, and no dealloc of ours looks at the state. */
static int module_clear(PyObject *module)
{
    struct state *state = PyModule_GetState(module);
    Py_CLEAR(state->engine_type);
    Py_CLEAR(state->future_type);
    Py_CLEAR(state->handle_type);
    Py_CLEAR(state->condition_type);
    Py_CLEAR(state->sink_type);
    Py_CLEAR(state->memory_type);
    Py_CLEAR(state->ticket_type);
    Py_CLEAR(state->worker_type);
    Py_CLEAR(state->gate_type);
    Py_CLEAR(state->permit_type);
    Py_CLEAR(state->starter_type);
    Py_CLEAR(state->place_type);
    Py_CLEAR(state->base_future);
    Py_CLEAR(state->cancelled_error);
    Py_CLEAR(state->broken_pool);
    Py_CLEAR(state->loads);
    Py_CLEAR(state->pickler_type);
    Py_CLEAR(state->dispatch_table);
    Py_CLEAR(state->idle_picklers);
    Py_CLEAR(state->support);
    warm_release(state);
    return 0;
}

static PyObject *say_whether_delivering(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(is_delivering());
}

static PyMethodDef module_methods[] = {
    {"is_delivering", say_whether_delivering, METH_NOARGS,
     "is_delivering($module, /)\n--\n\nIs this thread inside a done-callback of the engine's, or pickling?"},
    {"signal_action", signal_action, METH_O,
     "signal_action($module, number, /)\n--\n\nReturn what the kernel does at this signal, for set_signal_action()."},
    {"set_signal_action", set_signal_action, METH_VARARGS,
     "set_signal_action($module, number, action, /)\n--\n\nHave the kernel do that again."},
    {NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

struct PyModuleDef weirpool_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "weirpool._core",
    .m_doc = "The engine of weirpool, for the package itself.",
    .m_size = sizeof(struct state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&weirpool_module);
}
