"""Whether workers see what the client sees: a path may be another machine's own, ``memory://`` is a process's.

A small file in the target is enough, on every file system: a job writes, reads and removes files there anyway.
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

# Network file systems show a new file to other machines after some seconds.
_PATIENCE_S, _PAUSE_S = 5.0, 0.1
# Of so many inputs the first that is still there is looked for.
_INPUTS = 10


@dataclass(frozen=True)
class Shared:
    """A file of the client's that every worker has to see.

    ``look``: raises where it is not seen; ``place``: what to call its place in an error.
    """

    look: Callable[[], object]
    place: str


@contextmanager
def shared_files(job: Job, units: Sequence[Unit]) -> Iterator[list[Shared]]:
    """Yield what workers have to see: a new small file in the target, and an input; removed at the end."""
    inputs = _an_input_each(job, units)
    name = f"{UNFINISHED}/seen-by-workers-{uuid4().hex}"
    job.target.write(name, b"")
    target = Shared(
        partial(_look_at_target, job.target, name), f"the target {mask_secrets(job.target.address)}"
    )
    try:
        yield [target, *inputs]
    finally:
        with suppress(TargetError):
            job.target.remove(name)


def _an_input_each(job: Job, units: Sequence[Unit]) -> list[Shared]:
    """An input of each file system, if the client sees one: what is gone costs its unit alone."""
    addresses: dict[str, list[str]] = {}
    for unit in units:
        if not unit.file.problem:
            addresses.setdefault(get_protocol(unit.file.address), []).append(unit.file.address)
    inputs = [
        [
            Shared(partial(_look_at_input, one, job.options), f"the input {mask_secrets(one)}")
            for one in some[:_INPUTS]
        ]
        for some in addresses.values()
    ]
    found = (next((one for one in some if _unseen(one) is None), None) for some in inputs)
    return [one for one in found if one]


def _look_at_target(target: Target, name: str) -> None:
    if target.read(name) is None:
        raise FileNotFoundError(name)


def _look_at_input(address: str, options: dict[str, Any]) -> None:
    if current_identity(address, options) is None:
        raise FileNotFoundError(address)


def check_seen(shared: Sequence[Shared]) -> None:
    """Raise if this process does not see one of the client's files.

    Raises
    ------
    ClusterError
        It is not there, after some seconds.
    """
    until = time.monotonic() + _PATIENCE_S
    for file in shared:
        while (why := _unseen(file)) is not None:
            if time.monotonic() > until:
                raise ClusterError(
                    f"on host {socket.gethostname()} the worker does not see {file.place} that the client has"
                    f"{why}: use a folder that all machines share under the same path, or an object store such "
                    "as s3://"
                )
            time.sleep(_PAUSE_S)


def _unseen(file: Shared) -> str | None:
    """Why this process does not see a file, in brackets, or nothing if it is not there; None if it is seen."""
    try:
        file.look()
    except Exception as error:  # noqa: BLE001 - client libraries raise errors of their own
        return "" if is_missing(error.__cause__ or error) else f" ({describe_error(error)})"
    return None
