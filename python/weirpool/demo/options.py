"""What the command line says, checked."""

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .engines import Bound, EngineName
from .errors import DemoError
from .folder import python_library

PICTURES = (".png", ".svg", ".pdf")
PLOT_HINT = 'the picture needs matplotlib: pip install "weirpool[demo]"'


@dataclass(frozen=True)
class Options:
    """One demo, as asked for."""

    folder: Path
    producers: int = 100
    workers: int = 8
    bound: Bound = True
    engine: EngineName = "weirpool"
    repeat: int | None = None
    json: Path | None = None
    plot: Path | None = None
    compare: bool = False
    part_of_compare: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the demo's arguments."""
    parser.add_argument(
        "folder", nargs="?", type=Path, metavar="FOLDER", help="whose files are read (default: Python's own library)"
    )
    parser.add_argument(
        "--producers", type=_number(1, 1000), default=100, metavar="N", help="threads that submit (default: 100)"
    )
    parser.add_argument("--workers", type=_number(1, 256), default=8, metavar="N", help="processes (default: 8)")
    parser.add_argument(
        "--bound",
        type=_bound,
        metavar="auto|N|none",
        help="most tasks outstanding; auto (the default) is two for each worker",
    )
    parser.add_argument(
        "--engine",
        choices=("weirpool", "stdlib", "recipe"),
        help="weirpool (the default), the standard pool, or a semaphore around that",
    )
    parser.add_argument(
        "--repeat",
        type=_number(1, 1_000_000),
        metavar="N",
        help="read the folder N times (default: until 600 MB are submitted; fewer at 50,000 tasks, or where an "
        "unbounded pool would take half of the memory)",
    )
    parser.add_argument(
        "--compare", action="store_true", help="run weirpool, then the standard pool, and show both side by side"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the samples to FILE")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="write a picture of memory over time to FILE (png, svg or pdf)"
    )
    parser.add_argument("--part-of-compare", action="store_true", help=argparse.SUPPRESS)


def from_arguments(given: argparse.Namespace) -> Options:
    """Checks what argparse cannot check; DemoError says what is wrong."""
    _check_engine(given)
    _check_output(given.json)
    _check_output(given.plot)
    if given.plot:
        _check_plot(given.plot)
    engine: EngineName = given.engine or "weirpool"
    return Options(
        folder=given.folder or python_library(),
        producers=given.producers,
        workers=given.workers,
        bound=_resolve(given.bound, engine),
        engine=engine,
        repeat=given.repeat,
        json=given.json,
        plot=given.plot,
        compare=given.compare,
        part_of_compare=given.part_of_compare,
    )


def can_plot() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text.isdecimal() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most:,}")

    return parse


def _bound(text: str) -> str:
    if text in ("auto", "none") or (text.isdecimal() and 1 <= int(text) <= 1_000_000):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor none nor a whole number from 1 to 1,000,000")


def _resolve(bound: str | None, engine: EngineName) -> Bound:
    if bound == "none" or engine == "stdlib":
        return None
    return int(bound) if bound and bound != "auto" else True


def _check_engine(given: argparse.Namespace) -> None:
    if given.compare and given.engine:
        raise DemoError("--compare chooses the engines itself: leave out --engine")
    if given.engine == "stdlib" and given.bound:
        raise DemoError("--bound means nothing to --engine stdlib: the standard pool has no bound")
    if given.engine == "recipe" and given.bound == "none":
        raise DemoError("--engine recipe without a bound is the standard pool: choose --engine stdlib")


def _check_output(path: Path | None) -> None:
    if path and (path.is_dir() or not path.parent.is_dir()):
        raise DemoError(
            f"cannot write {path}: {'that is a folder' if path.is_dir() else f'{path.parent} is not a folder'}"
        )


def _check_plot(path: Path) -> None:
    if path.suffix not in PICTURES:
        raise DemoError(f"cannot draw {path}: the name must end in {', '.join(PICTURES)}")
    if not can_plot():
        raise DemoError(PLOT_HINT)
