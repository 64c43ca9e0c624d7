/* The gate alone: what gate.c, who is admitted, and permit.c, what that gives, share. */
#ifndef WEIRPOOL_EXT_GATE_H
#define WEIRPOOL_EXT_GATE_H

#include "ext.h"

typedef struct {
    PyObject_HEAD
    weirpool_gate *gate;
    uint64_t completed, failed, cancelled, rejected;
} Gate;

enum standing { RETURNED, HELD, STARTED };

typedef struct {
    PyObject_HEAD
    Gate *gate;
    enum standing standing;
} Permit;

/* One that is not held yet, for what may fail before there is a permit to lose. NULL: exception set. */
Permit *permit_new(Gate *gate);

#endif
