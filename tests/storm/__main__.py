"""A storm over the process pool: rounds of everything that may happen to it at once, drawn from a seed.

python tests/storm --seconds 60 --seed 7

At the end of each round every task is accounted for, and nothing is left of the pool. The last line counts the rounds.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures.thread  # noqa: F401 - else asyncio imports it while another thread forks, amid fork()'s hooks
import itertools
import logging
import multiprocessing.forkserver
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random

sys.path.append(str(Path(__file__).parent.parent / "python"))  # for `support`

import plan
import rounds
from plan import Death, Plan
from watch import LogReader, Remains, Watchdog

_DEATHS: tuple[Death, ...] = ("break", "replace")
_SHOWN = 10  # faults of a round


class Storm:
    """Rounds, one after another, and what came of them."""

    def __init__(self, seed: str, folder: str, limit: float, patience: float, deaths: tuple[Death, ...]) -> None:
        self._seed = seed
        self._folder = folder
        self._deaths = deaths
        self._watchdog = Watchdog(limit)
        self._log = LogReader()
        logging.getLogger().addHandler(self._log)
        self._patience = patience
        self._remains = Remains()
        self.seen: collections.Counter[str] = collections.Counter()
        self.passed = self.failed = 0

    def play(self, number: int) -> None:
        """Play a round, and say what is wrong with it."""
        seed = f"{self._seed} {number}"
        rng = Random(seed)
        drawn = plan.draw(rng, rng.choice(self._deaths))
        name = f"round {number} of seed {self._seed}: {drawn}"
        with self._watchdog.guard(name):
            faults = self._faults(drawn, seed, str(Path(self._folder) / f"starts-{number}"))
        if left := self._remains.found(self._patience):
            faults.append(f"left behind: {left}")
        if faults:
            self.failed += 1
            print(f"FAILED {name}", *faults[:_SHOWN], f"({len(faults)} faults)", sep="\n  ", flush=True)
            self._remains = Remains()
        else:
            self.passed += 1

    def _faults(self, drawn: Plan, seed: str, path: str) -> list[str]:
        try:
            account = rounds.play(drawn, seed, path, self._watchdog, self._log)
        except Exception:
            return [traceback.format_exc()]
        finally:
            self._log.account = None
        self.seen.update(account.seen)
        return account.faults

    def sum_up(self) -> None:
        """Say how much was tried."""
        seen = {"rounds": self.passed + self.failed, "tasks": 0, **dict(sorted(self.seen.items()))}
        for name, count in seen.items():
            print(f"{count:>9,} {name}")
        print(f"{self.passed} passed, {self.failed} failed", flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--seed", default="", help="of all choices (default: another one each time)")
    parser.add_argument("--rounds", type=int, help="so many rounds, however long they take")
    parser.add_argument("--round", type=int, help="only this round")
    parser.add_argument("--times", type=int, default=1, help="so often, with --round")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds after which a round hangs")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds until what a round leaves is a leak")
    parser.add_argument("--death", choices=("break", "replace"), action="append", help="only with this on_worker_death")
    return parser.parse_args()


def _numbers(options: argparse.Namespace) -> Iterator[int]:
    """Of the rounds to play."""
    if options.round is not None:
        return itertools.repeat(options.round, options.times)
    if options.rounds is not None:
        return iter(range(options.rounds))
    until = time.monotonic() + options.seconds
    return itertools.takewhile(lambda _: time.monotonic() < until, itertools.count())


def main() -> int:
    """Blow."""
    options = _parse()
    warnings.simplefilter("ignore", RuntimeWarning)  # low bounds, maps that are left unread: meant
    warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
    seed = options.seed or str(Random().randrange(10**6))
    print(f"seed {seed}", flush=True)
    multiprocessing.forkserver.ensure_running()  # it and the resource tracker stay for good
    with tempfile.TemporaryDirectory() as folder:
        storm = Storm(seed, folder, options.limit, options.patience, tuple(options.death or _DEATHS))
        for number in _numbers(options):
            storm.play(number)
        storm.sum_up()
    return 1 if storm.failed else 0


if __name__ == "__main__":
    sys.exit(main())
