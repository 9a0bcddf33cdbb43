"""Check the clients that users pass."""

from __future__ import annotations

from typing import Any

from distributed import Client

from ..errors import ClusterError, ConfigError


def check_client(client: Any) -> None:
    """Raise if the object that was passed as client cannot be used.

    Raises
    ------
    ClusterError
        The client is closed.
    ConfigError
        The client is asynchronous, or the object is not a client.
    """
    if isinstance(client, str):
        raise ConfigError(f"client={client!r} is an address; pass distributed.Client({client!r})")
    if not isinstance(client, Client):
        raise ConfigError(
            f"client={client!r:.80} ({type(client).__name__}) is not a client; pass "
            "client=distributed.Client(cluster)"
        )
    if client.status in ("closing", "closed"):
        raise ClusterError("the client is closed; create a new one: client=Client(address)")
    if client.asynchronous:
        raise ConfigError(
            "the client is asynchronous, but this function waits for results: pass a client created without "
            "asynchronous=True, which also works in a notebook"
        )
