"""Somebody who notices that a round hangs, says all there is to say, and ends the run; and who counts what is left."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import work
from account import Account
from scene import Scene
from support import Leaks, descendants

_LAST = 60.0  # seconds more, after which faulthandler ends a process that even holds the interpreter lock


class Watchdog:
    """Guards one round after another. ``scene`` is what there is to be said of it."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self.scene: Scene | None = None

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Within ``limit`` seconds this ends, or else the process does, with exit code 3."""
        over = threading.Event()
        thread = threading.Thread(target=self._wait, args=(over, what), name="watchdog", daemon=True)
        faulthandler.dump_traceback_later(self._limit + _LAST, exit=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            faulthandler.cancel_dump_traceback_later()
            self.scene = None

    def _wait(self, over: threading.Event, what: str) -> None:
        if not over.wait(self._limit):
            self._complain(what)
            os._exit(3)

    def _complain(self, what: str) -> None:
        print(f"HANGS for {self._limit:.0f} s: {what}", flush=True)
        faulthandler.dump_traceback(all_threads=True)
        workers = descendants(os.getpid())
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGABRT)  # faulthandler prints its stacks
        scene = self.scene
        if scene is not None:
            print(f"unfinished: {scene.account.unfinished()[:20]}", flush=True)
            if scene.pool is not None:
                print(f"{scene.pool.stats()}", flush=True)
        time.sleep(2)
        for pid in workers:
            if os.path.exists(f"/proc/{pid}"):
                os.kill(pid, signal.SIGKILL)


class Remains:
    """Says what is there that was not there when it was made."""

    def __init__(self) -> None:
        self._leaks = Leaks()
        self._names = _names()

    def found(self, patience: float) -> str:
        """What is left, although it had so many seconds to end; empty: nothing."""
        deadline = time.monotonic() + patience
        while (found := self._look()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def _look(self) -> str:
        gc.collect()
        names = {name: count for name, count in _names().items() if count > self._names.get(name, 0)}
        return ", ".join(filter(None, [self._leaks.found(), f"in memory or /dev/shm: {names}" if names else ""]))


def _names() -> dict[str, int]:
    """Shared memory: what is mapped here, and what has a name."""
    mapped = [line.split(None, 5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()]
    found = {name: mapped.count(name) for name in mapped if "memfd" in name or name.startswith("/dev/shm")}
    return found | {name: 1 for name in os.listdir("/dev/shm") if "weirpool" in name}


class LogReader(logging.Handler):
    """What is logged is a fault, but for the errors of callbacks that are meant to raise."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.account: Account | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Called by ``logging``."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, work.StormError):
            return
        text = f"logged: {self.format(record)}"
        if self.account is not None:
            self.account.fault(text)
        else:
            print(text, file=sys.stderr)
