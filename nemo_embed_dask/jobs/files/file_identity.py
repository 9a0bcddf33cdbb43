"""What tells two versions of a file apart without reading it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

# What file systems call a hash of a file's content, and the time of its last change.
_HASHES = ("ETag", "etag", "md5Hash")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class FileIdentity:
    """What tells two versions of a file apart: its size, and etag or mtime."""

    size: int
    version: str


def identity_from_info(info: dict[str, Any]) -> FileIdentity:
    """A file's identity from what its file system says of it, in a listing or of the file alone."""
    given = {name: info[name] for name in (*_HASHES, *_TIMES) if info.get(name) not in {None, ""}}
    name = next(iter(given), "")
    version = _seconds(given[name]) if name in _TIMES else given.get(name, "")
    return FileIdentity(int(info.get("size") or 0), str(version).strip('"'))


def _seconds(time: Any) -> Any:
    """A time as a number, which one file system may tell as a number, a datetime or a string.

    Fractions are kept to the microsecond, all that a datetime and a float of seconds since 1970 both hold.
    """
    if isinstance(time, str):
        with suppress(ValueError):
            time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        time = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if isinstance(time, float):
        return int(time) if time.is_integer() else round(time, 6)
    return time


def identity_from_stat(seen: os.stat_result) -> FileIdentity:
    """A local file's identity, to the nanosecond; that of a link's target."""
    return FileIdentity(seen.st_size, str(seen.st_mtime_ns))
