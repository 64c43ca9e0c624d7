"""weirpool and the standard pool on the same files, one after the other, each in a process of its own."""

import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from . import report as reports
from .engines import Bound, EngineName
from .folder import Folder, scan
from .interrupts import ignored
from .options import Options
from .report import Report
from .workload import choose_repeat

ENGINES: tuple[EngineName, ...] = ("weirpool", "stdlib")
PATIENCE = 2.0  # seconds for an interrupted run to end by itself


class RunFailedError(Exception):
    """A run ended with this exit code and has said why."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def compare(options: Options) -> list[Report]:
    """Runs both engines and returns their reports."""
    folder = scan(options.folder)
    options = replace(options, repeat=choose_repeat(folder, options.repeat, unbounded=True))
    _read_once(folder)
    with tempfile.TemporaryDirectory() as scratch:
        return [_run_apart(options, engine, Path(scratch) / f"{engine}.json") for engine in ENGINES]


def _read_once(folder: Folder) -> None:
    """So that the second run does not find the files in the page cache and the first one does not."""
    for piece in folder.pieces:
        try:
            piece.read()
        except OSError:
            continue  # the runs count it


def _run_apart(options: Options, engine: EngineName, result: Path) -> Report:
    """Runs one engine in a process of its own, which shows its own progress."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the child can handle it: it inherits this
    child = subprocess.Popen(_command(options, engine, result))
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        exit_code = child.wait()
    except KeyboardInterrupt:
        _interrupt(child)
        raise
    if exit_code:
        raise RunFailedError(exit_code)
    return reports.load(result)


def _command(options: Options, engine: EngineName, result: Path) -> list[str]:
    command = [sys.executable, "-m", "weirpool", "demo", "--part-of-compare"]
    command += ["--producers", str(options.producers), "--workers", str(options.workers)]
    command += ["--repeat", str(options.repeat), "--engine", engine, "--json", str(result)]
    if engine == "weirpool":
        command += ["--bound", _as_text(options.bound)]
    return [*command, "--", str(options.folder)]


def _as_text(bound: Bound) -> str:
    if bound is None:
        return "none"
    return "auto" if bound is True else str(bound)


def _interrupt(child: "subprocess.Popen[bytes]") -> None:
    """Ends the run; at a terminal it has seen the same Ctrl-C already."""
    with ignored():
        child.send_signal(signal.SIGINT)
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
