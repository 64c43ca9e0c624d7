"""The figures as JSON and as Markdown."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from bench.contenders import CONTENDERS
from bench.measure import Plan, Results, Taken
from bench.targets import TARGETS, Target
from bench.workloads import WORKLOADS

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


@dataclasses.dataclass
class Report:
    plan: Plan
    results: Results
    machine: dict[str, Any]
    core: dict[str, list[float]]  # of the engine alone, by figure

    def figures(self, workload: str) -> list[str]:
        """All that a workload tells, in the order in which it tells them."""
        names: dict[str, None] = {}
        for (of, _), taken in self.results.items():
            if of == workload:
                names.update(dict.fromkeys(name for outcome in taken.outcomes for name in outcome.figures))
        return list(names)

    def samples(self, workload: str, contender: str, figure: str) -> list[float]:
        taken = self.results.get((workload, contender), Taken())
        return [outcome.figures[figure] for outcome in taken.outcomes if figure in outcome.figures]

    def medians(self, workload: str, figure: str) -> dict[str, float]:
        samples = {name: self.samples(workload, name, figure) for name in self.plan.contenders}
        return {name: statistics.median(values) for name, values in samples.items() if values}


# ---- JSON ----------------------------------------------------------------------------------------------------------


def as_json(report: Report) -> dict[str, Any]:
    return {
        "machine": report.machine,
        "rounds": report.plan.rounds,
        "scale": report.plan.scale,
        "seed": report.plan.seed,
        "workloads": {name: workload_json(report, name) for name in report.plan.workloads},
        "targets": [target_json(report, target) for target in asked(report)],
        "core": report.core,
    }


def workload_json(report: Report, workload: str) -> dict[str, Any]:
    return {
        contender: {
            "rounds": [dataclasses.asdict(outcome) for outcome in taken.outcomes],
            "failures": taken.failures,
        }
        for (of, contender), taken in report.results.items()
        if of == workload
    }


def target_json(report: Report, target: Target) -> dict[str, Any]:
    value = target.value(report.medians)
    met = None if value is None else target.is_met(value)
    return {**dataclasses.asdict(target), "value": value, "met": met}


def asked(report: Report) -> list[Target]:
    return [target for target in TARGETS if target.workload in report.plan.workloads]


def write_json(report: Report, path: Path) -> None:
    path.write_text(json.dumps(as_json(report), indent=1) + "\n")


# ---- Markdown ------------------------------------------------------------------------------------------------------


def as_markdown(report: Report, pictures: list[tuple[str, str]]) -> str:
    """`pictures`: what each shows, and its path as seen from the document."""
    parts = [header(report), targets_table(report), all_table(report)]
    if report.core:
        parts.append(core_table(report))
    parts += [f"![{title}]({path})" for title, path in pictures]
    parts += [legend(report), failures(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def header(report: Report) -> str:
    machine, plan = report.machine, report.plan
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['date']}: {machine['cores']} cores of {machine['cpu']}, {machine['memory']}, Linux "
        f"{machine['kernel']}, {machine['python']}; {versions}. Load average {machine['load before']} at the beginning "
        f"and {machine['load after']} at the end. {plan.rounds} rounds, scale {plan.scale:g}, seed {plan.seed} and on."
    )


def targets_table(report: Report) -> str:
    rows = [target_row(report, target) for target in asked(report)]
    return table(["what", "unit", "weirpool", "beside it", "", "ratio", "target", "met"], "llrlrrrl", rows)


def target_row(report: Report, target: Target) -> list[str]:
    medians = report.medians(target.workload, target.figure)
    theirs = target.theirs(medians) if target.against else None
    value = target.value(report.medians)
    return [
        target.what or WORKLOADS[target.workload].title,
        unit(target.figure),
        cell(report.samples(target.workload, "weirpool", target.figure)),
        theirs or ("-" if target.against is None else target.against),
        cell(report.samples(target.workload, theirs, target.figure)) if theirs else "-",
        "-" if value is None or target.against is None else number(value),
        str(target),
        "-" if value is None else "yes" if target.is_met(value) else "**no**",
    ]


def all_table(report: Report) -> str:
    names = report.plan.contenders
    rows = []
    for workload in report.plan.workloads:
        for figure in report.figures(workload):
            cells = [contender_cell(report, workload, name, figure) for name in names]
            rows.append([WORKLOADS[workload].title, unit(figure), *cells])
    return table(["what", "unit", *names], "ll" + "r" * len(names), rows)


def contender_cell(report: Report, workload: str, contender: str, figure: str) -> str:
    taken = report.results.get((workload, contender))
    if taken is None:
        return "-"
    if taken.hung:
        return "hung"
    if not taken.outcomes:
        return "failed"
    return cell(report.samples(workload, contender, figure))


def cell(samples: list[float]) -> str:
    """The median, and how far the extremes are from each other."""
    if not samples:
        return "-"
    median = statistics.median(samples)
    if len(samples) == 1 or median == 0:
        return number(median)
    return f"{number(median)} ±{(max(samples) - min(samples)) / 2 / median:.0%}"


def core_table(report: Report) -> str:
    rows = [[unit(figure), cell(samples)] for figure, samples in report.core.items()]
    return "The engine alone, in C, and what the machine can do at best:\n\n" + table(["what", ""], "lr", rows)


def legend(report: Report) -> str:
    lines = [f"- {name}: {CONTENDERS[name].note}" for name in report.plan.contenders if CONTENDERS[name].note]
    return "Medians, and half the distance between the extremes.\n\n" + "\n".join(lines)


def failures(report: Report) -> str:
    lines = [
        f"- {workload}, {contender}: {why}"
        for (workload, contender), taken in report.results.items()
        for why in dict.fromkeys(taken.failures)
    ]
    return "What failed:\n\n" + "\n".join(lines) if lines else ""


def table(titles: list[str], alignment: str, rows: list[list[str]]) -> str:
    rule = ["---:" if side == "r" else "---" for side in alignment]
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, rule, *rows])


def unit(figure: str) -> str:
    return figure.replace("us", "µs")


def number(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


# ---- Publishing ----------------------------------------------------------------------------------------------------


def publish(path: Path, text: str) -> None:
    """Puts the text between the two comments of a document; what is written around them stays."""
    before, found, rest = path.read_text().partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{path} has no {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
