"""Identify the version of a file without reading it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

# Names that file systems give to a hash of a file's content, and to the time of its last change.
_HASHES = ("ETag", "etag", "md5Hash")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class FileIdentity:
    """What distinguishes two versions of a file: its size, and its hash or the time of its last change."""

    size: int
    version: str


def identity_from_info(info: dict[str, Any]) -> FileIdentity:
    """Return a file's identity from the description that fsspec's ``info`` and ``ls`` give."""
    size = int(info.get("size") or 0)
    for name in (*_HASHES, *_TIMES):
        value = info.get(name)
        if value not in {None, ""}:
            version = _seconds(value) if name in _TIMES else value
            return FileIdentity(size, str(version).strip('"'))
    return FileIdentity(size, "")


def _seconds(time: Any) -> Any:
    """Convert a time to a number; the same file system may give a number, a datetime or a string.

    Fractions are rounded to microseconds, which both a datetime and a float of seconds since 1970 can hold.
    """
    if isinstance(time, str):
        with suppress(ValueError):
            time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        time = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if isinstance(time, float):
        return int(time) if time.is_integer() else round(time, 6)
    return time


def identity_from_stat(stat: os.stat_result) -> FileIdentity:
    """Return a local file's identity, with the time of its last change in nanoseconds."""
    return FileIdentity(stat.st_size, str(stat.st_mtime_ns))
