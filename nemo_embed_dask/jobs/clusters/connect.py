"""Clusters for the command line: start one on this machine, or connect to a running one."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client
from distributed.comm import connect as connect_comm
from distributed.security import Security

from ...clusters import local
from ...device import gpu_count
from ...errors import ClusterError
from ...stages import Stage
from ..files.client_errors import with_causes
from ..files.errors import describe_error

_TIMEOUT_S = 10
# A GPU worker reads and tokenizes one unit while another one is on the device; batches still run one at a time.
_GPU_THREADS = 2
# Dask pauses a worker at 80 % of its memory until it has spilled results. Units leave no results, so a worker
# would pause forever. Above 95 % Dask still kills the worker, which the job reports.
_NO_PAUSE = {"distributed.worker.memory.pause": False}


@contextmanager
def local_cluster(
    workers: int | None = None,
    threads: int | None = None,
    memory_limit: str = "auto",
    *,
    stage: Stage | None = None,
) -> Iterator[Any]:
    """Start a cluster on this machine without log output, with a dashboard on a free port.

    ``stage``: the one that will run, whose model decides how many workers share a GPU.

    Raises
    ------
    ConfigError
        ``memory_limit`` is not a size, or too small for a worker.
    """
    _silence()
    if gpu_count() and threads is None:
        threads = _GPU_THREADS
    settings: dict[str, Any] = {} if threads is None else {"threads_per_worker": threads}
    with (
        dask.config.set(_NO_PAUSE),
        local.local_cluster(
            stage,
            n_workers=workers,
            memory_limit=memory_limit,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            **settings,
        ) as cluster,
    ):
        yield cluster


def connect(address: str | None, file: str | None) -> Client:
    """Connect to a running cluster.

    Raises
    ------
    ClusterError
        The scheduler cannot be reached.
    """
    _silence()
    try:
        asyncio.run(_check_scheduler(address or _address_in(Path(str(file)))))
        return Client(**({"address": address} if address else {"scheduler_file": file}), timeout=_TIMEOUT_S)
    except Exception as error:  # Dask raises many types, such as TypeError for tls:// without certificates
        # Dask tries again until its time is over; the first cause says why the last attempt failed.
        first = with_causes(error)[-1]
        cause = f": {describe_error(first)}" if isinstance(error, OSError) and first is not error else ""
        reason = " ".join(f"{error}{cause}".split()) or type(error).__name__
        raise ClusterError(
            f"no Dask scheduler answers at {address or file} ({reason}); start one: dask scheduler"
        ) from error


async def _check_scheduler(address: str) -> None:
    """Check that a scheduler answers. A client that cannot start may block the process when it is deleted."""
    try:
        identity = await asyncio.wait_for(_identity_at(address), _TIMEOUT_S + 1)
    except MemoryError as error:  # Dask reads the first eight bytes of a message as its length
        raise ValueError("the service there does not speak Dask's protocol") from error
    except TimeoutError as error:
        raise ValueError(f"the service there has not replied within {_TIMEOUT_S} s") from error
    if "workers" not in identity:
        raise ValueError(f"the service there is a Dask {identity.get('type')}")


async def _identity_at(address: str) -> dict[str, Any]:
    """Ask the service at an address what it is."""
    comm = await connect_comm(address, timeout=_TIMEOUT_S, **Security().get_connection_args("client"))
    try:
        await comm.write({"op": "identity", "reply": True})
        return dict(await comm.read())
    finally:
        comm.abort()


def _address_in(file: Path) -> str:
    """Return the address in a scheduler file, once it is written; Dask would wait for it forever."""
    until = time.monotonic() + _TIMEOUT_S
    while problem := _file_problem(file):
        if time.monotonic() > until:
            raise ValueError(f"{problem} after {_TIMEOUT_S} s")
        time.sleep(0.1)
    return str(json.loads(file.read_bytes())["address"])


def _file_problem(file: Path) -> str:
    """Return what is wrong with a scheduler file, or an empty string."""
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return "no such file"
    except ValueError:
        return "the file is not JSON, as a scheduler writes with --scheduler-file,"
    known = isinstance(found, dict) and isinstance(found.get("address"), str)
    return "" if known else "the file has no scheduler address"


def _silence() -> None:
    """Hide Dask's own log output; errors that matter are reported in one line."""
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
