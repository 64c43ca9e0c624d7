"""weirpool beside the process pools that people use, in turns, in one run: ``make bench``, ``python -m bench --help``.

contenders.py   the pools, each behind the same few calls
tasks.py        what workers run
workloads.py    what is measured, and of whom
rates.py        how a rate is measured: how many items, how often
memory.py       what a program and its workers hold, in a process beside it
child.py        one measurement, in a process of its own
measure.py      all of them, round after round
targets.py      what weirpool is held to
report.py       JSON and Markdown
pictures.py     the pictures
core.c          the engine alone
"""
