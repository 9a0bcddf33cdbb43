"""Lock a file for one run; the kernel releases the lock if the run dies."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ...errors import JobError
from .streams import ErrorContext

# What flock raises on a file system without locks, such as Lustre mounted without them.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def hold_lock(path: Path, address: str, explain: ErrorContext) -> Iterator[None]:
    """Hold the lock file at ``path`` for the target at ``address``.

    Raises
    ------
    JobError
        Another run holds it.
    """
    with explain():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    with handle:
        with explain():
            _lock(handle, path, address)
            path.write_text(f"process {os.getpid()} on {os.uname().nodename}")
        yield


def _lock(handle: IO[str], path: Path, address: str) -> None:
    import fcntl  # Windows has no such module

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = path.read_text() or "just starting"
        raise JobError(
            f"another run ({holder}) is writing to {address}; wait until it ends, or stop it"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
