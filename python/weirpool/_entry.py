"""Blocks Ctrl-C in a worker that is not forked, until it can say what that means to it."""

from __future__ import annotations

import contextlib
import operator
import signal
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

_CTRL_C = {signal.SIGINT}


def is_blocked() -> bool:
    """Has somebody else blocked it in this thread? Then it is not ours to unblock in what is started from here."""
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """A process that this thread spawns within this block has Ctrl-C blocked from its first moment."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _CTRL_C)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def blocked_by_name(process: BaseProcess) -> Iterator[None]:
    """This process, which is started within this block and is no fork, blocks Ctrl-C when it unpickles its name.

    That is the first that it unpickles: before it imports the main module, and before it could import ours.
    """
    name = process.name
    process.name = _Name(name)
    try:
        yield
    finally:
        process.name = name  # who else unpickles it, or has it as the name of a parent, is not meant


class _Name(str):
    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return operator.getitem, ((str(self), _Block()), 0)


class _Block:
    def __reduce__(self) -> tuple[Any, ...]:
        return signal.pthread_sigmask, (int(signal.SIG_BLOCK), {int(signal.SIGINT)})


def unblock() -> None:
    """The worker takes Ctrl-C from now on, and what has come."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _CTRL_C)


def drop() -> None:
    """The worker takes Ctrl-C from now on; what has come is not for it."""
    signal.sigtimedwait(_CTRL_C, 0)
    unblock()
