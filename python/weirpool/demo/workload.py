"""How often the folder is read, and who reads what."""

import threading
from collections.abc import Iterator

from . import memory
from .errors import DemoError
from .folder import Folder, Piece

ENOUGH_BYTES = 600_000_000  # an unbounded pool that holds most of it is easy to see
ENOUGH_TASKS = 50_000  # a folder of tiny files would need too many tasks to reach ENOUGH_BYTES


def choose_repeat(folder: Folder, asked: int | None, *, unbounded: bool) -> int:
    """How often the folder is read: as asked, else until ENOUGH_BYTES are submitted.

    An unbounded pool may hold all of it at the same time, so that must fit into half of the memory there is.
    """
    room = memory.available() // 2 if unbounded else None
    repeat = asked or _enough(folder, room)
    if room is not None and folder.size * repeat > room:
        raise DemoError(
            f"an unbounded pool may hold all {folder.size * repeat / 1e6:,.0f} MB at once, and that is more than half "
            f"of the memory there is ({room * 2 / 1e6:,.0f} MB); choose a smaller folder or --repeat"
        )
    return repeat


def _enough(folder: Folder, room: int | None) -> int:
    size = max(folder.size, 1)
    times = min(-(-ENOUGH_BYTES // size), ENOUGH_TASKS // len(folder.pieces))
    if room is not None:
        times = min(times, room // size)
    return max(times, 1)


class Workload:
    """Deals out pieces to the producers, each with a number of its own; safe to use from many threads."""

    def __init__(self, folder: Folder, repeat: int) -> None:
        self.folder = folder
        self.repeat = repeat
        self.tasks = len(folder.pieces) * repeat
        self.skipped = 0
        self._unreadable: set[str] = set()
        self._lock = threading.Lock()
        self._pieces = self._deal()

    def _deal(self) -> Iterator[tuple[int, Piece]]:
        for number in range(self.tasks):
            yield number, self.folder.pieces[number % len(self.folder.pieces)]

    def next(self) -> tuple[int, Piece] | None:
        """The next piece and its number; None when all have been dealt out."""
        with self._lock:
            return next(self._pieces, None)

    def skip(self, piece: Piece) -> None:
        """Notes that a piece could not be read."""
        with self._lock:
            self.skipped += 1
            self._unreadable.add(piece.path)

    @property
    def unreadable(self) -> int:
        """Files and folders that could not be read."""
        return self.folder.unreadable + len(self._unreadable)
