"""The benchmark runs, checks what it measures, survives a contender that does not, and says what it found."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `bench` is

from bench import measure, report, targets, workloads
from bench.measure import ROOT


def run_bench(output: Path, *arguments: str) -> dict[str, Any]:
    small = ["--scale", "0.002", "--rounds", "1", "--output", str(output)]
    subprocess.run([sys.executable, "-m", "bench", *small, *arguments], cwd=ROOT, check=True, timeout=100)
    found: dict[str, Any] = json.loads((output / "results.json").read_text())
    return found


def options(name: str, *values: str) -> list[str]:
    return [word for value in values for word in (f"--{name}", value)]


def test_figures_of_every_contender_and_the_ratios_are_written(tmp_path: Path) -> None:
    names = ["noop", "roundtrip", "map"]
    found = run_bench(tmp_path, *options("workload", *names), *options("contender", "weirpool", "standard"))
    assert list(found["workloads"]) == names
    for contenders in found["workloads"].values():
        for contender in ("weirpool", "standard"):
            [outcome] = contenders[contender]["rounds"]
            assert all(value > 0 for value in outcome["figures"].values())
            assert contenders[contender]["failures"] == []
    assert found["machine"]["cores"] >= 1 and found["machine"]["load before"]
    assert {target["workload"] for target in found["targets"]} == set(names)
    assert all(target["value"] > 0 and target["met"] in (True, False) for target in found["targets"])
    assert "| standard |" in (tmp_path / "results.md").read_text()


def test_a_contender_that_hangs_is_ended_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = dataclasses.replace(workloads.WORKLOADS["idle"], limit=2.0)
    monkeypatch.setitem(measure.WORKLOADS, "idle", short)
    outcome = measure.run_child(workloads.Job("idle", "weirpool"), tmp_path / "idle")  # takes ten seconds
    assert outcome == measure.Failure("no end after 2 s", hung=True)


def test_a_contender_that_fails_is_reported_with_its_reason(tmp_path: Path) -> None:
    outcome = measure.run_child(workloads.Job("noop", "weirpool", scale=-1.0, items=-1), tmp_path / "noop")
    assert isinstance(outcome, measure.Failure)
    assert outcome.why and not outcome.hung


def test_best_peer_is_none_of_ours_and_no_bare_loop() -> None:
    def medians(workload: str, figure: str) -> dict[str, float]:
        return {"weirpool": 100.0, "standard": 4.0, "Pool": 10.0, "bare loops": 50.0}

    target = targets.Target("noop", "tasks/s", 20, targets.BEST)
    assert target.value(medians) == 10.0
    assert not target.is_met(10.0) and target.is_met(20.0)


def test_publishing_keeps_what_is_written_by_hand(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for _ in range(2):
        report.publish(document, "new\n")
    assert document.read_text() == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"


def test_the_page_has_a_place_for_what_is_published() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    assert text.index(report.BEGIN) < text.index(report.END)
