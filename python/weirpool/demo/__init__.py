"""The demo: many producer threads feed the files of a folder to a few worker processes.

``python -m weirpool demo`` shows what happens to memory when ``submit()`` waits at a bound, and what happens when it
does not. The same work runs on three engines, behind one small interface (``engines``):

- ``weirpool``: the bounded pool;
- ``stdlib``: the standard pool, which accepts everything at once;
- ``recipe``: a semaphore around the standard pool.

One run, from front to back: ``folder`` finds the files, ``workload`` deals them out, ``producers`` read and submit
them, ``work`` compresses and hashes them in the workers, ``ledger`` checks each digest, ``sampler`` measures,
``display`` shows, ``run`` holds it together and ``report`` keeps what came out. ``compare`` runs two engines and puts
them side by side.
"""
