"""All measurements, round after round: each in a process of its own, which is ended by force if it hangs."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bench.contenders import CONTENDERS
from bench.processes import descendants
from bench.workloads import WORKLOADS, Job, Outcome, Workload

ROOT = Path(__file__).resolve().parents[1]
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Plan:
    workloads: list[str]
    contenders: list[str]
    rounds: int
    scale: float
    seed: int
    output: Path

    def contenders_of(self, workload: Workload) -> list[str]:
        return [name for name in self.contenders if workload.takes(CONTENDERS[name])]


@dataclass
class Taken:
    """What one contender did in one workload, in all rounds."""

    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    hung: bool = False

    @property
    def items(self) -> int | None:
        return self.outcomes[0].items if self.outcomes else None

    def add(self, outcome: Outcome | Failure) -> None:
        if isinstance(outcome, Outcome):
            self.outcomes.append(outcome)
        else:
            self.failures.append(outcome.why)
            self.hung |= outcome.hung


@dataclass(frozen=True)
class Failure:
    why: str
    hung: bool = False


Results = dict[tuple[str, str], Taken]  # by workload and contender
Tell = Callable[[str], None]


def measure(plan: Plan, results: Results, tell: Tell) -> None:
    """Fills `results`, so that an interrupted run has some. Contenders take turns; each round begins with another."""
    adopt_orphans()
    for number in range(plan.rounds):
        for name in plan.workloads:
            workload = WORKLOADS[name]
            turns = plan.contenders_of(workload)
            turns = turns[number % max(1, len(turns)) :] + turns[: number % max(1, len(turns))]
            started = time.monotonic()
            if workload.together:
                with ThreadPoolExecutor(max(1, len(turns))) as threads:
                    list(threads.map(lambda turn: take_turn(plan, results, number, name, turn), turns))  # noqa: B023
                end_leftovers()
            else:
                for turn in turns:
                    take_turn(plan, results, number, name, turn)
                    end_leftovers()
            tell(f"round {number + 1} of {plan.rounds}: {name}, {time.monotonic() - started:.1f} s")


def take_turn(plan: Plan, results: Results, number: int, workload: str, contender: str) -> None:
    taken = results.setdefault((workload, contender), Taken())
    if taken.hung:
        return  # once is enough: it would take its time limit in each round
    job = Job(workload, contender, plan.scale, taken.items, plan.seed + number)
    place = plan.output / "runs" / f"{workload}-{contender.replace(' ', '-')}-{number + 1}"
    place.parent.mkdir(parents=True, exist_ok=True)
    taken.add(run_child(job, place))


def run_child(job: Job, place: Path) -> Outcome | Failure:
    result, log = place.with_suffix(".json"), place.with_suffix(".log")
    result.unlink(missing_ok=True)
    limit = WORKLOADS[job.workload].limit
    command = [sys.executable, "-m", "bench.child", json.dumps(dataclasses.asdict(job)), str(result)]
    with log.open("wb") as output:
        child = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
        try:
            status = child.wait(limit)
        except subprocess.TimeoutExpired:
            return Failure(f"no end after {limit:.0f} s", hung=True)
        finally:
            end_group(child)
    if status != 0 or not result.exists():
        return Failure(last_line(log) or f"exit status {status}")
    return Outcome(**json.loads(result.read_text()))


def end_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def adopt_orphans() -> None:
    """What a killed child leaves behind becomes ours, wherever it hides; see end_leftovers()."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_leftovers() -> None:
    """Called when no child is meant to run: whatever there is would disturb the next one."""
    while left := descendants(os.getpid()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.001)


def last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
