"""Check that workers have the client's version of this package."""

from __future__ import annotations

import asyncio
import pkgutil

from distributed import Client

from ...errors import ClusterError
from ...version import __version__

_PACKAGE = "nemo_embed_dask"


def check_versions(client: Client) -> None:
    """Raise if a worker has another version.

    Uses only functions of Python, which every worker has. Workers that cannot answer, because they lack the
    package or die, are not reported here: the next message to them fails.

    Raises
    ------
    ClusterError
        A worker has another version; the message names its address.
    """
    found = client.run(asyncio.to_thread, pkgutil.resolve_name, f"{_PACKAGE}:__version__", on_error="return")
    for worker, version in found.items():
        if isinstance(version, str) and version != __version__:
            raise ClusterError(f"worker {worker} has {_difference(version, __version__)}")


def check_version(client_version: str) -> None:
    """Raise ClusterError if this process has another version than the client."""
    if client_version != __version__:
        raise ClusterError(f"this worker has {_difference(__version__, client_version)}")


def _difference(worker: str, client: str) -> str:
    """Return the end of a sentence on a worker's version."""
    return f"{_PACKAGE} {worker}, and the client has {client}; install the same version everywhere"
