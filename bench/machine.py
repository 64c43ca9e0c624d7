"""What a run was made on."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

from bench.contenders import CONTENDERS


def describe() -> dict[str, object]:
    versions = {contender.name: contender.version for contender in CONTENDERS.values() if contender.package}
    versions["weirpool"] = weirpool_version()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": versions,
    }


def weirpool_version() -> str:
    import weirpool

    return weirpool.__version__


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def load() -> str:
    return " ".join(f"{average:.2f}" for average in os.getloadavg())
