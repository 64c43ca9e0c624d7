"""What is shown while a run goes on: a live picture in a terminal, else a line each second."""

import importlib.util
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from .sampler import Sample

LINE_EVERY = 1.0  # seconds


@dataclass(frozen=True)
class Status:
    """How far a run has come."""

    settled: int
    total: int
    samples: list[Sample]

    @property
    def now(self) -> Sample:
        return self.samples[-1]

    @property
    def rate(self) -> float:
        """Tasks a second since the start."""
        return self.settled / self.now.seconds if self.now.seconds else 0.0

    @property
    def growth(self) -> int:
        return self.now.memory - self.samples[0].memory

    def figures(self) -> str:
        """What the pool and the memory look like now, in one line."""
        return (
            f"{self.rate:5,.0f} tasks/s  outstanding {self.now.outstanding:6,}  blocked producers "
            f"{self.now.blocked_producers:3}  memory {self.now.memory / 1e6:4,.0f} MB ({self.growth / 1e6:+,.0f})"
        )


class Display(Protocol):
    """Shows the status of a run, as often as it is told to."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def show(self, status: Status) -> None: ...


class Lines:
    """Plain lines, for files and pipes."""

    def __init__(self) -> None:
        self._next = LINE_EVERY

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def show(self, status: Status) -> None:
        if status.now.seconds < self._next and status.settled < status.total:
            return
        self._next = status.now.seconds + LINE_EVERY
        print(f"{status.now.seconds:5.1f} s  {status.settled:6,} of {status.total:,}  {status.figures()}", flush=True)


def choose_display() -> Display:
    """Rich where it can be imported and somebody watches."""
    if sys.stdout.isatty() and importlib.util.find_spec("rich"):
        from .live import Live

        return Live()
    return Lines()
