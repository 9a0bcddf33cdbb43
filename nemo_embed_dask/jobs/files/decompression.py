"""Decompress files of any size, completely or with an error. Knows no address.

A file may hold several compressed streams one after another, as ``cat a.bz2 b.bz2`` and parallel compressors
make them. Python's `bz2.BZ2File` and `lzma.LZMAFile` stop without an error where a later stream is damaged, or
comes after the zeros that the xz format allows as padding.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator
from io import RawIOBase
from typing import Any

import pyarrow as pa

_BLOCK_BYTES = 1 << 16


def open_decompressed(source: Any, ending: str) -> Any:
    """Open a compressed file for reading, without a buffer.

    Parameters
    ----------
    source : binary file
    ending : str
        One of `PACKED`.
    """
    return _UNPACK[ending](source)


class _Streams(RawIOBase):
    """Read consecutive compressed streams as one file; ``new`` makes a decompressor for each stream."""

    def __init__(self, source: Any, new: Callable[[], Any]) -> None:
        self._source, self._rest = source, b""
        self._pieces = filter(None, _decompressed(source, new))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._pieces, b"")
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def close(self) -> None:
        self._source.close()
        super().close()


def _decompressed(source: Any, new: Callable[[], Any]) -> Iterator[bytes]:
    """Yield decompressed pieces of bounded size; raise `EOFError` if the last stream is truncated."""
    stream = new()
    while data := source.read(_BLOCK_BYTES):
        while data:
            if stream.eof:
                data = data.lstrip(b"\0")
                if not data:
                    break
                stream = new()
            yield stream.decompress(data, _BLOCK_BYTES)
            while not (stream.eof or stream.needs_input):
                yield stream.decompress(b"", _BLOCK_BYTES)
            data = stream.unused_data if stream.eof else b""
    if not stream.eof:
        raise EOFError("the file ends before the end of its last compressed stream")


# pyarrow always has zstd, in Python it is a package more.
_UNPACK: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda source: gzip.GzipFile(fileobj=source),
    ".zst": lambda source: pa.CompressedInputStream(source, "zstd"),
    ".bz2": lambda source: _Streams(source, bz2.BZ2Decompressor),
    ".xz": lambda source: _Streams(source, lzma.LZMADecompressor),
}
COMPRESSION_ENDINGS = tuple(_UNPACK)
