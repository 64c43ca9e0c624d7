"""Looks at memory and at the engine ten times a second."""

import threading
import time
from dataclasses import dataclass

from . import memory
from .engines import Engine

INTERVAL = 0.1


@dataclass(frozen=True)
class Sample:
    """One look. Memory is counted in bytes."""

    seconds: float
    resident: int
    segment: int
    outstanding: int
    blocked_producers: int

    @property
    def memory(self) -> int:
        """The parent's resident set plus what the shared segment holds.

        Pages of the segment that the parent has touched are in both: the sum is never less than what is really used.
        """
        return self.resident + self.segment


class Sampler:
    """A thread that samples until it is stopped."""

    def __init__(self, engine: Engine) -> None:
        self.samples: list[Sample] = []
        self._engine = engine
        self._start = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Takes the first sample and starts the thread."""
        self._start = time.monotonic()
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Takes the last sample and ends the thread."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL):
            self._look()
        self._look()

    def _look(self) -> None:
        meter = self._engine.meter()
        self.samples.append(
            Sample(
                seconds=round(time.monotonic() - self._start, 3),
                resident=memory.resident(),
                segment=meter.segment_bytes,
                outstanding=meter.outstanding,
                blocked_producers=meter.blocked_producers,
            )
        )
