"""Whether workers have the client's version of this package: with another they would fail, or differ."""

from __future__ import annotations

import asyncio
import pkgutil

from distributed import Client

from ...errors import ClusterError
from ...version import __version__

_PACKAGE = "nemo_embed_dask"


def check_versions(client: Client) -> None:
    """Raise if a worker has another version. Asks by functions of Python's own, which are the same everywhere.

    What cannot answer, for it lacks the package or dies, is left to what is sent to it next.

    Raises
    ------
    ClusterError
        With the worker's address.
    """
    found = client.run(asyncio.to_thread, pkgutil.resolve_name, f"{_PACKAGE}:__version__", on_error="return")
    for worker, version in found.items():
        if isinstance(version, str) and version != __version__:
            raise ClusterError(f"worker {worker} has {_unlike(version, __version__)}")


def check_version(client: str) -> None:
    """Raise if this process has another version than the client.

    Raises
    ------
    ClusterError
    """
    if client != __version__:
        raise ClusterError(f"this worker has {_unlike(__version__, client)}")


def _unlike(worker: str, client: str) -> str:
    return f"{_PACKAGE} {worker}, and the client has {client}; install the same version everywhere"
