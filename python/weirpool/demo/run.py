"""One run: start everything, watch until every answer is in, report."""

import multiprocessing
import platform
import threading
import time

from . import interrupts
from .display import Display, Status
from .engines import as_number, make_engine
from .ledger import Ledger
from .options import Options
from .producers import Producers
from .report import Report
from .sampler import Sampler
from .work import nap
from .workload import Workload

LOOK_AGAIN = 0.1  # seconds
NAP = 0.1  # seconds; no worker is idle while the others are started


class Run:
    """The parts of a run."""

    def __init__(self, options: Options, workload: Workload) -> None:
        self.options = options
        self.workload = workload
        self.ledger = Ledger()
        self.engine = make_engine(options.engine, options.workers, options.bound)
        self.producers = Producers(options.producers, self.engine, workload, self.ledger)
        self.sampler = Sampler(self.engine)
        self.napped = threading.Semaphore(0)
        self.blocked_before = 0.0

    def start_workers(self) -> None:
        """Gives each worker something to do, so that the pool starts them all (as many as the bound has room for)."""
        for _ in range(self.options.workers):
            self.engine.submit(nap, NAP, lambda _: self.napped.release())

    def start_producers(self) -> None:
        """Starts the threads when the workers are there: nothing is forked while they run."""
        for _ in range(self.options.workers):
            self.napped.acquire()
        self.blocked_before = self.engine.meter().blocked_seconds
        self.sampler.start()
        self.ledger.start()
        self.producers.start()

    def watch(self, display: Display) -> None:
        """Shows what happens until every answer is in."""
        while self.producers.alive or self.ledger.pending:
            display.show(self.status())
            time.sleep(LOOK_AGAIN)
        self.sampler.stop()
        display.show(self.status())

    def end_at_once(self) -> None:
        """Ends workers and threads, whatever they are doing."""
        interrupts.end_at_once(self.engine, self.producers)
        self.sampler.stop()

    def status(self) -> Status:
        settled = self.ledger.checked + self.ledger.failed
        return Status(settled, self.workload.tasks - self.workload.skipped, self.sampler.samples)

    def report(self) -> Report:
        options, ledger, workload = self.options, self.ledger, self.workload
        meter = self.engine.meter()
        samples = self.sampler.samples
        return Report(
            engine=options.engine,
            bound=None if options.bound is None else as_number(options.bound, options.workers),
            producers=options.producers,
            workers=options.workers,
            start_method=multiprocessing.get_start_method(),
            python=platform.python_version(),
            folder=str(workload.folder.path),
            files=workload.folder.files,
            folder_bytes=workload.folder.size,
            repeat=workload.repeat,
            unreadable=workload.unreadable,
            tasks=workload.tasks - workload.skipped,
            checked=ledger.checked,
            differing=ledger.differing,
            failed=ledger.failed,
            error=ledger.first_error,
            bytes_in=ledger.bytes_in,
            bytes_out=ledger.bytes_out,
            seconds=round(ledger.seconds, 3),
            peak_outstanding=meter.peak_outstanding,
            memory_at_start=samples[0].memory,
            memory_peak=max(sample.memory for sample in samples),
            blocked_seconds=round(meter.blocked_seconds - self.blocked_before, 3),
            samples=samples,
        )


def run(options: Options, workload: Workload, display: Display) -> Report:
    """Runs the whole workload on one engine; however it ends, no worker and no producer is left."""
    this: Run | None = None
    try:
        with interrupts.held():
            this = Run(options, workload)
            this.start_workers()
        this.start_producers()
        with display:
            this.watch(display)
        report = this.report()
        this.engine.shutdown()
    except BaseException:
        if this:
            this.end_at_once()
        raise
    return report
