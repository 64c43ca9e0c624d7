"""Counts the words of many texts on a Dask cluster, and never has more than the bound under way.

    python bounded_dask.py                        # a cluster of two processes on this machine
    python bounded_dask.py tcp://scheduler:8786   # an existing one

Without the bound, Dask's client would take every text at once and keep it until a worker has come to it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from distributed import Client, LocalCluster

import weirpool

TEXTS = 200


def texts() -> Iterator[str]:
    """More than fits into memory, in real life."""
    for number in range(TEXTS):
        yield "word " * number


def count_words(text: str) -> int:
    return len(text.split())


def count_all(client: Client) -> int:
    # pure=False: two equal calls are two tasks. By default Dask would run them once.
    with weirpool.bounded(client.get_executor(pure=False)) as executor:
        return sum(executor.map(count_words, texts()))


def main() -> None:
    if len(sys.argv) > 1:
        with Client(sys.argv[1]) as client:
            print(count_all(client), "words")
        return
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        print(count_all(client), "words")


if __name__ == "__main__":  # worker processes import this file
    main()
