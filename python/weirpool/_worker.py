"""A worker process: what it is handed, and its life."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import _base
from multiprocessing import reduction
from typing import Any

from weirpool import _core, _pickler


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


def main(
    channel: Channel,
    number: int,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    max_tasks: int | None,
    pickler: str | _pickler.Pickler | None,
) -> None:
    """Execute tasks until the pool has no more of them, or until ``max_tasks`` were executed."""
    _pickler.of_this_worker = _pickler.find(pickler)
    worker = _core.Worker(*channel.fds, number, _pickler.of_this_worker)
    if initializer is not None:
        try:
            initializer(*initargs)
        except BaseException:
            _base.LOGGER.critical("Exception in initializer:", exc_info=True)
            worker.announce(_core.INIT_FAILED)
            return
    worker.announce(_core.UP)
    try:
        worker.run(max_tasks or 0)
    except KeyboardInterrupt:
        return  # Ctrl-C reaches the whole process group: an idle worker leaves without a word
