"""Decompress files of any size, completely or with an error.

A file may hold several compressed streams one after another, as ``cat a.bz2 b.bz2`` and parallel compressors
write them. Python's `bz2.BZ2File` and `lzma.LZMAFile` stop without an error if a later stream is damaged, or if
it follows the zeros that the xz format allows as padding.
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
        One of `COMPRESSION_ENDINGS`.
    """
    return _OPEN[ending](source)


class _DecompressedStreams(RawIOBase):
    """Consecutive compressed streams, read as one file.

    ``new_decompressor`` is called at the start of each stream.
    """

    def __init__(self, source: Any, new_decompressor: Callable[[], Any]) -> None:
        self._source, self._rest = source, b""
        self._pieces = filter(None, _decompress(source, new_decompressor))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._pieces, b"")
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        self._source.close()
        super().close()


def _decompress(source: Any, new_decompressor: Callable[[], Any]) -> Iterator[bytes]:
    """Yield decompressed pieces of bounded size; raise `EOFError` if the last stream is truncated."""
    stream = new_decompressor()
    while data := source.read(_BLOCK_BYTES):
        while data:
            if stream.eof:
                data = data.lstrip(b"\0")  # padding between streams
                if not data:
                    break
                stream = new_decompressor()
            yield stream.decompress(data, _BLOCK_BYTES)
            while not (stream.eof or stream.needs_input):
                yield stream.decompress(b"", _BLOCK_BYTES)
            data = stream.unused_data if stream.eof else b""
    if not stream.eof:
        raise EOFError("the file ends before the end of its last compressed stream")


# zstd through pyarrow, which always has it; in Python it needs another package.
_OPEN: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda source: gzip.GzipFile(fileobj=source),
    ".zst": lambda source: pa.CompressedInputStream(source, "zstd"),
    ".bz2": lambda source: _DecompressedStreams(source, bz2.BZ2Decompressor),
    ".xz": lambda source: _DecompressedStreams(source, lzma.LZMADecompressor),
}
COMPRESSION_ENDINGS = tuple(_OPEN)
