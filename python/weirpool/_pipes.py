"""The standard pool's two pipes, at which nobody may wait for a process that is dead.

Others hold both ends of each: this process, the other workers, and whatever a task left behind. So no end of file and
no broken pipe tells.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import threading
from collections.abc import Mapping
from multiprocessing import connection, reduction
from multiprocessing.process import BaseProcess
from typing import Any

_SILENCE_SECONDS = 0.2  # after a worker has died: nobody goes on writing
_LOOK_SECONDS = 1.0  # so often a worker that was not there yet is looked for
_FULL_SECONDS = 0.1  # so often the writer looks whether anybody will read


class ResultReader(connection.Connection):
    """The end of the pipe that brings results. Reading ends where a worker has died in the middle of one."""

    def __init__(self, handle: int, workers: Mapping[int, BaseProcess]) -> None:
        super().__init__(handle, writable=False)
        self._workers = workers
        os.set_blocking(handle, False)  # only this process reads

    def _recv(self, size: int, read: Any = None) -> Any:
        return super()._recv(size, self._read)  # type: ignore[misc]

    def _read(self, handle: int, size: int) -> bytes:
        while True:
            try:
                return os.read(handle, size)
            except BlockingIOError:
                self._wait()

    def _wait(self) -> None:
        sentinels = [process.sentinel for process in list(self._workers.values())]
        ready = connection.wait([self, *sentinels], _LOOK_SECONDS)
        if ready and self not in ready and not connection.wait([self], _SILENCE_SECONDS):
            raise EOFError("a worker process has ended while it sent a result")


class CallWriter(connection.Connection):
    """The end of the pipe that takes calls to workers. Writing fails once it is said that there will be no reader."""

    def __init__(self, handle: int, is_over: threading.Event) -> None:
        super().__init__(handle, readable=False)
        self._is_over = is_over
        os.set_blocking(handle, False)  # only this process writes

    def _send(self, data: Any, write: Any = None) -> None:
        super()._send(data, self._write)  # type: ignore[misc]

    def _write(self, handle: int, data: bytes) -> int:
        room = select.poll()
        room.register(handle, select.POLLOUT)
        while True:
            try:
                return os.write(handle, data)
            except BlockingIOError:
                if self._is_over.is_set():
                    raise BrokenPipeError(errno.EPIPE, "no worker is left who would read this call") from None
                room.poll(_FULL_SECONDS * 1000)


def _reduce(end: connection.Connection) -> Any:
    """A worker gets a plain connection."""
    return connection.reduce_connection(end)  # type: ignore[attr-defined]


if sys.platform != "win32":
    reduction.register(ResultReader, _reduce)
    reduction.register(CallWriter, _reduce)
