"""Open files whose own errors are explained, so that no parser or writer between has to. Knows no address."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from io import FileIO, RawIOBase
from pathlib import Path
from typing import Any, TypeAlias

# What turns an error of a file into one that says which file, and what to do.
ErrorContext: TypeAlias = Callable[[], AbstractContextManager[None]]


class WriteStream(FileIO):
    """A new local file whose own errors are explained: those of who writes into it are not the target's."""

    def __init__(self, path: Path, explained: ErrorContext) -> None:
        super().__init__(path, "xb")
        self._explained = explained

    def write(self, data: Any) -> int:
        with self._explained():
            return super().write(data)


class ReadStream(RawIOBase):
    """A file of any file system to read from, with its own errors explained, and none of a parser.

    What a parser reads after `keep` can be had again without fetching it twice. ``owner`` is kept alive as long
    as the file: fsspec's archive file systems close their archive when they are garbage-collected.
    """

    def __init__(self, handle: Any, explained: ErrorContext, owner: object = None) -> None:
        self._handle, self._explained, self._owner = handle, explained, owner
        self._kept: dict[int, bytes] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        offset = None if self._kept is None else self.tell()
        with self._explained():
            data = bytes(self._handle.read(-1 if size is None else size))
        if self._kept is not None and offset is not None:
            self._kept[offset] = data
        return data

    def start_caching(self) -> None:
        """Keep what is read from here on, and nothing else."""
        self._kept = {}

    def stop_caching(self) -> None:
        """Keep nothing more."""
        self._kept = None

    def cached(self, offset: int, size: int) -> bytes:
        """Bytes from an offset on that were read at once; none if they were not."""
        data = (self._kept or {}).get(offset, b"")
        return data[:size] if len(data) >= size else b""

    def seek(self, offset: int, whence: int = 0) -> int:
        with self._explained():
            return int(self._handle.seek(offset, whence))

    def tell(self) -> int:
        return int(self._handle.tell())

    def close(self) -> None:
        if not self.closed:
            self._handle.close()
        super().close()
