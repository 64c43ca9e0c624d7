/*
 * Functions that pickle sends by their names, remembered on each side, so that each task need not look them up again:
 * the parent keeps the pickle, a worker keeps what it stands for. A function is remembered only while its module still
 * has it under its name, which is what pickle checks each time.
 */
#ifndef WEIRPOOL_EXT_FUNCTIONS_H
#define WEIRPOOL_EXT_FUNCTIONS_H

#include "ext.h"

/* The pickle of `function`, if it is known: NULL (without an exception) if it is not. */
const struct known_function *functions_find_sent(const struct known_functions *known, PyObject *function);

/* Remembers its pickle, if it is sent by its name and short. NULL without an exception if not. */
const struct known_function *functions_learn_sent(struct known_functions *known, PyObject *function,
                                                  const struct encoded *pickle);

/* Could pickle send it by its name, so that it is worth learning? */
int functions_is_named(PyObject *function);

/* A new reference to what these bytes stand for; NULL (without an exception) if they are not known. */
PyObject *functions_find_received(const struct known_functions *known, const void *data, size_t size);
void functions_learn_received(struct known_functions *known, PyObject *function, const void *data, size_t size);

void functions_clear(struct known_functions *known);

#endif
