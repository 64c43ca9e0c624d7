"""One measurement, in a process of its own: what hangs or crashes there does so alone.

python -m bench.child JOB RESULT    both JSON; the job as text, the result as a file
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings
from pathlib import Path


def main(job_text: str, result: str) -> None:
    from bench.workloads import WORKLOADS, Job

    # Workers are forked while a pool's own threads run; all contenders are told so by newer Pythons.
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
    job = Job(**json.loads(job_text))
    outcome = WORKLOADS[job.workload].run(job)
    part = Path(f"{result}.part")
    part.write_text(json.dumps(dataclasses.asdict(outcome)))
    os.replace(part, result)
    os._exit(0)  # the pools that were to be closed are; another would first finish its work


if __name__ == "__main__":  # workers that are spawned import this module, too
    main(*sys.argv[1:])
