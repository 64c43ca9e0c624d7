"""Draw docs/images/occupancy.png: how busy workers are at each bound, for three spreads of task length.

    python docs/occupancy.py [--workers 4] [--tasks 600] [--mean 0.01] [--seed 1]

Measured with the real pool. Tasks sleep, so that cores do not matter; each costs its producer, which is a single
thread, a pause every few tasks, as a real one has that reads its items from somewhere.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

import weirpool

Spread = Callable[[random.Random, float], float]

SPREADS: dict[str, Spread] = {
    "constant": lambda _dice, mean: mean,
    "uniform, 0 to 2 x mean": lambda dice, mean: dice.uniform(0, 2 * mean),
    "exponential": lambda dice, mean: dice.expovariate(1 / mean),
}


def occupancy(bound: int, workers: int, lengths: list[float], dice: random.Random) -> float:
    """Run the tasks at a bound; return the share of the workers' time that they ran tasks."""
    mean = sum(lengths) / len(lengths)
    with weirpool.BoundedProcessPoolExecutor(bound, workers) as pool:
        for future in [pool.submit(time.sleep, 0.01) for _ in range(4 * workers)]:
            future.result()
        before = pool.stats().run.total
        began = time.monotonic()
        for length in lengths:
            pool.submit(time.sleep, length)
            if dice.random() < 0.05:
                time.sleep(2 * mean)  # the producer is away for as long as two tasks take
        stats = pool.stats()
        return min(1.0, (stats.run.total - before) / workers / (time.monotonic() - began))


def measure(workers: int, bounds: list[int], count: int, mean: float, seed: int) -> dict[str, list[float]]:
    """Return the occupancy by spread, at each bound; the same lengths and pauses at all bounds."""
    found: dict[str, list[float]] = {}
    for name, spread in SPREADS.items():
        dice = random.Random(seed)
        lengths = [spread(dice, mean) for _ in range(count)]
        found[name] = [occupancy(bound, workers, lengths, random.Random(seed)) for bound in bounds]
        print(f"{name:<24}" + "  ".join(f"{share:.1%}" for share in found[name]))
    return found


def draw(path: Path, workers: int, bounds: list[int], found: dict[str, list[float]]) -> None:
    """Write the picture."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for (name, shares), marker in zip(found.items(), "os^", strict=True):
        axes.plot(bounds, [100 * share for share in shares], marker=marker, label=name)
    axes.set_xlabel(f"bound ({workers} workers)")
    axes.set_ylabel("occupancy, %")
    axes.set_xticks(bounds)
    axes.grid(alpha=0.3)
    axes.legend(title="task length")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--mean", type=float, default=0.01, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    workers: int = options.workers
    bounds = [workers, workers + 1, 2 * workers, 3 * workers, 4 * workers, 6 * workers, 8 * workers]
    print(f"seed {options.seed}, {options.tasks} tasks of {options.mean} s on average, bounds {bounds}")
    found = measure(workers, bounds, options.tasks, options.mean, options.seed)
    draw(Path(__file__).parent / "images" / "occupancy.png", workers, bounds, found)


if __name__ == "__main__":
    main()
