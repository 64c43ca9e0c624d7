"""``python -m weirpool doctor``: which engine runs, why, and whether it does."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sandbox
from support import FLAGS, Script

from weirpool import _doctor, _engine, _probes
from weirpool.__main__ import main

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def as_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is chosen anew, and nobody asks for one."""
    monkeypatch.delenv("WEIRPOOL_ENGINE", raising=False)
    monkeypatch.setattr(_engine, "_choice", None)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *FLAGS, "-m", "weirpool", "doctor", *arguments]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("name", ["native", "stdlib"])
def test_it_says_which_engine_runs_and_that_it_does(name: str) -> None:
    ended = run(WEIRPOOL_ENGINE=name)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("weirpool ")
    assert lines[1].startswith(f"engine: {name} (WEIRPOOL_ENGINE={name} asks for it")
    assert lines[-1].startswith("a pool of this engine ran a task: yes")


def test_it_tells_of_all_that_matters() -> None:
    report = json.loads(run("--json").stdout)
    assert (report["engine"], report["trial"]["ok"]) == ("native", True)
    probes = {probe["name"]: probe for probe in report["probes"]}
    assert list(probes) == [
        "extension weirpool._core",
        "Linux 5.3 or newer",
        "memfd with seals",
        "unnamed files in /dev/shm",
        "shared futex",
        "pidfd",
        "eventfd",
        "epoll",
        "memory",
        "/dev/shm",
        "descriptors (RLIMIT_NOFILE)",
        "address space (RLIMIT_AS)",
        "cores",
        "start methods",
        "Python",
    ]
    assert all(probe["ok"] for probe in probes.values() if probe["needed"])
    assert probes["extension weirpool._core"]["detail"].endswith(".so")
    assert sys.executable in probes["Python"]["detail"]


def test_limits_of_the_process_are_those_that_it_tells(script: Callable[..., Script]) -> None:
    lines = script("""
        import resource
        from weirpool import _probes
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
        resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        for probe in _probes.of_resources():
            if probe.name.startswith(("descr", "addr", "cores")):
                say(probe.detail)
    """).finish()
    assert lines[:2] == ["200 (hard limit 300)", "8 GiB"]
    assert lines[2].startswith(f"{os.cpu_count()}, 1 by affinity")


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000"}, ", 1.5 by cgroup quota"),
        ({"cpu.max": "max 100000"}, ""),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, ", 0.5 by cgroup quota"),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, ""),
        ({}, ""),
    ],
    ids=str,
)
def test_quotas_of_both_kinds_of_cgroups(monkeypatch: pytest.MonkeyPatch, files: dict[str, str], quota: str) -> None:
    def value(*names: str) -> str | None:
        found = next((files[name] for name in names if name in files), None)
        return None if found is None or found.startswith("max") else found

    monkeypatch.setattr(_probes, "_cgroup_value", value)
    assert _probes._tell_cores().endswith(f" by affinity{quota}")


def test_a_probe_that_fails_is_missing_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> str:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(_probes, "_open_pidfd", fail)
    monkeypatch.setattr(_probes, "_tell_memory", fail)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["missing", "pidfd", "[Errno", "1]", "Operation", "not", "permitted"] for line in lines)
    assert any(line.split()[:2] == ["memory", "unknown"] for line in lines)


def test_what_this_python_has_not_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "eventfd")
    (probe,) = (probe for probe in _probes.of_system() if probe.name == "eventfd")
    assert (probe.is_there, probe.detail) == (False, "this Python does not have it")


def test_a_pool_that_runs_nothing_is_told_by_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr("weirpool.BoundedProcessPoolExecutor", fail)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("a pool of this engine ran a task: no (OSError: no more processes)\n")


@pytest.mark.parametrize("json", [False, True])
def test_a_word_that_is_no_engine(json: bool) -> None:
    ended = run(*["--json"] * json, WEIRPOOL_ENGINE="fast")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert (
        'must be \\"native' in ended.stdout
        if json
        else 'engine: none (WEIRPOOL_ENGINE must be "native"' in ended.stdout
    )


def test_without_the_extension(script: Callable[..., Script]) -> None:
    lines = script("""
        sys.modules["weirpool._core"] = None
        import logging
        logging.getLogger("weirpool").addHandler(logging.NullHandler())
        from weirpool.__main__ import main
        code = main(["doctor"])
        say(code)
    """).finish()
    assert lines[1].startswith("engine: stdlib (the native engine cannot run here: its extension was not built")
    assert lines[3].split()[:2] == ["missing", "extension"]
    assert lines[-1] == "0"


@pytest.mark.skipif(not sandbox.is_possible(), reason="system calls have other numbers on this machine")
def test_in_a_sandbox(script: Callable[..., Script]) -> None:
    lines = script("""
        import logging, sandbox
        logging.getLogger("weirpool").addHandler(logging.NullHandler())
        sandbox.refuse("pidfd_open", "memfd_create")
        from weirpool.__main__ import main
        code = main(["doctor"])
        say(code)
    """).finish()
    marks = {" ".join(line.split()[1:3]).partition(" [")[0]: line.split()[0] for line in lines[3:11]}
    assert lines[1].startswith("engine: stdlib (the native engine cannot run here: pidfd refused by the system")
    assert [marks[name] for name in ("memfd with", "pidfd", "eventfd")] == ["missing", "missing", "ok"]
    assert lines[-1] == "0"


def test_the_report_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    report = _doctor.examine()
    text = _doctor.as_text(report)
    assert text.isascii()
    assert max(map(len, text.splitlines())) < 200
