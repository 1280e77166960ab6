"""Jobs on all cores: numpy lets other threads run while it works, so the mixing rules' blocks may.

Knows threads; not what a job does. Nothing outlives a call.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor


def on_all_cores(job: Callable[[int], object], jobs: Iterable[int]) -> list[object]:
    """``[job(j) for j in jobs]``, several at a time where this process may use several cores."""
    waiting = list(jobs)
    threads = min(len(os.sched_getaffinity(0)), len(waiting))
    if threads < 2:
        return [job(j) for j in waiting]
    with ThreadPoolExecutor(threads, thread_name_prefix="mix") as pool:
        return list(pool.map(job, waiting))
