"""For scripts: what happens to a worker while it is being started."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tasks

from weirpool import _worker


def each_start(method: str, do: Callable[[int], object]) -> list[int]:
    """Calls `do` with the pid of each worker whose process is there, before multiprocessing knows it. Returns these."""
    context: Any = multiprocessing.get_context(method)
    start = context.Process._Popen
    pids: list[int] = []

    def start_and_do(process: Any) -> Any:
        popen = start(process)
        pids.append(popen.pid)
        do(popen.pid)
        return popen

    context.Process._Popen = staticmethod(start_and_do)
    return pids


class Late:
    """The first worker that this is handed to, as an argument of the initializer, attaches when the gate is open."""

    def __init__(self, folder: str, method: str) -> None:
        self.folder = folder
        self.handed_over = 0
        if method == "fork":  # nothing is pickled for it
            main = _worker.main
            _worker.main = lambda *args: (self._wait(), main(*args))  # type: ignore[assignment, func-returns-value]

    def __reduce__(self) -> Any:
        self.handed_over += 1
        return (tasks.hold, (self.folder,)) if self.handed_over == 1 else (tasks.nothing, ())

    def _wait(self) -> None:
        """In a forked worker: of those that were forked before, only their files tell."""
        if not list(Path(self.folder).glob("started-*")):
            tasks.hold(self.folder)


def wait_held(folder: str) -> None:
    """Somebody is held there."""
    while not list(Path(folder).glob("started-*")):
        time.sleep(0.002)
