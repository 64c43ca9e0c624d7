"""A worker process: what it is handed, and its life."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from concurrent.futures import _base
from multiprocessing import reduction
from typing import Any

from weirpool import _core, _entry, _interrupts, _pickler


class Channel:
    """The descriptors that a worker needs: inherited by a fork, duplicated for a process that is started otherwise."""

    def __init__(self, segment: int, doorbell: int, parent: int) -> None:
        self.fds = (segment, doorbell, parent)

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, tuple(reduction.DupFd(fd) for fd in self.fds)


def _receive(*duplicates: Any) -> Channel:
    fds = [duplicate.detach() for duplicate in duplicates]
    for fd in fds:
        os.set_inheritable(fd, False)
    return Channel(*fds)


def main(stays: bool, *args: Any) -> None:
    """A worker's life. Ctrl-C reaches the whole process group: who is idle, or starts, leaves without a word.

    Args:
        stays: It does not, nor does a task that cannot be unpickled end it.
        args: As of _serve().
    """
    try:
        _interrupts.resume()
        _serve(stays, *args)
    except KeyboardInterrupt:
        return
    finally:
        _die_silently_of_ctrl_c()


def _die_silently_of_ctrl_c() -> None:
    """It has only to exit, and whoever interrupts that wants no traceback of it."""
    with contextlib.suppress(KeyboardInterrupt):
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _serve(
    stays: bool,
    unblocks: bool,
    channel: Channel,
    badge: int,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    limits: tuple[int, int],
    pickler: str | _pickler.Pickler | None,
) -> None:
    """Execute tasks until the pool has no more of them, or until one of the limits is reached.

    Args:
        stays: As of main().
        unblocks: Ctrl-C was blocked only until this process can say what it means.
        channel, badge: The pool's, and what lets this worker in.
        initializer, initargs: Called first.
        limits: How many tasks to execute, and how many bytes of memory to have; 0: no limit.
        pickler: As the executor's.
    """
    if unblocks and not stays:
        _entry.unblock()
    _pickler.of_this_worker = _pickler.find(pickler)
    max_tasks, max_memory = limits
    try:
        worker = _core.Worker(*channel.fds, badge, _pickler.of_this_worker, stays, max_memory)
    except OSError as error:
        if error.errno == errno.ESTALE:  # nobody waits for this process any more
            return
        raise
    try:
        if unblocks and stays:
            _entry.drop()
        if _set_up(worker, initializer, initargs):
            worker.run(max_tasks)
    except KeyboardInterrupt:
        if not stays:
            raise
        worker.announce(_core.LEAVES)  # another takes its place


def _set_up(worker: _core.Worker, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> bool:
    """Returns whether it is ready for tasks; the pool has been told."""
    try:
        if initializer is not None:
            initializer(*initargs)
    except KeyboardInterrupt:
        raise
    except BaseException:
        _base.LOGGER.critical("Exception in initializer:", exc_info=True)
        worker.announce(_core.INIT_FAILED)
        return False
    worker.announce(_core.UP)
    return True
