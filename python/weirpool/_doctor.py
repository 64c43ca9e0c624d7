"""``python -m weirpool doctor``: which engine runs, why, and whether it does."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from weirpool import _engine, _probes

if TYPE_CHECKING:
    from weirpool._probes import Probe

_PATIENCE = 60.0  # seconds for one task
_MARKS = {True: "ok", False: "missing", None: ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def main(given: argparse.Namespace) -> int:
    """Print the report. Returns the exit code: 0 if a pool of the chosen engine has run a task, else 1."""
    report = examine()
    sys.stdout.write(json.dumps(report, indent=2) + "\n" if given.json else as_text(report))
    return 0 if report["trial"]["ok"] else 1


def examine() -> dict[str, Any]:
    """Choose the engine as a program would, try everything, and return what came of it."""
    probes = [_probes.of_extension(), *_probes.of_system(), *_probes.of_resources()]
    name, reason = _ask_for_engine()
    trial = _try_a_task() if name is not None else {"ok": False, "detail": "there is no engine"}
    return {
        "engine": name,
        "reason": reason,
        "version": _version(),
        "probes": [_as_dict(probe) for probe in probes],
        "trial": trial,
    }


def _ask_for_engine() -> tuple[str | None, str]:
    try:
        choice = _engine.choice()
    except (ImportError, ValueError) as error:
        return None, str(error)
    return choice.name, choice.reason


def _try_a_task() -> dict[str, Any]:
    from weirpool import BoundedProcessPoolExecutor

    began = time.monotonic()
    try:
        executor = BoundedProcessPoolExecutor(1, 1)
        try:
            executor.submit(abs, -1).result(_PATIENCE)
        except BaseException:
            executor.kill_workers()
            raise
        executor.shutdown()
    except Exception as error:
        return {"ok": False, "detail": f"{type(error).__name__}: {error}"}
    return {"ok": True, "detail": f"{time.monotonic() - began:.2f} s, with the start of its process"}


def _as_dict(probe: Probe) -> dict[str, Any]:
    return {"name": probe.name, "ok": probe.is_there, "needed": probe.is_needed, "detail": probe.detail}


def _version() -> str:
    import weirpool

    return weirpool.__version__


def as_text(report: dict[str, Any]) -> str:
    """Plain lines: the engine, the probes, the trial."""
    lines = [f"weirpool {report['version']}", f"engine: {report['engine'] or 'none'} ({report['reason']})", ""]
    width = max(len(probe["name"]) for probe in report["probes"])
    for probe in report["probes"]:
        lines.append(f"  {_MARKS[probe['ok']]:8}{probe['name']:{width}}  {probe['detail']}".rstrip())
    trial = report["trial"]
    lines += ["", f"a pool of this engine ran a task: {'yes' if trial['ok'] else 'no'} ({trial['detail']})"]
    return "\n".join(lines) + "\n"
