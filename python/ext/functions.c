#include "functions.h"

#include <string.h>

static int is_where_its_name_says(PyObject *function)
{
    PyFunctionObject *f = (PyFunctionObject *)function;
    PyObject *found = PyDict_GetItemWithError(f->func_globals, f->func_qualname);
    if (found == NULL) {
        PyErr_Clear();
    }
    return found == function;
}

/* Of the module that it names: a copy of a function may have other globals. */
static int has_globals_of_its_module(PyObject *function)
{
    PyFunctionObject *f = (PyFunctionObject *)function;
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *module = f->func_module != NULL ? PyDict_GetItemWithError(modules, f->func_module) : NULL;
    if (module == NULL) {
        PyErr_Clear();
    }
    return module != NULL && PyModule_Check(module) && PyModule_GetDict(module) == f->func_globals;
}

int functions_is_named(PyObject *function)
{
    return PyFunction_Check(function) && is_where_its_name_says(function) && has_globals_of_its_module(function);
}

static struct known_function *next_entry(struct known_functions *known)
{
    struct known_function *entry = &known->entry[known->next];
    known->next = (known->next + 1) % KNOWN_FUNCTIONS;
    Py_CLEAR(entry->function);
    Py_CLEAR(entry->module);
    Py_CLEAR(entry->name);
    entry->size = 0;
    return entry;
}

/* ---- the sender ---- */

/* Its names are what the pickle says; the function itself is not kept alive, nor its globals, which are only compared. */
const struct known_function *functions_find_sent(const struct known_functions *known, PyObject *function)
{
    if (!PyFunction_Check(function)) {
        return NULL;
    }
    PyFunctionObject *f = (PyFunctionObject *)function;
    for (int i = 0; i < KNOWN_FUNCTIONS; i++) {
        const struct known_function *entry = &known->entry[i];
        if (entry->name == f->func_qualname && entry->module == f->func_module && entry->globals == f->func_globals) {
            return entry->name != NULL && is_where_its_name_says(function) ? entry : NULL;
        }
    }
    return NULL;
}

const struct known_function *functions_learn_sent(struct known_functions *known, PyObject *function,
                                                  const struct encoded *pickle)
{
    PyFunctionObject *f = (PyFunctionObject *)function;
    if (pickle->size > KNOWN_FUNCTION_BYTES || !functions_is_named(function)) {
        return NULL;
    }
    struct known_function *entry = next_entry(known);
    entry->module = Py_NewRef(f->func_module);
    entry->name = Py_NewRef(f->func_qualname);
    entry->globals = f->func_globals;
    for (int i = 0; i < pickle->count; i++) {
        memcpy(entry->bytes + entry->size, pickle->parts[i].iov_base, pickle->parts[i].iov_len);
        entry->size += pickle->parts[i].iov_len;
    }
    return entry;
}

/* ---- the receiver ---- */

PyObject *functions_find_received(const struct known_functions *known, const void *data, size_t size)
{
    for (int i = 0; i < KNOWN_FUNCTIONS; i++) {
        const struct known_function *entry = &known->entry[i];
        if (entry->size == size && memcmp(entry->bytes, data, size) == 0) {
            return is_where_its_name_says(entry->function) ? Py_NewRef(entry->function) : NULL;
        }
    }
    return NULL;
}

void functions_learn_received(struct known_functions *known, PyObject *function, const void *data, size_t size)
{
    if (size > 0 && size <= KNOWN_FUNCTION_BYTES && functions_is_named(function)) {
        struct known_function *entry = next_entry(known);
        entry->function = Py_NewRef(function);
        entry->size = size;
        memcpy(entry->bytes, data, size);
    }
}

void functions_clear(struct known_functions *known)
{
    for (int i = 0; i < KNOWN_FUNCTIONS; i++) {
        (void)next_entry(known);
    }
}
