"""How the parent learns why an initializer failed: the worker says so through a pipe, before the pool breaks."""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any

from weirpool import _support

_MOST_BYTES = 32 * 1024  # an empty pipe takes so much at once, so that no worker waits and no two mix


class Report:
    """One of a pool. Of several initializers that fail the first is told of."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.RLock()  # a signal handler may come upon it
        self._said: bytes | None = None
        self._reader = self._writer = -1
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)

    def watch(self, initializer: Callable[..., object]) -> Callable[..., None]:
        """The same for a worker, which says here what it raises."""
        return _Watched(initializer, self._writer)

    def error(self) -> BaseException | None:
        """What an initializer has raised, a new instance each time; None: nothing is known. In a forked child: None."""
        said = self._read()
        with contextlib.suppress(Exception):  # the worker was killed meanwhile
            text, error = pickle.loads(said or b"")
            try:
                return pickle.loads(error)  # type: ignore[no-any-return]
            except Exception:
                return _support.quote(text)
        return None

    def _read(self) -> bytes | None:
        if os.getpid() != self._owner:  # where a thread of the parent's may seem to hold the lock
            return None
        with self._lock:
            if self._said is None and self._reader >= 0:
                with contextlib.suppress(BlockingIOError):
                    self._said = os.read(self._reader, 2 * _MOST_BYTES)
            return self._said

    def close(self) -> None:
        """Close the pipe. What was said can still be asked for."""
        self._read()
        with contextlib.nullcontext() if os.getpid() != self._owner else self._lock:
            ends = self._reader, self._writer
            self._reader = self._writer = -1
        for end in ends:
            if end >= 0:
                os.close(end)

    def __del__(self) -> None:
        self.close()  # of a pool that could not be made


class _Watched:
    def __init__(self, initializer: Callable[..., object], writer: int) -> None:
        self._initializer = initializer
        self._writer = writer

    def __call__(self, *args: Any) -> None:
        try:
            self._initializer(*args)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(self._writer, _encode(error))
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (self._initializer, reduction.DupFd(self._writer))


def _receive(initializer: Callable[..., object], duplicate: Any) -> _Watched:
    writer = duplicate.detach()
    os.set_inheritable(writer, False)
    return _Watched(initializer, writer)


def _encode(error: BaseException) -> bytes:
    """Its traceback, and the error itself where that can be pickled and is not too large."""
    text = _support.format_cause(error)
    try:
        pickled = bytes(reduction.ForkingPickler.dumps(_support.portable(error)))
    except Exception:
        pickled = b""
    encoded = pickle.dumps((text, pickled))
    return encoded if len(encoded) <= _MOST_BYTES else pickle.dumps((text[-_MOST_BYTES // 8 :], b""))
