"""CPython's own tests of ProcessPoolExecutor and Future, run against weirpool's with each start method.

Run by the interpreter of an environment in which weirpool is installed. The tests are those that come with the
interpreter; some come without, then the folder --suite has them.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import shim

import weirpool

HERE = Path(__file__).resolve().parent
METHODS = ("fork", "forkserver", "spawn")
WIDE = 128


def make_environment(folder: Path) -> Path:
    """An environment with this one's weirpool in which each interpreter imports the shim. Returns its Python."""
    venv.create(folder, symlinks=True, clear=True)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    hook = folder / "lib" / version / "site-packages" / "weirpool_conformance.pth"
    hook.write_text(f"{Path(weirpool.__file__).parent.parent}\n{HERE}\nimport shim\n")
    return folder / "bin" / "python"


def run(python: Path, method: str, suite: str, bound: int | None, report: Path) -> dict[str, Any]:
    report.unlink(missing_ok=True)
    environment = {**os.environ, shim.FOLDER: suite}
    if bound is not None:
        environment[shim.BOUND] = str(bound)
    done = subprocess.run([python, HERE / "suite.py", method, report], env=environment)
    if not report.exists():
        return {"passed": 0, "failed": [f"the run itself: exit code {done.returncode}"], "excluded": 0, "skipped": []}
    counts: dict[str, Any] = json.loads(report.read_text())
    if done.returncode and not counts["failed"]:
        counts["failed"].append(f"exit code {done.returncode}")
    return counts


def table(rows: list[tuple[str, dict[str, Any]]]) -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    lines = [
        f"{'Python':8} {'start method':12} {'passed':>7} {'failed':>7} {'excluded':>9} {'skipped by the suite':>21}"
    ]
    for method, counts in rows:
        numbers = (counts["passed"], len(counts["failed"]), counts["excluded"], len(counts["skipped"]))
        lines.append("{:8} {:12} {:7} {:7} {:9} {:21}".format(version, method, *numbers))
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bound", type=int, help=f"a bounded pool, wide enough for the tests ({WIDE})")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument(
        "--suite", type=Path, help="a folder with what the interpreter's package `test` lacks, if it lacks it"
    )
    parser.add_argument("--work", type=Path, default=Path("build/conformance"), help="a folder for the environment")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    work = args.work.resolve()
    python = make_environment(work / f"environment-{sys.implementation.cache_tag}")
    suite = str(args.suite.resolve()) if args.suite and args.suite.exists() else ""
    rows = []
    for method in args.methods:
        print(f"\n{method}:", flush=True)
        rows.append((method, run(python, method, suite, args.bound, work / "report.json")))
    print("\nclass under test:", "weirpool.ProcessPoolExecutor" if args.bound is None else f"bounded, {args.bound}")
    print(table(rows))
    print("skipped by the suite itself:")
    print("\n".join(sorted({name for _, counts in rows for name in counts["skipped"]})))
    failures = [f"{method}: {name}" for method, counts in rows for name in counts["failed"]]
    print("\n".join(failures) or "all passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
