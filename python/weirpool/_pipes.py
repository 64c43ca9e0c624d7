"""The standard pool's two pipes, at which nobody may wait for a process that is dead.

Others hold both ends of each: this process, the other workers, and whatever a task left behind. So no end of file and
no broken pipe tells. Workers import this module.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import process as standard
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
        self.pickled: Any = None  # to be sent instead of what comes
        os.set_blocking(handle, False)  # only this process writes

    def send_bytes(self, data: Any, offset: int = 0, size: int | None = None) -> None:
        pickled, self.pickled = self.pickled, None
        super().send_bytes(data if pickled is None else pickled, offset, size)

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


class Calls(standard._SafeQueue):
    """The queue of calls, whose thread outlives whatever a pickling raises."""

    _writer: CallWriter

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        call: Any = obj if obj is None else _Call(obj, self._writer)
        super().put(call, block, timeout)

    def _on_queue_feeder_error(self, error: Exception, obj: Any) -> None:
        found = error.args[0] if isinstance(error, _NoExceptionError) else error
        super()._on_queue_feeder_error(found, getattr(obj, "item", obj))


class _Call:
    """It pickles itself, and what is sent is that pickle: its thread would end by an error that is no Exception."""

    def __init__(self, item: Any, writer: CallWriter) -> None:
        self.item = item
        self._writer = writer

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            self._writer.pickled = reduction.ForkingPickler.dumps(self.item)
        except Exception:
            raise
        except BaseException as error:
            raise _NoExceptionError(error) from None
        return int, ()


class _NoExceptionError(Exception):
    """Carries one that is none, as SystemExit."""


def start_worker(initializer: Callable[..., object] | None, results: Any, *initargs: Any) -> None:
    """In a worker. A task, or the initializer, may fork, and its child come back: it must not go on as a worker."""
    worker = os.getpid()
    results.put = functools.partial(_put, results.put, worker)
    try:
        if initializer is not None:
            initializer(*initargs)
    finally:
        _end_child_of(worker)


def _put(put: Callable[[Any], None], worker: int, result: Any) -> None:
    _end_child_of(worker)
    put(result)


def _end_child_of(worker: int) -> None:
    """It would give a result for the second time, and take what other workers wait for."""
    if os.getpid() != worker:
        os._exit(0)


def _reduce(end: connection.Connection) -> Any:
    """A worker gets a plain connection."""
    return connection.reduce_connection(end)  # type: ignore[attr-defined]


if sys.platform != "win32":
    reduction.register(ResultReader, _reduce)
    reduction.register(CallWriter, _reduce)
