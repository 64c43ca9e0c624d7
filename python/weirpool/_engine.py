"""Which engine runs the tasks: the native one, or the standard library's pool where that one cannot run."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from weirpool import _core as core  # the extension, or what the fall-back has in its place

__all__ = ["VARIABLE", "Choice", "Name", "choice", "core", "why_not_native"]

VARIABLE = "WEIRPOOL_ENGINE"
"""The environment variable that chooses: "native" or "stdlib"."""

Name = Literal["native", "stdlib"]

_PASSING = (errno.EMFILE, errno.ENFILE)  # they tell of this moment, not of this system

_lock = threading.RLock()
_choice: Choice | None = None


class Choice(NamedTuple):
    """The engine of this process, for good."""

    name: Name
    reason: str
    """Why, in a sentence without its end."""
    core: ModuleType


def choice() -> Choice:
    """Return the engine of this process. The first call chooses it.

    Raises:
        ValueError: WEIRPOOL_ENGINE has another value.
        ImportError: It is "native", and the native engine cannot run.
    """
    global _choice
    with _lock:
        if _choice is None:
            _choice = _choose(os.environ.get(VARIABLE) or None)
        return _choice


def _choose(wanted: str | None) -> Choice:
    if wanted not in (None, *get_args(Name)):
        raise ValueError(f'{VARIABLE} must be "native" or "stdlib", not {wanted!r}')
    if wanted == "stdlib":
        reason = f"{VARIABLE}=stdlib asks for it"
        _log(logging.INFO, "tasks are run by the standard library's process pool: %s", reason)
        return Choice("stdlib", reason, _stand_in())
    obstacle = why_not_native()
    if obstacle is None:
        reason = "it can run here" if wanted is None else f"{VARIABLE}=native asks for it, and it can run here"
        return Choice("native", reason, importlib.import_module("weirpool._core"))
    if wanted == "native":
        raise ImportError(f"{VARIABLE}=native, but the native engine cannot run here: {obstacle}")
    _log(
        logging.WARNING,
        "the native engine cannot run here (%s): tasks are run by the standard library's process pool, which is "
        "slower; `python -m weirpool doctor` tells more, and %s=stdlib says that this is wanted",
        obstacle,
        VARIABLE,
    )
    return Choice("stdlib", f"the native engine cannot run here: {obstacle}", _stand_in())


def why_not_native() -> str | None:
    """Try the native engine, and return what keeps it from running; None: nothing."""
    if sys.platform != "linux":
        return f"it needs Linux, and this is {sys.platform}"
    try:
        extension: Any = importlib.import_module("weirpool._core")
    except ImportError as error:
        return f"its extension was not built or cannot be loaded: {error}"
    try:
        extension.Engine(1, 0, None)  # has all that a pool needs of the system, and is gone again
    except (OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in _PASSING:
            return None
        return _name(error)
    return None


def _name(error: Exception) -> str:
    from weirpool import _probes

    missing = [probe.name for probe in _probes.of_system() if probe.is_needed and not probe.is_there]
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{', '.join(missing)} refused by the system: {text}" if missing else text


def _stand_in() -> ModuleType:
    return importlib.import_module("weirpool._gate")


def _log(level: int, text: str, *args: object) -> None:
    """Once a process, as the choice is made once; workers that import the program's modules repeat nothing."""
    process = sys.modules.get("multiprocessing.process")
    is_worker = process is not None and process.parent_process() is not None
    logging.getLogger("weirpool").log(logging.DEBUG if is_worker else level, text, *args)


def __getattr__(name: str) -> Any:
    if name == "core":
        return choice().core
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
