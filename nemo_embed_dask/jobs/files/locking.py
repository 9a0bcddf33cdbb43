"""A lock file that one run holds; the kernel lets go of it if the run dies. Knows no store."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ...errors import JobError
from .streams import ErrorContext

# How a file system says that it has no locks (Lustre mounted without them).
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def hold_lock(path: Path, address: str, explained: ErrorContext) -> Iterator[None]:
    """Hold the lock file at ``path`` of the target at ``address``.

    Raises
    ------
    JobError
        Another run holds it.
    """
    with explained():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    with handle:
        with explained():
            _lock(handle, path, address)
            path.write_text(f"process {os.getpid()} on {os.uname().nodename}")
        yield


def _lock(handle: IO[str], path: Path, address: str) -> None:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JobError(
            f"another run ({path.read_text() or 'just starting'}) is at work on {address}; "
            "wait for it or stop it"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
