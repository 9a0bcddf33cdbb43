"""Clusters for the command line: one on this machine, or one that runs already."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from distributed import Client

from .. import cluster
from ..device import gpu_count
from ..errors import JobError

_PATIENCE_S = 10
# A GPU's worker reads and tokenizes one unit while another is on the device; batches still run one at a time.
_GPU_THREADS = 2


def local_cluster(workers: int | None = None, threads: int | None = None, memory_limit: str = "auto") -> Any:
    """`cluster.local_cluster`, silent, with a dashboard on any free port of this machine."""
    _silence()
    if gpu_count() and threads is None:
        threads = _GPU_THREADS
    asked: dict[str, Any] = {} if threads is None else {"threads_per_worker": threads}
    return cluster.local_cluster(
        n_workers=workers, memory_limit=memory_limit, dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL, **asked,
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
        if file:
            _wait_for(Path(file))
        return Client(**({"address": address} if address else {"scheduler_file": file}), timeout=_PATIENCE_S)
    except (OSError, ValueError) as error:
        raise JobError(
            f"no Dask scheduler at {address or file} ({error}); start one: dask scheduler"
        ) from error


def _wait_for(file: Path) -> None:
    """Dask would wait for it for ever."""
    until = time.monotonic() + _PATIENCE_S
    while not file.exists():
        if time.monotonic() > until:
            raise FileNotFoundError(f"no such file after {_PATIENCE_S} s")
        time.sleep(0.1)


def _silence() -> None:
    """Keep the cluster's own tracebacks off the terminal; what matters of them becomes our one line."""
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
