"""Worker processes of a cluster on this machine: their environment, signals and memory, and how they end."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children, resource_tracker
from typing import Any

import dask
from distributed.utils import LoopRunner
from distributed.worker_memory import parse_memory_limit

from ..device import cpu_cores

# Dask's own closing ends a worker after 5 s. It waits for ever for one that died while it started.
_CLOSE_S, _CLOSE_AFTER_KILL_S = 10, 3
# A worker that has imported torch takes five times as much.
_LEAST_MEMORY = 100_000_000


def memory_problem(limit: Any) -> str:
    """What is wrong with a worker's memory limit, as the end of a sentence; empty if nothing.

    Dask takes an empty text for one byte, and a worker takes one byte for the whole machine's memory.
    """
    if limit == "auto":
        return ""
    try:
        size = parse_memory_limit(limit, nthreads=1, total_cores=1, logger=logging.getLogger("distributed"))
    except (ValueError, TypeError, OverflowError):
        size = -1
    if size is None or size >= _LEAST_MEMORY:
        return ""
    if size < 0 or limit == "":
        return "is not a memory size; pass one such as 4GB, auto, or 0 for no limit"
    return (
        "is too little memory for a worker, which takes about 500 MB before it has loaded a model; pass a size "
        "such as 4GB, auto, or 0 for no limit"
    )


def environment(workers: int) -> dict[str, Any]:
    """What workers find in their environment: a fair share of the cores."""
    share = max(1, cpu_cores() // workers)
    return {
        # Each process has a rayon pool of its own, which would otherwise be as large as the machine.
        "distributed.nanny.pre-spawn-environ.RAYON_NUM_THREADS": share,
        "distributed.nanny.pre-spawn-environ.TOKENIZERS_PARALLELISM": "true",
        # OpenMP threads that wait for one another by spinning take the cores from whom they wait for, where
        # other processes want these cores too: 5 to 10 times the time (benchmarks/LOG.md).
        "distributed.nanny.pre-spawn-environ.OMP_WAIT_POLICY": "PASSIVE",
    }


@contextmanager
def restored_environment() -> Iterator[None]:
    """Take back what nannies set in this process, which workers of a later cluster would inherit."""
    names = [*dask.config.get("distributed.nanny.pre-spawn-environ"), "PYTHONHASHSEED"]
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def loop_without_sigint(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An event loop for the cluster whose worker processes never see Ctrl-C: this process alone handles it.

    A terminal sends SIGINT to all processes of a job. Workers inherit the signal mask of the thread that
    starts them, which is the loop's, also when they are restarted. The main thread keeps its own mask.
    """
    if not hasattr(signal, "pthread_sigmask") or settings.get("asynchronous") or settings.get("loop"):
        yield {}
        return
    # The tracker comes first: the thread that starts it loses its signal mask (Python 3.11). It ignores SIGINT
    # and SIGTERM itself; killed by SIGHUP, it would be restarted and print tracebacks.
    with _blocked(signal.SIGHUP):
        resource_tracker.ensure_running()
    runner = LoopRunner()
    with _blocked(signal.SIGINT):
        runner.start()
    try:
        yield {"loop": runner.loop}
    finally:
        runner.stop()


@contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    """Block a signal in this thread; threads and processes that it starts inherit that for good."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def closed_in_time(cluster: Any) -> Iterator[Any]:
    """Enter a cluster, and close it at the end; where Dask cannot, end its worker processes and go on."""
    entered = cluster.__enter__()
    nannies = cluster._created  # also those that the cluster gave up
    try:
        yield entered
    finally:
        try:
            cluster.close(timeout=_CLOSE_S)
        except Exception:  # noqa: BLE001 - whatever Dask raises, what the cluster was for is over
            _kill(nannies)
            with suppress(Exception):
                cluster.close(timeout=_CLOSE_AFTER_KILL_S)
            cluster.shutdown_on_close = False  # Dask would try again as Python ends


def _kill(nannies: Iterable[Any]) -> None:
    """End the processes of nannies; workers that are no processes have none."""
    pids = set()
    for nanny in nannies:
        with suppress(AttributeError, ValueError):  # a process that is over
            pids.add(nanny.pid)
    for process in active_children():
        if process.pid in pids:
            process.kill()
            process.join(1)
