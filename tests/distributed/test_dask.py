"""What only Dask does: `pure`, workers that die and come back, machines apart."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import WORKERS
from work import PATIENCE, hold, release, square, wait_until

import weirpool

HERE = Path(__file__).parent


def test_the_bound_is_found_from_the_threads_of_the_cluster(dask_client: Any) -> None:
    with weirpool.bounded(dask_client.get_executor(pure=False)) as executor:
        assert list(executor.map(square, range(10))) == [n * n for n in range(10)]


def test_pure_is_warned_of(dask_client: Any) -> None:
    with pytest.warns(RuntimeWarning, match="pure"):
        weirpool.bounded(dask_client.get_executor()).shutdown()


def test_a_killed_worker_loses_nothing(dask_client: Any, tmp_path: Path) -> None:
    executor = weirpool.bounded(dask_client.get_executor(pure=False), 4)
    held = [executor.submit(hold, str(tmp_path), number) for number in range(4)]
    wait_until(lambda: len(list(tmp_path.glob("started-*"))) >= WORKERS, "every worker holds a task")
    pids = dask_client.run(os.getpid)
    os.kill(next(iter(pids.values())), signal.SIGKILL)
    wait_until(lambda: len(list(tmp_path.glob("started-*"))) > WORKERS, "what the dead worker ran starts again")
    release(tmp_path)
    assert [future.result(PATIENCE) for future in held] == [0, 1, 2, 3]
    assert list(executor.map(square, range(50))) == [n * n for n in range(50)]
    wait_until(lambda: executor.stats().outstanding == 0, "permits are back")
    dask_client.wait_for_workers(WORKERS, timeout=PATIENCE)
    dask_client.run(sys.path.insert, 0, str(HERE))  # the new worker needs it, too


ISOLATED = ("unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")


def why_no_namespaces() -> str | None:
    missing = [tool for tool in ("unshare", "ip") if shutil.which(tool) is None]
    if missing:
        return f"network namespaces need {' and '.join(missing)}"
    bridge = "ip link add name probe0 type bridge && ip link add name probe1 type veth peer name probe2"
    found = subprocess.run([*ISOLATED, "sh", "-c", bridge], capture_output=True, text=True)
    return f"no network namespaces here: {found.stderr.strip()}" if found.returncode else None


def test_scheduler_and_workers_in_network_namespaces(tmp_path: Path) -> None:
    if reason := why_no_namespaces():
        pytest.skip(reason)
    command = [*ISOLATED, sys.executable, str(HERE / "namespaces.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["sum"] == sum(n * n for n in range(100))
    assert said["peak"] <= 4
    assert said["hosts"] == ["10.213.7.3", "10.213.7.4"]
    assert said["outstanding"] == 0
