#include "functions.h"

#include <string.h>

/* What sys.modules has under these names: borrowed, or NULL (without an exception) if it is nothing simple. */
static PyObject *look_up(PyObject *module_name, PyObject *name)
{
    PyObject *module = PyDict_GetItemWithError(PyImport_GetModuleDict(), module_name);
    PyObject *found = NULL;
    if (module != NULL && PyModule_Check(module)) {
        found = PyDict_GetItemWithError(PyModule_GetDict(module), name);
    }
    if (found == NULL) {
        PyErr_Clear(); /* a name that cannot be hashed: there is none, both are strings */
    }
    return found;
}

/* ---- the sender ---- */

static int is_short_ascii(PyObject *name)
{
    return name != NULL && PyUnicode_CheckExact(name) && PyUnicode_IS_COMPACT_ASCII(name) &&
           PyUnicode_GET_LENGTH(name) <= FUNCTION_NAMES;
}

unsigned char *function_write(PyObject *function, unsigned char *out, const unsigned char *end)
{
    if (!PyFunction_Check(function)) {
        return NULL;
    }
    PyObject *module = ((PyFunctionObject *)function)->func_module,
             *name = ((PyFunctionObject *)function)->func_qualname;
    if (!is_short_ascii(module) || !is_short_ascii(name) || look_up(module, name) != function) {
        return NULL;
    }
    size_t m = (size_t)PyUnicode_GET_LENGTH(module), n = (size_t)PyUnicode_GET_LENGTH(name);
    if (m + 1 + n > FUNCTION_NAMES || (size_t)(end - out) < 2 + m + n) {
        return NULL;
    }
    *out++ = (unsigned char)(m + 1 + n);
    memcpy(out, PyUnicode_DATA(module), m);
    out[m] = 0;
    memcpy(out + m + 1, PyUnicode_DATA(name), n);
    return out + m + 1 + n;
}

/* ---- the receiver ---- */

static void forget(struct known_name *known)
{
    Py_CLEAR(known->module);
    Py_CLEAR(known->name);
    known->size = 0;
}

void known_names_clear(struct known_names *known)
{
    for (int i = 0; i < KNOWN_NAMES; i++) {
        forget(&known->entry[i]);
    }
}

/* Keeps the strings, so that they are not made again for each task. NULL with an exception set. */
static const struct known_name *learn(struct known_names *known, const char *data, size_t size)
{
    struct known_name *entry = &known->entry[known->next];
    const char *zero = memchr(data, 0, size);
    if (zero == NULL) {
        PyErr_SetString(PyExc_EOFError, "a task of the pool's was cut short");
        return NULL;
    }
    known->next = (known->next + 1) % KNOWN_NAMES;
    forget(entry);
    entry->module = PyUnicode_DecodeASCII(data, zero - data, NULL);
    entry->name = PyUnicode_DecodeASCII(zero + 1, data + size - (zero + 1), NULL);
    if (entry->module == NULL || entry->name == NULL) {
        forget(entry);
        return NULL;
    }
    memcpy(entry->bytes, data, size);
    entry->size = size;
    return entry;
}

static const struct known_name *find(struct known_names *known, const void *data, size_t size)
{
    for (int i = 0; i < KNOWN_NAMES; i++) {
        const struct known_name *entry = &known->entry[i];
        if (entry->size == size && memcmp(entry->bytes, data, size) == 0) {
            return entry;
        }
    }
    return learn(known, data, size);
}

/* pickle imports the module, and says what is wrong if there is nothing of that name. */
static PyObject *ask_pickle(struct state *state, const struct known_name *known)
{
    return call_support(state, "load_global", "(OO)", known->module, known->name);
}

PyObject *function_read(struct state *state, struct known_names *known, const void *data, size_t size)
{
    const struct known_name *entry = find(known, data, size);
    if (entry == NULL) {
        return NULL;
    }
    PyObject *found = look_up(entry->module, entry->name);
    return found != NULL ? Py_NewRef(found) : ask_pickle(state, entry);
}
