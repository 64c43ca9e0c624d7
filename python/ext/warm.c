#include "warm.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define LEAST ((size_t)1024 * 1024) /* smaller ones malloc keeps warm itself */
#define MOST ((size_t)128 * 1024 * 1024)
#define LARGE_PAGE ((uintptr_t)2 * 1024 * 1024)

/* Half the time of a large copy is the system's, which finds its pages one by one. */
static void use_large_pages(char *data, size_t size)
{
    uintptr_t from = ((uintptr_t)data + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    uintptr_t to = ((uintptr_t)data + size) / LARGE_PAGE * LARGE_PAGE;
    if (from < to) {
        (void)madvise((void *)from, to - from, MADV_HUGEPAGE);
    }
}

/* ---- what is kept ---- */

static void drop(struct warm *kept)
{
    kept->room = 0;
    Py_CLEAR(kept->object);
}

static size_t sum(const struct state *state)
{
    size_t bytes = 0;
    for (int i = 0; i < WARM_OBJECTS; i++) {
        bytes += state->warm[i].room;
    }
    return bytes;
}

/* The oldest ones make room for it. */
static void keep(struct state *state, PyObject *object, size_t size)
{
    if (!state->keeps_warm || size < LEAST || size > MOST) {
        return;
    }
    drop(&state->warm[state->warm_next]);
    for (int i = 1; sum(state) + size > MOST; i++) {
        drop(&state->warm[(state->warm_next + i) % WARM_OBJECTS]);
    }
    state->warm[state->warm_next] = (struct warm){Py_NewRef(object), size};
    state->warm_next = (state->warm_next + 1) % WARM_OBJECTS;
}

/* It has room, but not for much more. With the only reference to it, nobody can see that it is used again. */
static int is_free_for(const struct warm *kept, const PyTypeObject *type, size_t size)
{
    return kept->object != NULL && Py_IS_TYPE(kept->object, (PyTypeObject *)type) && Py_REFCNT(kept->object) == 1 &&
           size <= kept->room && size >= kept->room - kept->room / 4;
}

static PyObject *find(struct state *state, const PyTypeObject *type, size_t size)
{
    for (int i = 0; i < WARM_OBJECTS; i++) {
        if (is_free_for(&state->warm[i], type, size)) {
            return Py_NewRef(state->warm[i].object);
        }
    }
    return NULL;
}

void warm_keep(struct state *state)
{
    state->keeps_warm = 1;
}

void warm_release(struct state *state)
{
    for (int i = 0; i < WARM_OBJECTS; i++) {
        drop(&state->warm[i]);
    }
}

/* ---- making ---- */

/* What _PyBytes_Resize() does of such an object, without a change of its memory: its room stays. */
static void make_new(PyObject *bytes, size_t size)
{
    Py_SET_SIZE((PyVarObject *)bytes, (Py_ssize_t)size);
    PyBytes_AS_STRING(bytes)[size] = '\0';
    _Py_COMP_DIAG_PUSH _Py_COMP_DIAG_IGNORE_DEPR_DECLS((PyBytesObject *)bytes)->ob_shash = -1;
    _Py_COMP_DIAG_POP
}

PyObject *warm_bytes(struct state *state, size_t size)
{
    PyObject *bytes = find(state, &PyBytes_Type, size);
    if (bytes != NULL) {
        make_new(bytes, size);
        return bytes;
    }
    bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (bytes != NULL) {
        use_large_pages(PyBytes_AS_STRING(bytes), size);
        keep(state, bytes, size);
    }
    return bytes;
}

PyObject *warm_bytearray(struct state *state, size_t size)
{
    PyObject *array = find(state, &PyByteArray_Type, size);
    if (array != NULL) {
        if (PyByteArray_Resize(array, (Py_ssize_t)size) < 0) {
            Py_CLEAR(array);
        }
        return array;
    }
    array = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (array != NULL) {
        use_large_pages(PyByteArray_AS_STRING(array), size);
        keep(state, array, size);
    }
    return array;
}

void warm_fill(char *to, const void *from, size_t size)
{
    if (size < LEAST) {
        memcpy(to, from, size);
        return;
    }
    Py_BEGIN_ALLOW_THREADS /* nobody else knows the object */
    memcpy(to, from, size);
    Py_END_ALLOW_THREADS
}
