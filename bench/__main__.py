"""``python -m bench``: weirpool beside other pools. Writes tables and pictures into build/bench."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path

from bench import machine, pictures, report
from bench.contenders import CONTENDERS
from bench.measure import ROOT, Plan, Results, measure
from bench.workloads import WORKLOADS

DOCUMENT = ROOT / "docs" / "performance.md"
CORE = "core"  # is no workload of the contenders
IMAGES = ROOT / "docs" / "images"


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = [*WORKLOADS, CORE]
    parser.add_argument("--workload", action="append", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--contender", action="append", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: a tenth of the items and of the time")
    parser.add_argument("--seed", type=int, default=1, help="of what is random")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--core", type=Path, help="the program that measures the engine alone")
    parser.add_argument("--publish", action="store_true", help="also into docs/")
    return parser


def make_plan(given: argparse.Namespace) -> Plan:
    return Plan(
        workloads=[name for name in given.workload or WORKLOADS if name != CORE],
        contenders=given.contender or list(CONTENDERS),
        rounds=given.rounds,
        scale=given.scale,
        seed=given.seed,
        output=given.output.resolve(),
    )


def measure_core(program: Path, rounds: int, scale: float) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        output = subprocess.run([program, str(scale)], check=True, capture_output=True, text=True, timeout=120).stdout
        for name, value in json.loads(output).items():
            figures.setdefault(name, []).append(value)
    return figures


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write(found: report.Report, publish: bool) -> str:
    """Returns the text."""
    output = found.plan.output
    report.write_json(found, output / "results.json")
    drawn = pictures.draw(found, output)
    text = report.as_markdown(found, [(title, path.name) for title, path in drawn])
    (output / "results.md").write_text(text)
    if publish:
        drawn = pictures.draw(found, IMAGES)
        report.publish(DOCUMENT, report.as_markdown(found, [(title, f"images/{path.name}") for title, path in drawn]))
    return text


def main() -> int:
    given = make_parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also then what was started has to be ended
    plan = make_plan(given)
    plan.output.mkdir(parents=True, exist_ok=True)
    about = {**machine.describe(), "load before": machine.load()}
    results: Results = {}
    core: dict[str, list[float]] = {}
    complete = False
    try:
        if given.core and CORE in (given.workload or [CORE]):
            core = measure_core(given.core.resolve(), plan.rounds, plan.scale)
        measure(plan, results, tell)
        complete = True
    except KeyboardInterrupt:
        tell("interrupted: here is what there is")
    about["load after"] = machine.load()
    print(write(report.Report(plan, results, about, core), given.publish and complete))
    return 0 if complete else 130


if __name__ == "__main__":
    sys.exit(main())
