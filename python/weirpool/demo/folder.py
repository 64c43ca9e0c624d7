"""The files of a folder, cut into pieces that are one task each."""

import os
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .errors import DemoError

PIECE_BYTES = 256 * 1024
NOT_THE_LIBRARY = {"site-packages", "__pycache__"}


class Piece(NamedTuple):
    """A part of a file that is at most PIECE_BYTES long."""

    path: str
    offset: int
    length: int

    def read(self) -> bytes:
        """The bytes that are there now."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


@dataclass(frozen=True)
class Folder:
    """What was found in a folder."""

    path: Path
    pieces: list[Piece]
    files: int
    size: int
    unreadable: int  # files and folders that could not even be looked at


def python_library() -> Path:
    """The running Python's own library."""
    return Path(sysconfig.get_path("stdlib"))


def scan(path: Path) -> Folder:
    """Lists the files below a folder; of Python's library, only what is the library's own.

    The pieces are shuffled, always in the same way, so that large files do not come all at once.
    """
    if not path.is_dir():
        raise DemoError(f"{path} is not a folder")
    refused: list[OSError] = []
    pieces: list[Piece] = []
    files = 0
    for name in sorted(_files_below(path, NOT_THE_LIBRARY if path == python_library() else set(), refused)):
        try:
            size = os.stat(name).st_size
        except OSError as error:
            refused.append(error)
            continue
        files += 1
        pieces += cut(name, size)
    if not pieces:
        raise DemoError(f"no files that can be read in {path}")
    random.Random(0).shuffle(pieces)
    return Folder(path, pieces, files, sum(piece.length for piece in pieces), len(refused))


def cut(name: str, size: int) -> list[Piece]:
    """The pieces of a file; an empty file has one, which is empty."""
    return [Piece(name, start, min(PIECE_BYTES, size - start)) for start in range(0, max(size, 1), PIECE_BYTES)]


def _files_below(path: Path, skipped: set[str], refused: list[OSError]) -> Iterator[str]:
    """Regular files and links, broken ones too; sockets and the like are left out."""
    for folder, folders, names in os.walk(path, onerror=refused.append):
        folders[:] = [name for name in folders if name not in skipped]
        for name in names:
            full = os.path.join(folder, name)
            if os.path.isfile(full) or not os.path.exists(full):
                yield full
