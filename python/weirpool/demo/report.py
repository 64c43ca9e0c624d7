"""What one run came to."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .engines import EngineName
from .sampler import Sample


@dataclass(frozen=True)
class Report:
    """The figures of a run. Memory is counted in bytes."""

    engine: EngineName
    bound: int | None
    producers: int
    workers: int
    start_method: str
    python: str
    folder: str
    files: int
    folder_bytes: int
    repeat: int
    unreadable: int
    tasks: int
    checked: int
    differing: int
    failed: int
    error: str | None
    bytes_in: int
    bytes_out: int
    seconds: float
    peak_outstanding: int
    memory_at_start: int
    memory_peak: int
    blocked_seconds: float
    samples: list[Sample]

    @property
    def tasks_per_second(self) -> float:
        return self.checked / self.seconds if self.seconds else 0.0

    @property
    def memory_growth(self) -> int:
        return self.memory_peak - self.memory_at_start

    @property
    def problem(self) -> str | None:
        """What went wrong, in one line; None when every digest came back and was right."""
        if self.differing:
            return f"{self.differing} of {self.checked} digests differ from those of what was submitted"
        if self.failed or self.checked < self.tasks:
            return f"{self.tasks - self.checked} of {self.tasks} tasks came to nothing ({self.error})"
        return None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: every field, and the two that follow from others."""
        return asdict(self) | {"tasks_per_second": self.tasks_per_second, "memory_growth": self.memory_growth}


def save(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def load(path: Path) -> Report:
    """Reads a report that `save(report.as_dict(), path)` wrote."""
    fields = json.loads(path.read_text())
    del fields["tasks_per_second"], fields["memory_growth"]
    fields["samples"] = [Sample(**sample) for sample in fields["samples"]]
    return Report(**fields)
