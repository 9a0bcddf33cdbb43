"""Worker processes of a cluster on this machine: environment, signals, memory limits, shutdown."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children, resource_tracker
from typing import Any

import dask
from distributed.deploy.spec import SpecCluster
from distributed.utils import LoopRunner
from distributed.worker_memory import parse_memory_limit

from ..device import WORKERS_PER_GPU, cpu_cores
from .gpus import sharing

# Seconds to close a cluster, and to close it after its workers were killed. Dask kills a worker after 5 s, but
# waits forever for one that died early.
_CLOSE_S, _CLOSE_AFTER_KILL_S = 10, 3
# The smallest limit that is accepted, in bytes; a worker that has imported torch needs five times as much.
_LEAST_MEMORY = 100_000_000


def memory_problem(limit: Any) -> str:
    """Return what is wrong with a worker's memory limit, as the end of a sentence, or an empty string.

    Dask reads an empty string as one byte, and a worker with that limit uses the whole machine's memory.
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
        "is too little memory for a worker, which needs about 500 MB even without a model; pass a size "
        "such as 4GB, auto, or 0 for no limit"
    )


def environment(workers: int, gpus: int = 0) -> dict[str, Any]:
    """Return Dask settings for the environment of workers: each gets an equal part of the cores and GPUs."""
    cores = max(1, cpu_cores() // workers)
    share = {f"distributed.nanny.pre-spawn-environ.{WORKERS_PER_GPU}": sharing(workers, gpus)} if gpus else {}
    return {
        **share,
        # Each process has its own rayon pool, by default with as many threads as the machine has cores.
        "distributed.nanny.pre-spawn-environ.RAYON_NUM_THREADS": cores,
        "distributed.nanny.pre-spawn-environ.TOKENIZERS_PARALLELISM": "true",
        # Spinning OpenMP threads take cores from other processes: 5 to 10 times slower (benchmarks/LOG.md).
        "distributed.nanny.pre-spawn-environ.OMP_WAIT_POLICY": "PASSIVE",
    }


@contextmanager
def restored_environment() -> Iterator[None]:
    """Restore environment variables that nannies set: workers of a later cluster would inherit them."""
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
    """Yield an event loop for the cluster, whose worker processes ignore Ctrl-C; only this process handles it.

    A terminal sends SIGINT to all processes. Workers inherit the signal mask of the thread that starts or
    restarts them, which is the loop's thread. The main thread keeps its own mask.
    """
    if not hasattr(signal, "pthread_sigmask") or settings.get("asynchronous") or settings.get("loop"):
        yield {}
        return
    # Start the resource tracker first: the thread that starts it loses its signal mask (Python 3.11). The
    # tracker ignores SIGINT and SIGTERM; if SIGHUP killed it, it would be restarted and print tracebacks.
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
    """Block a signal in this thread, and permanently in threads and processes that it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def closed_in_time(start: Callable[[], Any]) -> Iterator[Any]:
    """Start and enter a cluster, and close it at the end, also if its start was interrupted."""
    before = set(SpecCluster._instances)
    try:
        cluster = start()
    except BaseException:
        for unfinished in set(SpecCluster._instances) - before:
            # Tasks of this start fail when its processes end; nobody waits for them any more.
            loop: Any = unfinished.loop
            loop.asyncio_loop.set_exception_handler(lambda *_: None)
            _close(unfinished)
        raise
    try:
        yield cluster.__enter__()
    finally:
        _close(cluster)


def _close(cluster: Any) -> None:
    """Close a cluster; if Dask cannot close it, kill its worker processes."""
    nannies = cluster._created  # includes those that the cluster has given up
    try:
        cluster.close(timeout=_CLOSE_S)
    except Exception:  # noqa: BLE001 - the work on the cluster is done, whatever Dask raises
        _kill(nannies)
        with suppress(Exception):
            cluster.close(timeout=_CLOSE_AFTER_KILL_S)
        cluster.shutdown_on_close = False  # Dask would try again when Python exits


def _kill(nannies: Iterable[Any]) -> None:
    """Kill the processes of nannies; workers that are threads have none."""
    pids = set()
    for nanny in nannies:
        with suppress(AttributeError, ValueError):  # the process has ended
            pids.add(nanny.pid)
    for process in active_children():
        if process.pid in pids:
            process.kill()
            process.join(1)
