"""Check that workers see the client's files: a path may be on one machine only, ``memory://`` in one process.

The check uses a small file in the target, on every file system: a job writes and removes files there anyway.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from fsspec.utils import get_protocol

from ...errors import ClusterError, TargetError
from ..files.errors import describe_error, is_missing
from ..files.inputs import Unit
from ..files.masking import mask_secrets
from ..files.open_input import current_identity
from ..files.target import UNFINISHED, Target
from ..units.work import Job

# Network file systems may show a new file to other machines only after some seconds.
_TIMEOUT_S, _PAUSE_S = 5.0, 0.1
# How many inputs are tried until one is found that still exists.
_MAX_INPUTS = 10


@dataclass(frozen=True)
class ClientFile:
    """A file of the client that every worker must see.

    ``open``: raises if the file is not visible; ``description``: names the file in an error message.
    """

    open: Callable[[], object]
    description: str


@contextmanager
def files_on_client(job: Job, units: Sequence[Unit]) -> Iterator[list[ClientFile]]:
    """Yield the files that workers must see: a small new file in the target, removed at the end, and inputs."""
    inputs = _inputs_to_check(job, units)
    name = f"{UNFINISHED}/seen-by-workers-{uuid4().hex}"
    job.target.write(name, b"")
    target = ClientFile(
        partial(_open_in_target, job.target, name), f"the target {mask_secrets(job.target.address)}"
    )
    try:
        yield [target, *inputs]
    finally:
        with suppress(TargetError):
            job.target.remove(name)


def _inputs_to_check(job: Job, units: Sequence[Unit]) -> list[ClientFile]:
    """Return one visible input per file system; a missing input fails its own unit only."""
    by_protocol: dict[str, list[str]] = {}
    for unit in units:
        if not unit.file.problem:
            by_protocol.setdefault(get_protocol(unit.file.address), []).append(unit.file.address)
    found = (_first_visible(addresses[:_MAX_INPUTS], job.options) for addresses in by_protocol.values())
    return [file for file in found if file is not None]


def _first_visible(addresses: Sequence[str], options: dict[str, Any]) -> ClientFile | None:
    """Return the first of these inputs that this process sees, or None."""
    for address in addresses:
        file = ClientFile(partial(_open_input, address, options), f"the input {mask_secrets(address)}")
        if _error_of(file) is None:
            return file
    return None


def _open_in_target(target: Target, name: str) -> None:
    if target.read(name) is None:
        raise FileNotFoundError(name)


def _open_input(address: str, options: dict[str, Any]) -> None:
    if current_identity(address, options) is None:
        raise FileNotFoundError(address)


def check_files(files: Sequence[ClientFile]) -> None:
    """Raise if this process does not see one of the client's files.

    Raises
    ------
    ClusterError
        A file is not visible after some seconds.
    """
    until = time.monotonic() + _TIMEOUT_S
    for file in files:
        while (error := _error_of(file)) is not None:
            if time.monotonic() > until:
                reason = "" if is_missing(error) else f" ({describe_error(error)})"
                raise ClusterError(
                    f"on host {socket.gethostname()} the worker does not see {file.description} that the "
                    f"client has{reason}: use a folder that all machines share under the same path, or an "
                    "object store such as s3://"
                )
            time.sleep(_PAUSE_S)


def _error_of(file: ClientFile) -> BaseException | None:
    """Return why this process does not see a file, or None if it does."""
    try:
        file.open()
    except Exception as error:  # noqa: BLE001 - client libraries raise errors of their own
        return error.__cause__ or error
    return None
