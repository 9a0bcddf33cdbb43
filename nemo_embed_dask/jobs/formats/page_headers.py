"""The pages of a Parquet column of strings or bytes: what their values take when decoded, at most.

Footers tell encoded bytes only, and of a whole row group. The headers of pages, a few bytes each in Thrift's
compact form, tell how many values each page has and how they are encoded; a dictionary tells its largest value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # parquet.thrift: PageType
_PLAIN, _BY_LENGTH = 0, 6  # parquet.thrift: Encoding
_BY_DICTIONARY = (2, 8)
_MOST_BYTES = 1 << 31
_LENGTH = struct.Struct("<I")


class Page(NamedTuple):
    """A page's number of values, and upper bounds for the decoded bytes of the largest and of all of them."""

    values: int
    largest: int
    nbytes: int


def read_pages(chunk: bytes, codec: str) -> Iterator[Page]:
    """Find the pages of a column chunk of byte arrays.

    Raises
    ------
    ValueError
        These bytes are no pages.
    """
    try:
        yield from _pages(chunk, codec)
    except (IndexError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("these bytes are no pages") from error


def _pages(chunk: bytes, codec: str) -> Iterator[Page]:
    at = word = 0
    while at < len(chunk):
        header, at = _struct(chunk, at)
        kind, nbytes, packed = header[1], header[2], header[3]
        if not (0 <= nbytes < _MOST_BYTES and 0 <= packed < _MOST_BYTES):
            raise ValueError(f"a page has {nbytes} bytes, {packed} compressed")
        if kind == _DICTIONARY:
            word = _largest(memoryview(chunk)[at : at + packed], nbytes, codec)
        elif kind == _DATA:
            yield _page(header[5][1], header[5][2], nbytes, word)
        elif kind == _DATA_V2:
            yield _page(header[8][1], header[8][4], nbytes, word)
        at += packed


def _page(values: int, encoding: int, nbytes: int, word: int) -> Page:
    if encoding in _BY_DICTIONARY:
        return Page(values, word, values * word)
    repeats = encoding not in (_PLAIN, _BY_LENGTH)  # each value may have parts of the one before
    return Page(values, nbytes, values * nbytes if repeats else nbytes)


def _largest(packed: memoryview, nbytes: int, codec: str) -> int:
    """The bytes of a dictionary's largest value; those of all of it where pyarrow cannot unpack it."""
    name = {"LZ4": "lz4_raw"}.get(codec, codec.lower())
    try:
        words = bytes(packed) if codec == "UNCOMPRESSED" else pa.decompress(packed, nbytes, name, asbytes=True)
    except (pa.ArrowException, OSError, ValueError):
        return nbytes
    at = largest = 0
    while at + _LENGTH.size <= len(words):
        (length,) = _LENGTH.unpack_from(words, at)
        largest = max(largest, length)
        at += _LENGTH.size + length
    return largest if at == len(words) else nbytes


# ---- Thrift -----------------------------------------------------------------------------------------


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A struct's fields by their numbers, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        if head >> 4:
            number, at = number + (head >> 4), at + 1
        else:
            number, at = _integer(data, at + 1)
        fields[number], at = _value(data, at, head & 15)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (1, 2):
        return kind == 1, at
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind == 12:
        return _struct(data, at)
    if kind == 8:
        size, at = _varint(data, at)
        return None, at + size
    if kind in (3, 7):
        return None, at + (1 if kind == 3 else 8)
    raise ValueError(f"no header of a page has a field of type {kind}")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    number, at = _varint(data, at)
    return number >> 1 ^ -(number & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while data[at] & 128:
        if shift > 63:
            raise ValueError("a number has more than 64 bits")
        number |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return number | data[at] << shift, at + 1
