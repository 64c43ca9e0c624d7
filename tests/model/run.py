"""Runs the models of this folder: each has to hold, and each of its variants, which drop one step, has to fail.

The comment at the top of a model says what is run:

    holds   [DEFINE ...]                    what it means
    fails   [DEFINE ...]   KIND OF ERROR    which step is missing
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
CORE = HERE.parent.parent / "core" / "src"
KINDS = {"invalid end state": "pan:1: invalid end state", "assertion": "pan:1: assertion violated"}
LINE = re.compile(rf" \* (holds|fails) *((?:[A-Z_]+ ?)*) *({'|'.join(KINDS)})? *(.*)")


class Run(NamedTuple):
    """One check of one model."""

    model: Path
    defines: tuple[str, ...]
    kind: str  # of the error that it has to find; "": none
    meaning: str

    def __str__(self) -> str:
        return f"{self.model.stem:8} {' '.join(self.defines):24}"


def read_runs(model: Path) -> Iterator[Run]:
    """What a model's comment says is to be run."""
    check_names(model)
    for line in model.read_text().splitlines():
        if match := LINE.match(line):
            verb, defines, kind, meaning = match.groups()
            if (verb == "fails") != bool(kind):
                raise SystemExit(f"{model.name}: a kind of error belongs to what fails, and to nothing else: {line}")
            yield Run(model, tuple(defines.split()), kind or "", meaning)


def check_names(model: Path) -> None:
    """What a model says that it models has to be there."""
    for line in re.findall(r"^ \* models +(.*)$", model.read_text(), re.MULTILINE):
        for part in line.split(";"):
            file, functions = part.split(":")
            code = (CORE / file.strip()).read_text()
            for function in functions.split():
                if not re.search(rf"\b{function}\(", code):
                    raise SystemExit(f"{model.name}: {file.strip()} has no {function}()")


def call(*command: str, cwd: str) -> str:
    """The output of a command that has to succeed."""
    done = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout


def verify(run: Run) -> str:
    """What the verifier says."""
    with tempfile.TemporaryDirectory() as folder:
        defines = [f"-D{name}" for name in run.defines]
        call("spin", "-a", *defines, str(run.model), cwd=folder)
        call("cc", "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=4096", "-o", "pan", "pan.c", cwd=folder)
        return call("./pan", "-m1000000", cwd=folder)


def check(run: Run) -> bool:
    """Runs one, prints a line, and returns whether it went as it should."""
    began = time.monotonic()
    said = verify(run)
    whole = "errors: 0" in said and "Search not completed" not in said and "max search depth" not in said
    ok = KINDS[run.kind] in said if run.kind else whole
    wanted = f"fails: {run.kind}" if run.kind else "holds"
    print(f"{run} {wanted:25} {time.monotonic() - began:5.1f} s  {'' if ok else 'NO: '}{run.meaning}", flush=True)
    if not ok:
        print(said, flush=True)
    return ok


def main() -> None:
    """Runs all models, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="their names (default: all)")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    models = [HERE / f"{name}.pml" for name in given.models] or sorted(HERE.glob("*.pml"))
    runs = [run for model in models for run in read_runs(model)]
    with ThreadPoolExecutor(given.jobs) as pool:
        results = list(pool.map(check, runs))
    print(f"{results.count(True)} runs of {len(models)} models went as they should, {results.count(False)} did not")
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
