"""The path of the program's main module, which workers import.

CPython takes it from that module where a script ends: before tasks that are pending have run, for which workers may
have to be started.
"""

from __future__ import annotations

import sys
import weakref
from types import ModuleType

_noted: tuple[weakref.ref[ModuleType], str] | None = None  # what a script leaves must not outlive it


def note_path() -> None:
    """While the script runs."""
    global _noted
    module = sys.modules.get("__main__")
    path = getattr(module, "__file__", None)
    if module is not None and path is not None:
        _noted = weakref.ref(module), path


def restore_path() -> None:
    """Before a process is started: let multiprocessing find the main module."""
    module = None if _noted is None else _noted[0]()
    if _noted is not None and module is not None and getattr(module, "__file__", None) is None:
        module.__file__ = _noted[1]
