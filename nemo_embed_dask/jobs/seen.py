"""Whether workers see the client's folders: a local path may be another machine's own. Knows no cluster."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from fsspec.utils import get_protocol

from ..errors import ClusterError
from .inputs import Unit
from .storage import UNFINISHED, open_filesystem
from .work import Job

# Network file systems show a new file to other machines after some seconds.
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Shared:
    """A local file of the client that every worker has to see, and what to call its place in an error."""

    path: str
    place: str


@contextmanager
def shared_files(job: Job, units: Sequence[Unit]) -> Iterator[list[Shared]]:
    """Yield what workers have to see: a new small file in the target, and the first input; removed at the end.

    Addresses that are not local give nothing to see.
    """
    shared = [Shared(path, f"the input {path}") for path in _first_input(job, units)]
    if not job.target.local:
        yield shared
        return
    name = f"{UNFINISHED}/seen-by-workers-{uuid4().hex}"
    job.target.write(name, b"")
    try:
        yield [Shared(job.target.path(name), f"the target {job.target.root}"), *shared]
    finally:
        with suppress(OSError):
            job.target.remove(name)


def _first_input(job: Job, units: Sequence[Unit]) -> list[str]:
    for unit in units:
        address = unit.file.address
        if get_protocol(address) in ("file", "local"):
            path = str(open_filesystem(address, job.options)._strip_protocol(address))
            if Path(path).is_file():  # an input that is gone costs its unit alone
                return [path]
    return []


def check_seen(shared: Sequence[Shared]) -> None:
    """Raise if this process does not see one of the client's files.

    Raises
    ------
    ClusterError
        It is not there, after some seconds.
    """
    until = time.monotonic() + _PATIENCE_S
    for file in shared:
        while not Path(file.path).exists():
            if time.monotonic() > until:
                raise ClusterError(
                    f"on host {socket.gethostname()} the worker does not see {file.place} that the client has: "
                    "use a folder that all machines share under the same path, or an object store such as s3://"
                )
            time.sleep(0.1)
