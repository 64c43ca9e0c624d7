"""A Dask scheduler and two workers, each in a network namespace of its own, and bounded() over them.

Started in a network and a process namespace: whatever happens, all of it is gone when this program ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from distributed import Client
from work import PATIENCE, Counted, square, wait_until

import weirpool

NETWORK = "10.213.7"
SCHEDULER = f"tcp://{NETWORK}.2:8786"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def make_bridge() -> None:
    ip("link", "set", "lo", "up")
    ip("link", "add", "bridge0", "type", "bridge")
    ip("addr", "add", f"{NETWORK}.1/24", "dev", "bridge0")
    ip("link", "set", "bridge0", "up")


def start_apart(number: int, *command: str) -> subprocess.Popen[bytes]:
    """Starts Dask's command in a new network namespace, with the address that ends in that number."""
    script = (
        f"read go && ip link set lo up && ip addr add {NETWORK}.{number}/24 dev eth0 && ip link set eth0 up "
        f"&& exec {sys.executable} -m dask {' '.join(command)} --host {NETWORK}.{number} --no-dashboard"
    )
    # The scheduler and the workers import `work`.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", script], stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    ours = os.readlink("/proc/self/ns/net")
    wait_until(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != ours, "the namespace is there")
    ip("link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
    ip("link", "set", f"to{number}", "master", "bridge0", "up")
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()
    return process


def run(client: Any) -> dict[str, Any]:
    counted = Counted(client.get_executor(pure=False))
    executor = weirpool.bounded(counted, 4, workers=2)
    total = sum(future.result(PATIENCE) for future in [executor.submit(square, n) for n in range(100)])
    wait_until(lambda: executor.stats().outstanding == 0, "permits are back")
    outstanding = executor.stats().outstanding
    executor.shutdown()
    hosts = sorted(address.split("//")[1].split(":")[0] for address in client.nthreads())
    return {"sum": total, "peak": counted.peak, "hosts": hosts, "outstanding": outstanding}


def main(folder: str) -> None:
    make_bridge()
    start_apart(2, "scheduler", "--port", "8786")
    for number in (3, 4):
        options = ("--nthreads", "1", "--nworkers", "1", "--local-directory", folder)
        start_apart(number, "worker", SCHEDULER, *options)
    with Client(SCHEDULER, timeout=PATIENCE) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
        print(json.dumps(run(client)))


if __name__ == "__main__":
    main(sys.argv[1])
