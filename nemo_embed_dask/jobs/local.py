"""Clusters for the command line: one on this machine, or one that runs already."""

from __future__ import annotations

import logging
from typing import Any

from distributed import Client, LocalCluster

from ..device import cpu_cores, default_device
from ..errors import JobError

# Threads a worker: they share one model, whose forward takes all of them; more would only wait.
_MOST_THREADS = 8


def local_cluster(workers: int | None = None, threads: int | None = None, memory_limit: str = "auto") -> Any:
    """A cluster on this machine: a worker for every GPU, else one for every eight cores."""
    _silence()
    cores = cpu_cores()
    if default_device().type == "cuda":
        try:
            from dask_cuda import LocalCUDACluster
        except ImportError:
            workers = 1
        else:
            return LocalCUDACluster(
                n_workers=workers, threads_per_worker=threads or 2, dashboard_address="127.0.0.1:0"
            )
    count = workers or max(1, cores // _MOST_THREADS)
    return LocalCluster(
        n_workers=count, threads_per_worker=threads or max(1, min(_MOST_THREADS, cores // count)),
        memory_limit=memory_limit, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL,
    )  # fmt: skip


def connect(address: str | None, file: str | None) -> Client:
    """A client of a running cluster.

    Raises
    ------
    JobError
        It cannot be reached.
    """
    _silence()
    try:
        return Client(address) if address else Client(scheduler_file=file)
    except (OSError, ValueError) as error:
        raise JobError(
            f"no Dask scheduler at {address or file} ({error}); start one: dask scheduler"
        ) from error


def _silence() -> None:
    """Keep the cluster's own tracebacks off the terminal; what matters of them becomes our one line."""
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
