"""Watches what a program and its workers hold, from a process beside it, so that it takes none of its time.

python -m bench.memory PID    prints seconds and bytes, until its standard input ends
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time

from bench.processes import family, footprint

INTERVAL = 0.05


class Watcher:
    """`start()` returns when the first sample, the baseline, is there; `stop()` returns all samples."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.memory", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._first = self._process.stdout.readline()

    def stop(self) -> list[tuple[float, int]]:
        output, _ = self._process.communicate()
        lines = [self._first, *output.splitlines()]
        return [(float(seconds), int(size)) for seconds, size in (line.split() for line in lines)]


def growth(samples: list[tuple[float, int]]) -> int:
    """How far above the first sample the highest one is, in bytes."""
    return max(size for _, size in samples) - samples[0][1]


def main(pid: int) -> None:
    start = time.monotonic()
    over = False
    while not over:
        print(f"{time.monotonic() - start:.3f} {footprint(family(pid, without=[os.getpid()]))}", flush=True)
        over = bool(select.select([sys.stdin], [], [], INTERVAL)[0])


if __name__ == "__main__":
    main(int(sys.argv[1]))
