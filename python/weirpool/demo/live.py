"""The live picture of a run, drawn with rich."""

from types import TracebackType
from typing import Self

from rich.console import Group
from rich.live import Live as RichLive
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TimeElapsedColumn
from rich.text import Text

from .display import Status


class Live:
    """A progress bar with the figures below it."""

    def __init__(self) -> None:
        self._progress = Progress(BarColumn(), MofNCompleteColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._task = self._progress.add_task("tasks", total=None)
        self._live = RichLive(self._progress, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def show(self, status: Status) -> None:
        self._progress.update(self._task, completed=status.settled, total=status.total)
        self._live.update(Group(self._progress, Text(status.figures())), refresh=True)
