"""Clusters for the command line: one on this machine, or one that runs already."""

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

from ...clusters import local as cluster
from ...device import gpu_count
from ...errors import ClusterError

_PATIENCE_S = 10
# A GPU's worker reads and tokenizes one unit while another is on the device; batches still run one at a time.
_GPU_THREADS = 2
# Dask pauses a worker at 80 % of its memory, until it has spilled results. Units leave no results, so that it
# would pause for ever. Above 95 % the worker is still killed, which its job reports.
_NO_PAUSE = {"distributed.worker.memory.pause": False}


@contextmanager
def local_cluster(
    workers: int | None = None, threads: int | None = None, memory_limit: str = "auto"
) -> Iterator[Any]:
    """Start `cluster.local_cluster`, silent, with a dashboard on any free port of this machine.

    Raises
    ------
    ConfigError
        ``memory_limit`` is no size, or too small for any worker.
    """
    _silence()
    if gpu_count() and threads is None:
        threads = _GPU_THREADS
    asked: dict[str, Any] = {} if threads is None else {"threads_per_worker": threads}
    with (
        dask.config.set(_NO_PAUSE),
        cluster.local_cluster(
            n_workers=workers,
            memory_limit=memory_limit,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            **asked,
        ) as made,
    ):
        yield made


def connect(address: str | None, file: str | None) -> Client:
    """Connect to a running cluster.

    Raises
    ------
    ClusterError
        It cannot be reached.
    """
    _silence()
    try:
        asyncio.run(_reach(address or _address_in(Path(str(file)))))
        return Client(**({"address": address} if address else {"scheduler_file": file}), timeout=_PATIENCE_S)
    except Exception as error:  # Dask raises all kinds: TypeError of tls:// without certificates
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ClusterError(
            f"no Dask scheduler answers at {address or file} ({reason}); start one: dask scheduler"
        ) from error


async def _reach(address: str) -> None:
    """See that a scheduler answers; a client that cannot start may block the process when it is collected."""
    try:
        identity = await asyncio.wait_for(_identity_at(address), _PATIENCE_S + 1)
    except MemoryError as error:  # Dask takes the first eight bytes of a message for its length
        raise ValueError("the service there does not speak Dask's protocol") from error
    except TimeoutError as error:
        raise ValueError(f"the service there has not replied within {_PATIENCE_S} s") from error
    if "workers" not in identity:
        raise ValueError(f"the service there is a Dask {identity.get('type')}")


async def _identity_at(address: str) -> dict[str, Any]:
    comm = await connect_comm(address, timeout=_PATIENCE_S, **Security().get_connection_args("client"))
    try:
        await comm.write({"op": "identity", "reply": True})
        return dict(await comm.read())
    finally:
        comm.abort()


def _address_in(file: Path) -> str:
    """The address in a scheduler's file, once that is written; Dask would wait for it for ever."""
    until = time.monotonic() + _PATIENCE_S
    while problem := _problem(file):
        if time.monotonic() > until:
            raise ValueError(f"{problem} after {_PATIENCE_S} s")
        time.sleep(0.1)
    return str(json.loads(file.read_bytes())["address"])


def _problem(file: Path) -> str:
    """What is wrong with a scheduler's file; empty if nothing."""
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return "no such file"
    except ValueError:
        return "the file is no JSON, as a scheduler writes with --scheduler-file,"
    known = isinstance(found, dict) and isinstance(found.get("address"), str)
    return "" if known else "the file names no scheduler's address"


def _silence() -> None:
    """Keep the cluster's own tracebacks off the terminal; what matters of them becomes our one line."""
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
