"""Whole programs: the job under mpirun, and the examples as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def mpirun(script: Path) -> str:
    found = shutil.which("mpirun")
    assert found, "mpirun is not on PATH: make test-distributed installs one"
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return run([found, *root, "--oversubscribe", "-n", "3", sys.executable, "-m", "mpi4py.futures", str(script)])


def test_bounded_over_mpi() -> None:
    said = json.loads(mpirun(HERE / "mpi_job.py").splitlines()[-1])
    assert said == {
        "workers": 2,
        "map": [n * n for n in range(20)],
        "error": "on purpose",
        "many": sum(n * n for n in range(100)),
        "peak": said["peak"],
        "callback": [n * n for n in range(10)],
        "after shutdown": "RuntimeError",
        "outstanding": 0,
    }
    assert said["peak"] <= 2


def test_the_mpi_example() -> None:
    assert f"{sum(n * n for n in range(1000))} is the sum" in mpirun(EXAMPLES / "bounded_mpi.py")


def test_the_dask_example() -> None:
    assert f"{sum(range(200))} words" in run([sys.executable, str(EXAMPLES / "bounded_dask.py")])
