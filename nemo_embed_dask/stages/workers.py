"""The Dask worker that runs this code, and how many cores its model may use."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any


def current_worker() -> Any:
    """Return the Dask worker that runs this code, or None."""
    if "distributed" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:  # not in a worker
        return None


def cores_per_task() -> int | None:
    """Return the number of cores that a model may use in this process; None keeps torch's default.

    In a worker they are as many as its threads, because one forward pass runs at a time; without this it would
    have one core, because Dask's nannies set OMP_NUM_THREADS=1. A process of Dask's multiprocessing scheduler
    gets one core, because there are as many processes as cores.
    """
    worker = current_worker()
    if worker:
        return int(worker.state.nthreads)
    return 1 if multiprocessing.parent_process() else None
