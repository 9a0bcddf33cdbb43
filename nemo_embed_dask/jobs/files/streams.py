"""Wrap open files so that their own errors are explained, but not those of a parser or writer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from io import FileIO, RawIOBase
from pathlib import Path
from typing import Any, TypeAlias

# Makes a context that replaces a file's error by one that names the file and says what to do.
ErrorContext: TypeAlias = Callable[[], AbstractContextManager[None]]


class WriteStream(FileIO):
    """A new local file to write to; its own errors are explained."""

    def __init__(self, path: Path, explain: ErrorContext) -> None:
        super().__init__(path, "xb")
        self._explain = explain

    def write(self, data: Any) -> int:
        with self._explain():
            return super().write(data)


class ReadStream(RawIOBase):
    """A file of any file system to read from; its own errors are explained.

    Parameters
    ----------
    handle : binary file
    explain : callable
        Makes the context in which the file is read.
    owner : object, optional
        Kept alive as long as the stream: fsspec's archive file systems close their archive when they are
        garbage-collected.
    """

    def __init__(self, handle: Any, explain: ErrorContext, owner: object = None) -> None:
        self._handle, self._explain, self._owner = handle, explain, owner
        self._cache: dict[int, bytes] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        offset = 0 if self._cache is None else self.tell()
        with self._explain():
            data = bytes(self._handle.read(-1 if size is None else size))
        if self._cache is not None:
            self._cache[offset] = data
        return data

    def start_caching(self) -> None:
        """Keep in memory what is read from now on; drop what was cached before."""
        self._cache = {}

    def stop_caching(self) -> None:
        """Drop what was cached, and cache nothing more."""
        self._cache = None

    def cached(self, offset: int, size: int) -> bytes:
        """Return bytes that one cached read from ``offset`` returned; b"" if there was no such read."""
        data = (self._cache or {}).get(offset, b"")
        return data[:size] if len(data) >= size else b""

    def seek(self, offset: int, whence: int = 0) -> int:
        with self._explain():
            return int(self._handle.seek(offset, whence))

    def tell(self) -> int:
        return int(self._handle.tell())

    def close(self) -> None:
        if not self.closed:
            self._handle.close()
        super().close()
