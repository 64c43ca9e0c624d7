"""Adds up squares on the ranks of an MPI job, and never has more than the bound under way.

    mpirun -n 3 python -m mpi4py.futures bounded_mpi.py   # rank 0 submits, the other two work

The bound is found from the number of workers, which mpi4py knows once they have started.
"""

from __future__ import annotations

from mpi4py.futures import MPIPoolExecutor

import weirpool

NUMBERS = 1000


def square(number: int) -> int:
    return number * number


def main() -> None:
    with weirpool.bounded(MPIPoolExecutor()) as executor:
        print(sum(executor.map(square, range(NUMBERS))), "is the sum")


if __name__ == "__main__":  # worker ranks import this file
    main()
