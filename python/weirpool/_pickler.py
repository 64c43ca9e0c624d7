"""The pickler that a user chose: checked where the executor is made, handed to the workers, found again there."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

of_this_worker: Any = None
"""In a worker process: what carries its results; None: as ``multiprocessing`` pickles."""


class Pickler(Protocol):
    """What carries tasks to the workers, and results and exceptions back."""

    def dumps(self, obj: Any, /) -> bytes | bytearray | memoryview:
        """The object as bytes, which are left alone from then on. Any buffer will do."""

    def loads(self, data: bytes, /) -> Any:
        """What dumps() was given."""


def check(pickler: object) -> str | Pickler | None:
    """Return what the workers are handed: the name of a module, or an object. Raise if it is of no use."""
    if pickler is None:
        return None
    if isinstance(pickler, ModuleType):
        pickler = pickler.__name__  # a module cannot be pickled, its name can
    found = _load(pickler) if isinstance(pickler, str) else pickler
    lacking = [name for name in ("dumps", "loads") if not callable(getattr(found, name, None))]
    if lacking:
        raise TypeError(
            "pickler must be None, or an object, or the name of a module, with the functions dumps and loads: "
            f"{pickler!r} has no {' and no '.join(lacking)}"
        )
    return pickler  # type: ignore[return-value]


def find(pickler: str | Pickler | None) -> Any:
    """The object with ``dumps`` and ``loads``; None: as ``multiprocessing`` pickles."""
    return _load(pickler) if isinstance(pickler, str) else pickler


def _load(name: str) -> ModuleType:
    if not name or name.startswith("."):
        raise ValueError(f"pickler must be the full name of a module, not {name!r}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = name.partition(".")[0]
        if error.name != top:
            raise
        raise ModuleNotFoundError(
            f"pickler={name!r} needs the module {top!r}, which is not installed: pip install {top}", name=top
        ) from error


class Initializer:
    """An initializer that the pickler carries to a process which is not forked; its arguments go their usual way.

    Only multiprocessing can hand locks and queues to a process that it starts, so those belong into ``initargs``.
    """

    def __init__(self, pickler: str | Pickler, call: Callable[..., object]) -> None:
        self._pickler = pickler
        self._call = call

    def __call__(self, *args: Any) -> None:
        self._call(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._pickler, bytes(find(self._pickler).dumps(self._call)))


def _rebuild(pickler: str | Pickler, data: bytes) -> Initializer:
    return Initializer(pickler, find(pickler).loads(data))
