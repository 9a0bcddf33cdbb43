"""Check that something answers where an object store should be, before its client library tries for minutes."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ...errors import JobError
from .errors import describe_error, explain_errors
from .masking import mask_secrets

# Seconds for one connection, and between two attempts; the second is for a network that was down briefly.
_TIMEOUT_S, _PAUSE_S, _ATTEMPTS = 10.0, 1.0, 2
_PORTS = {"http": 80, "https": 443}


def check_reachable(fs: Any, address: str, error_type: type[JobError] = JobError) -> None:
    """Connect once to the server of an object store, or to the proxy in front of it; send nothing.

    Client libraries repeat a connection that is refused for one to six minutes. File systems that are not s3fs,
    adlfs or gcsfs are not checked.

    Parameters
    ----------
    fs : fsspec file system
    address : str
        A source or target in it, for the message.
    error_type : type
        What to raise.

    Raises
    ------
    JobError
        Or ``error_type``: nothing answers, or the host has no address.
    """
    with explain_errors(address, "open", error_type):
        endpoint = _endpoint(fs)
    servers = list(_servers(endpoint)) if endpoint else []
    problem = _problem(servers)
    if problem:
        places = " and ".join(f"{host}:{port}" for host, port in servers)
        raise error_type(
            f"{mask_secrets(address)} cannot be reached (nothing answers at {places}: {problem}); check the "
            "endpoint or region in the environment or in the options of the file system, and the network",
            temporary=True,
        )


def _endpoint(fs: Any) -> str:
    """Return the URL of a file system's server; an empty text if it is not known."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
    if (fs.storage_options.get("config_kwargs") or {}).get("proxies"):
        return ""
    with suppress(AttributeError):  # another version of the client library
        if "s3" in protocols:
            return str(fs.s3.meta.endpoint_url)
        if "abfs" in protocols:
            return str(fs.service_client.url)
        if "gs" in protocols:
            return str(fs._location)
    return ""


def _servers(url: str) -> Iterator[tuple[str, int]]:
    """Yield host and port of the proxy that the environment names for a URL, if any, and of the URL itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(host):
        proxy_parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        yield proxy_parts.hostname or "", proxy_parts.port or _PORTS.get(proxy_parts.scheme, 80)
    yield host, parts.port or _PORTS.get(parts.scheme, 443)


def _problem(servers: list[tuple[str, int]]) -> str:
    """Return why none of the servers accepts a connection; an empty text if one does."""
    problem = ""
    for attempt in range(_ATTEMPTS if servers else 0):
        if attempt:
            time.sleep(_PAUSE_S)
        for server in servers:
            try:
                socket.create_connection(server, _TIMEOUT_S).close()
            except OSError as error:
                problem = describe_error(error)
            else:
                return ""
    return problem
